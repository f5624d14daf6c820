"""The rows of a release as predictions: nothing is asked, and no text is decoded that nobody needs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxr_max.builders.release import read_manifest
from cxr_max.errors import RequestError
from cxr_max.eval.conditions import ORIGINAL, sample
from cxr_max.records import SPLITS, Asked
from cxr_max.schemas import read_asked, read_consensus
from cxr_max.shards import ROWS_PER_GROUP

if TYPE_CHECKING:
    import pyarrow as pa

CONSENSUS: Final = "consensus"
"""The vote that the release holds, as a model."""
_SHARED: Final = ("study_id", "image_ids", "status", "findings", "sides", "contradictions", "text")


def prompt_of(release: Path, name: str) -> str:
    """The sha256 of the prompt ``name``, as the release was asked it.

    Raises:
        RequestError: it was not asked, or in two versions.
    """
    asked = read_manifest(release)["prompts"]
    found = [str(entry["sha256"]) for entry in asked if entry["name"] == name]
    if len(found) != 1:
        names = ", ".join(sorted({entry["name"] for entry in asked})) or "nothing"
        raise RequestError(
            f"The suite asks {name}, and the release in {release} was asked {names}: build one with"
            f" --prompt {name}, or give another suite."
        )
    return found[0]


def asked_about(release: Path, prompt_sha256: str | None = None) -> list[Asked]:
    """Every image set that was asked about, by one prompt or by any, in the release's order."""
    found = (asked for split in SPLITS for asked in read_asked(release, split, prompt_sha256))
    return list(dict.fromkeys(found))


def teachers_of(release: Path) -> tuple[str, ...]:
    """Who is in the release."""
    return tuple(sorted(read_manifest(release)["counts"]["trajectories"]["by_teacher"]))


def stored_answers(release: Path, prompt_sha256: str, *, texts: bool = False) -> dict[str, "pa.Table"]:
    """Teacher -> its rows as ``predictions.read_predictions`` would give them; further samples are conditions.

    Args:
        texts: whether the replies come along.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    columns = [name for name in _SHARED if texts or name != "text"]
    parts: dict[str, list[pa.Table]] = {}
    for path in sorted((release / "data" / "trajectories").glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(
                ROWS_PER_GROUP, columns=[*columns, "teacher", "prompt_sha256", "sample_index"]
            ):
                table = pa.Table.from_batches([batch])
                table = table.filter(pc.equal(table["prompt_sha256"], prompt_sha256))
                for teacher in pc.unique(table["teacher"]).to_pylist():
                    rows = table.filter(pc.equal(table["teacher"], teacher))
                    parts.setdefault(teacher, []).append(_as_predictions(rows))
    return {teacher: pa.concat_tables(tables) for teacher, tables in sorted(parts.items())}


def provider_of(release: Path, teacher: str) -> str:
    """Whose interface answered for a teacher: ``simulated`` where no model did."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for path in sorted((release / "data" / "trajectories").glob("*.parquet")):
        table = pq.read_table(path, columns=["provider"], filters=pc.field("teacher") == teacher)
        if len(table):
            return str(table["provider"][0].as_py())
    return "unknown"


def original(table: "pa.Table") -> "pa.Table":
    """The rows of nothing changed and of the first sample."""
    import pyarrow.compute as pc

    return table.filter(pc.equal(table["condition"], ORIGINAL))


def consensus_answers(release: Path, prompt_sha256: str) -> "pa.Table":
    """The release's vote as predictions.

    Raises:
        RequestError: the release holds no consensus yet.
    """
    import pyarrow as pa

    from cxr_max.eval.predictions import prediction_schema

    if "consensus" not in read_manifest(release).get("derived", {}):
        raise RequestError(f"The release in {release} has no consensus yet: run cxr-max consensus {release}.")
    images = {(one.study_id, one.image_sha256): one.image_ids for one in asked_about(release, prompt_sha256)}
    rows = [
        {
            "study_id": row.study_id,
            "image_ids": images[row.study_id, row.image_sha256],
            "condition": ORIGINAL,
            "status": "ok",
            "findings": dict(row.findings),
            "sides": dict(row.sides),
            "text": row.text,
        }
        for split in SPLITS
        for row in read_consensus(release, split)
        if row.prompt_sha256 == prompt_sha256
    ]
    return pa.Table.from_pylist(rows, schema=prediction_schema())


def _as_predictions(rows: "pa.Table") -> "pa.Table":
    import pyarrow as pa

    from cxr_max.eval.predictions import prediction_schema

    schema = prediction_schema()
    samples = rows["sample_index"].to_pylist()
    blank = pa.nulls(len(rows))
    unread = [status == "ok" and not read for status, read in _pairs(rows)]
    status = ["unparsed" if odd else said for odd, said in zip(unread, rows["status"].to_pylist(), strict=True)]
    made: dict[str, Any] = {
        **{name: rows[name] for name in _SHARED if name in rows.column_names},
        "status": pa.array(status, pa.string()),
        "condition": pa.array([ORIGINAL if index == 0 else sample(index) for index in samples], pa.string()),
        "scores": blank.cast(schema.field("scores").type),
    }
    made.setdefault("text", blank.cast(pa.string()))
    return pa.table({name: made[name] for name in schema.names}).cast(schema)


def _pairs(rows: "pa.Table") -> Iterator[tuple[str, bool]]:
    return zip(rows["status"].to_pylist(), rows["findings"].is_valid().to_pylist(), strict=True)
