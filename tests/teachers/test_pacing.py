"""When a teacher may be asked: known answers, and services with limits, all in virtual time."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_max.records import Limits, Reply
from cxr_max.teachers.base import TeacherError
from cxr_max.teachers.desk import WORKERS
from cxr_max.teachers.pacing import (
    FIRST_PAUSE_S,
    LONGEST_BACK_OFF_S,
    LONGEST_PAUSE_S,
    PARK_AFTER,
    Allowance,
    Breaker,
    Meter,
    Pace,
    Turn,
    Window,
)
from tests.teachers.scripted import spec
from tests.teachers.virtual import run_virtually


def reply(tokens: int = 1300, limits: Limits | None = None) -> Reply:
    return Reply("t", None, "stop", "stop", "m", tokens, 0, None, "", limits)


def refused(after: float | None = None, kind: Any = "rate_limit", limits: Limits | None = None) -> TeacherError:
    return TeacherError(kind, "no", after, limits)


def pace(draw: Callable[[], float] = lambda: 1.0, **changes: Any) -> Pace:
    return Pace(spec("openai", "http://127.0.0.1:1/v1", **changes), draw=draw)


def now() -> float:
    return asyncio.get_running_loop().time()


async def turn_of(one: Pace) -> Turn:
    turn = await one.turn()
    assert turn is not None
    return turn


# The parts.


def test_a_window_shrinks_once_per_round_and_grows_by_one_per_round() -> None:
    window = Window(16)
    for n in range(16):
        window.answered(1.0, 1.0 + n / 100)
    window.overrun(1.5)
    assert window.size == 16, "one round says nothing yet"
    window.overrun(2.5)
    assert window.size == 12
    for later in (2.6, 3.0, 3.4):
        window.overrun(later)
    assert window.size == 12, "all of one round"
    for n in range(12):
        window.answered(1.0, 3.5 + n / 100)
    assert window.size == 12
    window.answered(1.0, 3.7)
    assert window.size == 13


def test_a_window_keeps_what_the_service_takes() -> None:
    """Ten replies a second of two seconds each are twenty in flight, whatever is turned away besides."""
    window, at = Window(64), 0.0
    for _ in range(600):
        at += 0.1
        window.answered(2.0, at)
        window.overrun(at)
    assert 19 <= window.size <= 23


def test_a_collapsed_window_grows_fast_to_half_of_what_it_was() -> None:
    window = Window(16)
    window.collapse()
    sizes = [window.size]
    for n in range(9):
        window.answered(1.0, float(n))
        sizes.append(window.size)
    assert sizes == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]


@given(st.integers(1, 64), st.lists(st.tuples(st.sampled_from(["yes", "no", "down"]), st.floats(0.001, 50))))
def test_a_window_stays_between_one_and_the_rosters(most: int, events: list[tuple[str, float]]) -> None:
    window, at = Window(most), 0.0
    for what, seconds in events:
        at += seconds
        if what == "yes":
            window.answered(seconds, at)
        elif what == "no":
            window.overrun(at)
        else:
            window.collapse()
        assert 1 <= window.size <= most
        assert window.spacing_s(at) >= 0


def test_a_meter_spaces_evenly_and_saves_nothing_up() -> None:
    meter = Meter(60)
    starts = []
    for at in (0.0, 0.0, 10.0, 10.0):
        starts.append(max(0.0, meter.wait_s(at)))
        meter.spend(1, at)
    assert starts == [0.0, 1.0, 0.0, 1.0]
    meter.correct(5)
    assert meter.wait_s(10.0) == pytest.approx(7.0)
    assert Meter(None).wait_s(0.0) <= 0


def test_an_allowance_lasts_until_the_reset() -> None:
    left = Allowance()
    assert left.wait_s(1, 0.0) <= 0
    left.heard(3, 60.0, 1, 0.0)
    left.spend(1)
    assert left.wait_s(1, 0.0) <= 0
    left.spend(1)
    assert left.wait_s(1, 10.0) == 50.0
    assert left.wait_s(1, 60.0) <= 0
    left.heard(None, 60.0, 0, 0.0)
    left.heard(0, None, 0, 0.0)
    assert left.wait_s(1, 10.0) == 50.0, "half a statement says nothing"


def test_a_breaker_parks_after_failures_in_a_row_and_probes_ever_more_seldom() -> None:
    breaker = Breaker(lambda: 1.0)
    assert [breaker.failed(False, False, 0.0) for _ in range(PARK_AFTER - 1)] == [False] * (PARK_AFTER - 1)
    breaker.answered()
    assert [breaker.failed(False, False, 0.0) for _ in range(PARK_AFTER)] == [False] * (PARK_AFTER - 1) + [True]
    pauses = [breaker.probe_at]
    for _ in range(8):
        assert not breaker.failed(False, False, 0.0), "what was in flight lengthens no pause"
        assert not breaker.failed(False, True, 0.0)
        pauses.append(breaker.probe_at)
    assert pauses == [min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**n) for n in range(9)]


def test_requests_turned_away_together_are_one_failure() -> None:
    breaker = Breaker(lambda: 1.0)
    assert not any(breaker.failed(True, False, n / 100) for n in range(90))
    assert any(breaker.failed(True, False, float(n)) for n in range(1, PARK_AFTER + 1))


# A pace.


def test_turns_come_in_order_and_never_above_the_rosters_concurrency() -> None:
    async def go() -> None:
        one, order, most = pace(concurrency=3), [], 0

        async def ask(n: int) -> None:
            nonlocal most
            turn = await turn_of(one)
            order.append(n)
            most = max(most, one.in_flight)
            await asyncio.sleep(1)
            one.answered(turn, reply())

        await asyncio.gather(*(ask(n) for n in range(9)))
        assert order == list(range(9)) and most == 3 and now() == pytest.approx(3.0)

    run_virtually(go())


@pytest.mark.parametrize(("limit", "expected"), [({"rpm": 30}, 18.0), ({"tpm": 30_000}, 18.0 * 1300 / 1000)])
def test_the_rosters_limits_per_minute_are_kept(limit: dict[str, int], expected: float) -> None:
    async def go() -> float:
        one = pace(concurrency=8, **limit)
        one._tokens_each = 1300.0
        for _ in range(10):
            turn = await turn_of(one)
            began = now()
            one.answered(turn, reply(1300))
        return began

    assert run_virtually(go()) == pytest.approx(expected)


def test_tokens_are_learned_from_replies() -> None:
    """A guess of 1,564 tokens each; they are 300, so five times as many requests fit the limit."""

    async def go() -> int:
        one, sent = pace(concurrency=8, tpm=60_000), 0
        while now() < 600:
            one.answered(await turn_of(one), reply(300))
            sent += 1
        return sent

    assert run_virtually(go()) == pytest.approx(60_000 / 300 * 10, rel=0.03)


def test_a_long_retry_after_holds_for_the_teacher_a_short_one_for_the_request() -> None:
    async def waited(after: float) -> tuple[float, float]:
        one = pace(lambda: 0.5, concurrency=8)
        error = refused(after)
        one.failed(await turn_of(one), error)
        began = now()
        one.unused(await turn_of(one))
        others = now() - began
        began = now()
        await one.rest(error, 1)
        return others, now() - began

    assert run_virtually(waited(30.0)) == (pytest.approx(30.5), 0.0)
    assert run_virtually(waited(1.0)) == (0.0, pytest.approx(1.5))


def test_back_off_doubles_is_bounded_and_drawn_in_full() -> None:
    async def waited(times: int, draw: float) -> float:
        one, began = pace(lambda: draw), now()
        await one.rest(refused(kind="server"), times)
        return now() - began

    longest = [run_virtually(waited(times, 1.0)) for times in (1, 2, 5, 40)]
    assert longest == pytest.approx([1, 2, 16, LONGEST_BACK_OFF_S])
    assert run_virtually(waited(5, 0.0)) == 0.0


def test_what_the_headers_say_is_left_is_obeyed() -> None:
    async def go() -> list[float]:
        one, starts = pace(concurrency=8), []
        for left in (2, 1, 0, 2):
            turn = await turn_of(one)
            starts.append(now())
            one.answered(turn, reply(limits=Limits(3, left, 20.0)))
        return starts

    assert run_virtually(go()) == pytest.approx([0.0, 0.0, 0.0, 20.0])


def test_requests_in_flight_may_not_be_counted_yet() -> None:
    async def go() -> float:
        one = pace(concurrency=8)
        first, second, third = [await turn_of(one) for _ in range(3)]
        one.answered(first, reply(limits=Limits(3, 2, 20.0)))
        waiting = asyncio.create_task(turn_of(one))
        await asyncio.sleep(1)
        assert not waiting.done()
        one.answered(second, reply(limits=Limits(3, 2, 20.0)))
        await waiting
        one.unused(third)
        return now()

    assert run_virtually(go()) == pytest.approx(1.0)


def test_too_few_tokens_left_wait_too() -> None:
    async def go() -> float:
        one = pace(concurrency=8)
        one.failed(await turn_of(one), refused(limits=Limits(tokens_left=100, tokens_reset_s=12.0)))
        await turn_of(one)
        return now()

    assert run_virtually(go()) == pytest.approx(12.0)


def test_a_parked_teacher_is_probed_by_one_at_a_time_and_comes_back() -> None:
    async def go() -> None:
        one = pace(concurrency=8)
        turns = [await turn_of(one) for _ in range(8)]
        assert [one.failed(turn, refused(kind="server")) for turn in turns] == [False] * 8
        for last in (False, True):
            assert one.failed(await turn_of(one), refused(kind="server")) is last
        assert one.parked and one.probe_in_s == FIRST_PAUSE_S

        probe = await turn_of(one)
        assert probe.probe and now() == pytest.approx(FIRST_PAUSE_S)
        next_ = asyncio.create_task(turn_of(one))
        await asyncio.sleep(1000)
        assert not next_.done(), "one probe at a time"
        one.failed(probe, refused(kind="server"))
        second = await next_
        assert second.probe and now() == pytest.approx(FIRST_PAUSE_S + 1000 + 2 * FIRST_PAUSE_S)
        one.answered(second, reply())
        assert not one.parked and one.size == 2 and one.parked_s == 0.0

    run_virtually(go())


def test_closing_wakes_everybody() -> None:
    async def go() -> None:
        one = pace(concurrency=1)
        await turn_of(one)
        waiting = [asyncio.create_task(one.turn()) for _ in range(3)]
        resting = asyncio.create_task(one.rest(refused(kind="server"), 9))
        await asyncio.sleep(0)
        one.close()
        assert await asyncio.gather(*waiting) == [None, None, None]
        await resting
        assert now() == 0.0

    run_virtually(go())


# Services with limits.


@dataclass
class Service:
    """Takes ``rate`` requests per second with bursts of ``burst``, or turns away at random."""

    rate: float | None
    burst: float
    latency_s: float
    random: random.Random
    turned_away: float = 0.0
    storm: tuple[float, float] = (0.0, float("inf"))
    level: float = field(init=False)
    at: float = 0.0
    served: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.level = self.burst

    async def ask(self) -> bool:
        await asyncio.sleep(0.02)
        if not self._takes():
            self.refused.append(now())
            return False
        await asyncio.sleep(self.latency_s * (0.5 + self.random.random()))
        self.served.append(now())
        return True

    def _takes(self) -> bool:
        begin, end = self.storm
        if begin <= now() < end and self.random.random() < self.turned_away:
            return False
        if self.rate is None:
            return True
        self.level, self.at = min(self.burst, self.level + (now() - self.at) * self.rate), now()
        if self.level < 1:
            return False
        self.level -= 1
        return True

    def goodput(self, begin: float, end: float) -> float:
        """Replies per second."""
        return sum(begin <= at < end for at in self.served) / (end - begin)


async def offered(one: Pace, service: Service, seconds: float, after: float | None, concurrency: int) -> None:
    """As the loop does it: a request that failed is sent again."""

    async def work() -> None:
        times = 0
        while now() < seconds:
            turn = await one.turn()
            if turn is None:
                return
            if await service.ask():
                one.answered(turn, reply())
                times = 0
            else:
                error, times = refused(after), times + 1
                one.failed(turn, error)
                await one.rest(error, times)

    tasks = [asyncio.create_task(work()) for _ in range(WORKERS * concurrency)]
    await asyncio.sleep(seconds)
    one.close()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(("concurrency", "latency_s"), [(8, 2.0), (64, 10.0)])
@pytest.mark.parametrize("share", [0.4, 0.7])
@pytest.mark.parametrize("after", [None, 1.0, 5.0])
def test_a_service_is_used_to_its_limit(
    concurrency: int, latency_s: float, share: float, after: float | None
) -> None:
    """A limit of ``share`` of what the concurrency would bring, with a burst of ten seconds; after the start."""
    rate = share * concurrency / latency_s
    service = Service(rate, max(1.0, 10 * rate), latency_s, random.Random(1))

    async def go() -> None:
        one = pace(random.Random(2).random, concurrency=concurrency)
        await offered(one, service, 300, after, concurrency)

    run_virtually(go())
    assert 0.85 * rate <= service.goodput(100, 300) <= 1.05 * rate
    assert sum(at > 150 for at in service.refused) < sum(at > 150 for at in service.served)


@pytest.mark.parametrize(("concurrency", "latency_s"), [(8, 0.2), (8, 10.0), (64, 2.0)])
@pytest.mark.parametrize("after", [None, 1.0])
def test_a_storm_of_refusals_costs_little_more_than_the_refusals(
    concurrency: int, latency_s: float, after: float | None
) -> None:
    """30% of all requests are turned away for a minute, whatever the rate: 70% of what was before is left."""
    service = Service(None, 1, latency_s, random.Random(3), turned_away=0.3, storm=(60.0, 120.0))

    async def go() -> None:
        one = pace(random.Random(4).random, concurrency=concurrency)
        await offered(one, service, 200, after, concurrency)

    run_virtually(go())
    before = service.goodput(20, 60)
    assert service.goodput(60, 120) >= 0.85 * 0.7 * before
    assert service.goodput(160, 200) >= 0.9 * before, "and after it all is as it was"


@pytest.mark.parametrize(("concurrency", "latency_s"), [(8, 0.2), (8, 2.0), (16, 1.0), (64, 2.0), (64, 10.0)])
def test_a_storm_that_is_there_from_the_start_costs_no_more(concurrency: int, latency_s: float) -> None:
    """Nothing is known yet of what the service takes when the first requests are turned away."""
    service = Service(None, 1, latency_s, random.Random(1), turned_away=0.3)

    async def go() -> None:
        await offered(pace(random.Random(2).random, concurrency=concurrency), service, 120, None, concurrency)

    run_virtually(go())
    assert service.goodput(5 + latency_s, 65 + latency_s) >= 0.85 * 0.7 * concurrency / latency_s


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 32), st.integers(20, 600), st.floats(0.05, 30), st.integers(0, 10_000))
def test_the_rosters_rpm_is_never_passed(concurrency: int, rpm: int, latency_s: float, seed: int) -> None:
    service = Service(None, 1, latency_s, random.Random(seed))
    starts: list[float] = []

    async def go() -> None:
        one = pace(concurrency=concurrency, rpm=rpm)
        original = service.ask

        async def ask() -> bool:
            starts.append(now())
            return await original()

        service.ask = ask  # type: ignore[method-assign]
        await offered(one, service, 90, None, concurrency)

    run_virtually(go())
    assert all(sum(at <= other < at + 60 for other in starts) <= rpm + 1 for at in starts)
