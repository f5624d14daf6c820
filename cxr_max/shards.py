"""Explicit Arrow schemas, and deterministic Parquet shards that a reader never sees half written."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxr_max.errors import StorageError
from cxr_max.findings import FINDINGS
from cxr_max.records import Trajectory

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION: Final = 1
ROWS_PER_SHARD: Final = 25_000
"""About 40 MB of zstd-compressed text: well under the size at which the Hub's viewer gives up."""
ROWS_PER_GROUP: Final = 1_000
"""Small enough that streaming, and the memory of a build, never holds more than a few MB of rows."""

_DESCRIPTIONS: Final = {
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
    "input_tokens": "As the service counts them, images included",
    "output_tokens": "As the service counts them, reasoning included",
    "cost_usd": "US dollars; null where the price is unknown",
    "latency_s": "Seconds from sending to the whole reply, of the attempt that succeeded",
    "created_at": "When the reply arrived (UTC)",
    "request_sha256": "sha256 over everything that was asked; equal values are one purchase",
}


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
        **dict.fromkeys(("image_ids", "source_sha256", "image_sha256"), pa.list_(pa.string())),
        "sampling": pa.struct(sampling),
        "findings": pa.struct([(name, pa.int8()) for name in FINDINGS]),
        "sides": pa.struct([(name, pa.string()) for name in FINDINGS]),
        **dict.fromkeys(("sample_index", "input_tokens", "output_tokens"), pa.int32()),
        **dict.fromkeys(("cost_usd", "latency_s"), pa.float64()),
        "created_at": pa.timestamp("us", tz="UTC"),
    }
    fields = [
        pa.field(name, types.get(name, pa.string()), metadata={"description": text})
        for name, text in _DESCRIPTIONS.items()
    ]
    return pa.schema(fields, metadata={"cxr_max_schema": f"trajectories-{SCHEMA_VERSION}"})


def row_of(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory as a row of ``trajectory_schema``."""
    row = {name: getattr(trajectory, name) for name in _DESCRIPTIONS}
    row["sampling"] = asdict(trajectory.sampling)
    return row


@contextmanager
def disk_refusals_named(path: Path) -> Iterator[None]:
    """Turn a refused write into one sentence with the remedy.

    Raises:
        StorageError: the disk is full, a quota is reached, or the folder may not be written.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}). Make room or choose another --out and run"
            " the same command again: every committed reply is safe in the ledger."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file so that it appears whole or not at all, whatever kills the process."""
    with disk_refusals_named(path), _appearing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_shard(path: Path, rows: Iterable[Mapping[str, Any]], schema: "pa.Schema") -> int:
    """Write one Parquet file and return its number of rows. Same rows, same bytes.

    Memory holds one row group, whatever the number of rows.

    Raises:
        StorageError: the disk refused.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = 0
    remaining = iter(rows)
    with (
        disk_refusals_named(path),
        _appearing(path) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd", write_page_index=True) as writer,
    ):
        while group := list(islice(remaining, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            written += len(group)
    return written


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: object) -> str:
    """JSON that depends on the value alone: sorted keys, two spaces, a newline at the end."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
