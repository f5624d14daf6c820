"""Rendered images on disk, for every run of one user: what was decoded once is read back instead.

An entry is named by a hash of the file's identity (path, size, time of change), of the rendering and its size,
so that a changed file is rendered anew, and no name says whose image it is. It is written beside its place and
renamed into it, and carries its own sha256: two jobs may share the folder, and a job that is killed leaves at
worst a file that nobody reads. The entries that were used longest ago are deleted beyond ``max_bytes``.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import Final

from cxr_max.errors import RequestError
from cxr_max.radiograph import EncodedImage, Rendering, encode, rendering_id

_FOLDER: Final = "cxr-max/images"
_LIMIT: Final = "CXR_MAX_CACHE_GB"
_DEFAULT_GB: Final = 5.0
_SUFFIX: Final = ".image"
_UNFINISHED: Final = ".part"
_ABANDONED_S: Final = 3600
"""A part that nobody finished for so long was left by a job that was killed."""
_KEPT: Final = 0.9
"""Deleting goes on below the limit, so that it is seldom done."""


@dataclass(slots=True)
class ImageCache:
    """``encode`` with a memory. Without a disk to write on, it renders every time."""

    folder: Path
    max_bytes: int
    rendered: int = 0
    """Images that were not in the cache."""
    _unchecked: int | None = None
    """Bytes written since the folder was last measured; ``None`` before the first time."""
    _lock: Lock = field(default_factory=Lock, repr=False)

    def encoded(
        self, path: Path | str, rendering: Rendering = "mimic_jpg", long_side: int | None = 1024
    ) -> EncodedImage:
        """As ``radiograph.encode``; read back where the same file was rendered so before.

        Raises:
            ImageError, RequestError: as ``encode``.
        """
        place = self._place(Path(path), rendering_id(path, rendering, long_side)) if self.max_bytes else None
        image = _read(place) if place is not None else None
        if image is None:
            image = encode(path, rendering, long_side)
            with self._lock:
                self.rendered += 1
            if place is not None:
                self._keep(place, image)
        return image

    def _place(self, path: Path, rendering: str) -> Path | None:
        """Where the image is kept; ``None`` where the file has no identity, because it cannot be found."""
        try:
            identity = path.stat()
        except OSError:
            return None
        key = (str(path.absolute()), identity.st_size, identity.st_mtime_ns, rendering)
        digest = sha256(json.dumps(key).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:]}{_SUFFIX}"

    def _keep(self, place: Path, image: EncodedImage) -> None:
        """Write an entry; a full or read-only disk costs the entry, not the job."""
        try:
            # Only the user reads them: the images may be under an agreement.
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.parent.mkdir(mode=0o700, exist_ok=True)
            size = _write(place, image)
        except OSError:
            return
        with self._lock:
            self._unchecked = None if self._unchecked is None else self._unchecked + size
            due = self._unchecked is None or self._unchecked > (1 - _KEPT) * self.max_bytes
            if due:
                self._unchecked = 0
        if due:
            _shrink(self.folder, self.max_bytes)


def user_cache() -> ImageCache:
    """The cache of this user, in ``$XDG_CACHE_HOME`` (XDG Base Directory), else ``~/.cache``.

    ``CXR_MAX_CACHE_GB`` is its limit in gigabytes; 0 turns it off.

    Raises:
        RequestError: the limit is no number.
    """
    told = os.environ.get(_LIMIT, "")
    try:
        gigabytes = float(told) if told else _DEFAULT_GB
        limit = int(max(0.0, gigabytes) * 1e9)
    except (ValueError, OverflowError) as fault:
        raise RequestError(f"{_LIMIT} is {told!r}: give a number of gigabytes, or 0 for no cache.") from fault
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The specification ignores a path that is not absolute.
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
    return _shared(base / _FOLDER, limit)


@cache
def _shared(folder: Path, max_bytes: int) -> ImageCache:
    """One per process, so that the folder is measured seldom."""
    return ImageCache(folder, max_bytes)


def _write(place: Path, image: EncodedImage) -> int:
    """One line of JSON, then the JPEG; its size in bytes."""
    facts = asdict(image)
    jpeg = facts.pop("jpeg")
    data = json.dumps(facts).encode() + b"\n" + jpeg
    with NamedTemporaryFile(dir=place.parent, suffix=_UNFINISHED, delete=False) as stream:
        part = Path(stream.name)
        try:
            stream.write(data)
            stream.flush()
            part.replace(place)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    return len(data)


def _read(place: Path) -> EncodedImage | None:
    """The entry, marked as used just now; ``None`` where there is none, or it is not whole."""
    try:
        line, _, jpeg = place.read_bytes().partition(b"\n")
        image = EncodedImage(jpeg=jpeg, **json.loads(line))
        if sha256(jpeg).hexdigest() != image.sha256:
            return None
        os.utime(place)
    except (OSError, ValueError, TypeError):
        return None
    return image


def _shrink(folder: Path, max_bytes: int) -> None:
    """Delete abandoned parts, and the entries used longest ago where all take more than the limit."""
    entries: list[tuple[float, int, str]] = []
    for shelf in _scanned(folder):
        for entry in _scanned(shelf.path):
            try:
                found = entry.stat()
            except OSError:
                continue
            if entry.name.endswith(_SUFFIX):
                entries.append((found.st_mtime, found.st_size, entry.path))
            elif entry.name.endswith(_UNFINISHED) and time.time() - found.st_mtime > _ABANDONED_S:
                _delete(entry.path)
    total = sum(size for _, size, _ in entries)
    if total <= max_bytes:
        return
    for _, size, place in sorted(entries):
        if total <= _KEPT * max_bytes:
            return
        _delete(place)
        total -= size


def _scanned(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _delete(place: str) -> None:
    """Somebody else's job may have been faster."""
    try:
        Path(place).unlink(missing_ok=True)
    except OSError:
        return
