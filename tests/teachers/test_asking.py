"""The sending loop: committed before known, retried when it helps, stopped when it does not."""

import asyncio
import json
import zlib
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from cxr_max.costs import Price
from cxr_max.data_use import Attestation, Gate
from cxr_max.errors import DataUseError, StorageError
from cxr_max.ledger import Ledger
from cxr_max.records import Question, Reply, Sampling
from cxr_max.teachers import asking as asking_module
from cxr_max.teachers.asking import FAILURES_IN_A_ROW, Asking, Batch, Picture
from cxr_max.teachers.base import TeacherError, TeacherSpec
from cxr_max.teachers.secrets import redact
from tests.teachers.scripted import spec
from tests.teachers.virtual import no_threads, run_virtually

pytestmark = pytest.mark.usefixtures("no_threads")
__all__ = ["no_threads"]


class Fake:
    """A teacher that does as its script says: per call an error to raise, or None to answer."""

    def __init__(self, name: str = "a", script: Sequence[TeacherError | None] = (), **changes: Any) -> None:
        self.spec: TeacherSpec = spec("openai", "http://127.0.0.1:1/v1", **{"name": name, **changes})
        self.script = list(script)
        self.calls: list[str] = []
        self.at_once = self.most_at_once = 0
        self.text = "ANSWER\nEdema: present"
        self.hold: asyncio.Event | None = None

    async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
        self.calls.append(key)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await (self.hold.wait() if self.hold else asyncio.sleep(0.002))
            error = self.script.pop(0) if self.script else None
            if error is not None:
                raise error
            return Reply(self.text, None, "stop", "stop", "m-1", 1_000_000, 500_000, None, f"raw {self.text}")
        finally:
            self.at_once -= 1

    async def close(self) -> None:
        self.closed = True


