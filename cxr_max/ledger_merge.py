"""Two ledgers of one source, made on two machines, become one: nothing that was paid for twice is lost or doubled.

Everything is copied inside SQLite in one transaction, so memory does not grow with the ledgers, and whatever kills
the process leaves the ledger as it was. Merging the same ledger again changes nothing.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cxr_max.errors import RequestError, StorageError
from cxr_max.ledger import Ledger, refusals_named
from cxr_max.ledger_summary import reading, uri_of

_ROW: Final = ("study_id", "image_ids", "teacher", "prompt_name", "prompt_sha256", "sample_index")


@dataclass(frozen=True, slots=True)
class Merged:
    """What came into a ledger."""

    replies: int
    """New ones."""
    known: int
    """Replies that were there already: those of the other ledger to the same requests are left out."""
    rows: int
    """Planned rows that are new."""
    differing: int
    """Rows that the two ledgers ask by different requests, as with another sampling: the one with a reply stays,
    and of two the one that was here."""
    files: int
    """File hashes taken over: of files that lie here just as they did there."""


def merge(into: Path, other: Path) -> Merged:
    """Take over what ``other`` has and ``into`` lacks; ``other`` is only read.

    Replies go by their request's key, and a reply that is there is never overwritten. Failures that have a reply
    by now are dropped; of two about one request the later stays. So do the gaps that no reply fills.

    Raises:
        RequestError: a file is no ledger or of a newer schema, ``other`` has batches at a service, or the two are
            about different copies of the data.
        StorageError: a file is damaged, or the disk refused; ``into`` is as it was.
    """
    _refuse_damaged(other)
    _refuse_open_batches(other)
    # Opening brings an older file to this version's schema.
    Ledger(into).close()
    _refuse_damaged(into)
    with _attached(into, other) as db:
        _refuse_other_bytes(db, into, other)
        return _merge(db)


def _refuse_damaged(path: Path) -> None:
    with reading(path) as db:
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise StorageError(
            f"The ledger {path} is damaged ({verdict}): put a copy of it back, or save what is whole with"
            " sqlite3's .recover command; nothing was merged."
        )


def _refuse_open_batches(path: Path) -> None:
    with reading(path) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'batches'").fetchone():
            return
        waiting = db.execute("SELECT COUNT(*) FROM batches WHERE state IN ('submitting', 'running')").fetchone()[0]
    if waiting:
        raise RequestError(
            f"{path} has {waiting} batches at a service, whose replies would be lost to the merged run: collect"
            " them there first, with cxr-max build --batch."
        )


@contextmanager
def _attached(into: Path, other: Path) -> Iterator[sqlite3.Connection]:
    """One transaction on ``into``, with ``other`` beside it under the name ``other``."""
    connection = sqlite3.connect(f"{into.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)
    with closing(connection) as db, refusals_named(into):
        db.execute("PRAGMA synchronous = FULL")
        db.execute("ATTACH ? AS other", (uri_of(other),))
        db.create_function("lies_here", 3, _lies_here)
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


def _lies_here(path: str, size: int, mtime_ns: int) -> bool:
    """Whether the file is on this machine as it was on the other, by what the ledger tells files apart by."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return False
    return (found.st_size, found.st_mtime_ns) == (size, mtime_ns)


def _refuse_other_bytes(db: sqlite3.Connection, into: Path, other: Path) -> None:
    query = (
        "SELECT study_id FROM (SELECT DISTINCT study_id, image_ids, source_sha256 FROM other.questions) theirs"
        " JOIN main.questions ours USING (study_id, image_ids)"
        " WHERE ours.source_sha256 <> theirs.source_sha256 LIMIT 1"
    )
    found = db.execute(query).fetchone()
    if found is not None:
        raise RequestError(
            f"{into} and {other} are about different copies of the data: the image files of study {found[0]}"
            " differ. Nothing was merged; keep the two runs apart."
        )


