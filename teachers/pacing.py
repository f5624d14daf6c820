"""The one place that waits: how soon a teacher may be asked next, and how long after an error."""

import asyncio
from collections.abc import Callable

from tenacity import RetryCallState, wait_random_exponential

from cxr_max.teachers.base import TeacherError


class Pace:
    """Spaces the starts of one teacher's requests, so that ``rpm`` is kept without bursts.

    Args:
        clock: seconds, monotonic; replaced in tests.
    """

    def __init__(self, rpm: int | None, clock: Callable[[], float] | None = None) -> None:
        self._interval_s = 60 / rpm if rpm else 0.0
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._next_s = 0.0

    def delay_s(self) -> float:
        """Take the next free start; the seconds until then."""
        now = self._clock()
        start = max(now, self._next_s)
        self._next_s = start + self._interval_s
        return start - now


class BackOff:
    """How long to wait before trying again: what the service asked for, else jittered doubling."""

    _doubling = wait_random_exponential(multiplier=1, max=60)

    def __call__(self, state: RetryCallState) -> float:
        """Seconds."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_s if isinstance(error, TeacherError) else None
        jittered = float(self._doubling(state))
        # A little jitter on top of what was asked for: a hundred waiting requests must not return at once.
        return jittered if asked is None else asked + min(jittered, 1.0)
