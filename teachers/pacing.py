"""The one place that waits: when a teacher may be asked next, and how long it is left alone after an error.

Per teacher, four things hold a request back. The window says how many may be in flight: it grows by one per round
of replies and shrinks by a quarter when the service is overrun (429, 503, 529, a timeout), though never below what
the service lately took. The meters keep the roster's requests and tokens per minute, evenly. What the service says
itself is obeyed: Retry-After, and what its headers say is left. The breaker parks a teacher that fails many times
in a row, and probes it with single requests after growing pauses. Waiting is drawn at random, so that what failed
together does not come back together.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from math import exp, inf
from typing import Any, Final

from cxr_max.records import Limits, Reply
from cxr_max.teachers.base import TeacherError, TeacherSpec
from cxr_max.teachers.rate_limits import LONGEST_WAIT_S

PARK_AFTER: Final = 10
"""Attempts that failed one after the other, with no reply between them."""
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0
"""Between two probes of a parked teacher; each pause is twice the one before."""
LONGEST_BACK_OFF_S: Final = 60.0
SHORT_S: Final = 2.0
"""A longer Retry-After says that a limit is used up: it holds for the teacher, not for the one request."""
LONG_REST_S: Final = 60.0
ROUND_S: Final = 1.0
"""Requests turned away (429) count as one failure in so many seconds: services do that by the dozen."""
SHRINK: Final = 0.75
HEADROOM: Final = 1.1
MORE: Final = 0.4
"""Times, and on top of, what a service lately took: without any, a window that is not quite full all the time
would dwindle; and a tenth of four is lost when the window is rounded down."""
LATELY_S: Final = 30.0
PROMPT_TOKENS: Final = 1500
"""Of a prompt with an image, about: a guess that the first replies correct."""


class Clock:
    """Time as the event loop has it. Tests bring a faster one."""

    def now(self) -> float:
        """Seconds, from any beginning."""
        return asyncio.get_running_loop().time()

    def deadline(self, seconds: float | None) -> AbstractAsyncContextManager[Any]:
        """Ends what is awaited inside with a ``TimeoutError`` after so many seconds."""
        return asyncio.timeout(seconds)


class Window:
    """How many requests may be in flight: additive increase, multiplicative decrease (Chiu and Jain, 1989)."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = self._threshold = float(most)
        self._latency_s = 0.0
        self._replies = 0.0
        self._turned_away = 0.0
        """Share of the latest requests."""
        self._first_at = inf
        """When the first request was sent that got a reply."""
        self._last_at = self._shrunk_at = self._overrun_at = -inf

    @property
    def size(self) -> int:
        """Never above the roster's concurrency, never below 1."""
        return int(self._size)

    def answered(self, latency_s: float, now: float) -> None:
        """One reply: one more in flight after as many as are in flight; below the threshold after every one."""
        self._size = min(self._most, self._size + (1 if self._size < self._threshold else 1 / self._size))
        if self._first_at == inf:
            self._first_at, self._latency_s = now - latency_s, latency_s
        self._latency_s += (latency_s - self._latency_s) / 10
        self._turned_away -= self._turned_away / 20
        self._replies = self._lately(now) + 1
        self._last_at = now

    def overrun(self, now: float) -> None:
        """Shrink: once per round of replies, and not before two rounds have shown what the service takes.

        What got through lately kept ``rate * latency`` requests in flight (Little's law): a service that still
        takes as much needs no smaller window, however often it says no in between.
        """
        self._overrun_at = now
        self._turned_away += (1 - self._turned_away) / 20
        if now < self._first_at + 2 * self._latency_s or now < self._shrunk_at + self._latency_s:
            return
        # Without the share of LATELY_S in which there was nothing yet.
        seconds = LATELY_S * (1 - exp((self._first_at - now) / LATELY_S))
        in_flight = self._lately(now) / max(seconds, 1e-9) * self._latency_s
        self._size = max(1.0, min(self._size, max(self._size * SHRINK, in_flight * HEADROOM + MORE)))
        self._threshold, self._shrunk_at = self._size, now

    def collapse(self) -> None:
        """Begin again with one, and grow fast to half of what was."""
        self._threshold, self._size = max(1.0, self._size / 2), 1.0

    def spacing_s(self, now: float) -> float:
        """Between two starts while the service is, or lately was, overrun: a steady stream instead of bursts.

        As many more are started as are turned away, up to twice as many, so that the window stays full.
        """
        if now > self._overrun_at + LATELY_S:
            return 0.0
        return self._latency_s / self._size * (1 - min(self._turned_away, 0.5))

    def _lately(self, now: float) -> float:
        """Replies, each counting for less the longer ago it was."""
        return self._replies * exp((self._last_at - now) / LATELY_S) if self._replies else 0.0


