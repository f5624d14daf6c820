"""A job's own run of the sending loop: teachers connected, signals heeded, a stop told apart from an end."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from cxr_max.costs import Spent
from cxr_max.data_use import Gate
from cxr_max.errors import CxrMaxError
from cxr_max.ledger import Ledger
from cxr_max.ledger_summary import models_reported
from cxr_max.teachers import roster
from cxr_max.teachers.asking import Asking, Batch, Watch
from cxr_max.teachers.base import TeacherSpec
from cxr_max.teachers.budget import Budget
from cxr_max.teachers.reserve import Reserve
from cxr_max.teachers.versions import Versions

_HANDLED: Final = (signal.SIGINT, signal.SIGTERM)
BURNED_IN: Final = (
    "{} of the images sent declare text burned into their pixels, which may name a patient: look at them before"
    " you share anything."
)


class Interrupted(CxrMaxError):
    """The user stopped the job; the same command goes on where it ended."""

    exit_code = 130


def send(
    batches: Iterator[Batch],
    specs: Sequence[TeacherSpec],
    keys: Mapping[str, str],
    gate: Gate,
    ledger: Ledger,
    watch: Watch,
    stopping: Callable[[], None],
    simulator: str | None = None,
    budget: Budget | None = None,
) -> None:
    """Ask every question of ``batches``; replies and failures are in the ledger when this returns.

    Args:
        keys: API keys, by teacher.
        stopping: told when a stop is asked for, while the replies in flight are awaited.
        simulator: the running simulator's address, for personas.
        budget: what may be spent.

    Raises:
        DataUseError: the data may not be sent to one of the teachers; nothing was sent to any.
        StorageError: the disk is full; nothing more is sent, and the replies in flight are in the ledger.
        Interrupted: the user stopped it.
    """

    async def run() -> bool:
        stop = asyncio.Event()
        asking = Asking(
            teachers=[roster.connect(spec, keys[spec.name], simulator) for spec in specs],
            gate=gate,
            ledger=ledger,
            watch=watch,
            keys=[keys[spec.name] for spec in specs if spec.key],
            stop=stop,
            budget=budget,
            versions=Versions(models_reported(ledger.path)),
            reserve=reserve,
        )
        return await stopped(asking.run(batches), stop, stopping)

    with Reserve(ledger.path) as reserve:
        ended_early = asyncio.run(run())
    if ended_early:
        raise Interrupted(
            f"Stopped: all replies received are kept in {ledger.path}; the same command goes on from there."
        )


def budget_for(
    limit_usd: float | None,
    specs: Sequence[TeacherSpec],
    watch: Watch,
    spent: Callable[[], Spent],
) -> Budget | None:
    """What a job may still spend under a limit that can be kept; ``None`` for no limit.

    Args:
        spent: what counts already. Not called without a limit: a ledger of millions is not read for nothing.
    """
    if limit_usd is None:
        return None
    paid, unknown = spent()
    if unknown:
        watch.warned(f"{unknown} earlier replies have no known cost and do not count for --max-cost-usd.")
    return Budget(limit_usd, specs, paid)


async def stopped(work: Coroutine[None, None, None], stop: asyncio.Event, stopping: Callable[[], None]) -> bool:
    """Run ``work`` to its end, heeding signals; whether it was told to stop."""
    task = asyncio.create_task(work)
    with _signals_heeded(stop, task, stopping):
        try:
            await task
        except asyncio.CancelledError:
            stop.set()
    return stop.is_set()


@contextmanager
def _signals_heeded(
    stop: asyncio.Event, task: "asyncio.Task[None]", stopping: Callable[[], None]
) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM stops sending; the second gives up the replies in flight."""

    def asked() -> None:
        if stop.is_set():
            task.cancel()
            return
        stop.set()
        stopping()

    # Only a main thread gets signals; a job inside somebody's program leaves them to it.
    handled = _HANDLED if threading.current_thread() is threading.main_thread() else ()
    loop = asyncio.get_running_loop()
    for number in handled:
        loop.add_signal_handler(number, asked)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
