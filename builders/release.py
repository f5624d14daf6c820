"""The ledger -> a release that Hugging Face loads. Same ledger, same bytes.

``manifest.json`` is removed first and written last: where it is missing, the release is unfinished.
"""

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from cxr_max import __version__, prompts
from cxr_max.builders.card import card
from cxr_max.builders.sources.base import SourceInfo
from cxr_max.builders.trajectories import trajectory_of
from cxr_max.costs import add_cost
from cxr_max.errors import RequestError
from cxr_max.ledger import UNDIVIDED, Ledger
from cxr_max.records import SPLITS, Trajectory
from cxr_max.schemas import SCHEMA_VERSION, row_of, trajectory_of_row, trajectory_schema
from cxr_max.shards import (
    canonical_json,
    disk_refusals_named,
    sha256_of,
    write_config,
    write_text,
)

CONFIG: Final = "trajectories"
_PROMPT: Final = ("name", "version", "sha256", "given")
_DERIVABLE: Final = {"consensus", "preferences"}
"""Configs that are made from the trajectories, and are stale as soon as these change."""


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

    def add(self, row: Trajectory, written: Mapping[str, Any]) -> None:
        self.rows += 1
        self.by_split[row.split or UNDIVIDED] += 1
        self.by_teacher[row.teacher][row.status] += 1
        self.studies.add(row.study_id)
        self.subjects.add(row.subject_id)
        self.renderings.add(row.rendering)
        self.prompts.add((row.prompt_name, row.prompt_version, row.prompt_sha256, row.prompt_given))
        self.simulated += row.provider == "simulated"
        self.cost_usd = add_cost(self.cost_usd, row.cost_usd)
        if row.model_reported is not None:
            self.models_reported[row.teacher].add(row.model_reported)
        if row.labeler is not None:
            self.labelers.add(row.labeler)
        # Of all that a row holds: another labeler makes other trajectories of the same replies.
        self.digest.update(json.dumps(written, default=str, sort_keys=True).encode())

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


def write_release(ledger: Ledger, folder: Path, info: SourceInfo, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Derive a release from the ledger alone, and return its manifest.

    The consensus and preferences configs are kept if the trajectories they came from are the same still.

    Args:
        settings: what the run was asked for, without local paths, and the prices it was paid at.

    Raises:
        StorageError: the disk refused; the ledger is untouched and the same command finishes the release.
    """
    before = _manifest_of(folder) or {}
    _break_seal(folder)
    tally = _Tally()
    _write_shards(ledger, folder / "data" / CONFIG, tally)
    manifest = _manifest(ledger, info, settings, tally)
    derived = before.get("derived", {})
    if derived and before["trajectories_digest"] == manifest["trajectories_digest"]:
        manifest["derived"] = derived
        manifest["counts"] |= {config: before["counts"][config] for config in derived}
    return _seal(folder, manifest)


def write_rows(
    folder: Path,
    info: SourceInfo,
    counts: Mapping[str, int],
    rows_of: Callable[[str], Iterator[dict[str, Any]]],
    imported: Mapping[str, Any],
) -> dict[str, Any]:
    """Seal rows that were made elsewhere as a release, and return its manifest.

    Args:
        counts: rows per split.
        rows_of: from a split to its rows, in a release's order; null where nothing is known.
        imported: what the manifest shall say of where they come from.

    Raises:
        StorageError: the disk refused.
    """
    _break_seal(folder)
    tally = _Tally()

    def tallied(split: str) -> Iterator[dict[str, Any]]:
        for row in rows_of(split):
            tally.add(trajectory_of_row(row), row)
            yield row

    write_config(folder / "data" / CONFIG, counts, tallied, trajectory_schema())
    tally.prompts = {prompt for prompt in tally.prompts if prompt[0] in prompts.names()}
    tally.renderings = {rendering for rendering in tally.renderings if rendering}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "cxr_max_version": __version__,
        "source": asdict(info),
        "settings": {},
        "imported": dict(imported),
        "simulated": tally.simulated > 0,
        "derived": {},
        "prompts": [dict(zip(_PROMPT, prompt, strict=True)) for prompt in sorted(tally.prompts)],
        "labelers": sorted(tally.labelers),
        "counts": {CONFIG: tally.counts()},
        "missing": {"gaps": 0, "failed": 0},
        "cost_usd": tally.cost_usd,
        "trajectories_digest": tally.digest.hexdigest(),
    }
    return _seal(folder, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a sealed release.

    Raises:
        RequestError: there is none, so the release is unfinished or no release at all.
    """
    manifest = _manifest_of(folder)
    if manifest is None:
        raise RequestError(f"{folder} holds no sealed release: give the release of a finished cxr-max build.")
    return manifest


def add_configs(folder: Path, configs: Mapping[str, Callable[[], Mapping[str, Any]]]) -> dict[str, Any]:
    """Write configs that were derived from the trajectories, and renew the seal.

    Args:
        configs: by name, what writes its shards and returns what the manifest shall say of it: ``counts`` and
            ``method``.

    Raises:
        RequestError: the release is not sealed.
        StorageError: the disk refused.
    """
    manifest = read_manifest(folder)
    _break_seal(folder)
    for config, write in configs.items():
        made = write()
        manifest["counts"][config] = made["counts"]
        manifest["derived"][config] = {"method": made["method"], "from": manifest["trajectories_digest"]}
    return _seal(folder, manifest)


def _manifest_of(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _break_seal(folder: Path) -> None:
    with disk_refusals_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").unlink(missing_ok=True)


def _seal(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Drop what no longer belongs, write the card, hash every file, and write the manifest last."""
    present = [CONFIG, *manifest["derived"]]
    for stale in _DERIVABLE - set(present):
        shutil.rmtree(folder / "data" / stale, ignore_errors=True)
    shards = {config: sorted((folder / "data" / config).glob("*.parquet")) for config in present}
    splits = {config: {path.name.partition("-")[0] for path in paths} for config, paths in shards.items() if paths}
    write_text(folder / "README.md", card(manifest, splits))
    files = [folder / "README.md", *(path for paths in shards.values() for path in paths)]
    manifest["files"] = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for file in sorted(files)
    }
    write_text(folder / "manifest.json", canonical_json(manifest))
    return manifest


def _write_shards(ledger: Ledger, folder: Path, tally: _Tally) -> None:
    with disk_refusals_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    counts = dict(sorted(ledger.split_counts().items()))
    write_config(folder, counts, lambda split: _rows(ledger, split, tally), trajectory_schema())


def _rows(ledger: Ledger, split: str, tally: _Tally) -> Iterator[dict[str, Any]]:
    for question, answered in ledger.rows(split):
        trajectory = trajectory_of(question, answered)
        row = row_of(trajectory)
        tally.add(trajectory, row)
        yield row


def _manifest(ledger: Ledger, info: SourceInfo, settings: Mapping[str, Any], tally: _Tally) -> dict[str, Any]:
    planned = ledger.teacher_counts()
    return {
        "schema_version": SCHEMA_VERSION,
        "cxr_max_version": __version__,
        "source": asdict(info),
        "settings": dict(settings),
        "simulated": tally.simulated > 0,
        "derived": {},
        "prompts": [dict(zip(_PROMPT, prompt, strict=True)) for prompt in sorted(tally.prompts)],
        "labelers": sorted(tally.labelers),
        "counts": {CONFIG: tally.counts()},
        "missing": {
            "gaps": len(ledger.gaps()),
            "failed": sum(rows - answered for rows, answered in planned.values()),
        },
        "cost_usd": tally.cost_usd,
        "trajectories_digest": tally.digest.hexdigest(),
    }
