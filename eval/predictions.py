"""The predictions of one model, as a file: what is submitted, and what every score is computed from.

Written as Parquet with one struct per row and kind of answer; read from that, or from one column per finding, as
CSV or Parquet (``docs/submissions.md``). In what is read every cell is inside its vocabulary, only rows with
status ok have an answer, and no question is answered twice.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cxr_max.errors import RequestError
from cxr_max.eval import conditions
from cxr_max.eval import predictions_csv as flat
from cxr_max.eval.predictions_csv import Column
from cxr_max.findings import FINDINGS, LATERAL
from cxr_max.records import PREDICTION_STATUSES, Prediction
from cxr_max.replies import read_reply
from cxr_max.schemas import SCHEMA_VERSION
from cxr_max.shards import write_shard

Kind = Literal["findings", "sides", "scores"]

_KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_READERS: Final = {"findings": flat.states, "sides": flat.sides, "scores": flat.scores}
_SUFFIX: Final[dict[Kind, str]] = {"findings": "", "sides": flat.SIDE, "scores": flat.SCORE}
_DESCRIBED: Final = {
    "study_id": "The study's identifier in its data set",
    "image_ids": "The images that the model was shown, in order",
    "condition": "What was changed about picture or question; `original` where nothing was",
    "status": "ok, refused, truncated (by the token limit), filtered (by the service), unparsed, or failed: there"
    " is no reply",
    "findings": "1 present, 0 absent, -1 uncertain, null not mentioned; null as a whole unless the status is ok",
    "sides": "The patient's side of a present or uncertain finding: left, right or bilateral",
    "scores": "The probability that the finding is present, 0 to 1; null where the model gives none",
    "contradictions": "Findings of which the structured answer says another state than the text before it; null"
    " where nothing compared them",
    "text": "The reply",
}
_ALWAYS: Final = ("study_id", "image_ids", "condition", "status")
_ONCE: Final = ("study_id", "image_ids", "image_id", "condition", "status", "text", "contradictions")
_FLAT: Final = tuple(name + suffix for name in FINDINGS for suffix in _SUFFIX.values())
_INDEX: Final = re.compile(r"__index_level_\d+__")
"""How pandas names an index that it writes along."""
_BATCH: Final = 1 << 16
"""Rows decoded at once: their texts stay far below the 2 GiB that an Arrow string array can hold."""
_LABELED: Final = 1_000
"""Rows whose texts are read before their labels are packed into Arrow."""


def prediction_schema() -> pa.Schema:
    """The columns of a predictions file, each with its description as field metadata."""
    types: dict[str, pa.DataType] = {
        **dict.fromkeys(("image_ids", "contradictions"), pa.list_(pa.string())),
        "findings": pa.struct([(name, pa.int8()) for name in FINDINGS]),
        "sides": pa.struct([(name, pa.string()) for name in FINDINGS]),
        "scores": pa.struct([(name, pa.float64()) for name in FINDINGS]),
    }
    fields = [
        pa.field(
            name, types.get(name, pa.string()), nullable=name not in _ALWAYS, metadata={"description": description}
        )
        for name, description in _DESCRIBED.items()
    ]
    return pa.schema(fields, metadata={"cxr_max_schema": f"predictions-{SCHEMA_VERSION}"})


def write_predictions(path: Path, rows: Iterable[Prediction]) -> int:
    """Write predictions as Parquet, in the order given, and return their number. Same rows, same bytes.

    Raises:
        StorageError: the disk refused.
    """
    return write_shard(path, map(_row_of, rows), prediction_schema())


def _row_of(prediction: Prediction) -> dict[str, Any]:
    row = {name: getattr(prediction, name) for name in _DESCRIBED}
    for kind in _KINDS:
        row[kind] = None if row[kind] is None else dict(row[kind])
    return row


def read_predictions(path: Path) -> pa.Table:
    """The predictions of a Parquet or CSV file, in its order and in ``prediction_schema``.

    Where the file has a column ``text`` and none about findings, status, findings, sides and contradictions are
    read from the texts of the rows with status ok, as they are read from a teacher's reply.

    Raises:
        RequestError: the file is no submission; the message names the row, the column and the remedy.
    """
    table = _opened(path)
    cells = {name: Column(path, name, _whole(name, table.column(name))) for name in table.column_names}
    rows = _Rows(path, cells, table.num_rows)
    columns = rows.identities()
    _refuse_duplicates(path, columns)
    if rows.only_text():
        columns |= _read_texts(columns, rows.texts())
    else:
        columns |= rows.answers(columns["status"])
    schema = prediction_schema()
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _whole(name: str, cells: pa.ChunkedArray) -> pa.Array:
    """In one piece, for speed; texts stay in pieces, since together they may be too large for one array."""
    cells = flat.plain(cells)
    return cells if name == "text" else cells.combine_chunks()


def _opened(path: Path) -> pa.Table:
    """The file's columns, all of them known ones, and at least one row."""
    name = path.name.lower()
    if not name.endswith((".parquet", *flat.SUFFIXES)):
        raise RequestError(f"{path} is neither .parquet nor .csv nor .csv.gz: write one of these.")
    if not path.is_file():
        raise RequestError(f"There is no file {path}: give the path of a predictions file.")
    if path.stat().st_size == 0:
        raise RequestError(f"{path} is empty: write a row for each prediction.")
    parquet = name.endswith(".parquet")
    table = _parquet(path) if parquet else flat.read_csv(path)
    table = table.select([i for i, name in enumerate(table.column_names) if not _INDEX.fullmatch(name)])
    _refuse_names(path, table.column_names, (*_ONCE, *(_KINDS if parquet else ()), *_FLAT))
    if not table.num_rows:
        raise RequestError(f"{path} has no row: write one for each prediction.")
    return table


