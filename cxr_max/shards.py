"""Deterministic Parquet shards and other files that a reader never sees half written."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxr_max.errors import StorageError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_SHARD: Final = 25_000
"""About 40 MB of zstd-compressed text: well under the size at which the Hub's viewer gives up."""
ROWS_PER_GROUP: Final = 1_000
"""A few MB in memory, for streaming and for a build; the Hub's viewer takes groups up to some 286 MiB."""

_UNLIKE: Final = frozenset({"trajectory_id", "request_sha256", "text", "reasoning", "chosen"})
"""Columns whose values hardly repeat. A dictionary of them would be one page that changes with every row."""


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

    Memory holds one row group, whatever the number of rows. Pages end where the content says (content-defined
    chunking), so that a storage that keeps equal chunks once, as the Hub's does, keeps of a new version only what
    changed; the page index lets a viewer read a few rows without the rest.

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
        pq.ParquetWriter(
            partial,
            schema,
            compression="zstd",
            use_dictionary=[name for name in schema.names if name not in _UNLIKE],
            use_content_defined_chunking=True,
            write_page_index=True,
        ) as writer,
    ):
        while group := list(islice(remaining, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            written += len(group)
    return written


def write_config(
    folder: Path,
    counts: Mapping[str, int],
    rows_of: Callable[[str], Iterable[Mapping[str, Any]]],
    schema: "pa.Schema",
) -> None:
    """Write the shards of one config, ``<split>-00000-of-0000N.parquet``, and remove those of before.

    Args:
        counts: rows per split; they fix N before the first row is written.
        rows_of: from a split to its rows.
    """
    written = set()
    for split, count in counts.items():
        rows = iter(rows_of(split))
        shards = -(-count // ROWS_PER_SHARD)
        for index in range(shards):
            path = folder / f"{split}-{index:05d}-of-{shards:05d}.parquet"
            write_shard(path, islice(rows, ROWS_PER_SHARD), schema)
            written.add(path)
    ours = {path for pattern in ("*-of-*.parquet", "*.partial") for path in folder.glob(pattern)}
    for stale in ours - written:
        stale.unlink()


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
