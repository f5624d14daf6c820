"""Whether a release holds what it says: every check of ``cxr-max verify``, in one pass over its rows.

Nothing is written. Memory holds some row groups, and of all rows their identity.
"""

import csv
import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from pydantic import BaseModel, ValidationError

from cxr_max.builders.checks import files
from cxr_max.builders.checks.base import Defect, Defects, parts
from cxr_max.builders.checks.derived import DerivedRows
from cxr_max.builders.checks.rows import TrajectoryRows
from cxr_max.builders.release import CONFIG, DERIVABLE, digest_of, manifest_of, read_manifest
from cxr_max.builders.sources.base import SourceInfo
from cxr_max.builders.tallies import split_of
from cxr_max.errors import RequestError
from cxr_max.records import SPLITS
from cxr_max.shards import canonical_json

Watch = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""
_COUNTED: Final = ("simulated", "prompts", "labelers", "counts", "cost_usd")
"""What the manifest says that the shards tell too."""


class _File(BaseModel):
    bytes: int
    sha256: str


class _Prompt(BaseModel):
    sha256: str
    text: str | None


class _Trajectories(BaseModel):
    rows: int


class _Counts(BaseModel):
    trajectories: _Trajectories


class _Derived(BaseModel):
    method: str


class _Shape(BaseModel):
    """What a manifest must have before it can be compared with anything."""

    schema_version: int
    cxr_max_version: str
    source: dict[str, str | list[str] | dict[str, int]]
    derived: dict[str, _Derived]
    prompts: list[_Prompt]
    counts: _Counts
    files: dict[str, _File]
    trajectories_digest: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in a release."""

    release: str
    rows: int
    """Trajectories that were read."""
    defects: tuple[Defect, ...]
    """The first few of each kind."""
    counts: Mapping[str, int]
    """All defects, by kind."""

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.counts


def check_release(
    release: Path, *, excluded: Iterable[str] = (), watch: Watch = lambda *_: None
) -> Verdict:  # fmt: skip
    """Look a sealed release over.

    Args:
        excluded: subjects that may not be in the train split, as those of a benchmark.

    Raises:
        RequestError: it is no release, or of a schema that only a newer version reads.
    """
    manifest = _manifest(release)
    defects = Defects()
    watch("Hashing", 0, 1)
    hashes = files.check_files(release, manifest["files"], defects)
    watch("Hashing", 1, 1)
    files.check_texts_of_files(release, defects)
    shards = _shards(release, manifest, hashes, defects)
    rows = TrajectoryRows(
        defects,
        frozenset(entry["sha256"] for entry in manifest["prompts"]),
        frozenset(excluded),
        manifest["counts"][CONFIG]["rows"],
    )
    total = sum(len(paths) for paths in shards.values())
    done = 0
    for config, paths in shards.items():
        look = rows if config == CONFIG else DerivedRows(config, rows.asked, rows.studies, defects)
        for path in paths:
            for part in parts(release, path, split_of(path)):
                look.add(part)
            done += 1
            watch("Reading", done, total)
        if config == CONFIG:
            rows.finish()
    _check_manifest(release, manifest, shards, hashes, defects)
    if not defects.counts["changed file"]:
        files.check_description(release, manifest, hashes, defects)
    told = tuple(sorted(defects.told, key=lambda defect: (defect.check, defect.file, defect.row or 0)))
    return Verdict(str(release), rows.seen, told, dict(sorted(defects.counts.items())))


def _manifest(release: Path) -> dict[str, Any]:
    manifest = read_manifest(release)
    try:
        _Shape.model_validate(manifest)
        SourceInfo(**manifest["source"])
    except (ValidationError, TypeError) as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else "source"
        raise RequestError(
            f"The manifest of {release} is not as cxr-max writes it (see {where}), so nothing can be held against"
            " it: build the release again, or get it anew."
        ) from error
    return manifest


def _shards(
    release: Path, manifest: Mapping[str, Any], hashes: Mapping[str, str], defects: Defects
) -> dict[str, list[Path]]:
    """The shards that can be read, by config, trajectories first."""
    names = sorted(name for name in hashes if name.endswith(".parquet"))
    files.check_shard_names(names, defects)
    found: dict[str, list[Path]] = {}
    for config in (CONFIG, *DERIVABLE):
        ours = [name for name in names if name.startswith(f"data/{config}/")]
        for name in ours:
            readable = files.has_schema(release, name, config, manifest["schema_version"], defects)
            if readable and split_of(Path(name)) in SPLITS:
                found.setdefault(config, []).append(release / name)
    return found


def _check_manifest(
    release: Path,
    manifest: Mapping[str, Any],
    shards: Mapping[str, list[Path]],
    hashes: Mapping[str, str],
    defects: Defects,
) -> None:
    """Counts, digest and sources of the derived configs, computed again from what could be read."""
    ours = {Path(name): sha256 for name, sha256 in hashes.items() if name.startswith(f"data/{CONFIG}/")}
    digest = digest_of(ours)
    if digest != manifest["trajectories_digest"]:
        message = "trajectories_digest is not that of the trajectories that are here."
        defects.add("digest", "manifest.json", message)
    for config, made in manifest["derived"].items():
        if made.get("from") != digest:
            defects.add("stale config", f"data/{config}", f"{config} was made of other trajectories than these.")
    for config in shards:
        if config != CONFIG and config not in manifest["derived"]:
            defects.add(
                "stale config", f"data/{config}", f"{config} is here, and the manifest does not know of it."
            )
    if CONFIG not in shards or defects.counts["schema"]:
        return
    recounted = json.loads(canonical_json(manifest_of(manifest, shards)))
    for name in _COUNTED:
        for where in _differences(manifest.get(name), recounted[name], name):
            defects.add("counts", "manifest.json", where)


def _differences(said: Any, counted: Any, name: str) -> Iterable[str]:
    """Where what the manifest says is not what was counted."""
    if isinstance(said, dict) and isinstance(counted, dict):
        for key in sorted({*said, *counted}):
            yield from _differences(said.get(key), counted.get(key), f"{name}.{key}")
    elif said != counted and not (said != said and counted != counted):  # not a number equals nothing
        yield f"{name} is {_short(said)}, and the rows give {_short(counted)}."


def _short(value: Any) -> str:
    return str(value)[:120]


def read_subjects(path: Path) -> frozenset[str]:
    """The subjects of a CSV table with a column ``subject_id``, as MS-CXR-T's own tables have.

    A number may be written with the ``p`` of MIMIC's folders.

    Raises:
        RequestError: the table cannot be read, or has no such column.
    """
    try:
        with _opened(path) as file:
            table = csv.DictReader(file)
            if "subject_id" not in (table.fieldnames or ()):
                raise RequestError(f"{path} has no column subject_id: give a CSV table that names subjects.")
            found = frozenset(filter(None, (_plain(row["subject_id"]) for row in table)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(
            f"{path} cannot be read as a CSV table ({error}): give one with a subject_id."
        ) from error
    return found


def _opened(path: Path) -> TextIO:
    kept = {"encoding": "utf-8-sig", "newline": ""}
    return gzip.open(path, "rt", **kept) if path.suffix == ".gz" else path.open(**kept)  # type: ignore[call-overload,no-any-return]


def _plain(cell: str | None) -> str:
    text = (cell or "").strip()
    return text[1:] if text[:1] == "p" and text[1:].isdecimal() else text