def _parquet(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return pa.Table.from_batches(file.iter_batches(_BATCH), file.schema_arrow)
    except (pa.ArrowException, OSError) as error:
        raise RequestError(f"{path} is no Parquet file or a damaged one: write it again.") from error


def _refuse_names(path: Path, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise RequestError(f"{path} has an unknown column {name!r}: {_advice(name, known)}.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise RequestError(f"{path} has two columns {twice}: keep one of them.")
    if "study_id" not in names:
        raise RequestError(f"{path} has no column study_id: add one that names the study of each row.")
    if ("image_ids" in names) == ("image_id" in names):
        wrong = "both image_ids and image_id" if "image_id" in names else "no column image_ids"
        raise RequestError(f"{path} has {wrong}: name the images of each row in one column image_ids.")
    for kind in _KINDS:
        column = next((name for name in _flat_names(kind) if name in names), None)
        if kind in names and column:
            raise RequestError(f"{path} has both {kind} and {column}: keep one of the two.")
    if not {"text", *_KINDS, *_FLAT} & set(names):
        raise RequestError(f"{path} has neither findings nor text: add a column per finding, or a column text.")


def _advice(name: str, known: Sequence[str]) -> str:
    if not name or name.startswith("Unnamed"):
        return "it may be pandas' index, which index=False leaves out"
    by_lower = {one.lower(): one for one in known}
    near = get_close_matches(name.lower(), by_lower, 1, 0.5)
    return (
        f"did you mean {by_lower[near[0]]}" if near else f"take it out; there are {', '.join(_ONCE)} and findings"
    )


def _flat_names(kind: Kind) -> list[str]:
    return [name + _SUFFIX[kind] for name in FINDINGS]


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The columns of a file, under their own names."""

    path: Path
    cells: dict[str, Column]
    number: int

    def only_text(self) -> bool:
        """Whether the findings have to be read from the texts."""
        if {*_KINDS, *_FLAT} & set(self.cells):
            return False
        if "contradictions" in self.cells:
            raise RequestError(
                f"{self.path} has contradictions but no findings: take it out, the texts are read for both."
            )
        return True

    def identities(self) -> dict[str, pa.Array]:
        """What was asked, and whether there is an answer."""
        images = self.cells.get("image_ids") or self.cells["image_id"]
        return {
            "study_id": flat.identifiers(self.cells["study_id"]),
            "image_ids": flat.image_ids(images),
            "condition": self._words("condition", conditions.ORIGINAL, _condition, _CONDITIONS),
            "status": self._words("status", "ok", _status, f"write {', '.join(PREDICTION_STATUSES)}"),
        }

    def _words(self, name: str, default: str, read: Any, remedy: str) -> pa.Array:
        column = self.cells.get(name)
        if column is None:
            return pa.array([default]).take(pa.array(np.zeros(self.number, np.int64)))
        return flat.words(column, read, default, remedy)

    def texts(self) -> pa.ChunkedArray:
        """(n,) strings or null."""
        column = self.cells.get("text")
        if column is None:
            return pa.nulls(self.number, pa.string())
        # pandas writes a column in which every text is missing as floats or nulls.
        if not pa.types.is_string(column.cells.type):
            if (
                column.cells.null_count < self.number
                and not pc.all(pc.is_null(column.cells, nan_is_null=True)).as_py()
            ):
                raise column.refused_type("write the replies as text")
            return pa.nulls(self.number, pa.string())
        return column.cells

    def answers(self, statuses: pa.Array) -> dict[str, pa.Array]:
        """All columns that hold an answer, each null where the status is not ok."""
        ok = pc.equal(statuses, "ok").to_numpy(zero_copy_only=False)
        found: dict[str, _Members] = {kind: self._members(kind, ok) for kind in _KINDS}
        self._refuse_sides(found["findings"], found["sides"])
        columns = {kind: _struct(kind, members) for kind, members in found.items()}
        return {**columns, "contradictions": self._contradictions(ok), "text": self.texts()}

    def _members(self, kind: Kind, ok: NDArray[np.bool_]) -> "_Members":
        members = {one.name: one for one in self._columns(kind)}
        names = dict(zip(_flat_names(kind), FINDINGS, strict=True))
        read = {}
        for name, column in members.items():
            read[names[name]] = array = _READERS[kind](column)
            self._refuse_unanswered(column, pc.is_valid(array), ok)
        if kind in self.cells:
            ok = ok & pc.is_valid(self.cells[kind].cells).to_numpy(zero_copy_only=False)
        elif not members and kind != "findings":
            ok = np.zeros_like(ok)
        return _Members(read, ok)

    def _columns(self, kind: Kind) -> Iterator[Column]:
        """The findings' columns, whether they are columns of the file or members of its struct."""
        if kind not in self.cells:
            yield from (self.cells[name] for name in _flat_names(kind) if name in self.cells)
            return
        cells = self.cells[kind].cells
        if pa.types.is_null(cells.type):
            return
        if not pa.types.is_struct(cells.type):
            raise self.cells[kind].refused_type(
                "write a struct with a member per finding, or a column per finding"
            )
        for place, field in enumerate(cells.type):
            if field.name not in FINDINGS:
                raise RequestError(
                    f"Column {kind} of {self.path} has an unknown finding {field.name!r}:"
                    f" {_advice(field.name, FINDINGS)}."
                )
            member = flat.plain(pa.chunked_array([pc.struct_field(cells, [place])])).combine_chunks()
            yield Column(self.path, field.name + _SUFFIX[kind], member)

    def _refuse_unanswered(self, column: Column, given: pa.Array, ok: NDArray[np.bool_]) -> None:
        says = "has a value although its status is not ok"
        column.refuse_where(pc.and_(given, pa.array(~ok)), says, "leave it blank, or correct the status")

    def _refuse_sides(self, findings: "_Members", sides: "_Members") -> None:
        claims = pa.array([1, -1], pa.int8())
        for name, array in sides.read.items():
            column = Column(self.path, name + flat.SIDE, array)
            if name not in LATERAL:
                column.refuse_where(pc.is_valid(array), "has {}", f"leave it blank, for {name} has no side")
            state = findings.read.get(name, pa.nulls(self.number, pa.int8()))
            unclaimed = pc.and_(pc.is_valid(array), pc.invert(pc.is_in(state, claims)))
            remedy = "leave it blank where the finding is neither present (1) nor uncertain (-1)"
            column.refuse_where(unclaimed, "has {}", remedy)

    def _contradictions(self, ok: NDArray[np.bool_]) -> pa.Array:
        column = self.cells.get("contradictions")
        kind = pa.list_(pa.string())
        if column is None:
            return pa.nulls(self.number, kind)
        lists = flat.contradictions(column)
        self._refuse_unanswered(column, pc.greater(pc.list_value_length(lists), 0), ok)
        if flat.is_list(column.cells.type):
            return lists
        # A blank cell says that nothing was found, which only an answer can say.
        return pc.if_else(pa.array(ok), lists, pa.scalar(None, kind))


@dataclass(frozen=True, slots=True, eq=False)
class _Members:
    """One kind of answer: an array per finding that the file has, and in which rows there is an answer at all."""

    read: dict[str, pa.Array]
    valid: NDArray[np.bool_]


_CONDITIONS: Final = "write original, mirror, blank, report, sample-1, paraphrase-brief, noise-3 or the like"


def _condition(text: str) -> None:
    try:
        conditions.parse(text)
    except RequestError as error:
        raise ValueError(text) from error


def _status(text: str) -> None:
    if text not in PREDICTION_STATUSES:
        raise ValueError(text)


def _struct(kind: str, members: _Members) -> pa.Array:
    described = prediction_schema().field(kind).type
    rows = len(members.valid)
    arrays = [members.read.get(field.name, pa.nulls(rows, field.type)) for field in described]
    return pa.StructArray.from_arrays(arrays, fields=list(described), mask=pa.array(~members.valid))


def _refuse_duplicates(path: Path, columns: dict[str, pa.Array]) -> None:
    images = pc.binary_join(columns["image_ids"], "\0")
    keys = pc.binary_join_element_wise(columns["study_id"], images, columns["condition"], "\0\0")
    codes = keys.dictionary_encode().indices.to_numpy()
    _, places = np.unique(codes, return_index=True)
    if len(places) < len(codes):
        again = np.ones(len(codes), dtype=np.bool_)
        again[places] = False
        second = int(again.argmax())
        first = int((codes == codes[second]).argmax())
        raise RequestError(
            f"Rows {first + 1} and {second + 1} of {path} have one study_id, image_ids and condition: keep one of"
            " the two."
        )


def _read_texts(columns: dict[str, pa.Array], texts: pa.ChunkedArray) -> dict[str, pa.Array]:
    """Status and findings of every text, a batch of rows at a time."""
    names = ("status", "findings", "sides", "contradictions")
    schema = pa.schema([prediction_schema().field(name) for name in names])
    batches = []
    for start in range(0, len(texts), _LABELED):
        parts = (texts, columns["status"], columns["condition"])
        rows = zip(*(part.slice(start, _LABELED).to_pylist() for part in parts), strict=True)
        batches.append(pa.Table.from_pylist([_answer(*row) for row in rows], schema=schema))
    read = pa.concat_tables(batches).combine_chunks()
    scores = pa.nulls(len(texts), prediction_schema().field("scores").type)
    return {**{name: read.column(name) for name in names}, "scores": scores, "text": texts}


def _answer(text: str | None, status: str, condition: str) -> dict[str, Any]:
    """What one text says, read as a teacher's reply is; a report is free text."""
    if status != "ok":
        return {"status": status}
    read, labels = read_reply(text or "", "stop", structured_answer=condition != conditions.REPORT)
    if labels is None:
        return {"status": read}
    return {
        "status": read,
        "findings": labels.states,
        "sides": labels.sides,
        "contradictions": labels.contradictions,
    }
