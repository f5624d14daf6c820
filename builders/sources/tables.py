"""Tables as text: read by column name, cell by cell, with what is wrong said in a sentence."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, State, state_of
from cxr_max.records import Split

if TYPE_CHECKING:
    import pandas as pd

SPLIT_WORDS: Final[Mapping[str, Split]] = {
    "train": "train",
    "validate": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
_COLUMN_NAMES: Final = {"no findings": "No Finding", "airspace opacity": "Lung Opacity"} | {
    name.casefold(): name for name in FINDINGS
}


def finding_named(text: str) -> str | None:
    """The finding that a column or cell names, whatever its case; "Airspace Opacity" is Lung Opacity."""
    return _COLUMN_NAMES.get(text.replace("_", " ").strip().casefold())


def existing_folder(path: Path, what: str) -> Path:
    """The absolute form of a folder's path.

    Raises:
        RequestError: there is no such folder.
    """
    folder = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - keeps symbolic links as they were given
    if not folder.is_dir():
        raise RequestError(f"{folder} is not a folder: name the one that holds {what}.")
    return folder


def find_table(folder: Path, table: str) -> Path | None:
    """A table, as shipped (``.csv.gz``) or unzipped; the compressed one where both are there."""
    candidates = (folder / f"{table}.csv.gz", folder / f"{table}.csv")
    return next((path for path in candidates if path.is_file()), None)


def find_version(root: Path, table: str) -> Path:
    """The folder that holds ``table``: ``root``, or else its newest version folder (``2.1.0``) that does."""
    return next((folder for folder in (root, *_versions(root)) if find_table(folder, table)), root)


def version_folder(root: Path) -> Path:
    """The folder that holds ``files/``: ``root``, or else its newest version folder that does. Needs no table."""
    return next((folder for folder in (root, *_versions(root)) if (folder / "files").is_dir()), root)


def _versions(root: Path) -> list[Path]:
    versions = (path for path in root.iterdir() if re.fullmatch(r"\d+(\.\d+)+", path.name))
    return sorted(versions, key=lambda path: [int(part) for part in path.name.split(".")], reverse=True)


def needed_file(folder: Path, names: Iterable[str], home: str) -> Path:
    """The first of these files that is in the folder, compressed (``.gz``) or not.

    Raises:
        RequestError: none is.
    """
    wanted = tuple(names)
    for name in wanted:
        if path := optional_file(folder, name):
            return path
    raise RequestError(f"{wanted[0]} is missing from {folder}: download it from {home}.")


def optional_file(folder: Path, name: str) -> Path | None:
    """A file of the folder, as it is or compressed (``.gz``)."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_table(
    path: Path, columns: Iterable[str] | None, home: str, *, categories: Iterable[str] = ()
) -> "pd.DataFrame":
    """Read a CSV table as stripped text, by column name; a blank cell is ``""``.

    Args:
        columns: those that must be there, in the order wanted, and the only ones kept; ``None`` keeps all.
        home: where the table can be had from, for the messages.
        categories: columns of few different texts, to be kept as categories: a byte or two a cell.

    Raises:
        RequestError: the table is damaged or lacks a column.
    """
    wanted = None if columns is None else tuple(columns)
    frame = _read_csv(path, wanted, frozenset(categories), home)
    return frame if wanted is None else frame[list(wanted)]


def _read_csv(path: Path, wanted: tuple[str, ...] | None, categories: frozenset[str], home: str) -> "pd.DataFrame":
    """By Arrow, which takes half the time and memory of pandas' own reader."""
    import pyarrow as pa
    from pyarrow import csv

    parsing = csv.ParseOptions(newlines_in_values=True)
    few = pa.dictionary(pa.int32(), pa.string())
    try:
        with csv.open_csv(path, csv.ReadOptions(block_size=2**16), parsing) as opened:
            header = _told_apart(name.strip() for name in opened.schema.names)
        for name in wanted or ():
            if name not in header:
                raise RequestError(f"{path} has no column {name}: get it anew from {home}.")
        names = [name for name in header if wanted is None or name in wanted]
        converting = csv.ConvertOptions(
            include_columns=names,
            column_types={name: few if name in categories else pa.string() for name in names},
        )
        reading = csv.ReadOptions(use_threads=False, column_names=header, skip_rows=1)
        table = csv.read_csv(path, reading, parsing, converting)
    except (pa.ArrowException, OSError, EOFError) as error:
        cause = " ".join(str(error).split())
        raise RequestError(f"{path} cannot be read as a table ({cause}): get it anew from {home}.") from error
    frame: pd.DataFrame = table.unify_dictionaries().to_pandas(split_blocks=True, self_destruct=True)
    del table
    pa.default_memory_pool().release_unused()
    for name in frame.columns:
        frame[name] = _stripped(frame[name])
    return frame


