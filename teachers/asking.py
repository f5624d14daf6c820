"""The one loop that sends: look-ahead, pacing, retry, and the ledger. Builders and eval both go through it.

Every reply is committed to the ledger before anybody hears of it. A teacher that cannot answer until somebody
acts (a revoked key, a wrong model, an empty account) stops at once; the others finish.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from cxr_max.answers import status_of
from cxr_max.costs import cost_of
from cxr_max.data_use import Gate
from cxr_max.ledger import Answered, Failure, Ledger
from cxr_max.records import Question, Reply, Status
from cxr_max.teachers.base import Teacher, TeacherError
from cxr_max.teachers.pacing import BackOff, Pace
from cxr_max.teachers.secrets import redact, without_keys

ATTEMPTS: Final = 8
"""With doubling waits of up to a minute, about four minutes besides the time that the attempts take."""
FAILURES_IN_A_ROW: Final = 10
"""Requests given up one after the other until a teacher is taken to be down."""
LOOK_AHEAD: Final = 256
"""Image sets in memory at once (about 0.3 MB each): how far a fast teacher may run ahead of a slow one."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The bytes that are sent for one image, and their sha256."""

    jpeg: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Images that are rendered once for all questions about them; each question with its filled-in prompt."""

    pictures: tuple[Picture, ...]
    questions: tuple[tuple[Question, str], ...]


class Watch(Protocol):
    """Who looks on: progress bars, or nobody."""

    def answered(self, teacher: str, status: Status, cost_usd: float | None) -> None:
        """A reply was committed."""

    def failed(self, teacher: str, message: str) -> None:
        """A request was given up."""

    def stopped(self, teacher: str, message: str) -> None:
        """A teacher is out for the rest of this run."""


@dataclass(slots=True)
class _Load:
    """A batch, and how many of its questions are still to be settled."""

    batch: Batch
    open: int


@dataclass(slots=True)
class _Desk:
    """One teacher's side of the loop."""

    teacher: Teacher
    pace: Pace
    queue: asyncio.Queue[tuple[_Load, Question, str] | None] = field(default_factory=asyncio.Queue)
    failed_in_a_row: int = 0
    out: bool = False


