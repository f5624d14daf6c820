"""Subjects are taken out of a sealed release, in all its configs, and stay out of what is built from its run.

The new shards are made beside the old ones, under ``.withdrawing`` in the release, while the old seal holds. The
new manifest's draft is written there last; from then on the withdrawal is decided, and whatever kills the process,
the next ``withdraw`` finishes it: the seal is broken, the shards change places, the release is sealed again. So no
half is ever sealed.

Where the release lies in its run's folder, ``withdrawn.json`` beside ``run.toml`` keeps the subjects, so that no
build asks about them or writes them again. It is never published; nor are the subjects' names in the manifest's
record. The ledger keeps the replies that were paid for.
"""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from cxr_max.builders.release import (
    CONFIG,
    DERIVABLE,
    STAGING,
    break_seal,
    digest_of,
    read_manifest,
    seal,
    shards_of,
)
from cxr_max.builders.run_folder import RunFolder
from cxr_max.builders.tallies import split_of
from cxr_max.errors import RequestError
from cxr_max.ledger import Ledger
from cxr_max.schemas import schema_of
from cxr_max.shards import canonical_json, disk_refusals_named, sha256_of, write_config, write_text

_DRAFT: Final = "draft.json"
_LIST: Final = "withdrawn.json"


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What was taken out of a release."""

    release: str
    subjects: int
    rows: Mapping[str, int]
    """By config."""
    finished: bool
    """Whether an earlier, interrupted withdrawal was finished first."""


def withdraw(release: Path, subjects: Collection[str], reason: str, *, today: date) -> Withdrawn:
    """Take every row about these subjects out of a release and renew its seal.

    Args:
        reason: one line for the manifest and the card; it must name nobody.

    Raises:
        RequestError: the release is not sealed, no subject or reason is given, the reason names a subject, no row
            is about any of them, or a shard is not the one that the manifest lists.
        RunLockedError: a job is at work in the release's run.
        StorageError: the disk refused; the same command goes on.
    """
    _refuse_unclear(subjects, reason)
    run = RunFolder(release.resolve().parent) if (release.resolve().parent / "run.toml").is_file() else None
    with ExitStack() as held:
        if run is not None:
            held.enter_context(run.locked())
        finished = finish(release)
        manifest = read_manifest(release)
        _refuse_changed(release, manifest)
        found = _present(release, subjects)
        if not found:
            if finished:
                return Withdrawn(str(release), 0, {}, True)
            raise RequestError(
                f"{release} has no row about {'this subject' if len(subjects) == 1 else 'any of these subjects'}:"
                " give identifiers as the column subject_id has them."
            )
        draft = _stage(release, manifest, found, {"date": today.isoformat(), "reason": reason.strip()})
        if run is not None:
            # Before it is decided: else a build after a kill would bring them back.
            _remember(run, found, draft["withdrawn"])
        write_text(release / STAGING / _DRAFT, canonical_json(draft))
        record = draft["withdrawn"][-1]
        finish(release)
    return Withdrawn(str(release), record["subjects"], record["rows"], finished)


def _refuse_unclear(subjects: Collection[str], reason: str) -> None:
    if not subjects:
        raise RequestError("Nobody is named: give --subject ID, or --subjects FILE with a column subject_id.")
    if not reason.strip() or "\n" in reason.strip():
        raise RequestError("A withdrawal needs a --reason of one line, such as 'consent withdrawn'.")
    if any(subject in reason for subject in subjects):
        raise RequestError("The --reason names a subject, and it is published: leave the identifier out.")


def _refuse_changed(release: Path, manifest: Mapping[str, Any]) -> None:
    """A new seal must not make whole what was changed or lost under the old one."""
    for name, entry in manifest["files"].items():
        if name.endswith(".parquet") and not (
            (release / name).is_file() and sha256_of(release / name) == entry["sha256"]
        ):
            raise RequestError(
                f"{release / name} is not the file that the manifest lists: cxr-max verify says what else is"
                " wrong; get the release anew, then withdraw."
            )


def _present(release: Path, subjects: Collection[str]) -> frozenset[str]:
    """Those of the subjects that have rows."""
    import pyarrow.parquet as pq

    found: set[str] = set()
    for shard in shards_of(release, CONFIG):
        column = pq.read_table(shard, columns=["subject_id"])["subject_id"]
        found.update(set(column.unique().to_pylist()) & set(subjects))
    return frozenset(found)


def _stage(
    release: Path, manifest: Mapping[str, Any], subjects: frozenset[str], record: dict[str, Any]
) -> dict[str, Any]:
    """Make the new shards, and return the draft of the new manifest."""
    staging = release / STAGING
    with disk_refusals_named(staging):
        shutil.rmtree(staging, ignore_errors=True)
    gone: set[str] = set()
    removed: dict[str, int] = {}
    for config in (CONFIG, *(name for name in DERIVABLE if name in manifest["derived"])):
        removed[config] = _filter(release, config, manifest["schema_version"], subjects, gone)
    digest = digest_of({shard: sha256_of(shard) for shard in shards_of(staging, CONFIG)})
    derived = {config: {**made, "from": digest} for config, made in manifest["derived"].items()}
    records = [*manifest.get("withdrawn", ()), {**record, "subjects": len(subjects), "rows": removed}]
    return {**manifest, "derived": derived, "withdrawn": records}


def _filter(release: Path, config: str, version: int, subjects: frozenset[str], gone: set[str]) -> int:
    """Write one config's rows without the subjects', and return how many were left out.

    Args:
        gone: their studies; filled by the trajectories, which name subjects, and used for what names studies only.
    """
    import pyarrow.parquet as pq

    kept: dict[str, int] = {}
    before = 0
    shards: dict[str, list[Path]] = {}
    for shard in shards_of(release, config):
        shards.setdefault(split_of(shard), []).append(shard)
        names = ["study_id", *(["subject_id"] if config == CONFIG else [])]
        rows = pq.read_table(shard, columns=names).to_pylist()
        if config == CONFIG:
            gone.update(row["study_id"] for row in rows if row["subject_id"] in subjects)
        before += len(rows)
        kept[split_of(shard)] = kept.get(split_of(shard), 0) + sum(
            not _is_about(row, subjects, gone) for row in rows
        )

    def rows_of(split: str) -> Iterator[dict[str, Any]]:
        for shard in shards[split]:
            with pq.ParquetFile(shard) as file:
                for group in range(file.num_row_groups):
                    for row in file.read_row_group(group).to_pylist():
                        if not _is_about(row, subjects, gone):
                            yield row

    (release / STAGING / "data" / config).mkdir(parents=True, exist_ok=True)
    counts = {split: count for split, count in sorted(kept.items()) if count}
    write_config(release / STAGING / "data" / config, counts, rows_of, schema_of(config, version))
    return before - sum(counts.values())


def _is_about(row: Mapping[str, Any], subjects: frozenset[str], studies: Collection[str]) -> bool:
    return row["subject_id"] in subjects if "subject_id" in row else row["study_id"] in studies


def finish(release: Path) -> bool:
    """Bring a decided withdrawal to its end, and clear away one that was not; whether there was one to finish.

    Raises:
        StorageError: the disk refused.
    """
    staging = release / STAGING
    if not staging.exists():
        return False
    decided = (staging / _DRAFT).is_file()
    if decided:
        break_seal(release)
        draft = json.loads((staging / _DRAFT).read_text("utf-8"))
        with disk_refusals_named(release):
            for config in (CONFIG, *draft["derived"]):
                _change_places(release, config)
        seal(release, draft)
    with disk_refusals_named(release):
        # The draft first: without the shards it would take more away.
        (staging / _DRAFT).unlink(missing_ok=True)
        shutil.rmtree(staging)
    return decided


def _change_places(release: Path, config: str) -> None:
    """The new shards are copied, not moved: whoever finishes after a kill finds them all."""
    new, old = release / STAGING / "data" / config, release / "data" / config
    made = sorted(new.glob("*-of-*.parquet"))
    for shard in made:
        partial = old / f"{shard.name}.partial"
        shutil.copyfile(shard, partial)
        partial.replace(old / shard.name)
    for stale in {path.name for path in shards_of(release, config)} - {shard.name for shard in made}:
        (old / stale).unlink()


# What the run remembers.


def withdrawn_of(run: RunFolder) -> tuple[frozenset[str], Sequence[Mapping[str, Any]]]:
    """The subjects that were withdrawn from a run, and the records that its release's manifest has of it.

    Raises:
        RequestError: the list is damaged.
    """
    path = run.root / _LIST
    if not path.exists():
        return frozenset(), ()
    try:
        said = json.loads(path.read_text("utf-8"))
        return frozenset(said["subjects"]), tuple(said["records"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{path} cannot be read ({error}), so nobody knows who was withdrawn: put it right before building."
        ) from error


def _remember(run: RunFolder, subjects: Collection[str], records: Sequence[Mapping[str, Any]]) -> None:
    """Keep the list first, then take their rows out of the ledger's plan; their replies stay."""
    before, _ = withdrawn_of(run)
    said = {"subjects": sorted(before | set(subjects)), "records": list(records)}
    write_text(run.root / _LIST, canonical_json(said))
    with Ledger(run.ledger) as ledger:
        ledger.forget(subjects)


def take_over(run: RunFolder, other: RunFolder) -> None:
    """Whoever was withdrawn from a run that is merged into another stays out of that one too."""
    subjects, theirs = withdrawn_of(other)
    ours = withdrawn_of(run)[1]
    if subjects:
        _remember(run, subjects, [*ours, *(record for record in theirs if record not in ours)])