class Log:
    """A watch that remembers, and checks that what it hears is in the ledger already."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.replies: list[tuple[str, str, float | None]] = []
        self.failures: list[tuple[str, str]] = []
        self.out: list[str] = []
        self.said: list[str] = []

    def answered(self, teacher: str, status: str, cost_usd: float | None) -> None:
        self.replies.append((teacher, status, cost_usd))
        assert len(self.ledger.answered()) >= len(self.replies), "heard of before it was committed"

    def failed(self, teacher: str, message: str) -> None:
        self.failures.append((teacher, message))

    def stopped(self, teacher: str, message: str) -> None:
        self.out.append(teacher)

    def warned(self, message: str) -> None:
        self.said.append(message)


def question(study: int, teacher: str) -> Question:
    return Question(
        study_id=f"s{study}", subject_id="p", source="t", split=None, image_ids=("i",), source_sha256=("f",),
        rendering="as_is-1@1024", teacher=teacher, provider="openai", model="m", prompt_name="diagnose",
        prompt_version="1", prompt_sha256="t", prompt_given="nothing", structured_answer=True,
        sampling=Sampling(), sample_index=0, request_sha256=f"{teacher}/{study}",
    )  # fmt: skip


def batches(number: int, *teachers: Fake) -> Iterator[Batch]:
    for study in range(number):
        asked = tuple((question(study, teacher.spec.name), "prompt") for teacher in teachers)
        yield Batch((Picture(b"jpeg", "j"),), asked)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def run(ledger: Ledger, number: int, *teachers: Fake, keys: Sequence[str] = (), gate: Gate | None = None) -> Log:
    log = Log(ledger)

    async def go() -> None:
        gate_ = gate or Gate("t", "open")
        await Asking(teachers, gate_, ledger, log, keys, asyncio.Event()).run(batches(number, *teachers))

    run_virtually(go())
    return log


def boom(kind: Any, after: float | None = None) -> TeacherError:
    return TeacherError(kind, f"HTTP: {kind}", after)


def test_everything_is_asked_once(ledger: Ledger) -> None:
    a, b = Fake("a"), Fake("b")
    log = run(ledger, 50, a, b)
    assert sorted(a.calls) == sorted(f"a/{i}" for i in range(50)) and len(b.calls) == 50
    assert len(ledger.answered()) == 100 and len(log.replies) == 100
    assert a.closed and b.closed


def test_concurrency_is_the_rosters(ledger: Ledger) -> None:
    a = Fake(concurrency=3)
    run(ledger, 30, a)
    assert a.most_at_once == 3


def test_costs_are_counted(ledger: Ledger) -> None:
    known, unknown = Fake("a", price=Price(1.0, 4.0)), Fake("b", price=None)
    log = run(ledger, 1, known, unknown)
    assert sorted(log.replies) == [("a", "ok", 3.0), ("b", "ok", None)]


@pytest.mark.parametrize("kind", ["rate_limit", "server", "timeout", "transport", "bad_reply"])
def test_what_may_pass_is_retried(ledger: Ledger, kind: str) -> None:
    a = Fake(script=[boom(kind), boom(kind), None], concurrency=1)
    log = run(ledger, 1, a)
    assert len(a.calls) == 3 and len(log.replies) == 1 and log.failures == []


def test_what_cannot_pass_is_not_retried(ledger: Ledger) -> None:
    a = Fake(script=[boom("bad_request")], concurrency=1)
    log = run(ledger, 3, a)
    assert len(a.calls) == 3 and len(log.replies) == 2 and log.out == []
    assert [failure.kind for failure in ledger.failures()] == ["bad_request"]


@pytest.mark.parametrize("kind", ["auth", "model", "quota"])
def test_a_teacher_that_cannot_answer_stops_at_once(ledger: Ledger, kind: str) -> None:
    a, b = Fake("a", [boom(kind)] * 99, concurrency=2), Fake("b")
    log = run(ledger, 40, a, b)
    assert len(a.calls) <= 2 and log.out == ["a"]
    assert sum(teacher == "b" for teacher, _, _ in log.replies) == 40


def test_a_teacher_that_refuses_everything_stops_too(ledger: Ledger) -> None:
    a = Fake("a", [boom("bad_request")] * 999, concurrency=1)
    log = run(ledger, 40, a)
    assert len(a.calls) == FAILURES_IN_A_ROW and log.out == ["a"]


def test_replies_that_wait_for_a_slow_disk_show_that_a_teacher_answers(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one commit takes its time, many more requests are refused than in a row."""

    async def slowly(work: Any, *arguments: Any) -> Any:
        await asyncio.sleep(1.0 if work.__name__ == "_write" else 0.0)
        return work(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", slowly)
    a = Fake(script=[TeacherError("bad_request", "no"), None] * 40, concurrency=16)
    log = run(ledger, 80, a)
    assert log.out == [] and (len(log.replies), len(log.failures)) == (40, 40)


def test_an_odd_error_of_an_sdk_is_a_failure_of_one_request(ledger: Ledger) -> None:
    a = Fake(script=[ZeroDivisionError("odd")], concurrency=1)  # type: ignore[list-item]
    log = run(ledger, 3, a)
    assert log.failures == [("a", "ZeroDivisionError: odd")] and len(log.replies) == 2


def test_a_slow_teacher_does_not_stop_the_others(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the look-ahead, a teacher is as fast as itself."""
    slow, fast = Fake("slow", concurrency=1), Fake("fast")

    async def go() -> int:
        slow.hold = asyncio.Event()
        log = Log(ledger)
        asking = Asking([slow, fast], Gate("t", "open"), ledger, log, (), asyncio.Event())
        task = asyncio.create_task(asking.run(batches(100, slow, fast)))
        while len(log.replies) < 100:  # noqa: ASYNC110 - the watch is told, nobody is woken
            await asyncio.sleep(0.01)
        seen = len(slow.calls)
        slow.hold.set()
        await task
        return seen

    assert run_virtually(asyncio.wait_for(go(), 20)) == 1
    assert len(ledger.answered()) == 200


def test_images_in_memory_are_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_module, "LOOK_AHEAD", 5)
    slow = Fake(concurrency=1)
    drawn = 0

    def counted() -> Iterator[Batch]:
        nonlocal drawn
        for batch in batches(50, slow):
            drawn += 1
            yield batch

    async def go() -> int:
        slow.hold = asyncio.Event()
        asking = Asking([slow], Gate("t", "open"), ledger, Log(ledger), (), asyncio.Event())
        task = asyncio.create_task(asking.run(counted()))
        await asyncio.sleep(0.2)
        held = drawn
        slow.hold.set()
        await task
        return held

    assert run_virtually(go()) == 5
    assert drawn == 50


def test_stop_awaits_what_is_in_flight(ledger: Ledger) -> None:
    a = Fake(concurrency=4)

    async def go() -> None:
        a.hold, stop = asyncio.Event(), asyncio.Event()
        asking = Asking([a], Gate("t", "open"), ledger, Log(ledger), (), stop)
        task = asyncio.create_task(asking.run(batches(100, a)))
        while len(a.calls) < 4:  # noqa: ASYNC110 - a fake teacher wakes nobody
            await asyncio.sleep(0.01)
        stop.set()
        a.hold.set()
        await task

    run_virtually(go())
    assert len(a.calls) == 4 and len(ledger.answered()) == 4


def test_a_credentialed_source_reaches_no_remote_teacher(ledger: Ledger) -> None:
    local, remote = Fake("local"), Fake("remote", place="remote", endpoint="https://api.x.ai/v1")
    with pytest.raises(DataUseError):
        run(ledger, 3, local, remote, gate=Gate("mimic-cxr", "credentialed"))
    assert local.calls == remote.calls == []


def test_an_attestation_that_ends_in_the_middle_of_a_run_ends_the_run(ledger: Ledger) -> None:
    day, days = date(2026, 1, 31), iter([date(2026, 1, 31)] * 4)
    attested = Attestation("api.x.ai", "lab", day, day, True, True, True, "sha256")
    gate = Gate("mimic-cxr", "credentialed", (attested,), lambda: next(days, date(2026, 2, 1)))
    a = Fake(place="remote", endpoint="https://api.x.ai/v1", concurrency=1)
    with pytest.raises(DataUseError, match="expired on 2026-01-31"):
        run(ledger, 10, a, gate=gate)
    assert len(a.calls) == len(ledger.answered()) == 3 and ledger.failures() == []
    assert [entry["host"] for entry in ledger.recipients()] == ["api.x.ai"]


def test_keys_do_not_reach_the_ledger(ledger: Ledger) -> None:
    key = "very-secret-key-0123"
    a = Fake(script=[TeacherError("bad_request", f"you sent {key} and sk-proj-abcdef123456")], concurrency=1)
    a.text = f"your key is {key}"
    log = run(ledger, 2, a, keys=[key])
    ((_, message),) = log.failures
    assert message == "you sent [key] and [key]" == ledger.failures()[0].message
    dump = "\n".join(ledger._db.iterdump())
    assert key not in dump and "your key is [key]" in dump


@pytest.mark.parametrize("key", ["plain-secret-0123", 'sec"ret\\key-0123'])
def test_keys_are_taken_out_of_every_field(ledger: Ledger, key: str) -> None:
    class Echo(Fake):
        async def ask(self, images: Sequence[bytes], prompt: str, key_: str) -> Reply:
            return Reply(key, key, "stop", key, key, 1, 1, key, json.dumps({"echo": key}))

    ledger.plan([question(0, "a")])
    run(ledger, 1, Echo(), keys=[key])
    ((_, back),) = ledger.rows()
    for said in (back.reply.text, back.reply.reasoning, back.reply.finish_reason, back.reply.model_reported):
        assert said == "[key]"
    (raw,) = ledger._db.execute("SELECT raw FROM replies").fetchone()
    assert json.loads(zlib.decompress(raw)) == {"echo": "[key]"}


def test_a_full_disk_stops_everything(ledger: Ledger) -> None:
    a = Fake(concurrency=2)
    a.text = "long " * 20_000
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages + 60}")
    with pytest.raises(StorageError, match="make room"):
        run(ledger, 500, a)
    assert 0 < len(ledger.answered()) < 500 and len(a.calls) < 500


def test_an_error_in_the_source_is_the_error(ledger: Ledger) -> None:
    def broken() -> Iterator[Batch]:
        yield from batches(2, a)
        raise ZeroDivisionError

    a = Fake()
    with pytest.raises(ZeroDivisionError):
        run_virtually(Asking([a], Gate("t", "open"), ledger, Log(ledger), (), asyncio.Event()).run(broken()))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Incorrect API key provided: sk-proj-ab12****cd34.", "Incorrect API key provided: [key]"),
        ("Authorization: Bearer abc.def-ghi123", "Authorization: [key]"),
        ("key AIzaSyA1234567890abcdefg is bad", "key [key] is bad"),
        ("mykey0123 and nothing else", "[key] and nothing else"),
        ("the task-oriented risk-adjusted desk", "the task-oriented risk-adjusted desk"),
    ],
)
def test_redaction(text: str, clean: str) -> None:
    assert redact(text, ["mykey0123"]) == clean
