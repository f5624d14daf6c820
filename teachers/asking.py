"""The one loop that sends: look-ahead, pacing, retry, and the ledger. Builders and eval both go through it.

Every reply is committed to the ledger before anybody hears of it. A teacher that cannot answer until somebody
acts (a revoked key, a wrong model, an empty account) stops at once; one that only fails for a while is parked by
its pace and probed, and what it was not asked is no failure. The others go on in both cases.

Images are held for at most ``LOOK_AHEAD`` image sets or ``LOOK_AHEAD_BYTES``. Where only parked teachers wait for
some of them, these are dropped, so that the others are fed; they are rendered again at the end of the run. What
is kept of them until then is their questions, about 2 KB each.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from cxr_max.answers import status_of
from cxr_max.costs import cost_of
from cxr_max.data_use import Gate
from cxr_max.errors import DataUseError, ImageError, StorageError, first_of
from cxr_max.ledger import Answered, Failure, Ledger
from cxr_max.records import Reply
from cxr_max.teachers.admission import admit
from cxr_max.teachers.base import Teacher, TeacherError
from cxr_max.teachers.budget import Budget
from cxr_max.teachers.desk import Batch, Desk, Job, Load, Picture, Watch
from cxr_max.teachers.pacing import Clock, Pace, Turn
from cxr_max.teachers.reserve import Reserve
from cxr_max.teachers.secrets import redact, without_keys
from cxr_max.teachers.versions import Versions

__all__ = ["Asking", "Batch", "Picture", "Watch"]

ATTEMPTS: Final = 8
"""Of one request; those that a service turned away for being too many (429), and probes, do not count."""
FAILURES_IN_A_ROW: Final = 10
"""Requests refused one after the other until a teacher is taken to refuse all."""
PATIENCE_S: Final = 900.0
"""How long a parked teacher is probed when nobody else has work left."""
LOOK_AHEAD: Final = 256
"""Image sets in memory at once (about 0.3 MB each): how far a fast teacher may run ahead of a slow one."""
LOOK_AHEAD_BYTES: Final = 128 * 2**20
DRAWN_AT_ONCE: Final = 8
DRAWN_WITHIN_S: Final = 0.02
"""Batches that are at hand are fetched together: each change of threads costs as much as a reply."""


@dataclass(slots=True)
class Asking:
    """One run of the loop.

    Args:
        gate: whether the data may be sent to a teacher.
        keys: the API keys in use, to keep them out of everything that is written.
        stop: once set, nothing new is sent; replies in flight are awaited and committed.
        budget: asked before a request is sent for the first time; once it says no, nothing new is sent either.
        versions: notices a service that answers as another model than before.
        reserve: room for the replies in flight once the disk is full.
        clock: replaced in tests.
    """

    teachers: Sequence[Teacher]
    gate: Gate
    ledger: Ledger
    watch: Watch
    keys: Sequence[str]
    stop: asyncio.Event
    budget: Budget | None = None
    versions: Versions = field(default_factory=Versions)
    reserve: Reserve | None = None
    clock: Clock = field(default_factory=Clock)
    _desks: dict[str, Desk] = field(default_factory=dict)
    _loads: set[Load] = field(default_factory=set)
    _bytes: int = 0
    _freed: asyncio.Event = field(default_factory=asyncio.Event)
    _dropped: deque[tuple[Batch, list[Job]]] = field(default_factory=deque)
    _fed: bool = False
    _full: bool = False
    _over: bool = False
    _ended_by: Exception | None = None
    _commits: "asyncio.Queue[_Commit]" = field(default_factory=asyncio.Queue)

    async def run(self, batches: Iterator[Batch]) -> None:
        """Ask every question of ``batches``, which is drawn from in a thread, a bounded number ahead.

        Raises:
            DataUseError: the data may not be sent to one of the teachers; nothing was sent to any. Or an
                attestation has expired since: nothing more is sent, and the replies in flight are in the ledger.
            RequestError: see ``admit``.
            StorageError: the disk is full; likewise.
            Whatever ``batches`` raises: likewise.
        """
        try:
            admit(self.gate.check, (teacher.spec for teacher in self.teachers), self.ledger, self.keys, self.watch)
            for teacher in self.teachers:
                self._desks[teacher.spec.name] = Desk(teacher, Pace(teacher.spec, self.clock))
            async with asyncio.TaskGroup() as group:
                helping = [group.create_task(self._commit_all()), group.create_task(self._stop_when_told())]
                async with asyncio.TaskGroup() as askers:
                    askers.create_task(self._feed(batches))
                    for desk in self._desks.values():
                        for _ in range(desk.workers):
                            askers.create_task(self._work(desk))
                for task in helping:
                    task.cancel()
        except BaseExceptionGroup as group_error:
            raise first_of(group_error) from None
        finally:
            self._commit_rest()
            for teacher in self.teachers:
                await teacher.close()
        if self._ended_by is not None:
            raise self._ended_by

    async def _stop_when_told(self) -> None:
        await self.stop.wait()
        self._end()

    def _end(self) -> None:
        """Nothing new is sent from now on."""
        self._over = True
        for desk in self._desks.values():
            desk.pace.close()
        self._freed.set()

    def _end_by(self, error: Exception) -> bool:
        """Nothing new is sent, but what is in flight was paid for: it is awaited and committed first.

        Whether there is more room on the disk by now.
        """
        self._ended_by = self._ended_by or error
        self._end()
        return isinstance(error, StorageError) and self.reserve is not None and self.reserve.let_go()

    # What is asked next.

    async def _feed(self, batches: Iterator[Batch]) -> None:
        while room := await self._room():
            try:
                drawn = await asyncio.to_thread(_some, batches, room)
            # Raised again once the replies in flight are safe.
            except Exception as error:  # noqa: BLE001
                self._end_by(error)
                break
            if not drawn:
                break
            for batch in drawn:
                self._add(batch, [Job(question, prompt, None) for question, prompt in batch.questions])
        self._fed = True
        while self._dropped and await self._room():
            again = self._next_dropped()
            if again is None:
                await self._freed.wait()
            else:
                await self._add_again(*again)
        for _, jobs in self._dropped:
            for job in jobs:
                await self._abandon(job)
        for desk in self._desks.values():
            for _ in range(desk.workers):
                desk.put(None)

    async def _room(self) -> int:
        """Wait until there is room for more batches; for how many; 0 once nothing new is sent."""
        while not self._over:
            self._freed.clear()
            if len(self._loads) >= LOOK_AHEAD or self._bytes >= LOOK_AHEAD_BYTES:
                self._drop_images()
            if len(self._loads) < LOOK_AHEAD and self._bytes < LOOK_AHEAD_BYTES:
                return min(LOOK_AHEAD - len(self._loads), DRAWN_AT_ONCE)
            self._full = True
            await self._freed.wait()
            self._full = False
        return 0

    def _add(self, batch: Batch, jobs: Sequence[Job]) -> None:
        wanted = [job for job in jobs if not self._desks[job.question.teacher].out]
        if not wanted:
            return
        load = Load(batch, Counter(job.question.teacher for job in wanted))
        self._loads.add(load)
        self._bytes += load.size
        for job in wanted:
            job.load = load
            self._desks[job.question.teacher].put(job)

    def _next_dropped(self) -> tuple[Batch, list[Job]] | None:
        """The oldest whose teacher does not rest any more, or of all where nobody else has work."""
        for at, (batch, jobs) in enumerate(self._dropped):
            if not self._desks[jobs[0].question.teacher].pace.resting:
                del self._dropped[at]
                return batch, jobs
        return None if any(map(self._at_work, self._desks.values())) else self._dropped.popleft()

    async def _add_again(self, batch: Batch, jobs: list[Job]) -> None:
        assert batch.again is not None
        try:
            pictures = await asyncio.to_thread(batch.again)
        except ImageError as error:
            for job in jobs:
                await self._fail(job, "bad_request", str(error))
            return
        for job in jobs:
            if self._desks[job.question.teacher].out:
                await self._abandon(job)
        self._add(replace(batch, pictures=pictures), jobs)

    def _drop_images(self) -> None:
        """Drop the images that only parked teachers wait for, where others have work to do."""
        resting = {name for name, desk in self._desks.items() if not desk.out and desk.pace.resting}
        if not any(self._at_work(desk) for desk in self._desks.values()):
            return
        for name in resting:
            self._drop_images_of(self._desks[name], resting)

    def _drop_images_of(self, desk: Desk, resting: set[str]) -> None:
        dropped: dict[Load, list[Job]] = {}
        kept: deque[Job | None] = deque()
        for job in desk.queue:
            load = job.load if job is not None else None
            if job is None or load is None or load.batch.again is None or not load.open.keys() <= resting:
                kept.append(job)
            else:
                dropped.setdefault(load, []).append(job)
        desk.queue = kept
        for load, jobs in dropped.items():
            for job in jobs:
                self._settle(job)
                job.load, job.reserved = None, False
            self._dropped.append((replace(load.batch, pictures=()), jobs))

    def _release(self, load: Load, teacher: str) -> None:
        load.open[teacher] -= 1
        if load.open[teacher] == 0:
            del load.open[teacher]
            # Whether or not it was the last one: the rest may all be parked.
            self._freed.set()
        if not load.open:
            self._loads.remove(load)
            self._bytes -= load.size

    # Asking.

    async def _work(self, desk: Desk) -> None:
        while True:
            await desk.ready.acquire()
            if desk.ended:
                return
            turn = await desk.pace.turn()
            # While it waited, others may have taken what there was, or the images were dropped.
            job = desk.next()
            if turn is not None and job is not None:
                await self._ask(desk, turn, job)
                continue
            if turn is not None:
                desk.pace.unused(turn)
            if job is not None:
                await self._abandon(job)
            elif desk.ended:
                return

    async def _ask(self, desk: Desk, turn: Turn, job: Job) -> None:
        assert job.load is not None
        batch, spec = job.load.batch, desk.teacher.spec
        try:
            # Once more for each: an attestation ends at midnight, and a run may not.
            self.gate.check(spec.name, spec.endpoint, spec.place)
        except DataUseError as error:
            desk.pace.unused(turn)
            self._end_by(error)
            await self._abandon(job)
            return
        if self.budget is not None and not job.reserved:
            job.reserved = self.budget.reserve(job.question, batch, job.prompt)
            if not job.reserved:
                desk.pace.unused(turn)
                await self._wait_for_money(self.budget, desk, job, batch)
                return
        started = time.perf_counter()
        try:
            reply = await self._reply(desk.teacher, batch, job)
        except TeacherError as error:
            await self._missed(desk, turn, job, error)
        else:
            latency_s = time.perf_counter() - started
            if desk.pace.parked:
                self.watch.warned(f"{desk.name} answers again.")
            desk.pace.answered(turn, reply)
            await self._keep(desk, job, batch, reply, latency_s)

    async def _reply(self, teacher: Teacher, batch: Batch, job: Job) -> Reply:
        images = [picture.jpeg for picture in batch.pictures]
        timeout_s = teacher.spec.timeout_s
        try:
            async with self.clock.deadline(timeout_s):
                return await teacher.ask(images, job.prompt, job.question.request_sha256)
        except TeacherError:
            raise
        except TimeoutError as error:
            raise TeacherError("timeout", f"no reply within {timeout_s or 0:g} s") from error
        # SDKs raise whatever their next version likes. One odd reply must not take those in flight with it.
        except Exception as error:
            raise TeacherError("bad_request", f"{type(error).__name__}: {error}") from error

    async def _wait_for_money(self, budget: Budget, desk: Desk, job: Job, batch: Batch) -> None:
        """Without a turn, so that a request whose money is set aside already can have it."""
        job.reserved = await budget.admitted(job.question, batch, job.prompt)
        if job.reserved:
            desk.put_first(job)
            return
        if not self._over:
            self._end()
            self.watch.warned(budget.message)
        self._settle(job)

    # What came of it.

    async def _keep(self, desk: Desk, job: Job, batch: Batch, reply: Reply, latency_s: float) -> None:
        question, clean = job.question, self._clean(reply)
        cost = cost_of(clean, desk.teacher.spec.price)
        hashes = tuple(picture.sha256 for picture in batch.pictures)
        now = datetime.now(UTC)
        # Before it is committed: on a slow disk, refusals in plenty come back meanwhile.
        desk.refused_in_a_row = 0
        await self._commit(Answered(question.request_sha256, hashes, clean, cost, latency_s, now))
        status = status_of(clean.text, clean.ended, structured_answer=question.structured_answer)
        self.watch.answered(question.teacher, status, cost)
        changed = self.versions.seen(question.teacher, clean.model_reported)
        if changed is not None:
            self.watch.warned(changed)
        self._settle(job, cost)

    async def _missed(self, desk: Desk, turn: Turn, job: Job, error: TeacherError) -> None:
        """An attempt brought nothing: another one, or none."""
        if desk.pace.failed(turn, error):
            self.watch.warned(
                f"{desk.name} is parked, since it only fails ({redact(str(error), self.keys)}): it is probed from"
                f" {desk.pace.probe_in_s:.0f} s on while the others go on."
            )
        # A service that turns requests away, or is down, says nothing about this one.
        job.missed = (error.kind, redact(str(error), self.keys))
        counts = error.kind != "rate_limit" and not turn.probe
        job.attempts += counts
        others = [other for other in self._desks.values() if other is not desk]
        hopeless = desk.pace.parked_s > PATIENCE_S and not any(map(self._at_work, others))
        if not error.retried or job.attempts >= ATTEMPTS or hopeless:
            await self._give_up(desk, job, error, hopeless)
            return
        if turn.probe:
            # Another request probes next: one that can never succeed must not keep its teacher parked.
            desk.put_last(job)
        else:
            job.rests += 1
            await desk.pace.rest(error, job.rests)
            desk.put_first(job)
        # Where its teacher rests for long now, its images may make room for the others'.
        self._freed.set()

    def _at_work(self, desk: Desk) -> bool:
        """Whether it answers, and something is left for it."""
        # Where the look-ahead is full of what only resting teachers wait for, nothing more comes for the others.
        left = not (self._fed or self._full) or desk.pace.in_flight > 0 or any(desk.queue)
        return left and not desk.out and not desk.pace.resting

    async def _give_up(self, desk: Desk, job: Job, error: TeacherError, hopeless: bool) -> None:
        message = redact(str(error), self.keys)
        desk.refused_in_a_row += not error.retried
        if not desk.out and (error.fatal or hopeless or desk.refused_in_a_row >= FAILURES_IN_A_ROW):
            desk.out = True
            desk.pace.close()
            self.watch.stopped(desk.name, message)
        await self._fail(job, error.kind, message)
        self._settle(job)

    async def _abandon(self, job: Job) -> None:
        """Nothing more is sent: what was tried in vain is a failure, what never was sent is none."""
        if job.missed is not None:
            await self._fail(job, *job.missed)
        self._settle(job)

    async def _fail(self, job: Job, kind: str, message: str) -> None:
        question = job.question
        await self._commit(Failure(question.request_sha256, question.teacher, datetime.now(UTC), kind, message))
        self.watch.failed(question.teacher, message)

    def _settle(self, job: Job, cost_usd: float | None = 0.0) -> None:
        """Nothing more is done about it in this run."""
        if self.budget is not None and job.reserved:
            self.budget.settle(job.question, cost_usd)
        if job.load is not None:
            self._release(job.load, job.question.teacher)

    def _clean(self, reply: Reply) -> Reply:
        """A service that echoes a key must not write it into the ledger."""
        said = {name: getattr(reply, name) for name in _SAID}
        clean: dict[str, Any] = {
            name: without_keys(value, self.keys) for name, value in said.items() if isinstance(value, str)
        }
        return replace(reply, **clean)

    # The ledger.

    async def _commit(self, entry: Answered | Failure) -> None:
        done = asyncio.get_running_loop().create_future()
        self._commits.put_nowait(_Commit(entry, done))
        # A reply that was paid for is written even if this task is cancelled meanwhile.
        await asyncio.shield(done)

    async def _commit_all(self) -> None:
        """Write what has gathered since the last write in one transaction: one disk flush for many replies."""
        while True:
            waiting = [await self._commits.get(), *self._gathered()]
            try:
                await asyncio.to_thread(self._write, waiting)
            except StorageError as error:
                if not self._end_by(error):
                    raise
                await asyncio.to_thread(self._write, waiting)
            for commit in waiting:
                commit.done.set_result(None)

    def _gathered(self) -> "Iterator[_Commit]":
        while not self._commits.empty():
            yield self._commits.get_nowait()

    def _write(self, commits: "Sequence[_Commit]") -> None:
        entries = [commit.entry for commit in commits]
        answers = [entry for entry in entries if isinstance(entry, Answered)]
        failures = [entry for entry in entries if isinstance(entry, Failure)]
        self.ledger.commit(answers, failures)

    def _commit_rest(self) -> None:
        """What came back just before everything was cancelled."""
        with suppress(StorageError):
            if rest := list(self._gathered()):
                self._write(rest)


_SAID: Final = ("text", "reasoning", "ended", "finish_reason", "model_reported", "request_id", "raw")


@dataclass(frozen=True, slots=True)
class _Commit:
    entry: Answered | Failure
    done: "asyncio.Future[None]"


def _some(batches: Iterator[Batch], most: int) -> list[Batch]:
    """The next batches, as many as are there soon; none at the end."""
    drawn: list[Batch] = []
    begun = time.monotonic()
    for batch in batches:
        drawn.append(batch)
        if len(drawn) >= most or time.monotonic() - begun > DRAWN_WITHIN_S:
            break
    return drawn