@dataclass(slots=True)
class Asking:
    """One run of the loop.

    Args:
        gate: whether the data may be sent to a teacher.
        keys: the API keys in use, to keep them out of everything that is written.
        stop: once set, nothing new is sent; replies in flight are awaited and committed.
    """

    teachers: Sequence[Teacher]
    gate: Gate
    ledger: Ledger
    watch: Watch
    keys: Sequence[str]
    stop: asyncio.Event
    _desks: dict[str, _Desk] = field(default_factory=dict)
    _commits: "asyncio.Queue[_Commit]" = field(default_factory=asyncio.Queue)
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOK_AHEAD))

    async def run(self, batches: Iterator[Batch]) -> None:
        """Ask every question of ``batches``, which is drawn from in a thread, a bounded number ahead.

        Raises:
            DataUseError: the data may not be sent to one of the teachers; nothing was sent to any.
            StorageError: the ledger cannot be written; nothing more is sent.
        """
        for teacher in self.teachers:
            self.gate.check(teacher.spec.name, teacher.spec.endpoint, teacher.spec.place)
            self._desks[teacher.spec.name] = _Desk(teacher, Pace(teacher.spec.rpm))
        try:
            async with asyncio.TaskGroup() as group:
                committing = group.create_task(self._commit_all())
                async with asyncio.TaskGroup() as askers:
                    askers.create_task(self._feed(batches))
                    for desk in self._desks.values():
                        for _ in range(desk.teacher.spec.concurrency):
                            askers.create_task(self._work(desk))
                committing.cancel()
        except BaseExceptionGroup as group_error:
            raise _first(group_error) from None
        finally:
            for teacher in self.teachers:
                await teacher.close()

    async def _feed(self, batches: Iterator[Batch]) -> None:
        while not self.stop.is_set():
            await self._room.acquire()
            batch = await asyncio.to_thread(next, batches, None)
            if batch is None:
                break
            load = _Load(batch, len(batch.questions))
            for question, prompt in batch.questions:
                self._desks[question.teacher].queue.put_nowait((load, question, prompt))
        for desk in self._desks.values():
            for _ in range(desk.teacher.spec.concurrency):
                desk.queue.put_nowait(None)

    async def _work(self, desk: _Desk) -> None:
        while (item := await desk.queue.get()) is not None:
            load, question, prompt = item
            try:
                if not desk.out and not self.stop.is_set():
                    await self._ask(desk, load.batch, question, prompt)
            except TeacherError as error:
                await self._give_up(desk, question, error)
            load.open -= 1
            if load.open == 0:
                self._room.release()

    async def _ask(self, desk: _Desk, batch: Batch, question: Question, prompt: str) -> None:
        images = [picture.jpeg for picture in batch.pictures]
        started = 0.0
        reply: Reply | None = None
        async for attempt in self._retrying():
            with attempt:
                await self._pause(desk.pace.delay_s())
                if desk.out or self.stop.is_set():
                    return
                started = time.perf_counter()
                reply = await _asked(desk.teacher, images, prompt, question.request_sha256)
        assert reply is not None
        latency_s = time.perf_counter() - started
        clean = self._clean(reply)
        cost = cost_of(clean, desk.teacher.spec.usd_per_million)
        hashes = tuple(picture.sha256 for picture in batch.pictures)
        now = datetime.now(UTC)
        await self._commit(Answered(question.request_sha256, hashes, clean, cost, latency_s, now))
        desk.failed_in_a_row = 0
        status = status_of(clean.text, clean.ended, structured_answer=question.structured_answer)
        self.watch.answered(question.teacher, status, cost)

    def _retrying(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, TeacherError) and error.retried),
            wait=BackOff(),
            stop=stop_after_attempt(ATTEMPTS),
            sleep=self._pause,
            reraise=True,
        )

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not past a request to stop."""
        if seconds > 0:
            try:
                await asyncio.wait_for(self.stop.wait(), seconds)
            except TimeoutError:
                return

    async def _give_up(self, desk: _Desk, question: Question, error: TeacherError) -> None:
        name = question.teacher
        message = redact(str(error), self.keys)
        await self._commit(Failure(question.request_sha256, name, datetime.now(UTC), error.kind, message))
        self.watch.failed(name, message)
        desk.failed_in_a_row += 1
        if not desk.out and (error.fatal or desk.failed_in_a_row >= FAILURES_IN_A_ROW):
            desk.out = True
            self.watch.stopped(name, message)

    def _clean(self, reply: Reply) -> Reply:
        """A service that echoes a key must not write it into the ledger."""
        said = {name: value for name, value in asdict(reply).items() if isinstance(value, str)}
        clean: dict[str, Any] = {name: without_keys(value, self.keys) for name, value in said.items()}
        return replace(reply, **clean)

    async def _commit(self, entry: Answered | Failure) -> None:
        done = asyncio.get_running_loop().create_future()
        await self._commits.put(_Commit(entry, done))
        # A reply that was paid for is written even if this task is cancelled meanwhile.
        await asyncio.shield(done)

    async def _commit_all(self) -> None:
        """Write what has gathered since the last write in one transaction: one disk flush for many replies."""
        while True:
            waiting = [await self._commits.get()]
            while not self._commits.empty():
                waiting.append(self._commits.get_nowait())
            entries = [commit.entry for commit in waiting]
            answers = [entry for entry in entries if isinstance(entry, Answered)]
            failures = [entry for entry in entries if isinstance(entry, Failure)]
            await asyncio.to_thread(self.ledger.commit, answers, failures)
            for commit in waiting:
                commit.done.set_result(None)


@dataclass(frozen=True, slots=True)
class _Commit:
    entry: Answered | Failure
    done: "asyncio.Future[None]"


async def _asked(teacher: Teacher, images: Sequence[bytes], prompt: str, key: str) -> Reply:
    try:
        return await teacher.ask(images, prompt, key)
    except TeacherError:
        raise
    # SDKs raise whatever their next version likes. One odd reply must not take the paid ones in flight with it.
    except Exception as error:
        raise TeacherError("bad_request", f"{type(error).__name__}: {error}") from error


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that started it: groups are how tasks fail, not how people are told."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
