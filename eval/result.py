"""A result on disk: all that a stranger needs to compute the scores again.

``result/`` holds ``predictions.parquet``, ``reference.parquet``, ``peers.parquet`` (what the release's other
teachers answered), ``scores.parquet``, and ``result.json``, written last: who was asked what, which suites, which
leaks were found, and the sha256 of the other files. Beside it, and never to be passed on, lie the ledger and
``run.toml``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxr_max import __version__
from cxr_max.errors import RequestError
from cxr_max.eval.answers import Answers, Data, by_condition
from cxr_max.eval.conditions import ORIGINAL, REPORT
from cxr_max.eval.reference import Reference, read_reference
from cxr_max.eval.suite import Suite
from cxr_max.progression import Changes
from cxr_max.progression import read as read_changes
from cxr_max.records import Score
from cxr_max.shards import canonical_json, sha256_of, write_shard, write_text

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION: Final = 1
PREDICTIONS: Final = "predictions.parquet"
REFERENCE: Final = "reference.parquet"
PEERS: Final = "peers.parquet"
SCORES: Final = "scores.parquet"
RESULT: Final = "result.json"
HASHED: Final = (PREDICTIONS, REFERENCE, PEERS, SCORES)
_NUMBERS: Final = ("value", "low", "high")
_COUNTS: Final = ("patients", "n_scored", "n_refused", "n_failed")


@dataclass(frozen=True, slots=True)
class Result:
    """What ``result.json`` says."""

    model: str
    """Its name on a leaderboard."""
    member: bool
    """It is a teacher of the release."""
    settings: Mapping[str, str]
    """What was asked and how, for a page."""
    notes: tuple[str, ...]
    """What a reader must know."""
    dataset: str
    """The data set's title."""
    source: str
    data_use: str
    dataset_notes: tuple[str, ...]
    release_digest: str
    """Of the trajectories that the test image sets and the peers' answers come from."""
    trained_on: str | None
    """The same of the release that leaks were looked for in; ``None`` where nothing was looked for."""
    leaks: Mapping[str, Any]
    suites: tuple[Suite, ...]
    files: Mapping[str, str]
    """Name -> sha256."""


def write_result(
    folder: Path,
    result: Result,
    scores: Sequence[Score],
) -> None:
    """Seal a folder that holds predictions, reference and peers already.

    Raises:
        StorageError: the disk refused.
    """
    write_shard(folder / SCORES, (_row(score) for score in scores), score_schema())
    names = [field.name for field in fields(Result) if field.name not in ("suites", "files")]
    said: dict[str, Any] = {name: getattr(result, name) for name in names}
    said["suites"] = [{"sha256": suite.sha256, "settings": suite.model_dump()} for suite in result.suites]
    said["files"] = {name: sha256_of(folder / name) for name in HASHED}
    said |= {"schema_version": SCHEMA_VERSION, "made_by": __version__}
    write_text(folder / RESULT, canonical_json(said))


def result_in(folder: Path) -> Path:
    """The result that a user means by an evaluation's folder, or by the result's own."""
    return folder / "result" if (folder / "result").is_dir() else folder


def read_result(folder: Path) -> Result:
    """What ``result.json`` says; nothing is checked against the files.

    Raises:
        RequestError: it is missing, damaged, or of another version.
    """
    path = folder / RESULT
    try:
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{folder} holds no finished result ({RESULT}): give the folder of a finished cxr-max eval."
        ) from error
    if not isinstance(said, dict) or said.get("schema_version") != SCHEMA_VERSION:
        raise RequestError(f"{path} is of another version than this cxr-max reads: run the evaluation again.")
    try:
        suites = tuple(Suite.model_validate(entry["settings"]) for entry in said["suites"])
        values = {field.name: said[field.name] for field in fields(Result)}
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{path} lacks or garbles a part ({error}): run the evaluation again.") from error
    for name in ("notes", "dataset_notes"):
        values[name] = tuple(values[name])
    return Result(**{**values, "suites": suites})


