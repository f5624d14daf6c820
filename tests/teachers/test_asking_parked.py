"""Teachers that fail for a while: parked and probed, their images dropped, nobody else held up."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cxr_max.costs import Price
from cxr_max.data_use import Gate
from cxr_max.errors import ImageError
from cxr_max.ledger import Ledger
from cxr_max.records import Reply
from cxr_max.teachers import asking as asking_module
from cxr_max.teachers.asking import ATTEMPTS, PATIENCE_S, Asking, Batch, Picture
from cxr_max.teachers.budget import Budget
from cxr_max.teachers.pacing import LONGEST_PAUSE_S, PARK_AFTER
from tests.teachers.test_asking import Fake, Log, batches, boom, ledger, run
from tests.teachers.virtual import no_threads, run_virtually

pytestmark = pytest.mark.usefixtures("no_threads")
__all__ = ["ledger", "no_threads"]


def now() -> float:
    return asyncio.get_running_loop().time()


class Down(Fake):
    """A teacher that fails from one second on to another, and answers besides."""

    def __init__(self, name: str, begin: float, end: float, kind: Any = "server", **changes: Any) -> None:
        super().__init__(name, **changes)
        self.begin, self.end, self.kind = begin, end, kind
        self.times: list[float] = []
        self.takes_s = 0.5

    async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
        self.times.append(now())
        await asyncio.sleep(self.takes_s)
        if self.begin <= now() < self.end:
            self.calls.append(key)
            raise boom(self.kind)
        return await super().ask(images, prompt, key)


class Images:
    """Batches whose images can be rendered again, with the number of those in memory."""

    def __init__(self, number: int, *teachers: Fake) -> None:
        self.number, self.teachers = number, teachers
        self.drawn = 0
        self.again: list[int] = []
        self.broken: set[int] = set()

    def __iter__(self) -> Iterator[Batch]:
        for study, batch in enumerate(batches(self.number, *self.teachers)):
            self.drawn += 1
            yield replace(batch, again=self._again(study))

    def _again(self, study: int) -> Callable[[], tuple[Picture, ...]]:
        def again() -> tuple[Picture, ...]:
            self.again.append(study)
            if study in self.broken:
                raise ImageError("x.dcm is absent.")
            return (Picture(b"jpeg", "j"),)

        return again


def asked(ledger: Ledger, images: Iterator[Batch], *teachers: Fake, **more: Any) -> tuple[Log, float]:
    """Ask, and how many virtual seconds it took."""
    log = Log(ledger)

    async def go() -> float:
        await Asking(teachers, Gate("t", "open"), ledger, log, (), asyncio.Event(), **more).run(images)
        return now()

    return log, run_virtually(go())


def test_a_teacher_that_is_down_is_parked_and_out_when_patience_ends(ledger: Ledger) -> None:
    a, b = Down("a", 0, 1e9, concurrency=4), Fake("b")
    log, seconds = asked(ledger, batches(40, a, b), a, b)
    assert log.out == ["a"] and [said.split(",")[0] for said in log.said] == ["a is parked"]
    assert sum(teacher == "b" for teacher, _, _ in log.replies) == 40
    assert {failure.request_sha256 for failure in ledger.failures()} == set(a.calls)
    assert len(log.failures) == len(set(a.calls)) < 20, "of 40, what was not sent is no failure"
    assert PATIENCE_S < seconds < PATIENCE_S + 2 * LONGEST_PAUSE_S + 60
    assert len(a.calls) < PARK_AFTER + 4 + 12, "probed, not hammered"


def test_a_teacher_that_is_down_on_its_own_ends_too(ledger: Ledger) -> None:
    a = Down("a", 0, 1e9, concurrency=1)
    log, _ = asked(ledger, batches(40, a), a)
    assert log.out == ["a"] and len(log.replies) == 0


@pytest.mark.parametrize("kind", ["server", "transport", "timeout", "rate_limit", "bad_reply"])
def test_an_outage_costs_time_and_nothing_else(ledger: Ledger, kind: str) -> None:
    a, b = Down("a", 2, 400, kind, concurrency=4), Fake("b")
    log, seconds = asked(ledger, batches(60, a, b), a, b)
    assert len(ledger.answered()) == 120 and log.failures == [] and log.out == []
    assert log.said[0].startswith("a is parked") and log.said[-1] == "a answers again."
    assert seconds < 400 + LONGEST_PAUSE_S + 60


def test_a_parked_teacher_does_not_hold_up_the_others(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for six image sets, the others are done long before it comes back, and it misses nothing."""
    monkeypatch.setattr(asking_module, "LOOK_AHEAD", 6)
    a, b = Down("a", 0, 2000, concurrency=2), Down("b", 0, 0, concurrency=2)
    images = Images(100, a, b)
    done_at: list[float] = []

    class Timed(Log):
        def answered(self, teacher: str, status: str, cost_usd: float | None) -> None:
            super().answered(teacher, status, cost_usd)
            if sum(name == "b" for name, _, _ in self.replies) == 100 and not done_at:
                done_at.append(now())

    log = Timed(ledger)

    async def go() -> None:
        a.end = 600
        asking = Asking([a, b], Gate("t", "open"), ledger, log, (), asyncio.Event())
        task = asyncio.create_task(asking.run(iter(images)))
        while not task.done():
            assert len(asking._loads) <= 6
            await asyncio.sleep(1)
        await task

    run_virtually(go())
    assert done_at[0] < 120
    assert len(ledger.answered()) == 200 and log.failures == [] and log.out == []
    assert len(images.again) == len(set(images.again)) > 80, "rendered again once each"


