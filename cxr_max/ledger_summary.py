"""What a ledger has, lacks and cost: counted in one pass by a reader that never writes.

A build may be at work meanwhile: what is counted is one moment of it. An older schema is read as it is.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cxr_max.errors import RequestError
from cxr_max.ledger import Gap, refusals_named, refuse_empty
from cxr_max.ledger_schema import SCHEMA_VERSION

LATELY: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Version:
    """One model that a service says answered."""

    model: str | None
    """``None``: replies that name none."""
    replies: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Reason:
    """Why requests got no reply."""

    kind: str
    message: str
    times: int
    last: datetime


@dataclass(frozen=True, slots=True)
class Replies:
    """Purchases, each counted once, however many rows share it."""

    count: int = 0
    ended: Mapping[str, int] = field(default_factory=dict)
    """By the service's own sign: ``stop``, ``length``, ``filtered``, ``refused``. A refusal in mere words is a
    ``stop``: reading every text takes longer than a status may."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    """Of those whose cost is known."""
    unpriced: int = 0
    """Those whose cost is not."""
    first: datetime | None = None
    last: datetime | None = None
    lately: int = 0
    """In the hour before now."""
    per_hour: float | None = None
    """Over that hour, or the shorter time since the first of its replies; ``None`` where there is none."""
    versions: tuple[Version, ...] = ()
    """In the order in which they were first reported."""


@dataclass(frozen=True, slots=True)
class TeacherSummary:
    """One teacher's side of a run."""

    planned: int
    """Rows."""
    answered: int
    """Rows, of those planned."""
    failed: int
    """Planned requests whose last attempt failed."""
    reasons: tuple[Reason, ...]
    """Of these, the commonest first."""
    replies: Replies


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """Everything that ``cxr-max status`` says about one ledger."""

    teachers: Mapping[str, TeacherSummary]
    others: Replies
    """Replies that no planned row asks for: those of an earlier plan, or all where rows are not planned at all."""
    gaps: tuple[Gap, ...]
    batches: Mapping[str, int]
    """Batches that a service has or may have, by teacher."""

    @property
    def planned(self) -> int:
        """Rows."""
        return sum(teacher.planned for teacher in self.teachers.values())

    @property
    def answered(self) -> int:
        """Rows."""
        return sum(teacher.answered for teacher in self.teachers.values())


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A ledger's file, for reading at one moment.

    Raises:
        RequestError: it is absent, no ledger, or of a newer schema; or it cannot be opened.
        StorageError: it is damaged.
    """
    if not path.is_file():
        raise RequestError(f"There is no ledger {path}: give the folder of a cxr-max build.")
    with refusals_named(path):
        refuse_empty(path)
    connection = sqlite3.connect(uri_of(path), uri=True, isolation_level=None)
    with closing(connection) as db, refusals_named(path):
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            raise RequestError(f"{path} is not a ledger: move it away, or use another --out.")
        if version > SCHEMA_VERSION:
            raise RequestError(
                f"{path} has ledger schema {version}, and this version of cxr-max reads up to {SCHEMA_VERSION}:"
                " use the cxr-max that wrote it."
            )
        db.execute("BEGIN")
        yield db


def uri_of(path: Path) -> str:
    """A ledger's name for SQLite, read-only. One on a medium that lets nobody write lies still, and needs no log
    beside it.

    Raises:
        RequestError: it cannot be opened.
    """
    log = path.with_name(path.name + "-wal")
    modes = ["mode=ro"] if log.exists() and log.stat().st_size else ["mode=ro", "mode=ro&immutable=1"]
    for mode in modes:
        uri = f"{path.resolve().as_uri()}?{mode}"
        try:
            with closing(sqlite3.connect(uri, uri=True)) as db:
                db.execute("PRAGMA schema_version")
        except sqlite3.OperationalError as error:
            refusal = str(error)
        except sqlite3.DatabaseError:
            # It opens; what is wrong with it is named by whoever reads it.
            return uri
        else:
            return uri
    raise RequestError(f"The ledger {path} cannot be opened ({refusal}): copy the run to where you may write.")


def summarise(path: Path, now: datetime) -> LedgerSummary:
    """Count what a ledger holds.

    Args:
        now: in UTC.

    Raises:
        RequestError, StorageError: see ``reading``.
    """
    with reading(path) as db:
        plan = _Plan()
        plan.read(db)
        replies, others = _replies(db, plan, now)
        reasons = _reasons(db, plan)
        teachers = {
            name: TeacherSummary(
                planned=planned,
                answered=replies[name].count + plan.answered_again(db, name),
                failed=sum(reason.times for reason in reasons[name]),
                reasons=reasons[name],
                replies=replies[name],
            )
            for name, planned in sorted(plan.rows.items())
        }
        # Where nothing is planned, as of a consensus, failures still say who was asked.
        for name in sorted(set(reasons) - set(teachers)):
            failed = sum(reason.times for reason in reasons[name])
            teachers[name] = TeacherSummary(0, 0, failed, reasons[name], Replies())
        return LedgerSummary(teachers, others, _gaps(db), _batches(db))


def models_reported(path: Path) -> dict[str, list[str]]:
    """The model versions that every teacher's replies name, the first reported first."""
    with reading(path) as db:
        plan = _Plan()
        plan.read(db)
        query = "SELECT teacher_of(request_sha256), model_reported, MIN(created_at) FROM replies GROUP BY 1, 2"
        rows = sorted(db.execute(query), key=lambda row: str(row[2]))
    found: dict[str, list[str]] = defaultdict(list)
    for teacher, model, _ in rows:
        if teacher is not None and model is not None:
            found[teacher].append(model)
    return dict(found)


