"""A run on a network file system is refused before anything is written or sent."""

from pathlib import Path, PurePosixPath

import pytest

from cxr_max.builders import file_system
from cxr_max.builders.file_system import mount_of, refuse_unsafe
from cxr_max.builders.run_folder import RunFolder
from cxr_max.errors import RequestError

LINES = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /dev/shm rw,nosuid - tmpfs tmpfs rw
30 22 0:40 /export /home rw,relatime shared:20 master:3 - nfs4 server:/export rw,vers=4.2,addr=10.0.0.1
31 30 254:1 / /home/me/scratch rw - xfs /dev/vdb rw
32 22 0:41 / /mnt/my\040share rw - cifs //server/share rw
33 22 0:42 / /mnt/ssh rw - fuse.sshfs me@host: rw,user_id=0
34 22 8:1 / /mnt/usb rw - fuseblk /dev/sda1 rw
35 22 0:43 / /mnt/pool rw - fuse.mergerfs a:b rw
36 22 0:44 / /mnt/c rw - 9p C:\134 rw,aname=drvfs;path=C:\,trans=fd,rfd=5,wfd=5
37 22 0:45 / /mnt/vm rw - 9p host rw,trans=virtio
38 22 0:46 / /mnt/gvisor rw - 9p none rw,trans=fd,rfdno=4,wfdno=4,aname=/
39 22 0:47 / /lustre rw - lustre 10.0.0.2@tcp:/scratch rw,flock
40 22 0:48 / /mnt/host rw - virtiofs host rw
41 22 254:2 / /twice rw - ext4 /dev/vdc rw
42 22 0:49 / /twice rw - nfs server:/b rw
43 22 0:50 / /mnt/bucket rw - fuse.s3fs s3fs rw
""".strip()


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me/run", "nfs4"),
        ("/home", "nfs4"),
        ("/mnt/my share/run", "cifs"),
        ("/mnt/ssh/run", "fuse.sshfs"),
        ("/mnt/bucket/run", "fuse.s3fs"),
        ("/mnt/c/Users/me", "9p"),
        ("/mnt/vm/run", "9p"),
        ("/lustre/me/run", "lustre"),
        ("/mnt/host/run", "virtiofs"),
        ("/twice/run", "nfs"),
    ],
)
def test_a_network_file_system_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, kind: str
) -> None:
    (tmp_path / "mountinfo").write_text(LINES)
    monkeypatch.setattr(file_system, "_MOUNTINFO", tmp_path / "mountinfo")
    said = rf"network file system \({kind}\).*choose an --out on a disk"
    with pytest.raises(RequestError, match=said) as refused:
        refuse_unsafe(Path(folder))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "folder",
    [
        "/home/me/scratch/run",
        "/homes/run",
        "/dev/shm/run",
        "/mnt/usb/run",
        "/mnt/pool/run",
        "/mnt/gvisor/r",
        "/run",
    ],
)
def test_a_disk_of_this_machine_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    (tmp_path / "mountinfo").write_text(LINES)
    monkeypatch.setattr(file_system, "_MOUNTINFO", tmp_path / "mountinfo")
    refuse_unsafe(Path(folder))


def test_the_deepest_mount_counts_and_of_equals_the_last() -> None:
    mounts = [file_system._mount(line) for line in LINES.splitlines()]
    kinds = {
        folder: mount.kind
        for folder in ("/", "/home/me", "/home/me/scratch/a/b", "/twice")
        if (mount := mount_of(PurePosixPath(folder), mounts))
    }
    assert kinds == {"/": "ext4", "/home/me": "nfs4", "/home/me/scratch/a/b": "xfs", "/twice": "nfs"}
    assert mount_of(PurePosixPath("/anywhere"), []) is None


def test_a_link_is_followed_to_where_it_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    (tmp_path / "mountinfo").write_text(f"1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / {real} rw - nfs b rw\n")
    monkeypatch.setattr(file_system, "_MOUNTINFO", tmp_path / "mountinfo")
    with pytest.raises(RequestError, match="nfs"):
        refuse_unsafe(link / "run" / "not there yet")


def test_where_nothing_says_what_is_mounted_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_system, "_MOUNTINFO", tmp_path / "absent")
    refuse_unsafe(Path("/home/me/run"))


def test_this_machines_own_list_can_be_read(tmp_path: Path) -> None:
    refuse_unsafe(tmp_path)


def test_a_refused_run_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_text(f"1 0 0:1 / {tmp_path} rw - nfs4 server:/x rw\n")
    monkeypatch.setattr(file_system, "_MOUNTINFO", tmp_path / "mountinfo")
    with pytest.raises(RequestError, match="nfs4"), RunFolder(tmp_path / "run").locked():
        raise AssertionError("it must not come this far")
    assert not (tmp_path / "run").exists()
