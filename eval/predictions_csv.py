"""The flat form of a submission: a column per finding, per side and per score, as CSV or as pandas' Parquet.

Each function turns the cells of one column into one Arrow array, whatever type they came in, and refuses the first
cell that is wrong by its row. No cell is looked at one by one: different values are read once each.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, SIDES, state_of

SUFFIXES: Final = (".csv", ".csv.gz")
SIDE: Final = " side"
SCORE: Final = " score"
_BLANK: Final = ("", "nan", "none", "<na>")
"""What ``state_of`` reads as nothing, so that all columns agree on it."""
_NUMBER: Final = r"^-?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"
_BLOCK: Final = 1 << 24
"""Bytes parsed at once. No row may be longer; a text of a megabyte would already break Arrow's default."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The cells of one column, and where they stand."""

    path: Path
    name: str
    cells: pa.Array

    def refusal(self, row: int, wrong: str, remedy: str) -> RequestError:
        """One sentence about the cell in ``row``, counted from 0; files count data rows from 1."""
        return RequestError(f"Row {row + 1} of {self.path} {wrong} in column {self.name}: {remedy}.")

    def refuse_where(self, wrong: pa.Array, says: str, remedy: str) -> None:
        """Refuse the first row in which ``wrong`` is true.

        Raises:
            RequestError: there is one.
        """
        row = first(wrong)
        if row is not None:
            raise self.refusal(row, says.format(shown(self.cells[row].as_py())), remedy)

    def refused_type(self, remedy: str) -> RequestError:
        """One sentence about a column that holds something else altogether."""
        return RequestError(f"Column {self.name} of {self.path} holds {self.cells.type}: {remedy}.")


def first(mask: pa.Array) -> int | None:
    """The first place where ``mask`` is true; null is not."""
    places = np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))
    return int(places[0]) if len(places) else None


def shown(value: object) -> str:
    """A cell as an error shows it."""
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def read_csv(path: Path) -> pa.Table:
    """A CSV file, all of its columns strings, without the space around a cell; only ``text`` keeps its own.

    Raises:
        RequestError: it is no CSV, or no UTF-8.
    """
    try:
        names = _header(path)
        _refuse_open_quotation(path)
        table = _parsed(path, names)
    except (pa.ArrowException, OSError, EOFError, zlib.error, csv.Error) as error:
        raise RequestError(
            f"{path} cannot be read as CSV: separate cells by commas, and put a cell that holds a comma or a new"
            " line into double quotation marks."
        ) from error
    columns = [_decoded(path, name, cells) for name, cells in zip(names, table.columns, strict=True)]
    return pa.table(columns, names=[name.strip() for name in names])


def _header(path: Path) -> list[str]:
    """The names as they are written: Arrow must be told the type of each before it reads."""
    with _opened(path) as file, io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="") as lines:
        names = next(filter(None, csv.reader(lines)), [])
    if not names:
        raise RequestError(f"{path} is empty: write a line of column names, and a line for each prediction.")
    if any("\ufffd" in name for name in names):
        raise RequestError(f"The first line of {path} is not UTF-8: save the file as UTF-8.")
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise RequestError(f"{path} separates its columns by {_separator(names[0])}: use commas.")
    return names


def _opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _separator(line: str) -> str:
    return "semicolons" if ";" in line else "tabs"


def _parsed(path: Path, names: list[str]) -> pa.Table:
    broken: list[pacsv.InvalidRow] = []

    def skipped(row: pacsv.InvalidRow) -> str:
        broken.append(row)
        return "skip"

    with _opened(path) as file:
        table = pacsv.read_csv(
            file,
            # Only one thread knows the number of a row that it cannot parse.
            read_options=pacsv.ReadOptions(use_threads=False, block_size=_BLOCK),
            parse_options=pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=skipped),
            # Bytes first: a cell that is not UTF-8 is then found by row and column.
            convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary())),
        )
    if broken:
        row = broken[0]
        raise RequestError(
            f"Row {row.number - 1} of {path} has {row.actual_columns} cells instead of {row.expected_columns}: put"
            " a cell that holds a comma or a new line into double quotation marks."
        )
    return table


def _refuse_open_quotation(path: Path) -> None:
    """Arrow takes everything behind a quotation mark that is never closed for one cell, and says nothing."""
    marks = 0
    with _opened(path) as file:
        while block := file.read(_BLOCK):
            marks += block.count(b'"')
    if marks % 2:
        raise RequestError(
            f"{path} has a quotation mark that is never closed: close each, and double those inside a cell."
        )