def read_data(folder: Path, member: bool) -> Data:
    """Predictions, reference and peers, ready to be scored.

    Raises:
        RequestError: a file is missing or wrong.
    """
    from cxr_max.eval.predictions import read_predictions

    reference = read_reference(folder / REFERENCE)
    table = read_predictions(folder / PREDICTIONS)
    return data_of(table, reference, read_peers(folder / PEERS, reference), member)


def data_of(table: "pa.Table", reference: Reference, peers: Mapping[str, Answers], member: bool) -> Data:
    """Put predictions beside their reference."""
    import pyarrow.compute as pc

    answers = by_condition(table, reference)
    reports: list[str | None] = []
    if REPORT in answers:
        written = table.filter(pc.equal(table["condition"], REPORT))
        keys = zip(written["study_id"].to_pylist(), written["image_ids"].to_pylist(), strict=True)
        texts = dict(zip(((study, tuple(ids)) for study, ids in keys), written["text"].to_pylist(), strict=True))
        reports = [texts.get(row.key) for row in reference.rows]
    return Data(reference, answers, peers, reports, member, _changes(table, reference))


def _changes(table: "pa.Table", reference: Reference) -> list[Changes | None]:
    """Read from the texts: a reply in the form that progression is asked for names no finding's state, so that it
    counts as unparsed wherever it was read for findings alone."""
    import pyarrow.compute as pc

    if not any(row.progression for row in reference.rows):
        return []
    read = pc.and_(pc.equal(table["condition"], ORIGINAL), pc.is_in(table["status"], _wanted()))
    rows = table.filter(read)
    keys = zip(rows["study_id"].to_pylist(), rows["image_ids"].to_pylist(), strict=True)
    texts = dict(zip(((study, tuple(ids)) for study, ids in keys), rows["text"].to_pylist(), strict=True))
    return [read_changes(texts.get(row.key) or "") for row in reference.rows]


def _wanted() -> "pa.Array":
    import pyarrow as pa

    return pa.array(["ok", "unparsed"])


def write_peers(path: Path, tables: Mapping[str, "pa.Table"]) -> None:
    """Other teachers' original answers, without texts, under each other.

    Raises:
        StorageError: the disk refused.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cxr_max.eval.predictions import prediction_schema
    from cxr_max.shards import disk_refusals_named

    schema = prediction_schema().append(pa.field("teacher", pa.string()))
    parts = [
        table.append_column("teacher", pa.array([teacher] * len(table), pa.string())).cast(schema)
        for teacher, table in tables.items()
    ]
    with disk_refusals_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(parts) if parts else schema.empty_table(), path, compression="zstd")


def read_peers(path: Path, reference: Reference) -> dict[str, Answers]:
    """The inverse, beside a reference.

    Raises:
        RequestError: the file is missing or wrong.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        teachers = sorted(pc.unique(table["teacher"]).to_pylist())
    except (OSError, KeyError, TypeError, pa.ArrowException) as error:
        raise RequestError(f"{path} cannot be read ({error}): run the evaluation again.") from error
    split = {teacher: table.filter(pc.equal(table["teacher"], teacher)) for teacher in teachers}
    return {teacher: by_condition(rows, reference)[ORIGINAL] for teacher, rows in split.items()}


def score_schema() -> "pa.Schema":
    """The columns of ``scores.parquet``: the fields of ``Score``."""
    import pyarrow as pa

    types: dict[str, pa.DataType] = {
        **dict.fromkeys(_NUMBERS, pa.float64()),
        **dict.fromkeys(_COUNTS, pa.int64()),
        "trusted": pa.bool_(),
    }
    return pa.schema([(field.name, types.get(field.name, pa.string())) for field in fields(Score)])


def read_scores(path: Path) -> tuple[Score, ...]:
    """The scores of a result.

    Raises:
        RequestError: the file is missing or wrong.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RequestError(f"{path} cannot be read ({error}): run the evaluation again.") from error
    if not table.schema.equals(score_schema()):
        raise RequestError(f"{path} has other columns than scores have: run the evaluation again.")
    return tuple(Score(**row) for row in table.to_pylist())


def _row(score: Score) -> dict[str, Any]:
    return {field.name: getattr(score, field.name) for field in fields(Score)}
