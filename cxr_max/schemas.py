"""Explicit Arrow schemas of a release's three configs, and the way between rows and records."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxr_max.findings import FINDINGS
from cxr_max.records import Asked, Consensus, Preference, Sampling, Trajectory

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION: Final = 1

_TRAJECTORY: Final = {
    "trajectory_id": "sha256 over the row's identity: study, images, teacher, prompt and sample index",
    "study_id": "The study's identifier in its data set",
    "subject_id": "The patient's identifier in the data set; split and resample by it",
    "source": "The data set",
    "split": "train, validation or test as the data set's owners drew them; null where they drew none",
    "image_ids": "The images that were sent, in order",
    "source_sha256": "sha256 of each image's file as the data set ships it",
    "image_sha256": "sha256 of the JPEG bytes that were sent for each image",
    "rendering": "How pixels became the JPEG: name, version, long side in pixels",
    "teacher": "The teacher's name in the roster",
    "provider": "Whose interface answered; `simulated` rows come from no model",
    "model": "The model that was asked for",
    "model_reported": "The model that the service says answered",
    "prompt_name": "The prompt; its text is in the card",
    "prompt_version": "The prompt's version",
    "prompt_sha256": "sha256 of the prompt's template",
    "prompt_given": "What the prompt gave away: nothing, findings, report or trajectories",
    "sampling": "Sampling settings; null leaves the choice to the service",
    "sample_index": "0-based number of the sample",
    "status": "ok, refused, truncated (by the token limit), filtered (by the service) or unparsed",
    "finish_reason": "As the service words it",
    "text": "The reply",
    "reasoning": "The reasoning that the service returned apart from the reply",
    "findings": "1 present, 0 absent, -1 uncertain, null not mentioned",
    "sides": "The patient's side of a present or uncertain finding: left, right or bilateral",
    "labeler": "What read `findings` from the text; null where nothing did",
    "contradictions": "Findings of which the structured answer says another state than the text before it",
    "input_tokens": "As the service counts them, images included",
    "output_tokens": "As the service counts them, reasoning included",
    "cost_usd": "US dollars; null where the price is unknown",
    "latency_s": "Seconds from sending to the whole reply, of the attempt that succeeded",
    "created_at": "When the reply arrived (UTC)",
    "request_sha256": "sha256 over everything that was asked; equal values are one purchase",
}
_LISTS: Final = ("image_ids", "source_sha256", "image_sha256", "contradictions")


def trajectory_schema() -> "pa.Schema":
    """The columns of the ``trajectories`` config, each with its description as field metadata."""
    import pyarrow as pa

    sampling = [
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("max_tokens", pa.int32()),
        ("seed", pa.int64()),
    ]
    types: dict[str, pa.DataType] = {
        **dict.fromkeys(_LISTS, pa.list_(pa.string())),
        "sampling": pa.struct(sampling),
        "findings": pa.struct([(name, pa.int8()) for name in FINDINGS]),
        "sides": pa.struct([(name, pa.string()) for name in FINDINGS]),
        **dict.fromkeys(("sample_index", "input_tokens", "output_tokens"), pa.int32()),
        **dict.fromkeys(("cost_usd", "latency_s"), pa.float64()),
        "created_at": pa.timestamp("us", tz="UTC"),
    }
    return _schema("trajectories", _TRAJECTORY, types)


def row_of(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory as a row of ``trajectory_schema``."""
    row = {name: getattr(trajectory, name) for name in _TRAJECTORY}
    row["sampling"] = asdict(trajectory.sampling)
    return row


_CONSENSUS: Final = {
    "study_id": "The study's identifier in its data set",
    "image_sha256": "sha256 of the JPEG bytes that every teacher was sent",
    "prompt_sha256": "sha256 of the prompt's template",
    "findings": "What the teachers say together: 1 present, 0 absent, -1 uncertain, null without a quorum",
    "sides": "The side of a present or uncertain finding: left, right or bilateral; null where the vote is split",
    "support": "Per finding, how many teachers say what the vote says, and how many say anything",
    "abstained": "Teachers that were asked and took no part: refused, truncated, filtered or unparsed",
    "method": "What made it, with its version and settings",
    "text": "The consensus in words: a student's if `method` says so, else the trajectory at the middle of those"
    " that say it, else composed",
}
_PREFERENCE: Final = {
    "study_id": "The study's identifier in its data set",
    "image_sha256": "sha256 of the JPEG bytes that every teacher was sent",
    "prompt_sha256": "sha256 of the prompt's template",
    "chosen": "The preferred text",
    "rejected": "The dispreferred texts",
    "rejected_teachers": "Who wrote each of them",
    "conflicts": "Each dispreferred text's conflict with the consensus, 0 to 1; null where none is comparable",
    "agreeing": "Whether each dispreferred text claims exactly what the consensus claims, and so is no negative",
}