def _told_apart(names: Iterable[str]) -> list[str]:
    """A name that was there before gets a number: some headers end in several blank ones."""
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        unique.append(f"{name}.{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return unique


def _stripped(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Without blanks around the texts; categories stay categories."""
    if column.dtype != "category":
        return column.str.strip()
    texts = column.cat.categories
    return column if (texts == texts.str.strip()).all() else column.astype("str").str.strip().astype("category")


def all_differ(column: "pd.Series[str]", block: int = 2**14) -> bool:
    """Whether no two texts hash to the same 64 bits, so that all differ.

    To look for equal texts among a third of a million takes 80 MB; their hashes take 3.
    """
    import numpy as np
    import pandas as pd

    blocks = (column.iloc[start : start + block].to_numpy(object) for start in range(0, len(column), block))
    hashes = [pd.util.hash_array(texts, categorize=False) for texts in blocks]
    ordered = np.sort(np.concatenate(hashes)) if hashes else np.empty(0)
    return bool((ordered[1:] != ordered[:-1]).all())


def refuse_conflicts(frame: "pd.DataFrame", key: str, path: Path, home: str) -> None:
    """
    Raises:
        RequestError: two rows that share ``key`` are left, so that they differ in something else.
    """
    repeated = frame.loc[frame.duplicated([key]), key]
    refuse(repeated, path, f"rows that contradict each other for {key}", home)


def refuse(values: "pd.Series[str]", path: Path, defect: str, home: str) -> None:
    if len(values):
        raise RequestError(f"{path} has {defect} {values.iloc[0]!r}: get it anew from {home}.")


def read_state(cell: str, where: str) -> State | None:
    """One label cell: 1, 0, -1 or blank.

    Raises:
        RequestError: it holds anything else; ``where`` says which cell it is.
    """
    try:
        return state_of(cell)
    except ValueError:
        raise RequestError(f"{where}: {cell!r} is no finding's state; write 1, 0, -1 or nothing.") from None


def count(cell: str) -> int | None:
    """A number of pixels, or ``None`` where the cell holds none."""
    return int(cell) if cell.isdecimal() else None


_SEXES: Final[Mapping[str, str]] = {"m": "M", "male": "M", "f": "F", "female": "F"}
_UNITS: Final = {"": 1.0, "y": 1.0, "m": 12.0, "w": 52.18, "d": 365.25}
"""How many make a year (DICOM PS3.5 6.2, Age String)."""
OLDEST: Final = 120.0
"""Ages beyond are slips of the pen: ChestX-ray14 has patients of 411 years."""


def sex_of(cell: str) -> str | None:
    """``M`` or ``F``; ``None`` where the cell says neither."""
    return _SEXES.get(cell.casefold())


def age_of(cell: str) -> float | None:
    """Years, from ``58``, ``058Y``, ``006M`` or ``010D``; ``None`` for anything else and beyond ``OLDEST``."""
    read = re.fullmatch(r"(\d{1,4}(?:\.\d+)?) *([ymwd]?)", cell.casefold())
    years = float(read[1]) / _UNITS[read[2]] if read else None
    return years if years is not None and years <= OLDEST else None


def rows_of(frame: "pd.DataFrame", block: int = 8192) -> Iterator[tuple[Any, ...]]:
    """The rows of a table, as plain tuples, without a copy of them all."""
    for start in range(0, len(frame), block):
        yield from frame.iloc[start : start + block].itertuples(index=False, name=None)


def read_lines(path: Path, home: str) -> list[str]:
    """The lines of a text file that are not blank, stripped; any line ending, with or without a byte order mark.

    Raises:
        RequestError: it cannot be read as text.
    """
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read as text ({error}): get it anew from {home}.") from error


def read_number(cell: str, where: str, home: str) -> float:
    """
    Raises:
        RequestError: the cell is no number; ``where`` says which it is.
    """
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RequestError(f"{where}: {cell!r} is no number; get the table anew from {home}.")
    return number
