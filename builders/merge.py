"""Two runs of one source, made on two machines, become one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_max.builders.run_folder import RunFolder
from cxr_max.builders.withdraw import take_over
from cxr_max.errors import RequestError, RunLockedError
from cxr_max.ledger_merge import Merged, merge

_LEDGERS = ("ledger.sqlite", "consensus.sqlite")
"""What was asked of teachers, and of a model that puts the consensus into words."""


@dataclass(frozen=True, slots=True)
class MergedRun:
    """What came out of one folder."""

    folder: Path
    ledger: Merged
    consensus: Merged | None
    """``None`` where no model was asked there for the consensus."""


def merge_runs(into: Path, others: Sequence[Path]) -> tuple[MergedRun, ...]:
    """Take over the replies and plans of other runs' folders; these are only read.

    Every folder is checked before any is merged, and each is merged whole or not at all.

    Raises:
        RequestError: a folder holds no build, is named twice, was begun with other settings, or see ``merge``.
        RunLockedError: a job is at work in one of them.
        StorageError: see ``merge``.
    """
    target = RunFolder(into)
    begun = _begun(target)
    seen = [target.root.resolve()]
    for other in map(RunFolder, others):
        _refuse_different(target, begun, other, _begun(other))
        if other.root.resolve() in seen:
            raise RequestError(f"{other.root} is named twice: give INTO, then the other runs, each once.")
        seen.append(other.root.resolve())
        if other.at_work():
            raise RunLockedError(
                f"A job is at work in {other.root}: wait for it, or stop it; its replies are kept."
            )
    with target.locked():
        merged = tuple(_merged(target, RunFolder(other)) for other in others)
        for folder in (target.root, *others):
            take_over(target, RunFolder(folder))
        return merged


def _merged(target: RunFolder, other: RunFolder) -> MergedRun:
    ledger, consensus = (
        merge(target.root / name, other.root / name) if (other.root / name).exists() else None for name in _LEDGERS
    )
    assert ledger is not None
    return MergedRun(other.root, ledger, consensus)


def _begun(folder: RunFolder) -> dict[str, str]:
    settings = folder.begun() if folder.settings.is_file() and folder.ledger.exists() else {}
    if "source" not in settings:
        raise RequestError(f"{folder.root} holds no build's ledger with its run.toml: give the --out of a build.")
    return settings


def _refuse_different(target: RunFolder, ours: dict[str, str], other: RunFolder, theirs: dict[str, str]) -> None:
    for name in sorted({*ours, *theirs}):
        if _portable(name, ours.get(name)) != _portable(name, theirs.get(name)):
            raise RequestError(
                f"{target.root} was begun with {name} = {ours.get(name)!r} and {other.root} with"
                f" {theirs.get(name)!r}: only runs that ask the same of the same source can be merged."
            )


def _portable(name: str, value: str | None) -> str | bool | None:
    """A setting without the paths of one machine."""
    if name == "labels":
        return bool(value)
    if name == "source" and value is not None and not value.startswith("phantom"):
        return value.partition(":")[0]
    return value