class _Plan:
    """Which teacher each planned request is for; equal requests of several rows are one purchase."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.teacher: dict[str, str] = {}
        self._again: dict[str, list[str]] = defaultdict(list)
        """By teacher: requests of rows beyond the first that asks them."""

    def read(self, db: sqlite3.Connection) -> None:
        for teacher, key in db.execute("SELECT teacher, request_sha256 FROM questions"):
            self.rows[teacher] += 1
            if key in self.teacher:
                self._again[teacher].append(key)
            else:
                self.teacher[key] = teacher
        # A join would look 170,000 rows up one by one.
        db.create_function("teacher_of", 1, self.teacher.get, deterministic=True)

    def answered_again(self, db: sqlite3.Connection, teacher: str) -> int:
        query = "SELECT 1 FROM replies WHERE request_sha256 = ?"
        return sum(db.execute(query, (key,)).fetchone() is not None for key in self._again[teacher])


_COUNTED: Final = """
SELECT teacher_of(request_sha256), model_reported, ended, COUNT(*), COUNT(cost_usd), TOTAL(cost_usd),
    TOTAL(input_tokens), TOTAL(output_tokens), MIN(created_at), MAX(created_at), SUM(created_at > ?1),
    MIN(CASE WHEN created_at > ?1 THEN created_at END)
FROM replies GROUP BY 1, 2, 3
"""
"""Times are all in UTC and in ISO 8601, which sorts as time does. No text is read: it would fill the sorter."""


def _replies(db: sqlite3.Connection, plan: _Plan, now: datetime) -> tuple[dict[str, Replies], Replies]:
    groups: dict[str | None, list[tuple[Any, ...]]] = {None: [], **{name: [] for name in plan.rows}}
    for teacher, *counts in db.execute(_COUNTED, ((now - LATELY).isoformat(),)):
        groups[teacher].append(tuple(counts))
    counted = {name: _added(group, now) for name, group in groups.items()}
    others = counted.pop(None)
    return {name: replies for name, replies in counted.items() if name is not None}, others


def _added(group: list[tuple[Any, ...]], now: datetime) -> Replies:
    if not group:
        return Replies()
    ended: Counter[str] = Counter()
    versions: dict[str | None, Version] = {}
    for model, end, count, _, _, _, _, first, last, *_ in group:
        ended[end] += count
        begun, until = datetime.fromisoformat(first), datetime.fromisoformat(last)
        known = versions.get(model, Version(model, 0, begun, until))
        versions[model] = Version(model, known.replies + count, min(known.first, begun), max(known.last, until))
    lately = sum(row[9] for row in group)
    since = min((datetime.fromisoformat(row[10]) for row in group if row[10]), default=now)
    return Replies(
        count=ended.total(),
        ended=dict(ended),
        input_tokens=int(sum(row[5] for row in group)),
        output_tokens=int(sum(row[6] for row in group)),
        cost_usd=sum(row[4] for row in group),
        unpriced=sum(row[2] - row[3] for row in group),
        first=min(version.first for version in versions.values()),
        last=max(version.last for version in versions.values()),
        lately=lately,
        per_hour=lately / max((now - since) / timedelta(hours=1), 1 / 60) if lately else None,
        versions=tuple(sorted(versions.values(), key=lambda version: version.first)),
    )


def _reasons(db: sqlite3.Connection, plan: _Plan) -> dict[str, tuple[Reason, ...]]:
    found: dict[str, list[Reason]] = defaultdict(list)
    query = (
        "SELECT teacher, kind, message, COUNT(*), MAX(at) FROM failures"
        # What an earlier plan asked is nobody's concern any more, unless nothing is planned at all.
        " WHERE ?1 OR teacher_of(request_sha256) IS NOT NULL"
        " GROUP BY 1, 2, 3 ORDER BY 1, 4 DESC, 5 DESC"
    )
    for teacher, kind, message, times, last in db.execute(query, (not plan.rows,)):
        found[teacher].append(Reason(kind, message, times, datetime.fromisoformat(last)))
    return defaultdict(tuple, {teacher: tuple(reasons) for teacher, reasons in found.items()})


def _gaps(db: sqlite3.Connection) -> tuple[Gap, ...]:
    query = "SELECT study_id, image_ids, reason FROM gaps ORDER BY study_id, image_ids"
    return tuple(Gap(study, tuple(json.loads(ids)), reason) for study, ids, reason in db.execute(query))


def _batches(db: sqlite3.Connection) -> dict[str, int]:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'batches'").fetchone():
        return {}
    query = "SELECT teacher, COUNT(*) FROM batches WHERE state IN ('submitting', 'running') GROUP BY 1 ORDER BY 1"
    return dict(db.execute(query))
