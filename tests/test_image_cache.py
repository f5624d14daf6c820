"""What the cache gives back is what was rendered, whoever else uses its folder and whatever kills them."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxr_max import image_cache
from cxr_max.errors import ImageError, RequestError
from cxr_max.image_cache import ImageCache, user_cache
from cxr_max.image_set import ImageSet
from cxr_max.radiograph import encode
from cxr_max.shards import sha256_of
from tests.radiograph_files import dicom, jpeg_bytes, phantom, saved

ROOT = Path(__file__).resolve().parents[1]
GIGABYTE = 10**9


def a_dicom(folder: Path, seed: int = 0, **attributes: Any) -> Path:
    values = np.roll(phantom(high=4000), seed, axis=1)
    return saved(folder / f"{seed}.dcm", dicom(values, **attributes))


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.image"))


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(image_cache, "encode", refuse)


def test_the_second_time_nothing_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_dicom(tmp_path, BurnedInAnnotation="YES")
    picture = tmp_path / "a.jpg"
    picture.write_bytes(jpeg_bytes(phantom(high=255).astype(np.uint8)))
    cache = ImageCache(tmp_path / "cache", GIGABYTE)
    first = [cache.encoded(path), cache.encoded(path, "voi", 20), cache.encoded(picture)]
    assert first == [encode(path), encode(path, "voi", 20), encode(picture)] and cache.rendered == 3
    assert first[0].burned_in
    no_decoding(monkeypatch)
    again = ImageCache(tmp_path / "cache", GIGABYTE)
    assert [again.encoded(path), again.encoded(path, "voi", 20), again.encoded(picture)] == first
    assert again.rendered == 0


def test_a_changed_file_another_rendering_and_another_size_are_other_images(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache", GIGABYTE)
    path = a_dicom(tmp_path)
    images = {
        cache.encoded(path, rendering, size).sha256 for rendering in ("mimic_jpg", "voi") for size in (20, 30)
    }
    assert len(images) == 4
    size = path.stat().st_size
    saved(path, dicom(phantom(high=4000)[::-1].copy()))
    os.utime(path, ns=(1, 1))
    assert path.stat().st_size == size
    assert cache.encoded(path, "mimic_jpg", 20) == encode(path, "mimic_jpg", 20) and cache.rendered == 5


def test_no_name_and_no_metadata_stand_in_the_cache_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache", GIGABYTE)
    cache.encoded(a_dicom(tmp_path))
    (entry,) = entries(cache.folder)
    assert b"Doe" not in entry.read_bytes() and b"SECRET" not in entry.read_bytes()
    assert str(tmp_path).encode() not in entry.read_bytes() and "0.dcm" not in entry.name
    for place in (cache.folder, entry.parent, entry):
        assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign"])
def test_a_damaged_entry_is_rendered_again(tmp_path: Path, damage: str) -> None:
    cache = ImageCache(tmp_path / "cache", GIGABYTE)
    path = a_dicom(tmp_path)
    want = cache.encoded(path)
    (entry,) = entries(cache.folder)
    data = entry.read_bytes()
    flipped = bytes([*data[:-50], data[-50] ^ 1, *data[-49:]])
    entry.write_bytes({"empty": b"", "cut": data[:-9], "flipped": flipped, "foreign": b'{"a": 1}\nx'}[damage])
    assert cache.encoded(path) == want and cache.rendered == 2
    assert entry.read_bytes() == data


def test_the_entries_used_longest_ago_are_deleted_beyond_the_limit(tmp_path: Path) -> None:
    paths = [a_dicom(tmp_path, seed) for seed in range(12)]
    size = len(encode(paths[0]).jpeg)
    cache = ImageCache(tmp_path / "cache", 8 * size)
    for age, path in enumerate(paths):
        cache.encoded(path)
        for entry in entries(cache.folder):
            # As if an hour lay between one image and the next; the first is used all the time.
            os.utime(entry, (entry.stat().st_mtime - 3600, entry.stat().st_mtime - 3600))
        cache.encoded(paths[0])
        total = sum(entry.stat().st_size for entry in entries(cache.folder))
        assert total <= 1.2 * cache.max_bytes, age
    assert cache.rendered == len(paths)
    cache.encoded(paths[-1])
    assert cache.rendered == len(paths)
    cache.encoded(paths[1])
    assert cache.rendered == len(paths) + 1


def test_parts_of_killed_jobs_are_swept_after_an_hour(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache", GIGABYTE)
    shelf = tmp_path / "cache" / "ab"
    shelf.mkdir(parents=True)
    for name, age in (("old.part", 7200), ("new.part", 0)):
        (shelf / name).write_bytes(b"half")
        os.utime(shelf / name, (time.time() - age,) * 2)
    cache.encoded(a_dicom(tmp_path))
    assert sorted(place.name for place in shelf.iterdir()) == ["new.part"]


def test_a_limit_of_zero_writes_nothing(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache", 0)
    path = a_dicom(tmp_path)
    assert cache.encoded(path) == cache.encoded(path) == encode(path)
    assert cache.rendered == 2 and not cache.folder.exists()


def test_a_disk_that_cannot_be_written_costs_only_the_memory(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    cache = ImageCache(tmp_path / "cache", GIGABYTE)
    path = a_dicom(tmp_path)
    assert cache.encoded(path) == cache.encoded(path) == encode(path)


def test_faults_are_those_of_encode(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache", GIGABYTE)
    (tmp_path / "a.dcm").write_bytes(b"no DICOM at all")
    with pytest.raises(ImageError, match=r"cannot be found"):
        cache.encoded(tmp_path / "missing.dcm")
    with pytest.raises(ImageError, match=r"a\.dcm"):
        cache.encoded(tmp_path / "a.dcm")
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(phantom(high=255).astype(np.uint8)))
    with pytest.raises(RequestError, match=r"voi"):
        cache.encoded(tmp_path / "a.jpg", "voi")
    assert not entries(cache.folder)


def test_the_users_cache_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXR_MAX_CACHE_GB", "2.5")
    cache = user_cache()
    assert (cache.folder, cache.max_bytes) == (tmp_path / "cxr-max" / "images", 2_500_000_000)
    assert user_cache() is cache
    monkeypatch.setenv("CXR_MAX_CACHE_GB", "")
    assert user_cache().max_bytes == 5_000_000_000
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_cache().folder == tmp_path / "home" / ".cache" / "cxr-max" / "images"
    monkeypatch.setenv("CXR_MAX_CACHE_GB", "0")
    assert user_cache().max_bytes == 0
    for nonsense in ("much", "inf"):
        monkeypatch.setenv("CXR_MAX_CACHE_GB", nonsense)
        with pytest.raises(RequestError, match=r"CXR_MAX_CACHE_GB"):
            user_cache()


WORKER = """
import sys
from pathlib import Path
from cxr_max.image_cache import ImageCache
cache = ImageCache(Path(sys.argv[1]), int(sys.argv[2]))
paths = sorted(Path(sys.argv[3]).glob("*.dcm"))
print("ready", flush=True)
for turn in range(int(sys.argv[4])):
    for path in paths[turn % 3 :] + paths[: turn % 3]:
        print(cache.encoded(path).sha256, flush=True)
