"""The ledger -> a release that Hugging Face loads. Same ledger, same bytes.

``manifest.json`` is removed first and written last: where it is missing, the release is unfinished.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from cxr_max import __version__
from cxr_max.builders.card import card
from cxr_max.builders.sources.base import SourceInfo
from cxr_max.builders.trajectories import trajectory_of
from cxr_max.ledger import UNDIVIDED, Ledger
from cxr_max.records import SPLITS, Trajectory
from cxr_max.shards import (
    ROWS_PER_SHARD,
    SCHEMA_VERSION,
    canonical_json,
    disk_refusals_named,
    row_of,
    sha256_of,
    trajectory_schema,
    write_shard,
    write_text,
)

CONFIG: Final = "trajectories"


@dataclass(slots=True)
class _Tally:
    """What the manifest and the card say about the rows; gathered while they stream by."""

    rows: int = 0
    by_split: Counter[str] = field(default_factory=Counter)
    by_teacher: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    studies: set[str] = field(default_factory=set)
    subjects: set[str] = field(default_factory=set)
    renderings: set[str] = field(default_factory=set)
    models_reported: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    prompts: set[tuple[str, str, str, str]] = field(default_factory=set)
    labelers: set[str] = field(default_factory=set)
    simulated: int = 0
    cost_usd: float | None = 0.0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, row: Trajectory) -> None:
        self.rows += 1
        self.by_split[row.split or UNDIVIDED] += 1
        self.by_teacher[row.teacher][row.status] += 1
        self.studies.add(row.study_id)
        self.subjects.add(row.subject_id)
        self.renderings.add(row.rendering)
        self.prompts.add((row.prompt_name, row.prompt_version, row.prompt_sha256, row.prompt_given))
        self.simulated += row.provider == "simulated"
        known = self.cost_usd is not None and row.cost_usd is not None
        self.cost_usd = self.cost_usd + row.cost_usd if known else None  # type: ignore[operator]
        if row.model_reported is not None:
            self.models_reported[row.teacher].add(row.model_reported)
        if row.labeler is not None:
            self.labelers.add(row.labeler)
        self.digest.update(json.dumps([row.trajectory_id, row.request_sha256, row.text]).encode())

    def counts(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "studies": len(self.studies),
            "subjects": len(self.subjects),
            "by_split": {split: self.by_split[split] for split in SPLITS if self.by_split[split]},
            "by_teacher": {teacher: dict(sorted(c.items())) for teacher, c in sorted(self.by_teacher.items())},
            "renderings": sorted(self.renderings),
            "models_reported": {t: sorted(models) for t, models in sorted(self.models_reported.items())},
        }


def write_release(ledger: Ledger, folder: Path, info: SourceInfo, settings: Mapping[str, str]) -> dict[str, Any]:
    """Derive a release from the ledger alone, and return its manifest.

    Args:
        settings: what the run was asked for, without local paths.

    Raises:
        StorageError: the disk refused; the ledger is untouched and the same command finishes the release.
    """
    with disk_refusals_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").unlink(missing_ok=True)
    tally = _Tally()
    shards = _write_shards(ledger, folder / "data" / CONFIG, tally)
    manifest = _manifest(ledger, info, settings, tally)
    present = [split for split in SPLITS if tally.by_split[split]]
    write_text(folder / "README.md", card(info, manifest, {CONFIG: present} if present else {}))
    files = [*shards, folder / "README.md"]
    manifest["files"] = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for file in sorted(files)
    }
    write_text(folder / "manifest.json", canonical_json(manifest))
    return manifest


def _write_shards(ledger: Ledger, folder: Path, tally: _Tally) -> list[Path]:
    written = []
    schema = trajectory_schema()
    for split, count in sorted(ledger.split_counts().items()):
        rows = _rows(ledger, split, tally)
        shards = -(-count // ROWS_PER_SHARD)
        for index in range(shards):
            path = folder / f"{split}-{index:05d}-of-{shards:05d}.parquet"
            write_shard(path, islice(rows, ROWS_PER_SHARD), schema)
            written.append(path)
    for stale in set(folder.glob("*")) - set(written):
        stale.unlink()
    return written


def _rows(ledger: Ledger, split: str, tally: _Tally) -> Iterator[dict[str, Any]]:
    for question, answered in ledger.rows(split):
        trajectory = trajectory_of(question, answered)
        tally.add(trajectory)
        yield row_of(trajectory)


def _manifest(ledger: Ledger, info: SourceInfo, settings: Mapping[str, str], tally: _Tally) -> dict[str, Any]:
    planned = ledger.teacher_counts()
    return {
        "schema_version": SCHEMA_VERSION,
        "cxr_max_version": __version__,
        "source": asdict(info),
        "settings": dict(settings),
        "simulated": tally.simulated > 0,
        "prompts": [
            dict(zip(("name", "version", "sha256", "given"), prompt, strict=True))
            for prompt in sorted(tally.prompts)
        ],
        "labelers": sorted(tally.labelers),
        "counts": {CONFIG: tally.counts()},
        "missing": {
            "gaps": len(ledger.gaps()),
            "failed": sum(rows - answered for rows, answered in planned.values()),
        },
        "cost_usd": tally.cost_usd,
        "ledger_digest": tally.digest.hexdigest(),
    }
