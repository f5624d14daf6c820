"""What a run has, lacks and cost: counted by hand, and read without a trace."""

import json
import os
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cxr_max.builders.run_folder import RunFolder
from cxr_max.builders.status import as_json, status_of_run
from cxr_max.cli import status as command
from cxr_max.errors import RequestError, StorageError
from cxr_max.ledger import Gap, Ledger
from cxr_max.ledger_batches import Member, SentBatch
from cxr_max.ledger_summary import LedgerSummary, Reason, Replies, Version, models_reported, summarise
from tests.cli.test_cli import call
from tests.ledgers import NOW, answered, failure, key_of, question, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return run(tmp_path / "run")


def fill(folder: Path) -> None:
    """Teacher a: of 4 rows 3 answered, two versions, one truncated. Teacher b: of 2 rows none."""
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.plan([question(f"s{number}", "a") for number in range(1, 5)])
        ledger.plan([question("s1", "b"), question("s2", "b")])
        ledger.commit([
            answered(key_of("s1", "a"), minutes_ago=600),
            answered(key_of("s2", "a"), minutes_ago=30, model_reported="m-2", ended="length", output_tokens=None),
            answered(key_of("s3", "a"), minutes_ago=15, model_reported="m-2", cost=None),
        ])  # fmt: skip
        ledger.commit([], [failure(key_of("s1", "b"), "b"), failure(key_of("s2", "b"), "b", minutes_ago=5)])
        ledger.commit([], [failure(key_of("s4", "a"), "a", "HTTP 503")])


def summary(folder: Path) -> LedgerSummary:
    return summarise(folder / "ledger.sqlite", NOW)


def seal(folder: Path, by_teacher: dict[str, dict[str, int]], derived: Any = ()) -> None:
    (folder / "release").mkdir(exist_ok=True)
    manifest = {"counts": {"trajectories": {"by_teacher": by_teacher}}, "derived": dict.fromkeys(derived)}
    (folder / "release" / "manifest.json").write_text(json.dumps(manifest))


def test_everything_is_counted(folder: Path) -> None:
    fill(folder)
    found = summary(folder)
    a, b = found.teachers["a"], found.teachers["b"]
    assert (a.planned, a.answered, a.failed) == (4, 3, 1) and (b.planned, b.answered, b.failed) == (2, 0, 2)
    assert b.reasons == (Reason("server", "HTTP 500", 2, NOW - timedelta(minutes=5)),)
    assert a.replies == Replies(
        count=3,
        ended={"stop": 2, "length": 1},
        input_tokens=30,
        output_tokens=40,
        cost_usd=1.0,
        unpriced=1,
        first=NOW - timedelta(minutes=600),
        last=NOW - timedelta(minutes=15),
        lately=2,
        per_hour=4.0,
        versions=(
            Version("m-1", 1, NOW - timedelta(minutes=600), NOW - timedelta(minutes=600)),
            Version("m-2", 2, NOW - timedelta(minutes=30), NOW - timedelta(minutes=15)),
        ),
    )
    assert b.replies == found.others == Replies()
    assert (found.planned, found.answered) == (6, 3)


def test_two_rows_that_share_a_purchase_are_two_answers_and_one_cost(folder: Path) -> None:
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.plan([question("s1", "a", "k"), question("s2", "a", "k"), question("s1", "twin", "k")])
        ledger.plan([question("s3", "a", "l"), question("s4", "a", "l")])
        ledger.commit([answered("k", cost=0.5)])
    found = summary(folder)
    assert {name: (one.planned, one.answered) for name, one in found.teachers.items()} == {
        "a": (4, 2),
        "twin": (1, 1),
    }
    assert sum(one.replies.cost_usd for one in found.teachers.values()) == 0.5


def test_replies_of_an_earlier_plan_stay_paid_and_its_failures_are_forgotten(folder: Path) -> None:
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.plan([question("s1", "a", "old"), question("s2", "a", "older")])
        ledger.commit([answered("old", cost=0.25)], [failure("older", "a")])
        ledger.plan([question("s1", "a", "new"), question("s2", "a", "newer")])
    found = summary(folder)
    assert (found.others.count, found.others.cost_usd) == (1, 0.25)
    assert (found.teachers["a"].answered, found.teachers["a"].failed) == (0, 0)


