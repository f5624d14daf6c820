"""Whether a ledger is safe where its run's folder lies.

SQLite, "Write-Ahead Logging": all processes using a database must be on the same host, because they share the
index of the log as memory mapped from a file; WAL does not work over a network filesystem. And "How To Corrupt An
SQLite Database File", section 2.1: file locks are often broken there, which would let two builds write at once.

What is mounted where is read from ``/proc/self/mountinfo`` (Linux, proc(5)); elsewhere nothing is known, and
SQLite's own refusal to enter WAL mode is all there is.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from cxr_max.errors import RequestError

_NETWORK: Final = frozenset({
    "afs", "beegfs", "ceph", "cifs", "coda", "gfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
    "ocfs2", "orangefs", "panfs", "pvfs2", "smb", "smb2", "smb3", "smbfs", "wekafs",
})  # fmt: skip
_SHARED_WITH_A_HOST: Final = frozenset({"9p", "prl_fs", "vboxsf", "virtiofs", "vmhgfs"})
"""Folders of the machine around a virtual one: another kernel maps the same files."""
_FUSE: Final = frozenset({
    "blobfuse", "blobfuse2", "beegfs", "ceph", "ceph-fuse", "cephfs", "curlftpfs", "davfs", "davfs2", "gcsfuse",
    "geesefs", "glusterfs", "goofys", "hadoop-fuse-dfs", "juicefs", "mount-s3", "mountpoint-s3", "moosefs",
    "mfs", "rclone", "s3fs", "seaweedfs", "smbnetfs", "sshfs", "virtiofs", "vmhgfs-fuse",
})  # fmt: skip
"""Which kinds of ``fuse.KIND`` are remote; others, as ntfs-3g and mergerfs, are disks of this machine."""

_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of ``mountinfo``."""

    point: PurePosixPath
    kind: str
    """The type, as in ``mount -t``."""
    options: str
    """Of the file system itself."""

    @property
    def remote(self) -> bool:
        """Whether other machines, or the machine around this one, may hold the same files."""
        if self.kind == "9p" and "trans=fd" in self.options and "drvfs" not in self.options:
            # gVisor serves a container its own disk through a pipe; Windows does so too, and calls it drvfs.
            return False
        kind, _, below = self.kind.partition(".")
        return kind in _NETWORK | _SHARED_WITH_A_HOST or (kind == "fuse" and below in _FUSE)


def refuse_unsafe(folder: Path) -> None:
    """Refuse a folder in which a ledger could be damaged; it need not exist yet.

    Raises:
        RequestError: it is on a network file system.
    """
    try:
        lines = _MOUNTINFO.read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    mount = mount_of(PurePosixPath(folder.expanduser().resolve()), map(_mount, lines))
    if mount is not None and mount.remote:
        raise RequestError(
            f"{folder} is on {mount.point}, a network file system ({mount.kind}), on which SQLite's write-ahead"
            " log is not safe and paid replies could be lost: choose an --out on a disk of this machine, and copy"
            " the finished release wherever you want."
        )


def mount_of(folder: PurePosixPath, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that holds ``folder``: the deepest above it; of several on one point the last, which is on top."""
    above = {folder, *folder.parents}
    found: Mount | None = None
    for mount in mounts:
        if mount.point in above and (found is None or len(mount.point.parts) >= len(found.point.parts)):
            found = mount
    return found


def _mount(line: str) -> Mount:
    """proc(5): the mount point is the fifth field; after a lone hyphen come type, source and options."""
    mounted, _, rest = line.partition(" - ")
    kind, _, options = rest.partition(" ")
    return Mount(PurePosixPath(_plain(mounted.split(" ")[4])), kind, options)


def _plain(path: str) -> str:
    """Without the octal escapes of blanks and backslashes."""
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 8)), path)