def _decoded(path: Path, name: str, cells: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        decoded = cells.cast(pa.string())
    except pa.ArrowInvalid:
        row = next(row for row, cell in enumerate(cells.to_pylist()) if not _is_utf8(cell))
        raise RequestError(
            f"Row {row + 1} of {path} is not UTF-8 in column {name}: save the file as UTF-8."
        ) from None
    if name.strip() == "text":
        return pc.if_else(pc.equal(decoded, ""), pa.scalar(None, pa.string()), decoded)
    return pc.utf8_trim_whitespace(decoded)


def _is_utf8(cell: bytes) -> bool:
    try:
        cell.decode()
    except UnicodeDecodeError:
        return False
    return True


def states(column: Column) -> pa.Array:
    """(n,) int8: 1 present, 0 absent, -1 uncertain, null not mentioned.

    Raises:
        RequestError: a cell is outside the coding of ``findings.state_of``.
    """
    return _each_value(column, state_of, pa.int8(), "write 1, 0 or -1, or leave it blank")


def sides(column: Column) -> pa.Array:
    """(n,) strings: left, right, bilateral or null.

    Raises:
        RequestError: a cell says anything else.
    """

    def side(value: object) -> str | None:
        text = str(value).strip()
        if text.lower() in _BLANK:
            return None
        if text not in SIDES:
            raise ValueError(text)
        return text

    return _each_value(column, side, pa.string(), "write left, right or bilateral, or leave it blank")


def contradictions(column: Column) -> pa.Array:
    """(n,) lists of findings: from lists, or from strings with ``;`` between. A blank string is an empty list.

    Raises:
        RequestError: one names no finding.
    """
    remedy = f"name findings, as {FINDINGS[0]};{FINDINGS[1]}"

    def names(cell: object) -> list[str]:
        found = [part.strip() for part in str(cell).split(";") if part.strip().lower() not in _BLANK]
        if not set(found) <= set(FINDINGS):
            raise ValueError(cell)
        return found

    if not is_list(column.cells.type):
        return _each_value(column, names, pa.list_(pa.string()), remedy)
    lists = _lists(column, remedy)
    unknown = pc.invert(pc.is_in(lists.flatten(), pa.array(FINDINGS)))
    if first(unknown) is not None:
        known = {None, *FINDINGS}
        row = next(row for row, cell in enumerate(lists.to_pylist()) if not known - {None} >= set(cell or ()))
        raise column.refusal(row, f"has {shown(lists[row].as_py())}", remedy)
    return lists


def scores(column: Column) -> pa.Array:
    """(n,) float64 in 0..1; blank and NaN are null.

    Raises:
        RequestError: a cell is no number, or outside 0..1.
    """
    remedy = "write a number from 0 to 1, or leave it blank"
    cells, numbers = column.cells, column.cells
    if pa.types.is_string(cells.type):
        trimmed = pc.utf8_trim_whitespace(cells)
        blank = pc.is_in(pc.utf8_lower(trimmed), pa.array(_BLANK))
        cells = pc.if_else(blank, pa.scalar(None, pa.string()), trimmed)
        column.refuse_where(pc.invert(pc.match_substring_regex(cells, _NUMBER)), "has {}", remedy)
    elif not _is_number(cells.type):
        raise column.refused_type(remedy)
    numbers = cells.cast(pa.float64(), safe=False)
    numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    outside = pc.or_(pc.less(numbers, 0.0), pc.greater(numbers, 1.0))
    column.refuse_where(outside, "has {}", remedy)
    return numbers


def identifiers(column: Column) -> pa.Array:
    """(n,) strings, none of them blank; integers become their decimal text.

    Raises:
        RequestError: one is blank, or the column holds neither text nor integers.
    """
    if not (pa.types.is_string(column.cells.type) or pa.types.is_integer(column.cells.type)):
        raise column.refused_type("write identifiers as text, with none missing")
    found = column.cells.cast(pa.string())
    column.refuse_where(_is_blank(found), "is blank", "write the identifier")
    return found


def image_ids(column: Column) -> pa.Array:
    """(n,) lists of strings: from lists, or from strings with space between.

    A column ``image_id`` holds one identifier a row, which may have spaces in it.

    Raises:
        RequestError: one is blank.
    """
    if not is_list(column.cells.type):
        found = identifiers(column)
        if column.name == "image_ids":
            return pc.utf8_split_whitespace(pc.utf8_trim_whitespace(found))
        return pa.ListArray.from_arrays(pa.array(np.arange(len(found) + 1, dtype=np.int32)), found)
    remedy = "name every image"
    lists = _lists(column, remedy)
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    column.refuse_where(pc.equal(lengths, 0), "is blank", remedy)
    blank = first(_is_blank(lists.flatten()))
    if blank is not None:
        row = int(np.searchsorted(np.cumsum(lengths.to_numpy()), blank, side="right"))
        raise column.refusal(row, "has a blank identifier", remedy)
    return lists


def words(column: Column, read: Callable[[str], object], default: str, remedy: str) -> pa.Array:
    """(n,) strings out of a vocabulary; blank cells are the default.

    Args:
        read: raises ``ValueError`` for a word outside the vocabulary.
    """

    def word(value: object) -> str:
        text = str(value).strip()
        if text.lower() in _BLANK:
            return default
        read(text)
        return text

    return pc.fill_null(_each_value(column, word, pa.string(), remedy), default)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists, of any of Arrow's kinds."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def plain(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """The cells without what other writers add to strings: categories, 64-bit offsets, views."""
    kind = cells.type
    if pa.types.is_dictionary(kind):
        cells, kind = cells.cast(kind.value_type), kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return cells.cast(pa.string())
    return cells


def _each_value(column: Column, read: Callable[[Any], object], kind: pa.DataType, remedy: str) -> pa.Array:
    """Read each different cell once; ``read`` raises ``ValueError`` for a wrong one. Null stays null."""
    if pa.types.is_nested(column.cells.type):
        raise column.refused_type(remedy)
    encoded = column.cells.dictionary_encode()
    # In the order in which the values first occur, so that the first wrong one stands in the first wrong row.
    found = list(_read(column, encoded, read, remedy))
    return pa.array(found, kind).take(encoded.indices)


def _read(column: Column, encoded: Any, read: Callable[[Any], object], remedy: str) -> Iterator[object]:
    for place, scalar in enumerate(encoded.dictionary):
        value = scalar.as_py()
        try:
            yield read(value)
        except ValueError:
            row = first(pc.equal(encoded.indices, place))
            raise column.refusal(row or 0, f"has {shown(value)}", remedy) from None


def _lists(column: Column, remedy: str) -> pa.Array:
    try:
        return column.cells.cast(pa.list_(pa.string()))
    except pa.ArrowException:
        raise column.refused_type(remedy) from None


def _is_blank(cells: pa.Array) -> pa.Array:
    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(cells), ""), True)


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind))