"""


def worker(cache: Path, limit: int, files: Path, turns: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WORKER, str(cache), str(limit), str(files), str(turns)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_jobs_share_a_folder_that_is_too_small_for_both(tmp_path: Path) -> None:
    paths = [a_dicom(tmp_path, seed) for seed in range(6)]
    want = {encode(path).sha256 for path in paths}
    limit = 3 * len(encode(paths[0]).jpeg)
    jobs = [worker(tmp_path / "cache", limit, tmp_path, 20) for _ in range(2)]
    for job in jobs:
        said = job.communicate()[0].split()
        assert job.returncode == 0
        assert set(said[1:]) == want and len(said) == 121
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_killed_job_leaves_nothing_that_misleads(tmp_path: Path) -> None:
    paths = [a_dicom(tmp_path, seed) for seed in range(6)]
    for lines in (1, 2, 5):
        job = worker(tmp_path / "cache", GIGABYTE, tmp_path, 1000)
        assert job.stdout is not None
        for _ in range(lines):
            job.stdout.readline()
        job.send_signal(signal.SIGKILL)
        job.communicate()
        cache = ImageCache(tmp_path / "cache", GIGABYTE)
        assert [cache.encoded(path) for path in paths] == [encode(path) for path in paths]


# Image sets


def test_an_image_set_hashes_a_file_once_and_notices_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_dicom(tmp_path)
    images = ImageSet((path,), (sha256_of(path),), "mimic_jpg-2@1024")
    hashed: list[Path] = []

    def counted(which: Path) -> str:
        hashed.append(which)
        return sha256_of(which)

    monkeypatch.setattr("cxr_max.image_set.sha256_of", counted)
    want = (encode(path),)
    assert images.encoded() == images.encoded() == want
    assert hashed == [path]
    saved(path, dicom(phantom(high=3999)))
    os.utime(path, ns=(5, 5))
    with pytest.raises(ImageError, match=r"not the file that the teachers saw"):
        images.encoded()


def test_a_picture_that_this_version_renders_otherwise_is_refused(tmp_path: Path) -> None:
    path = a_dicom(tmp_path)
    images = ImageSet((path,), (sha256_of(path),), "mimic_jpg-1@1024")
    with pytest.raises(ImageError, match="rendered as mimic_jpg-1 when the teachers were asked"):
        images.encoded()