class Meter:
    """Spaces what is spent evenly over the minute, so that a limit per minute is kept without bursts."""

    def __init__(self, per_minute: int | None) -> None:
        self._interval_s = 60 / per_minute if per_minute else 0.0
        self._free_at = -inf

    def wait_s(self, now: float) -> float:
        """Until something may be spent."""
        return self._free_at - now

    def spend(self, amount: float, now: float) -> None:
        """Take it; the next may come when it is made up for."""
        self._free_at = max(now, self._free_at) + amount * self._interval_s

    def correct(self, amount: float) -> None:
        """More, or less, was spent than thought."""
        self._free_at += amount * self._interval_s


class Allowance:
    """What a service says is left of one of its limits."""

    def __init__(self) -> None:
        self._left = inf
        self._reset_at = -inf

    def heard(self, left: float | None, reset_s: float | None, uncounted: float, now: float) -> None:
        """``uncounted``: what is in flight, which the service may not have counted yet."""
        if left is not None and reset_s is not None:
            self._left, self._reset_at = left - uncounted, now + min(reset_s, LONGEST_WAIT_S)

    def spend(self, amount: float) -> None:
        """Something is sent."""
        self._left -= amount

    def wait_s(self, amount: float, now: float) -> float:
        """Until so much is surely left: none, or all until the reset."""
        return 0.0 if self._left >= amount else self._reset_at - now


class Breaker:
    """Parks a teacher that only fails, and says when to probe it."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._in_a_row = 0
        self._pauses = 0
        self._counted_at = -inf
        self.parked_at: float | None = None
        self.probe_at = -inf

    def answered(self) -> None:
        """All is well again."""
        self._in_a_row = self._pauses = 0
        self.parked_at = None

    def failed(self, turned_away: bool, probe: bool, now: float) -> bool:
        """Whether this parked it."""
        if not turned_away or now >= self._counted_at + ROUND_S:
            self._in_a_row += 1
            self._counted_at = now
        if self.parked_at is not None:
            # What was in flight when it was parked says nothing new.
            if probe:
                self._pause(now)
            return False
        if self._in_a_row < PARK_AFTER:
            return False
        self.parked_at = now
        self._pause(now)
        return True

    def _pause(self, now: float) -> None:
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._pauses, 10))
        self._pauses += 1
        self.probe_at = now + longest * (0.5 + 0.5 * self._draw())


@dataclass(frozen=True, slots=True)
class Turn:
    """Leave to send one request."""

    started: float
    tokens: float
    """What it was taken to cost of the limit per minute."""
    probe: bool
    """Whether it is a parked teacher's only one."""


