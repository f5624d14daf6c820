"""The ledger's tables, version by version, and how an older file becomes a newer one.

A version's statements are never changed once released: a ledger written long ago must still open.
"""

import sqlite3
from pathlib import Path
from typing import Final

from cxr_max.errors import RequestError

_FIRST: Final = (
    """CREATE TABLE files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, source_sha256 TEXT NOT NULL
) WITHOUT ROWID""",
    """CREATE TABLE questions (
    study_id TEXT, image_ids TEXT, teacher TEXT, prompt_name TEXT, prompt_sha256 TEXT, sample_index INTEGER,
    subject_id TEXT NOT NULL, source TEXT NOT NULL, split TEXT, source_sha256 TEXT NOT NULL,
    rendering TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, prompt_version TEXT NOT NULL,
    prompt_given TEXT NOT NULL, given_findings TEXT NOT NULL, structured_answer INTEGER NOT NULL,
    sampling TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    PRIMARY KEY (study_id, image_ids, teacher, prompt_name, prompt_sha256, sample_index)
) WITHOUT ROWID""",
    """CREATE TABLE replies (
    request_sha256 TEXT PRIMARY KEY, image_sha256 TEXT NOT NULL, text TEXT NOT NULL, reasoning TEXT,
    ended TEXT NOT NULL, finish_reason TEXT, model_reported TEXT, input_tokens INTEGER, output_tokens INTEGER,
    cost_usd REAL, latency_s REAL NOT NULL, created_at TEXT NOT NULL, request_id TEXT, raw BLOB NOT NULL
)""",
    """CREATE TABLE failures (
    request_sha256 TEXT PRIMARY KEY, teacher TEXT NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL,
    message TEXT NOT NULL
) WITHOUT ROWID""",
    """CREATE TABLE gaps (
    study_id TEXT, image_ids TEXT, reason TEXT NOT NULL, PRIMARY KEY (study_id, image_ids)
) WITHOUT ROWID""",
)
_BATCHES: Final = (
    """CREATE TABLE batches (
    batch_id TEXT PRIMARY KEY, teacher TEXT NOT NULL, endpoint TEXT NOT NULL, service_id TEXT,
    state TEXT NOT NULL, submitted_at TEXT NOT NULL
) WITHOUT ROWID""",
    """CREATE TABLE batch_members (
    batch_id TEXT, request_sha256 TEXT, image_sha256 TEXT NOT NULL, structured_answer INTEGER NOT NULL,
    most_usd REAL, PRIMARY KEY (batch_id, request_sha256)
) WITHOUT ROWID""",
)
_RECIPIENTS: Final = (
    """CREATE TABLE recipients (
    teacher TEXT, place TEXT, host TEXT, attestation TEXT, PRIMARY KEY (teacher, place, host, attestation)
) WITHOUT ROWID""",
)
_STEPS: Final = (_FIRST, _BATCHES, _RECIPIENTS)
"""What makes version n of version n - 1."""

SCHEMA_VERSION: Final = len(_STEPS)


def create(db: sqlite3.Connection) -> None:
    """Give an empty file its tables, all or none."""
    _step_up(db)


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring an older ledger to this version, in one transaction; a ledger of this version stays as it is.

    Raises:
        RequestError: the file is no ledger, or of a newer version.
    """
    version = _version(db)
    if version == 0:
        raise RequestError(f"{path} is not a ledger: move it away, or use another --out.")
    if version > SCHEMA_VERSION:
        raise RequestError(
            f"{path} has ledger schema {version}, and this version of cxr-max reads up to {SCHEMA_VERSION}: use"
            " the cxr-max that wrote it, or another --out."
        )
    if version < SCHEMA_VERSION:
        _step_up(db)


def _step_up(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        # Read again: another process may have done it while this one waited.
        for statements in _STEPS[_version(db) :]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
