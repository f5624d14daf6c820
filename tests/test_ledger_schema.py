"""Old ledgers open, new ones do not open in old versions, and a migration is whole or did not happen."""

import json
import sqlite3
import zlib
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cxr_max import ledger_schema
from cxr_max.errors import RequestError
from cxr_max.ledger import Ledger
from cxr_max.ledger_batches import Member, SentBatch

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

VERSION_1 = """
CREATE TABLE files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, source_sha256 TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE questions (
    study_id TEXT, image_ids TEXT, teacher TEXT, prompt_name TEXT, prompt_sha256 TEXT, sample_index INTEGER,
    subject_id TEXT NOT NULL, source TEXT NOT NULL, split TEXT, source_sha256 TEXT NOT NULL,
    rendering TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, prompt_version TEXT NOT NULL,
    prompt_given TEXT NOT NULL, given_findings TEXT NOT NULL, structured_answer INTEGER NOT NULL,
    sampling TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    PRIMARY KEY (study_id, image_ids, teacher, prompt_name, prompt_sha256, sample_index)
) WITHOUT ROWID;
CREATE TABLE replies (
    request_sha256 TEXT PRIMARY KEY, image_sha256 TEXT NOT NULL, text TEXT NOT NULL, reasoning TEXT,
    ended TEXT NOT NULL, finish_reason TEXT, model_reported TEXT, input_tokens INTEGER, output_tokens INTEGER,
    cost_usd REAL, latency_s REAL NOT NULL, created_at TEXT NOT NULL, request_id TEXT, raw BLOB NOT NULL
);
CREATE TABLE failures (
    request_sha256 TEXT PRIMARY KEY, teacher TEXT NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL,
    message TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE gaps (
    study_id TEXT, image_ids TEXT, reason TEXT NOT NULL, PRIMARY KEY (study_id, image_ids)
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
"""As the first version wrote it: never to be changed."""


def write_version_1(path: Path) -> None:
    question = (
        "s1", '["i1"]', "gpt", "diagnose", "p", 0, "p1", "test", None, '["f1"]', "mimic_jpg-1@1024", "openai", "m",
        "1", "nothing", "[]", 1, json.dumps({"max_tokens": 9, "seed": None, "temperature": None, "top_p": None}),
        "k1",
    )  # fmt: skip
    reply = (
        "k1", '["j1"]', "a heart", None, "stop", "stop", "m-1", 10, 20, 0.5, 1.5, NOW.isoformat(), "r1",
        zlib.compress(b"{}"),
    )  # fmt: skip
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_1)
        db.execute(f"INSERT INTO questions VALUES ({', '.join('?' * len(question))})", question)
        db.execute(f"INSERT INTO replies VALUES ({', '.join('?' * len(reply))})", reply)
        db.execute("INSERT INTO failures VALUES ('k2', 'gpt', ?, 'server', 'no')", (NOW.isoformat(),))
        db.commit()


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def tables(path: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as db:
        return set(db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def test_a_ledger_of_version_1_opens_and_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    write_version_1(path)
    with Ledger(path) as ledger:
        ((question, answered),) = ledger.rows()
        assert (question.teacher, answered.reply.text, answered.cost_usd) == ("gpt", "a heart", 0.5)
        assert [failure.request_sha256 for failure in ledger.failures()] == ["k2"]
        assert ledger.batches() == [] and ledger.requests_in_batches() == {}
        ledger.begin_batch(SentBatch("b1", "gpt", "e", NOW, 1), [Member("k2", ("j2",), True)])
        assert set(ledger.requests_in_batches()) == {"k2"}
    assert version(path) == ledger_schema.SCHEMA_VERSION == 3


def test_an_old_ledger_becomes_what_a_new_one_is(tmp_path: Path) -> None:
    write_version_1(tmp_path / "old.sqlite")
    for name in ("old", "new"):
        Ledger(tmp_path / f"{name}.sqlite").close()
    assert tables(tmp_path / "old.sqlite") == tables(tmp_path / "new.sqlite")


def test_a_newer_ledger_is_refused_in_one_sentence_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 4")
    with pytest.raises(RequestError, match=r"ledger schema 4.*use the cxr-max that wrote it") as refused:
        Ledger(path)
    assert "\n" not in str(refused.value)
    assert version(path) == 4


def test_a_migration_is_whole_or_did_not_happen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.sqlite"
    write_version_1(path)
    before = tables(path)
    *older, last = ledger_schema._STEPS
    with monkeypatch.context() as patch, pytest.raises(Exception, match="nonsense"):
        patch.setattr(ledger_schema, "_STEPS", (*older, (*last, "CREATE nonsense")))
        Ledger(path)
    assert tables(path) == before and version(path) == 1
    with Ledger(path) as ledger:
        assert ledger.answered() == {"k1"}


def test_a_batch_is_in_the_ledger_before_and_after(tmp_path: Path) -> None:
    members = [Member(f"k{number}", (f"j{number}",), number % 2 == 0, number / 10) for number in range(3)]
    batch = SentBatch("b1", "gpt", "https://x", NOW, 3)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin_batch(batch, members)
        assert ledger.open_batches() == [batch]
        assert ledger.requests_in_batches() == {"k0": 0.0, "k1": 0.1, "k2": 0.2}
        assert [ledger.waiting_member("b1", member.request_sha256) for member in members] == members
        assert ledger.waiting_member("b1", "other") is None and ledger.waiting_member("b2", "k1") is None
        assert ledger.is_member("b1", "k1") and not ledger.is_member("b1", "k9")
        ledger.batch_accepted("b1", "batch_9")
        (running,) = ledger.open_batches()
        assert (running.service_id, running.state) == ("batch_9", "running")
        ledger.batch_is("b1", "submitting")
        assert ledger.open_batches()[0].service_id is None
        ledger.batch_is("b1", "ended")
        assert ledger.open_batches() == [] and ledger.requests_in_batches() == {}
        assert len(ledger.batches()) == 1 and sorted(ledger.waiting_members("b1")) == ["k0", "k1", "k2"]


def test_the_wait_for_a_batch_is_nobodys_latency(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    write_version_1(path)
    with Ledger(path) as ledger:
        assert ledger.usage()["gpt"].latency_s == 1.5
        ledger.begin_batch(SentBatch("b1", "gpt", "e", NOW, 1), [Member("k1", ("j1",), True)])
        assert ledger.usage()["gpt"].latency_s is None
        assert ledger.usage()["gpt"].cost_usd == 0.5
