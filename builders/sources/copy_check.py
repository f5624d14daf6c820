"""Whether a user's copy of a data set is whole: what its tables list against what is on disk and was published."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cxr_max.builders.sources.base import Inventory, Shipped
from cxr_max.builders.sources.image_files import image_files
from cxr_max.errors import ImageError

NAMED: Final = 10
"""So many missing, extra or unreadable files are named; the rest are counted."""
_EVERY: Final = 1000
_READERS: Final = 8

Watch = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy holds. File names are relative to ``root``."""

    source: str
    root: Path
    tables: tuple[str, ...]
    absent: tuple[str, ...]
    """Optional tables that are not there."""
    rows: int
    counts: dict[str, int]
    expected: dict[str, int]
    present: int
    missing: int
    missing_names: tuple[str, ...]
    extra: int
    """Image files that no table lists; a source leaves them out."""
    extra_names: tuple[str, ...]
    unreadable: dict[str, str] | None
    """Why, by file; ``None`` where nobody asked."""
    mapped: dict[str, int]
    """The set's labels that say something of the 14 findings, each with how often it is stated."""
    unmapped: dict[str, int]
    """Those that do not, and are kept under their own names."""
    unknown: tuple[str, ...]
    """Those among them that this version's table of the set's labels does not have."""
    warnings: tuple[str, ...]
    defects: tuple[str, ...]
    """What makes the copy less than whole, one sentence each."""


def check_copy(
    source: Shipped, *, images: bool = False, watch: Watch = lambda what, done, total: None
) -> CopyReport:
    """Compare a copy with its own tables and with what its owners publish.

    Folders are listed, files are not looked at one by one, unless they lie in another set's folders.

    Args:
        images: also read the header of every image that is there.
    """
    listed = source.inventory()
    files = _looked_up(listed, watch) if listed.borrowed else _scanned(listed, watch)
    on_disk = {_plain(file): file for file in files}
    wanted = dict.fromkeys(map(_plain, listed.images))
    missing = [file for file in wanted if file not in on_disk]
    extra = sorted(file for plain, file in on_disk.items() if plain not in wanted)
    there = [on_disk[file] for file in wanted if file in on_disk]
    unreadable = dict(_unreadable(listed.root, there, watch)) if images else None
    return CopyReport(
        source=source.info.name,
        root=listed.root,
        tables=listed.tables,
        absent=listed.absent,
        rows=listed.rows,
        counts=dict(listed.counts),
        expected=dict(source.info.expected),
        present=len(there),
        missing=len(missing),
        missing_names=tuple(missing[:NAMED]),
        extra=len(extra),
        extra_names=tuple(extra[:NAMED]),
        unreadable=unreadable,
        mapped={name: times for name, times in _by_times(listed) if name not in listed.unmapped},
        unmapped={name: times for name, times in _by_times(listed) if name in listed.unmapped},
        unknown=tuple(sorted(listed.unknown)),
        warnings=source.warnings,
        defects=tuple(_defects(source, listed, len(missing), len(unreadable or {}))),
    )


def _plain(file: str) -> str:
    """MIMIC's DICOM files may be compressed one by one, which its record list does not know."""
    return file.removesuffix(".gz")


def _scanned(listed: Inventory, watch: Watch) -> Iterator[str]:
    total = len(listed.images)
    watch("files found", 0, total)
    found = 0
    for found, file in enumerate(image_files(listed.root, linked=True), start=1):
        if found % _EVERY == 0:
            watch("files found", min(found, total), total)
        yield file
    watch("files found", min(found, total), total)


def _looked_up(listed: Inventory, watch: Watch) -> Iterator[str]:
    for number, file in enumerate(listed.images):
        if number % _EVERY == 0:
            watch("files found", number, len(listed.images))
        if (listed.root / file).is_file():
            yield file
    watch("files found", len(listed.images), len(listed.images))


def _unreadable(root: Path, files: Sequence[str], watch: Watch) -> Iterator[tuple[str, str]]:
    with ThreadPoolExecutor(_READERS, thread_name_prefix="check") as pool:
        for start in range(0, len(files), _EVERY):
            block = files[start : start + _EVERY]
            watch("headers read", start, len(files))
            for file, fault in zip(block, pool.map(lambda file: _fault(root / file), block), strict=True):
                if fault is not None:
                    yield file, fault
    watch("headers read", len(files), len(files))


def _fault(path: Path) -> str | None:
    from cxr_max.radiograph import read_header

    try:
        read_header(path)
    except (ImageError, OSError) as error:
        return str(error)
    return None


def _by_times(listed: Inventory) -> list[tuple[str, int]]:
    return sorted(listed.labels.items(), key=lambda item: (-item[1], item[0]))


def _defects(source: Shipped, listed: Inventory, missing: int, unreadable: int) -> Iterator[str]:
    home = source.info.home or "where they came from"
    if missing:
        yield f"{missing} images that the tables list are missing: get them from {home}."
    if unreadable:
        yield f"{unreadable} images cannot be read: get them anew from {home}."
    for name, published in source.info.expected.items():
        counted = listed.counts.get(name, 0)
        # A split that is not there at all is one whose table is absent, which is said of the tables.
        if 0 < counted < published:
            what = f"images in the split {name}" if name in ("train", "validation", "test") else name
            yield f"The tables list {counted} {what}, its owners publish {published}: get the tables from {home}."