def consensus_schema() -> "pa.Schema":
    """The columns of the ``consensus`` config."""
    import pyarrow as pa

    support = pa.struct([("votes", pa.float64()), ("voters", pa.int32())])
    types: dict[str, pa.DataType] = {
        **dict.fromkeys(("image_sha256", "abstained"), pa.list_(pa.string())),
        "findings": pa.struct([(name, pa.int8()) for name in FINDINGS]),
        "sides": pa.struct([(name, pa.string()) for name in FINDINGS]),
        "support": pa.struct([(name, support) for name in FINDINGS]),
    }
    return _schema("consensus", _CONSENSUS, types)


def preference_schema() -> "pa.Schema":
    """The columns of the ``preferences`` config."""
    import pyarrow as pa

    types: dict[str, pa.DataType] = {
        **dict.fromkeys(("image_sha256", "rejected", "rejected_teachers"), pa.list_(pa.string())),
        "conflicts": pa.list_(pa.float64()),
        "agreeing": pa.list_(pa.bool_()),
    }
    return _schema("preferences", _PREFERENCE, types)


def schema_of(config: str, version: int) -> "pa.Schema":
    """The columns that a release of a schema version has in one of its configs.

    Raises:
        KeyError: this version of cxr-max knows no such config, or no such schema version.
    """
    return {
        (SCHEMA_VERSION, "trajectories"): trajectory_schema,
        (SCHEMA_VERSION, "consensus"): consensus_schema,
        (SCHEMA_VERSION, "preferences"): preference_schema,
    }[version, config]()


def _schema(config: str, described: Mapping[str, str], types: Mapping[str, "pa.DataType"]) -> "pa.Schema":
    import pyarrow as pa

    fields = [
        pa.field(name, types.get(name, pa.string()), metadata={"description": text})
        for name, text in described.items()
    ]
    return pa.schema(fields, metadata={"cxr_max_schema": f"{config}-{SCHEMA_VERSION}"})


def row_of_consensus(consensus: Consensus) -> dict[str, Any]:
    """A consensus as a row of ``consensus_schema``."""
    row = {name: getattr(consensus, name) for name in _CONSENSUS}
    row["support"] = {
        name: {"votes": votes, "voters": voters} for name, (votes, voters) in consensus.support.items()
    }
    return row


def row_of_preference(preference: Preference) -> dict[str, Any]:
    """A preference as a row of ``preference_schema``."""
    return {name: getattr(preference, name) for name in _PREFERENCE}


def read_trajectories(folder: Path, split: str) -> Iterator[Trajectory]:
    """The trajectories of one split of a release, in its order, a row group in memory at a time.

    Args:
        folder: the release.
    """
    yield from map(trajectory_of_row, _rows(folder, "trajectories", split))


def read_questions(folder: Path, split: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Study, sha256 of the images and sha256 of the prompt of every trajectory: no text is decoded."""
    columns = ["study_id", "image_sha256", "prompt_sha256"]
    for row in _rows(folder, "trajectories", split, columns):
        yield row["study_id"], tuple(row["image_sha256"]), row["prompt_sha256"]


def read_asked(folder: Path, split: str, prompt_sha256: str | None = None) -> Iterator[Asked]:
    """Every image set of one split that was asked this prompt, or any, in order: no text is decoded."""
    names = [field.name for field in fields(Asked)]
    last = None
    for row in _rows(folder, "trajectories", split, [*names, "prompt_sha256"]):
        if prompt_sha256 not in (None, row["prompt_sha256"]):
            continue
        values: dict[str, Any] = {name: tuple(row[name]) if name in _LISTS else row[name] for name in names}
        asked = Asked(**values)
        if asked != last:
            last = asked
            yield asked


def read_consensus(folder: Path, split: str) -> Iterator[Consensus]:
    """The consensus rows of one split of a release, in the order of its trajectories."""
    yield from map(consensus_of_row, _rows(folder, "consensus", split))


def read_preferences(folder: Path, split: str) -> Iterator[Preference]:
    """The preferences of one split of a release, in its order."""
    for row in _rows(folder, "preferences", split):
        values: dict[str, Any] = {name: row[name] for name in _PREFERENCE}
        for name in ("image_sha256", "rejected", "rejected_teachers", "conflicts", "agreeing"):
            values[name] = tuple(values[name])
        yield Preference(**values)


def _rows(folder: Path, config: str, split: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for path in sorted((folder / "data" / config).glob(f"{split}-*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns=columns).to_pylist()


def consensus_of_row(row: Mapping[str, Any]) -> Consensus:
    """The inverse of ``row_of_consensus``."""
    values = {name: row[name] for name in _CONSENSUS}
    for name in ("image_sha256", "abstained"):
        values[name] = tuple(values[name])
    values["support"] = {name: (said["votes"], said["voters"]) for name, said in row["support"].items()}
    return Consensus(**values)


def trajectory_of_row(row: Mapping[str, Any]) -> Trajectory:
    """The inverse of ``row_of``."""
    values = {name: row[name] for name in _TRAJECTORY}
    for name in _LISTS:
        values[name] = tuple(values[name])
    return Trajectory(**{**values, "sampling": Sampling(**values["sampling"])})