def test_images_that_are_gone_are_named_failures(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_module, "LOOK_AHEAD", 6)
    a, b = Down("a", 0, 600, concurrency=2), Down("b", 0, 0, concurrency=2)
    images = Images(100, a, b)
    images.broken = {77}
    log, _ = asked(ledger, iter(images), a, b)
    assert log.failures == [("a", "x.dcm is absent.")]
    assert len(ledger.answered()) == 199 and [failure.request_sha256 for failure in ledger.failures()] == ["a/77"]


def test_a_lone_parked_teacher_keeps_its_images(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_module, "LOOK_AHEAD", 6)
    a = Down("a", 0, 100, concurrency=2)
    images = Images(20, a)
    log, _ = asked(ledger, iter(images), a)
    assert images.again == [] and len(log.replies) == 20


def test_images_that_cannot_be_rendered_again_are_kept(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_module, "LOOK_AHEAD", 6)
    a, b = Down("a", 0, 600, concurrency=2), Down("b", 0, 0, concurrency=2)
    log, _ = asked(ledger, batches(40, a, b), a, b)
    assert len(ledger.answered()) == 80 and log.failures == []


def test_look_ahead_is_bounded_in_bytes(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_module, "LOOK_AHEAD_BYTES", 20)
    monkeypatch.setattr(asking_module, "DRAWN_AT_ONCE", 1)
    a = Fake("a", concurrency=1)
    most = 0

    async def go() -> None:
        nonlocal most
        asking = Asking([a], Gate("t", "open"), ledger, Log(ledger), (), asyncio.Event())
        task = asyncio.create_task(asking.run(batches(50, a)))
        while not task.done():
            most = max(most, len(asking._loads))
            await asyncio.sleep(0.001)
        await task
        assert asking._bytes == 0 and not asking._loads

    run_virtually(go())
    assert most == 5 and len(ledger.answered()) == 50


def test_a_request_that_always_fails_is_given_up_alone(ledger: Ledger) -> None:
    class Picky(Fake):
        async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
            if key == "a/3":
                self.calls.append(key)
                raise boom("server")
            return await super().ask(images, prompt, key)

    a = Picky("a", concurrency=2)
    log, _ = asked(ledger, batches(10, a), a)
    assert a.calls.count("a/3") == ATTEMPTS and len(log.replies) == 9 and log.out == []
    assert [failure.request_sha256 for failure in ledger.failures()] == ["a/3"]