def test_where_nothing_is_planned_failures_say_who_was_asked(folder: Path) -> None:
    with Ledger(folder / "consensus.sqlite") as ledger:
        ledger.commit([answered("k")], [failure("l", "student")])
    found = status_of_run(folder, NOW).consensus
    assert found is not None and found.others.count == 1 and found.teachers["student"].failed == 1


def test_versions_are_listed_by_teacher_for_a_resumed_run(folder: Path) -> None:
    fill(folder)
    assert models_reported(folder / "ledger.sqlite") == {"a": ["m-1", "m-2"]}


def test_reading_writes_nothing_and_brings_no_older_file_forward(folder: Path) -> None:
    fill(folder)
    path = folder / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript("DROP TABLE batch_members; DROP TABLE batches; PRAGMA user_version = 1;")
    before = path.read_bytes()
    assert summary(folder).answered == 3
    assert path.read_bytes() == before
    assert not (folder / ".lock").exists()


def test_a_run_on_a_medium_that_nobody_may_write_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite makes an index beside the file; where it may not, the file itself is whole."""
    fill(folder)
    connect = sqlite3.connect

    def refusing(name: str, **options: Any) -> sqlite3.Connection:
        if "immutable" not in str(name):
            raise sqlite3.OperationalError("unable to open database file")
        return connect(name, **options)

    monkeypatch.setattr("cxr_max.ledger_summary.sqlite3.connect", refusing)
    assert summary(folder).answered == 3
    (folder / "ledger.sqlite-wal").write_bytes(b"not empty")
    with pytest.raises(RequestError, match=r"cannot be opened.*copy the run"):
        summary(folder)


def test_what_a_build_commits_meanwhile_is_seen_at_once(folder: Path) -> None:
    fill(folder)
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.commit([answered(key_of("s1", "b"))])
        assert summary(folder).answered == 4


def test_batches_at_a_service_are_counted(folder: Path) -> None:
    with Ledger(folder / "ledger.sqlite") as ledger:
        for name, state in (("b1", "running"), ("b2", "ended"), ("b3", "submitting")):
            ledger.begin_batch(SentBatch(name, "a", "https://api", NOW, 1), [Member(name, ("j",), True)])
            ledger.batch_is(name, state)  # type: ignore[arg-type]
    assert summary(folder).batches == {"a": 2}


def test_a_newer_ledger_a_damaged_one_and_none_are_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="holds no run"):
        status_of_run(tmp_path / "nowhere", NOW)
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(RequestError, match="schema 99"):
        status_of_run(folder, NOW)
    (folder / "ledger.sqlite").write_bytes(b"")
    with pytest.raises(StorageError, match=r"damaged.*empty"):
        status_of_run(folder, NOW)
    (folder / "ledger.sqlite").write_bytes(b"something else entirely" * 50)
    with pytest.raises(RequestError, match="not a ledger"):
        status_of_run(folder, NOW)


def test_a_run_that_asked_nobody_yet(folder: Path) -> None:
    (folder / "ledger.sqlite").unlink()
    found = status_of_run(folder, NOW)
    assert found.ledger is None and found.seal == "not sealed" and as_json(found)["teachers"] == {}


def test_a_release_is_stale_once_the_ledger_has_other_rows(folder: Path) -> None:
    fill(folder)
    assert status_of_run(folder, NOW).seal == "not sealed"
    seal(folder, {"a": {"ok": 2, "refused": 1}}, ["consensus"])
    found = status_of_run(folder, NOW)
    assert found.seal == "sealed" and found.derived == ("consensus",) and not found.complete
    assert found.statuses["a"]["refused"] == 1
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.commit([answered(key_of("s4", "a"))])
    assert status_of_run(folder, NOW).seal == "stale"


def test_a_release_is_stale_once_a_reply_is_newer_than_its_seal(folder: Path) -> None:
    """The same number of rows, and other texts in them."""
    fill(folder)
    seal(folder, {"a": {"ok": 3}})
    before = (NOW - timedelta(minutes=20)).timestamp()
    os.utime(folder / "release" / "manifest.json", (before, before))
    assert status_of_run(folder, NOW).seal == "stale"


def test_complete_is_everything_answered_sealed_and_without_gaps(folder: Path) -> None:
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.plan([question("s1", "a")])
        ledger.commit([answered(key_of("s1", "a"))])
    assert not status_of_run(folder, NOW).complete
    seal(folder, {"a": {"ok": 1}})
    assert status_of_run(folder, NOW).complete
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.record_gaps([Gap("s9", ("s9-1",), "absent")])
    assert not status_of_run(folder, NOW).complete


def test_an_evaluation_has_a_result(tmp_path: Path) -> None:
    folder = run(tmp_path / "e")
    (folder / "run.toml").write_text('release = "/r"\nmodel = ""\nteacher = "a"\n')
    found = status_of_run(folder, NOW)
    assert found.kind == "evaluation" and found.seal == "not sealed"
    (folder / "result").mkdir()
    (folder / "result" / "result.json").write_text("{}")
    assert status_of_run(folder, NOW).seal == "sealed"
    (folder / "ledger.sqlite").unlink()
    assert status_of_run(folder, NOW).ledger is None


def test_a_job_at_work_is_said(folder: Path) -> None:
    assert not status_of_run(folder, NOW).at_work
    with RunFolder(folder).locked():
        assert status_of_run(folder, NOW).at_work


def test_the_command_tells_a_person(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder)
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.record_gaps([Gap("s9", ("s9-1",), "s9.jpg is absent.")])
    code, printed, said = call(capsys, monkeypatch, "status", folder)
    assert code == 0 and said == ""
    lines = printed.splitlines()
    assert lines[0] == "build of phantom"
    assert lines[1].endswith("3 of 4 answered, 1 failed, at least $1.00 (1 replies without a known price)")
    assert "1 truncated, tokens 30 in, 40 out, 2026-01-02 02:00 to 2026-01-02 11:45 UTC" in lines[2]
    assert "answered as m-1: 1, 2026-01-02 02:00 to 2026-01-02 02:00" in lines[3]
    assert "answered as m-2: 2" in lines[4]
    assert lines[5].endswith("0 of 2 answered, 2 failed, $0.00")
    assert lines[6] == "failed 2 times, last 2026-01-02 11:55 UTC: b: HTTP 500"
    assert lines[7] == "failed 1 time, last 2026-01-02 02:00 UTC: a: HTTP 503"
    assert lines[8] == "gap: study s9: s9.jpg is absent."
    assert lines[9] == "release not sealed: run the build again"


def test_the_command_tells_a_program(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder)
    code, printed, _ = call(capsys, monkeypatch, "status", folder, "--json")
    found = json.loads(printed)
    assert code == 0 and printed.count("\n") == 1
    assert found["teachers"]["a"]["planned"] == 4 and found["teachers"]["a"]["answered"] == 3
    assert found["teachers"]["a"]["cost_usd"] is None and found["teachers"]["a"]["known_cost_usd"] == 1.0
    assert [one["model"] for one in found["teachers"]["a"]["models_reported"]] == ["m-1", "m-2"]
    assert (found["gaps"], found["sealed"], found["stale"], found["complete"]) == (0, False, False, False)


@pytest.mark.parametrize(
    ("planned", "answered_rows", "failed", "bar"),
    [
        (24, 24, 0, "#" * 24),
        (24, 0, 0, "." * 24),
        (1000, 999, 0, "#" * 23 + "."),
        (1000, 999, 1, "#" * 23 + "!"),
        (1000, 1, 0, "#" + "." * 23),
        (1000, 0, 1, "!" + "." * 23),
        (24, 12, 6, "#" * 12 + "!" * 6 + "." * 6),
        (0, 0, 3, "!" * 24),
    ],
)
def test_a_bar_is_full_only_when_all_is_there(planned: int, answered_rows: int, failed: int, bar: str) -> None:
    from cxr_max.ledger_summary import TeacherSummary

    teacher = TeacherSummary(planned, answered_rows, failed, (), Replies())
    assert command._bar(teacher, ("#", "!", ".")) == bar
