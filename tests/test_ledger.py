"""The ledger: committed is committed, equal questions are one purchase, the order never changes."""

import dataclasses
import random
import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cxr_max.errors import RequestError, StorageError
from cxr_max.ledger import Answered, Failure, FileIdentity, Gap, Ledger, request_key
from cxr_max.records import Question, Reply, Sampling

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def question(study: str = "s1", teacher: str = "a", sample: int = 0, key: str | None = None) -> Question:
    return Question(
        study_id=study, subject_id="p1", source="test", split="train", image_ids=("i1",), source_sha256=("f1",),
        rendering="mimic_jpg-1@1024", teacher=teacher, provider="openai", model="m", prompt_name="diagnose",
        prompt_version="1", prompt_sha256="t", prompt_given="nothing", structured_answer=True,
        sampling=Sampling(temperature=0.5), sample_index=sample,
        request_sha256=key or f"{study}/{teacher}/{sample}",
    )  # fmt: skip


def answered(key: str, text: str = "text") -> Answered:
    reply = Reply(text, "because", "stop", "stop", "m-1", 10, 20, "r1", '{"raw": true}')
    return Answered(key, ("j1",), reply, 0.25, 1.5, NOW)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def test_a_row_comes_back_as_it_went_in(ledger: Ledger) -> None:
    asked = question()
    ledger.plan([asked])
    assert list(ledger.rows()) == []
    ledger.commit([answered(asked.request_sha256)])
    ((back, reply),) = ledger.rows()
    assert back == asked
    expected = answered(asked.request_sha256)
    assert reply == dataclasses.replace(expected, reply=dataclasses.replace(expected.reply, raw=""))


def test_rows_have_one_order_whatever_the_order_of_writing(ledger: Ledger) -> None:
    questions = [question(f"s{i}", teacher, k) for i in range(4) for teacher in "ab" for k in range(2)]
    random.Random(0).shuffle(questions)
    ledger.plan(questions)
    ledger.commit([answered(q.request_sha256) for q in questions])
    identities = [(q.study_id, q.teacher, q.sample_index) for q, _ in ledger.rows()]
    assert identities == sorted(identities) and len(identities) == 16


def test_a_committed_reply_is_never_overwritten(ledger: Ledger) -> None:
    ledger.plan([question(key="k")])
    ledger.commit([answered("k", "first")])
    ledger.commit([answered("k", "second")])
    assert [a.reply.text for _, a in ledger.rows()] == ["first"]


def test_one_reply_is_found_by_its_request(ledger: Ledger) -> None:
    assert ledger.reply("k") is None
    ledger.commit([answered("k"), answered("l", "other")])
    expected = answered("k")
    assert ledger.reply("k") == dataclasses.replace(expected, reply=dataclasses.replace(expected.reply, raw=""))


def test_the_body_of_a_reply_comes_back_as_it_was_received(ledger: Ledger) -> None:
    body = '{"text": "\u00e9 \u80ba\n"}' * 500
    whole = answered("k")
    ledger.commit([dataclasses.replace(whole, reply=dataclasses.replace(whole.reply, raw=body)), answered("l")])
    assert ledger.raw("k") == body and ledger.raw("l") == '{"raw": true}'
    assert ledger.raw("m") is None


def test_two_rows_share_one_purchase(ledger: Ledger) -> None:
    ledger.plan([question("s1", key="k"), question("s2", key="k")])
    ledger.commit([answered("k")])
    assert [q.study_id for q, _ in ledger.rows()] == ["s1", "s2"]
    assert ledger.answered() == {"k"}


def test_a_row_planned_again_points_to_its_newest_request(ledger: Ledger) -> None:
    ledger.plan([question(key="old")])
    ledger.commit([answered("old", "old")])
    ledger.plan([question(key="new")])
    assert list(ledger.rows()) == []
    ledger.commit([answered("new", "new")])
    assert [a.reply.text for _, a in ledger.rows()] == ["new"]


def test_a_reply_clears_its_failure(ledger: Ledger) -> None:
    ledger.commit([], [Failure("k", "a", NOW, "server", "HTTP 500"), Failure("l", "a", NOW, "server", "HTTP 500")])
    ledger.commit([answered("k")])
    assert [failure.request_sha256 for failure in ledger.failures()] == ["l"]


def test_counts(ledger: Ledger) -> None:
    questions = [question("s1"), question("s2"), dataclasses.replace(question("s3", "b"), split=None)]
    ledger.plan(questions)
    ledger.commit([answered(q.request_sha256) for q in questions[1:]])
    assert ledger.teacher_counts() == {"a": (2, 1), "b": (1, 1)}
    assert ledger.split_counts() == {"train": 2}
    assert [q.study_id for q, _ in ledger.rows("train")] == ["s2", "s3"] and list(ledger.rows("test")) == []