def test_being_turned_away_uses_up_no_attempts_and_starves_nobody(ledger: Ledger) -> None:
    class Crowded(Fake):
        async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
            if draws.random() < 0.6:
                raise boom("rate_limit", 1.0)
            return await super().ask(images, prompt, key)

    draws = random.Random(1)
    teachers = [Crowded(name, concurrency=8) for name in "abc"]
    log, _ = asked(ledger, batches(200, *teachers), *teachers)
    assert len(ledger.answered()) == 600 and log.failures == [] and log.out == []


def test_a_stalled_request_is_sent_again_after_its_time(ledger: Ledger) -> None:
    class Stalling(Fake):
        async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
            if not self.calls:
                self.calls.append(key)
                await asyncio.Event().wait()
            return await super().ask(images, prompt, key)

    a = Stalling("a", concurrency=1, timeout_s=40.0)
    log, seconds = asked(ledger, batches(3, a), a)
    assert len(log.replies) == 3 and log.failures == [] and 40 < seconds < 43


def test_a_stop_ends_the_waiting(ledger: Ledger) -> None:
    a = Down("a", 0, 1e9, concurrency=4)

    async def go() -> float:
        stop = asyncio.Event()
        asking = Asking([a], Gate("t", "open"), ledger, Log(ledger), (), stop)
        task = asyncio.create_task(asking.run(batches(400, a)))
        await asyncio.sleep(200)
        stop.set()
        await task
        return now()

    assert run_virtually(go()) <= 201
    assert len(ledger.failures()) == len(set(a.calls)) < 20


def test_a_spent_budget_ends_the_run_with_what_is_in_flight_kept(ledger: Ledger) -> None:
    class Cheap(Fake):
        async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
            reply = await super().ask(images, prompt, key)
            return replace(reply, input_tokens=0, output_tokens=1000)

    a, b = (Cheap(name, price=Price(1.0, 1.0), concurrency=4) for name in "ab")
    budget = Budget(0.05, [a.spec, b.spec])
    log, _ = asked(ledger, batches(300, a, b), a, b, budget=budget)
    assert len(log.replies) == len(ledger.answered()) == len(a.calls) + len(b.calls)
    assert 40 < len(log.replies) <= 50 and budget.spent_usd == pytest.approx(len(log.replies) / 1000)
    assert log.failures == [] and log.said == [budget.message]


def test_another_model_version_is_said_once(ledger: Ledger) -> None:
    class Changing(Fake):
        async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
            reply = await super().ask(images, prompt, key)
            return replace(reply, model_reported="m-1" if len(self.calls) < 10 else "m-2")

    a = Changing("a", concurrency=1)
    log, _ = asked(ledger, batches(20, a), a)
    assert len(log.said) == 1 and "m-2" in log.said[0] and "m-1" in log.said[0]


def test_a_reply_that_came_just_before_everything_is_given_up_is_kept(ledger: Ledger) -> None:
    a = Fake("a", concurrency=8)

    async def go() -> None:
        a.hold = asyncio.Event()
        asking = Asking([a], Gate("t", "open"), ledger, Log(ledger), (), asyncio.Event())
        task = asyncio.create_task(asking.run(batches(8, a)))
        while len(a.calls) < 8:  # noqa: ASYNC110 - a fake teacher wakes nobody
            await asyncio.sleep(0.01)
        a.hold.set()
        # So far that the replies wait to be written.
        while asking._commits.qsize() < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtually(go())
    assert len(ledger.answered()) == 8


def test_what_is_parked_is_said_without_keys(ledger: Ledger, tmp_path: Path) -> None:
    key = "very-secret-key-0123"
    a = Fake("a", [boom("server") for _ in range(PARK_AFTER)], concurrency=1)
    for error in a.script:
        assert error is not None
        error.args = (f"HTTP 500: you sent {key}",)
    log = run(ledger, 3, a, keys=[key])
    assert "parked" in log.said[0] and key not in log.said[0] and "[key]" in log.said[0]