class Pace:
    """When one teacher may be asked.

    Args:
        draw: a number from 0 to 1, at random; replaced in tests.
    """

    def __init__(
        self, spec: TeacherSpec, clock: Clock | None = None, draw: Callable[[], float] = random.random
    ) -> None:
        self.clock = clock or Clock()
        self.in_flight = 0
        self._draw = draw
        self._window = Window(spec.concurrency)
        self._breaker = Breaker(draw)
        self._starts, self._tokens = Meter(spec.rpm), Meter(spec.tpm)
        self._requests_left, self._tokens_left = Allowance(), Allowance()
        self._tokens_each = float(PROMPT_TOKENS + spec.sampling.max_tokens)
        self._hold_until = self._next_at = -inf
        self._probing = False
        self._line = asyncio.Lock()
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def size(self) -> int:
        """How many requests may be in flight now."""
        return self._window.size

    @property
    def parked(self) -> bool:
        """Whether it only failed lately, so that it is merely probed."""
        return self._breaker.parked_at is not None

    @property
    def parked_s(self) -> float:
        """For how long; 0 where it is not."""
        return 0.0 if self._breaker.parked_at is None else self.clock.now() - self._breaker.parked_at

    @property
    def probe_in_s(self) -> float:
        """How long a parked teacher is still left alone."""
        return max(0.0, self._breaker.probe_at - self.clock.now(), self._hold_until - self.clock.now())

    @property
    def resting(self) -> bool:
        """Whether nothing much can be asked for a while: parked, or asked by the service to wait for long."""
        return self.parked or self._hold_until - self.clock.now() >= LONG_REST_S

    def close(self) -> None:
        """Nothing more is to be sent: whoever waits is told."""
        self._closed.set()
        self._changed.set()

    async def turn(self) -> Turn | None:
        """Wait until a request may be sent, first come, first served; ``None`` once closed.

        Whoever gets a turn gives it back by ``answered``, ``failed`` or ``unused``.
        """
        async with self._line:
            while not self._closed.is_set():
                wait_s = self._wait_s(self.clock.now())
                if wait_s <= 0:
                    return self._start(self.clock.now())
                self._changed.clear()
                await self._woken(self._changed, wait_s)
        return None

    async def rest(self, error: TeacherError, times: int) -> None:
        """Wait before a request is sent again that failed so often; not past the closing."""
        asked = error.retry_after_s or 0.0
        if asked > SHORT_S:
            return
        jittered = self._draw() * min(LONGEST_BACK_OFF_S, 2 ** min(times - 1, 10))
        await self._woken(self._closed, max(jittered, _later(asked, self._draw())))

    def answered(self, turn: Turn, reply: Reply) -> None:
        """The turn ended with a reply."""
        now = self.clock.now()
        self._ended(turn)
        self._window.answered(now - turn.started, now)
        self._breaker.answered()
        if reply.input_tokens is not None and reply.output_tokens is not None:
            spent = reply.input_tokens + reply.output_tokens
            self._tokens.correct(spent - turn.tokens)
            self._tokens_each += (spent - self._tokens_each) / 10
        self._heed(reply.limits, now)

    def failed(self, turn: Turn, error: TeacherError) -> bool:
        """The turn ended without one. Whether this parked the teacher."""
        now = self.clock.now()
        self._ended(turn)
        self._heed(error.limits, now)
        if error.retry_after_s is not None and error.retry_after_s > SHORT_S:
            self._hold_until = max(self._hold_until, now + _later(error.retry_after_s, self._draw()))
        if error.overrun:
            self._window.overrun(now)
        if not error.retried or not self._breaker.failed(error.kind == "rate_limit", turn.probe, now):
            return False
        self._window.collapse()
        return True

    def unused(self, turn: Turn) -> None:
        """Nothing was sent after all."""
        self._ended(turn)

    def _start(self, now: float) -> Turn:
        turn = Turn(now, self._tokens_each, self.parked)
        self.in_flight += 1
        self._probing = self._probing or turn.probe
        self._next_at = now + self._window.spacing_s(now)
        self._starts.spend(1, now)
        self._tokens.spend(turn.tokens, now)
        self._requests_left.spend(1)
        self._tokens_left.spend(turn.tokens)
        return turn

    def _wait_s(self, now: float) -> float:
        if self.parked:
            return inf if self._probing else max(self._breaker.probe_at, self._hold_until) - now
        if self.in_flight >= self._window.size:
            return inf
        return max(
            self._hold_until - now,
            self._next_at - now,
            self._starts.wait_s(now),
            self._tokens.wait_s(now),
            self._requests_left.wait_s(1, now),
            self._tokens_left.wait_s(self._tokens_each, now),
        )

    def _ended(self, turn: Turn) -> None:
        self.in_flight -= 1
        if turn.probe:
            self._probing = False
        self._changed.set()

    def _heed(self, limits: Limits | None, now: float) -> None:
        if limits is None:
            return
        self._requests_left.heard(limits.requests_left, limits.requests_reset_s, self.in_flight, now)
        uncounted = self.in_flight * self._tokens_each
        self._tokens_left.heard(limits.tokens_left, limits.tokens_reset_s, uncounted, now)

    async def _woken(self, event: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            async with self.clock.deadline(None if seconds == inf else seconds):
                await event.wait()


def _later(seconds: float, draw: float) -> float:
    """A little later than asked: a hundred waiting requests, or processes, must not return at once."""
    return min(seconds, LONGEST_WAIT_S) + draw * min(1.0, seconds)
