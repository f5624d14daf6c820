"""What a run has, lacks and cost so far: read at one moment, written nowhere, safe while a job is at work."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from cxr_max.builders.run_folder import RunFolder
from cxr_max.errors import RequestError
from cxr_max.ledger_summary import LedgerSummary, Replies, TeacherSummary, Version, summarise

Kind = Literal["build", "evaluation"]
Seal = Literal["sealed", "stale", "not sealed"]
"""``stale``: the ledger holds other rows than the release was made of."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What ``cxr-max status`` says."""

    kind: Kind
    settings: Mapping[str, str]
    """As in ``run.toml``."""
    at_work: bool
    """Whether a job holds the folder's lock."""
    ledger: LedgerSummary | None
    """``None``: nobody was asked yet, or nobody is to be."""
    seal: Seal
    """Of the release, or of the evaluation's result."""
    statuses: Mapping[str, Mapping[str, int]]
    """By teacher, how many rows of the sealed release are ok, refused, truncated, filtered or unparsed. Refusals
    in mere words are counted here only."""
    derived: tuple[str, ...]
    """Configs of the release that are made from its trajectories."""
    consensus: LedgerSummary | None
    """What was asked of the model that puts the consensus into words."""

    @property
    def complete(self) -> bool:
        """Whether every planned row is answered, nothing is missing, and the seal is fresh."""
        lacks = self.ledger is not None and (self.ledger.answered < self.ledger.planned or bool(self.ledger.gaps))
        return self.seal == "sealed" and not lacks


def status_of_run(root: Path, now: datetime) -> RunStatus:
    """Look into a run's or an evaluation's folder.

    Args:
        now: in UTC; how fast replies come lately is counted back from it.

    Raises:
        RequestError: there is no run in the folder, or its ledger is of a newer version.
        StorageError: its ledger is damaged.
    """
    folder = RunFolder(root)
    if not folder.settings.is_file() and not folder.ledger.is_file():
        raise RequestError(f"{root} holds no run: give the --out of a cxr-max build or eval.")
    settings = _settings(folder.settings)
    kind: Kind = "evaluation" if "release" in settings else "build"
    ledger = summarise(folder.ledger, now) if folder.ledger.exists() else None
    manifest = _json(folder.release / "manifest.json")
    written = root / "consensus.sqlite"
    return RunStatus(
        kind=kind,
        settings=settings,
        at_work=folder.at_work(),
        ledger=ledger,
        seal=_seal(folder, kind, manifest, ledger),
        statuses=manifest["counts"]["trajectories"]["by_teacher"] if manifest else {},
        derived=tuple(sorted(manifest["derived"])) if manifest else (),
        consensus=summarise(written, now) if written.exists() else None,
    )


def as_json(status: RunStatus) -> dict[str, Any]:
    """One object for ``--json``; times in ISO 8601."""
    ledger = status.ledger
    return {
        "kind": status.kind,
        "at_work": status.at_work,
        "sealed": status.seal != "not sealed",
        "stale": status.seal == "stale",
        "complete": status.complete,
        "teachers": {} if ledger is None else _teachers(ledger, status.statuses),
        "gaps": 0 if ledger is None else len(ledger.gaps),
        "others": None if ledger is None else _replies(ledger.others),
        "batches": {} if ledger is None else dict(ledger.batches),
        "derived": list(status.derived),
        "consensus": None if status.consensus is None else _consensus(status.consensus),
    }


def _settings(path: Path) -> Mapping[str, str]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        # A build refuses to go on without it; what is in the ledger can be told all the same.
        return {}


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _seal(folder: RunFolder, kind: Kind, manifest: dict[str, Any] | None, ledger: LedgerSummary | None) -> Seal:
    if kind == "evaluation":
        return "sealed" if (folder.root / "result" / "result.json").is_file() else "not sealed"
    if manifest is None:
        return "not sealed"
    if ledger is None:
        return "stale"
    written = {
        teacher: sum(rows.values()) for teacher, rows in manifest["counts"]["trajectories"]["by_teacher"].items()
    }
    answered = {name: teacher.answered for name, teacher in ledger.teachers.items() if teacher.answered}
    sealed_at = (folder.release / "manifest.json").stat().st_mtime
    last = max((t.replies.last.timestamp() for t in ledger.teachers.values() if t.replies.last), default=0.0)
    return "sealed" if written == answered and last <= sealed_at else "stale"


def _teachers(ledger: LedgerSummary, statuses: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    return {name: _teacher(one, statuses.get(name)) for name, one in ledger.teachers.items()}


def _teacher(teacher: TeacherSummary, statuses: Mapping[str, int] | None) -> dict[str, Any]:
    reasons = [{**asdict(reason), "last": reason.last.isoformat()} for reason in teacher.reasons]
    return {
        "planned": teacher.planned,
        "answered": teacher.answered,
        "failed": teacher.failed,
        "reasons": reasons,
        "statuses": statuses,
        **_replies(teacher.replies),
    }


def _replies(replies: Replies) -> dict[str, Any]:
    return {
        "replies": replies.count,
        "ended": dict(replies.ended),
        "input_tokens": replies.input_tokens,
        "output_tokens": replies.output_tokens,
        "cost_usd": None if replies.unpriced else replies.cost_usd,
        "known_cost_usd": replies.cost_usd,
        "unpriced": replies.unpriced,
        "first": replies.first and replies.first.isoformat(),
        "last": replies.last and replies.last.isoformat(),
        "last_hour": replies.lately,
        "per_hour": replies.per_hour,
        "models_reported": [_version(version) for version in replies.versions],
    }


def _version(version: Version) -> dict[str, Any]:
    return {
        "model": version.model,
        "replies": version.replies,
        "first": version.first.isoformat(),
        "last": version.last.isoformat(),
    }


def _consensus(ledger: LedgerSummary) -> dict[str, Any]:
    return {**_replies(ledger.others), "failed": {name: one.failed for name, one in ledger.teachers.items()}}