def test_files_are_known_until_they_change(ledger: Ledger) -> None:
    ledger.plan([], [FileIdentity(Path("/x"), 5, 7, "abc")])
    assert ledger.source_sha256(Path("/x"), 5, 7) == "abc"
    assert ledger.source_sha256(Path("/x"), 5, 8) is None and ledger.source_sha256(Path("/x"), 6, 7) is None


def test_gaps_are_those_of_the_last_run(ledger: Ledger) -> None:
    ledger.record_gaps([Gap("s1", ("i1",), "absent")])
    ledger.record_gaps([Gap("s2", ("i2", "i3"), "empty")])
    assert ledger.gaps() == [Gap("s2", ("i2", "i3"), "empty")]


def test_threads_share_it(ledger: Ledger) -> None:
    def write(name: str) -> None:
        for i in range(30):
            ledger.plan([question(f"{name}{i}")])
            ledger.commit([answered(f"{name}{i}/a/0")])

    threads = [threading.Thread(target=write, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(ledger.rows())) == 90


def test_no_ledger_is_said(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"something else entirely" * 50)
    with pytest.raises(RequestError, match="not a ledger"):
        Ledger(path)


def test_a_damaged_ledger_is_said(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.plan([question(f"s{i}") for i in range(300)])
        ledger.commit([answered(f"s{i}/a/0") for i in range(300)])
    content = bytearray(path.read_bytes())
    for place in range(4096 * 2, len(content), 977):
        content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"damaged.*put a copy of it back"), Ledger(path) as ledger:
        ledger.answered()
        list(ledger.rows())


def test_where_the_write_ahead_log_does_not_work_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite stays in another mode where it cannot map its log's index into memory."""

    class Refusing(sqlite3.Connection):
        def execute(self, statement: str, *rest: Any) -> sqlite3.Cursor:
            refused = "journal_mode = WAL" in statement
            return super().execute("SELECT 'delete'" if refused else statement, *rest)

    connect = sqlite3.connect
    monkeypatch.setattr(
        "cxr_max.ledger.sqlite3.connect", lambda *path, **options: connect(*path, **options, factory=Refusing)
    )
    with pytest.raises(RequestError, match=r"write-ahead log does not work.*disk of this machine"):
        Ledger(tmp_path / "ledger.sqlite")


def test_an_empty_file_is_damaged_and_not_new(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.touch()
    with pytest.raises(StorageError, match=r"damaged.*empty.*put a copy of it back"):
        Ledger(path)
    assert path.stat().st_size == 0


def test_a_new_ledger_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.sqlite"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StorageError, match="No space left"):
            Ledger(path)
    assert list(tmp_path.iterdir()) == []
    Ledger(path).close()
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_a_log_that_outlived_its_ledger_is_not_played_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as old:
        old.commit([answered("k")])
        log = path.with_name(path.name + "-wal").read_bytes()
    path.unlink()
    path.with_name(path.name + "-wal").write_bytes(log)
    with Ledger(path) as new:
        assert new.answered() == set()


def test_another_schema_is_said(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(RequestError, match="schema 99"):
        Ledger(path)


def test_a_full_disk_is_said_and_loses_nothing(ledger: Ledger) -> None:
    ledger.plan([question()])
    ledger.commit([answered("s1/a/0")])
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match=r"full.*safe.*same command again"):
        ledger.commit([answered(f"k{i}", "long " * 5000) for i in range(50)])
    assert ledger.answered() == {"s1/a/0"}


KEY = {
    "provider": "openai", "endpoint": "https://api.openai.com/v1", "model": "m", "sampling": Sampling(),
    "prompt_text": "read", "images": [("abc", "mimic_jpg-1@1024")], "sample_index": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("provider", "vllm"), ("endpoint", "http://127.0.0.1/v1"), ("model", "n"), ("sampling", Sampling(seed=1)),
        ("prompt_text", "read it"), ("images", [("abd", "mimic_jpg-1@1024")]), ("images", [("abc", "voi-1@1024")]),
        ("images", [("abc", "mimic_jpg-1@1024")] * 2), ("sample_index", 1),
    ],
)  # fmt: skip
def test_everything_asked_is_in_the_key(name: str, value: object) -> None:
    assert request_key(**{**KEY, name: value}) != request_key(**KEY)  # type: ignore[arg-type]


def test_the_key_is_stable() -> None:
    """A changed key would buy every reply of every user again: change this value only with a migration."""
    assert request_key(**KEY) == "efaf7931b5e5307015f1ece31064dfb78e868746648c3c9b42f95ac9e5ab223d"  # type: ignore[arg-type]