def _merge(db: sqlite3.Connection) -> Merged:
    planned = _count(db, "main.questions")
    theirs = _count(db, "other.replies")
    new = db.execute(
        f"INSERT OR IGNORE INTO main.replies ({_columns(db, 'replies')}) {_all(db, 'replies')}"
    ).rowcount
    same = " AND ".join(f"ours.{name} = theirs.{name}" for name in _ROW)
    differing = _count(
        db,
        f"main.questions ours, other.questions theirs WHERE {same}"
        " AND ours.request_sha256 <> theirs.request_sha256",
    )
    db.execute(_questions(db))
    db.execute(_FAILURES)
    db.execute("DELETE FROM main.failures WHERE request_sha256 IN (SELECT request_sha256 FROM main.replies)")
    _merge_gaps(db)
    if _columns(db, "recipients"):
        db.execute(f"INSERT OR IGNORE INTO main.recipients {_all(db, 'recipients')}")
    files = db.execute(
        "INSERT OR IGNORE INTO main.files SELECT path, size, mtime_ns, source_sha256 FROM other.files"
        " WHERE lies_here(path, size, mtime_ns)"
    ).rowcount
    return Merged(new, theirs - new, _count(db, "main.questions") - planned, differing, files)


def _count(db: sqlite3.Connection, what: str) -> int:
    return int(db.execute(f"SELECT COUNT(*) FROM {what}").fetchone()[0])


def _columns(db: sqlite3.Connection, table: str) -> str:
    """As the other ledger has them: an older schema may have fewer."""
    return ", ".join(row[1] for row in db.execute(f"PRAGMA other.table_info({table})"))


def _all(db: sqlite3.Connection, table: str) -> str:
    # Without a condition, SQLite takes the ON of what follows for a join's.
    return f"SELECT {_columns(db, table)} FROM other.{table} WHERE true"


def _questions(db: sqlite3.Connection) -> str:
    """A row that is here already changes only where a reply is gained by it."""
    columns = _columns(db, "questions")
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns.split(", ") if name not in _ROW)
    return (
        f"INSERT INTO main.questions ({columns}) {_all(db, 'questions')}"
        f" ON CONFLICT ({', '.join(_ROW)}) DO UPDATE SET {changes}"
        " WHERE NOT EXISTS (SELECT 1 FROM replies r WHERE r.request_sha256 = questions.request_sha256)"
        " AND EXISTS (SELECT 1 FROM replies r WHERE r.request_sha256 = excluded.request_sha256)"
    )


_FAILURES: Final = (
    "INSERT INTO main.failures SELECT request_sha256, teacher, at, kind, message FROM other.failures WHERE true"
    " ON CONFLICT (request_sha256) DO UPDATE SET"
    " teacher = excluded.teacher, at = excluded.at, kind = excluded.kind, message = excluded.message"
    " WHERE excluded.at > failures.at"
)
_ANSWERED: Final = (
    "EXISTS (SELECT 1 FROM {0}.questions q JOIN main.replies USING (request_sha256)"
    " WHERE q.study_id = gaps.study_id AND q.image_ids = gaps.image_ids)"
)


def _merge_gaps(db: sqlite3.Connection) -> None:
    """What one machine could not read, the other may have asked about; and a gap's open rows leave the plan."""
    db.execute(f"DELETE FROM main.gaps WHERE {_ANSWERED.format('other')}")
    db.execute(
        "INSERT OR IGNORE INTO main.gaps SELECT study_id, image_ids, reason FROM other.gaps"
        f" WHERE NOT {_ANSWERED.format('main')}"
    )
    db.execute(
        "DELETE FROM main.questions WHERE EXISTS (SELECT 1 FROM main.gaps g"
        " WHERE g.study_id = questions.study_id AND g.image_ids = questions.image_ids)"
        " AND NOT EXISTS (SELECT 1 FROM main.replies r WHERE r.request_sha256 = questions.request_sha256)"
    )
