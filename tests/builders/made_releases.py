"""Releases for tests: one that is whole, and ways to break it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cxr_max.builders.build import BuildRequest, build
from cxr_max.builders.consensus import fill
from cxr_max.builders.release import digest_of, seal, shards_of
from cxr_max.shards import sha256_of, write_shard

Rows = list[dict[str, Any]]
TEACHERS = "sim-grok-4,sim-gpt-5-nano"


class Quiet:
    """A watch that does not look."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def make_run(out: Path, studies: int = 20, source: str = "phantom") -> Path:
    """A run of two simulated teachers with its consensus; 20 phantoms are the fewest with all three splits."""
    build(BuildRequest(source=source, teachers=TEACHERS, out=out, studies=studies), Quiet())
    fill(out / "release")
    return out


def manifest_of(release: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((release / "manifest.json").read_text("utf-8"))
    return found


def rows_of(release: Path, config: str = "trajectories") -> Rows:
    return [row for shard in shards_of(release, config) for row in pq.read_table(shard).to_pylist()]


def change_rows(release: Path, config: str, split: str, change: Callable[[Rows], Rows | None]) -> None:
    """Write one split's rows anew after ``change`` had its way, and seal the release as if all were well."""
    (shard,) = (path for path in shards_of(release, config) if path.name.startswith(f"{split}-"))
    schema, rows = pq.read_schema(shard), pq.read_table(shard).to_pylist()
    write_shard(shard, change(rows) or rows, schema)
    reseal(release)


def reseal(release: Path) -> None:
    """Seal what is there, whatever it is."""
    manifest = manifest_of(release)
    digest = digest_of({shard: sha256_of(shard) for shard in shards_of(release, "trajectories")})
    for made in manifest["derived"].values():
        made["from"] = digest
    seal(release, manifest)
