"""One teacher's side of the batch loop: what is said to its service, how often, and when it is left alone."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from cxr_max.builders.batch_files import Draft
from cxr_max.errors import CxrMaxError
from cxr_max.ledger import Ledger
from cxr_max.ledger_batches import SentBatch
from cxr_max.teachers.asking import Watch
from cxr_max.teachers.base import ErrorKind, TeacherError
from cxr_max.teachers.batch.base import BatchService, Unsure, refused_to_submit
from cxr_max.teachers.secrets import redact

T = TypeVar("T")

TRIES: Final = 8
"""How often a call that gets no answer is repeated, and a batch sent that the service puts off while idle."""
DRAFTS: Final = 4
"""Files of one teacher that may wait for their turn on the disk, before a full queue holds up the others too."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited, in seconds."""

    first_s: float = 10.0
    """Until a batch is looked at for the first time; half as long again each time,"""
    longest_s: float = 300.0
    """but no longer than this."""
    settle_s: float = 60.0
    """What a submission without an answer is given to show up at the service."""

    def waits(self) -> Iterator[float]:
        """One wait after the other, with some jitter: many batches must not be looked at all at once."""
        wait = self.first_s
        while True:
            yield wait * random.uniform(0.8, 1.2)
            wait = min(1.5 * wait, self.longest_s)


class BatchWatch(Watch, Protocol):
    """Who looks on: progress bars, or nobody."""

    def batches(self, state: str) -> None:
        """What is at the services now, in a sentence."""

    def warned(self, message: str) -> None:
        """Something the user should know."""


class Parked(Exception):
    """A batch is left as the ledger has it, for another run."""


class Unsent(Exception):
    """No service has the batch, and none will; the message says why."""


@dataclass(slots=True)
class Desk:
    """A teacher's service, and the patience with it.

    Args:
        keys: the API keys in use, to keep them out of everything that is said.
        stop: once set, nothing is waited for.
    """

    service: BatchService
    draft: Draft
    ledger: Ledger
    watch: BatchWatch
    keys: Sequence[str]
    stop: asyncio.Event
    patience: Patience
    drafts: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(DRAFTS))
    submitting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One file is on its way at a time."""
    running: int = 0
    """Batches that the service works on."""
    out: bool = False

    @property
    def name(self) -> str:
        """The teacher's."""
        return self.service.spec.name

    def go_out(self, error: TeacherError) -> None:
        """Send nothing more in this run."""
        if not self.out:
            self.out = True
            self.watch.stopped(self.name, redact(str(error), self.keys))

    async def submit(self, batch: SentBatch, requests: Path) -> str:
        """Submit until the service has the batch and means to work on it; its name for the batch."""
        tries, waits = 0, self.patience.waits()
        while True:
            service_id, refusal = await self._sent(batch, requests)
            if service_id is not None and refusal is None:
                return service_id
            assert refusal is not None
            # A full queue empties while the service works on what it has.
            tries = 0 if self.running else tries + 1
            if not refusal.retried or tries >= TRIES:
                self.go_out(refusal)
                raise Unsent(str(refusal))
            await self.pause(max(refusal.retry_after_s or 0.0, next(waits)))
            if self.stop.is_set():
                raise Unsent(str(refusal))

    async def _sent(self, batch: SentBatch, requests: Path) -> tuple[str | None, TeacherError | None]:
        """One submission: the service's name for the batch, in the ledger by now; or why it has none."""
        refusal: TeacherError | None = None
        try:
            service_id: str | None = await _named(lambda: self.service.submit(batch.batch_id, requests))
            assert service_id is not None
            await asyncio.to_thread(self.ledger.batch_accepted, batch.batch_id, service_id)
        except TeacherError as error:
            refusal = error
            # Without an answer nobody knows whether it arrived.
            service_id = None if refused_to_submit(error) else await self.found(batch)
        if service_id is None:
            return None, refusal
        refusal = await self._put_off(service_id)
        if refusal is not None:
            await asyncio.to_thread(self.ledger.batch_is, batch.batch_id, "submitting")
        return service_id, refusal

    async def _put_off(self, service_id: str) -> TeacherError | None:
        """Wait until the service has looked at the batch; why it will not have it now, in case it will not."""
        for wait in self.patience.waits():
            progress = await self.tried(lambda: self.service.progress(service_id))
            if progress.checked or self.stop.is_set():
                refused = progress.refused
                return refused if refused is not None and refused.retried else None
            await self.pause(wait)
        raise AssertionError("waits do not end")

    async def found(self, batch: SentBatch) -> str | None:
        """Look for a batch at its service; ``None`` if it is not there, nor some time later."""
        late = False
        for wait in self.patience.waits():
            try:
                service_id = await self.tried(lambda: self._find(batch))
            except Unsure:
                await self.pause(wait)
            else:
                if service_id is not None:
                    await asyncio.to_thread(self.ledger.batch_accepted, batch.batch_id, service_id)
                if service_id is not None or late:
                    return service_id
                await self.pause(self.patience.settle_s)
                late = True
            self.park_if_stopped()
        raise AssertionError("waits do not end")

    async def _find(self, batch: SentBatch) -> str | None:
        def is_member(key: str) -> bool:
            return self.ledger.is_member(batch.batch_id, key)

        return await self.service.find(batch.batch_id, batch.submitted_at, batch.requests, is_member)

    async def tried(self, call: Callable[[], Awaitable[T]], but: Collection[ErrorKind] = frozenset()) -> T:
        """What a call answers, after a few tries; without an answer the teacher is out and its batch is left.

        Args:
            but: errors that the caller means to deal with.
        """
        try:
            return await self._retrying(but)(_named, call)
        except TeacherError as error:
            if error.kind in but:
                raise
            self.go_out(error)
            raise Parked from error

    def _retrying(self, but: Collection[ErrorKind]) -> AsyncRetrying:
        waits = self.patience.waits()
        return AsyncRetrying(
            retry=retry_if_exception(lambda e: isinstance(e, TeacherError) and e.retried and e.kind not in but),
            wait=lambda _: next(waits),
            stop=stop_after_attempt(TRIES),
            sleep=self._rest,
            reraise=True,
        )

    async def _rest(self, seconds: float) -> None:
        await self.pause(seconds)
        self.park_if_stopped()

    def park_if_stopped(self) -> None:
        """Raise ``Parked`` after a request to stop."""
        if self.stop.is_set():
            raise Parked

    async def pause(self, seconds: float) -> None:
        """Sleep, but not past a request to stop."""
        if seconds > 0:
            try:
                await asyncio.wait_for(self.stop.wait(), seconds)
            except TimeoutError:
                return


async def _named(call: Callable[[], Awaitable[T]]) -> T:
    """``call``, with whatever an SDK's next version raises as an answer that cannot be read."""
    try:
        return await call()
    except (CxrMaxError, Unsure, OSError):
        raise
    except Exception as error:
        raise TeacherError("bad_reply", f"{type(error).__name__}: {error}") from error
