"""Time that passes only when nobody has anything to do, and then at once: hours of waiting run in milliseconds."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class _Jumping(selectors.DefaultSelector):
    """Instead of waiting for the next timer, it moves the loop's clock there."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0 if timeout is not None else None)
        if not events and timeout:
            self.loop.seconds += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time begins at 0. For code without threads, see ``no_threads``."""

    def __init__(self) -> None:
        selector = _Jumping()
        selector.loop = self
        self.seconds = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.seconds


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


async def inline(work: Callable[..., T], *arguments: Any) -> T:
    await asyncio.sleep(0)
    return work(*arguments)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread at work would not keep the clock from running on."""
    monkeypatch.setattr(asyncio, "to_thread", inline)
