"""The loop that asks through the services' batch interfaces: half the price, within a day.

A batch and its members are in the ledger before anything of it is sent, and the service's name for it before it
counts as submitted. So a process may die at any point: what the service may have is looked for there and never
sent twice, and every reply that a batch finished is kept, however the batch ended. Only the rest is asked again.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn
from uuid import uuid4

from cxr_max.answers import status_of
from cxr_max.builders.batch_desk import BatchWatch, Desk, Parked, Patience, Unsent
from cxr_max.builders.batch_files import Draft, clear
from cxr_max.builders.batch_results import Kept, Results, lines_of
from cxr_max.data_use import Gate
from cxr_max.errors import first_of
from cxr_max.ledger import Answered, Ledger
from cxr_max.ledger_batches import BatchState, Member, SentBatch
from cxr_max.records import Question
from cxr_max.shards import disk_refusals_named
from cxr_max.teachers.admission import admit
from cxr_max.teachers.asking import Batch
from cxr_max.teachers.base import ErrorKind, TeacherError
from cxr_max.teachers.batch.base import BatchService, Cancelled, Progress
from cxr_max.teachers.budget import Budget, most_usd
from cxr_max.teachers.secrets import redact
from cxr_max.teachers.versions import Versions

ROUNDS: Final = 3
"""How often a request is put into a batch in one run; the same command again begins anew."""

Wanted = Callable[[Question], bool]
OpenRound = Callable[[Wanted, int], AbstractContextManager[Iterator[Batch]]]
"""Opens the images and questions of one round, given which questions are wanted and the round's number from 0."""


@dataclass(slots=True)
class BatchAsking:
    """One run of the loop.

    Args:
        gate: whether the data may be sent to a teacher.
        keys: the API keys in use, to keep them out of everything that is written.
        stop: once set, nothing new is sent or waited for; the batches stay at the services.
        folder: for the files that are sent and fetched.
        cancel: ask the services to stop, and keep what is finished by then.
    """

    services: Sequence[BatchService]
    gate: Gate
    ledger: Ledger
    watch: BatchWatch
    keys: Sequence[str]
    stop: asyncio.Event
    folder: Path
    patience: Patience = field(default_factory=Patience)
    budget: Budget | None = None
    versions: Versions = field(default_factory=Versions)
    cancel: bool = False
    _desks: dict[str, Desk] = field(default_factory=dict)
    _again: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By request: its teacher, and why it has no reply though it was in a batch."""
    _given_up: set[str] = field(default_factory=set)
    _at_service: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    """By batch: requests that the service is done with, and of how many."""

    async def run(self, open_round: OpenRound | None) -> None:
        """Collect what is at the services and ask what is open; ``None`` for nothing to ask.

        Raises:
            DataUseError: the data may not be sent to one of the teachers in batches; nothing was sent to any.
            StorageError: the ledger or a file cannot be written; the batches stay at the services.
        """
        try:
            if open_round is not None:
                specs = (service.spec for service in self.services)
                admit(self.gate.check_batch, specs, self.ledger, self.keys, self.watch)
            self._desks = {service.spec.name: self._desk(service) for service in self.services}
            clear(self.folder)
            await self._rounds(open_round)
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        finally:
            for desk in self._desks.values():
                desk.draft.drop()
            for service in self.services:
                await service.close()
            with suppress(OSError):
                self.folder.rmdir()

    async def _rounds(self, open_round: OpenRound | None) -> None:
        left = [batch for batch in self.ledger.open_batches() if self._runs_here(batch)]
        for number in range(ROUNDS):
            async with asyncio.TaskGroup() as group:
                for batch in left:
                    group.create_task(self._follow(self._desks[batch.teacher], batch))
                if open_round is not None:
                    with open_round(self._wanted(number), number) as batches:
                        await self._feed(group, batches)
            left = []
            if open_round is None or self.stop.is_set() or not self._something_again():
                break
        if not self.stop.is_set():
            for teacher, message in self._again.values():
                self.watch.failed(teacher, message)

    def _runs_here(self, batch: SentBatch) -> bool:
        desk = self._desks.get(batch.teacher)
        return desk is not None and desk.service.spec.endpoint == batch.endpoint

    def _wanted(self, number: int) -> Wanted:
        busy, again = self.ledger.requests_in_batches(), set(self._again)
        if self.budget is not None:
            for key, usd in busy.items():
                self.budget.hold(key, usd or 0.0)

        def wanted(question: Question) -> bool:
            key = question.request_sha256
            if key in busy or key in self._given_up or self._desks[question.teacher].out:
                return False
            return number == 0 or key in again

        return wanted

    def _something_again(self) -> bool:
        return any(not self._desks[teacher].out for teacher, _ in self._again.values())

    # Filling and sending.

    async def _feed(self, group: asyncio.TaskGroup, batches: Iterator[Batch]) -> None:
        while not self.stop.is_set():
            batch = await asyncio.to_thread(next, batches, None)
            if batch is None or not await self._add_all(group, batch):
                break
        for desk in self._desks.values():
            await self._send(group, desk)

    async def _add_all(self, group: asyncio.TaskGroup, batch: Batch) -> bool:
        """Whether there is money left for more."""
        for question, prompt in batch.questions:
            desk = self._desks[question.teacher]
            if desk.out:
                continue
            if self.budget is not None and not self.budget.reserve(question, batch, prompt):
                self.budget.refused = True
                self.watch.stopped(desk.name, self.budget.message)
                return False
            await self._add(group, desk, batch, question, prompt)
        return True

    async def _add(
        self, group: asyncio.TaskGroup, desk: Desk, batch: Batch, question: Question, prompt: str
    ) -> None:
        key, images = question.request_sha256, [picture.jpeg for picture in batch.pictures]
        line = await asyncio.to_thread(desk.service.line, images, prompt, key)
        if not desk.draft.has_room(line):
            await self._send(group, desk)
        hashes = tuple(picture.sha256 for picture in batch.pictures)
        most = most_usd(desk.service.spec, question, batch, prompt)
        member = Member(key, hashes, question.structured_answer, most)
        await asyncio.to_thread(desk.draft.add, line, member)

    async def _send(self, group: asyncio.TaskGroup, desk: Desk) -> None:
        """Let what is drafted be submitted. After a request to stop it is as if it had never been drafted."""
        draft, desk.draft = desk.draft, self._draft(desk.service)
        if not draft.members:
            return
        draft.finish()
        await desk.drafts.acquire()
        group.create_task(self._submit_in_turn(desk, draft))

    def _desk(self, service: BatchService) -> Desk:
        draft = self._draft(service)
        return Desk(service, draft, self.ledger, self.watch, self.keys, self.stop, self.patience)

    def _draft(self, service: BatchService) -> Draft:
        return Draft(self.folder / f"{uuid4().hex}.jsonl", service.limits)

    async def _submit_in_turn(self, desk: Desk, draft: Draft) -> None:
        """A drafted batch, from its row in the ledger to its end."""
        spec = desk.service.spec
        try:
            async with desk.submitting:
                if desk.out or self.stop.is_set():
                    return
                now, requests = datetime.now(UTC), len(draft.members)
                batch = SentBatch(draft.path.stem, spec.name, spec.endpoint, now, requests)
                await asyncio.to_thread(self.ledger.begin_batch, batch, draft.members)
                with disk_refusals_named(draft.path):
                    service_id = await desk.submit(batch, draft.path)
        except Parked:
            return
        except Unsent as error:
            await self._free(desk, batch, "unsent", str(error))
            return
        finally:
            draft.drop()
            desk.drafts.release()
        await self._follow(desk, replace(batch, service_id=service_id, state="running"))

    async def _follow(self, desk: Desk, batch: SentBatch) -> None:
        """A batch that its service has, or may have, to its end."""
        try:
            service_id = batch.service_id or await desk.found(batch)
            if service_id is None:
                await self._free(desk, batch, "unsent", "its batch never reached the service")
                return
            desk.running += 1
            try:
                progress = await self._ended(desk, batch, service_id)
            finally:
                desk.running -= 1
            await self._collect(desk, batch, service_id, progress)
        except Parked:
            return
        finally:
            self._at_service.pop(batch.batch_id, None)

    async def _free(self, desk: Desk, batch: SentBatch, state: BatchState, why: str) -> None:
        """Let the requests of a batch that no service has be asked again."""
        await asyncio.to_thread(self.ledger.batch_is, batch.batch_id, state)
        keys = await asyncio.to_thread(self.ledger.waiting_members, batch.batch_id)
        self._again.update({key: (desk.name, redact(why, self.keys)) for key in keys})
        self._release(keys)

    # Waiting.

    async def _ended(self, desk: Desk, batch: SentBatch, service_id: str) -> Progress:
        """Wait until the service is done with a batch."""
        if self.cancel:
            await self._cancel(desk, batch, service_id)
        for wait in self.patience.waits():
            try:
                progress = await desk.tried(lambda: desk.service.progress(service_id), but={"model"})
            except TeacherError:
                await self._lost(desk, batch, service_id)
            if progress.ended:
                return progress
            self._at_service[batch.batch_id] = (progress.finished, batch.requests)
            self._say()
            desk.park_if_stopped()
            await desk.pause(wait)
            desk.park_if_stopped()
        raise AssertionError("waits do not end")

    async def _cancel(self, desk: Desk, batch: SentBatch, service_id: str) -> None:
        try:
            # One that has ended cannot be cancelled, and can be collected.
            but: tuple[ErrorKind, ...] = ("bad_request", "model", "server")
            await desk.tried(lambda: desk.service.cancel(service_id), but)
        except TeacherError as error:
            if error.kind == "model":
                await self._free(desk, batch, "ended", "its batch is unknown to the service")
                raise Parked from error

    async def _lost(self, desk: Desk, batch: SentBatch, service_id: str) -> NoReturn:
        """The service does not know a batch that it once had."""
        if desk.service.spec.provider == "simulated":
            await self._free(desk, batch, "ended", "its batch ended with the simulator that had it")
            raise Parked
        message = (
            f"the service knows no batch {service_id}: use the account that it was submitted with, or give it up"
            " with cxr-max batches DIR --cancel"
        )
        desk.go_out(TeacherError("model", message))
        raise Parked

    # Collecting.

    async def _collect(self, desk: Desk, batch: SentBatch, service_id: str, progress: Progress) -> None:
        """Keep every reply of an ended batch, and say why the others are missing."""
        path = self.folder / f"{batch.batch_id}.results.jsonl"
        results = Results(desk.service, self.ledger, batch, self.keys)
        try:
            with disk_refusals_named(path):
                self.folder.mkdir(exist_ok=True)
                await desk.tried(lambda: desk.service.fetch(service_id, path))
            groups, failed = lines_of(path), set[str]()
            while lines := await asyncio.to_thread(next, groups, None):
                kept = await asyncio.to_thread(results.keep, lines)
                failed |= {entry.member.request_sha256 for entry in kept if not isinstance(entry.result, Answered)}
                self._tell(desk, kept)
            self._tell(desk, await asyncio.to_thread(results.keep_missing, progress, failed))
            await asyncio.to_thread(self.ledger.batch_is, batch.batch_id, "ended")
        finally:
            path.unlink(missing_ok=True)
        if progress.refused is not None and not progress.refused.retried:
            desk.go_out(progress.refused)
        self._at_service.pop(batch.batch_id, None)
        self._say()

    def _tell(self, desk: Desk, kept: Sequence[Kept]) -> None:
        """Say what is in the ledger now."""
        for entry in kept:
            if isinstance(entry.result, Answered):
                self._tell_answered(desk, entry.result, entry.member.structured_answer)
            else:
                self._tell_failed(desk, entry.member.request_sha256, entry.result)

    def _tell_answered(self, desk: Desk, answered: Answered, structured_answer: bool) -> None:
        reply = answered.reply
        self._again.pop(answered.request_sha256, None)
        if self.budget is not None:
            self.budget.settle_held(answered.request_sha256, answered.cost_usd)
        status = status_of(reply.text, reply.ended, structured_answer=structured_answer)
        self.watch.answered(desk.name, status, answered.cost_usd)
        if news := self.versions.seen(desk.name, reply.model_reported):
            self.watch.warned(news)

    def _tell_failed(self, desk: Desk, key: str, error: TeacherError) -> None:
        message = redact(str(error), self.keys)
        self._release([key])
        if error.fatal:
            desk.go_out(error)
        if error.retried and not isinstance(error, Cancelled):
            self._again[key] = (desk.name, message)
        else:
            self._again.pop(key, None)
            self._given_up.add(key)
            self.watch.failed(desk.name, message)

    # Small things.

    def _release(self, keys: Collection[str]) -> None:
        """Nothing is spent on what got no reply."""
        if self.budget is not None:
            for key in keys:
                self.budget.settle_held(key, 0.0)

    def _say(self) -> None:
        batches = self._at_service.values()
        if not batches:
            return
        counted = all(finished is not None for finished, _ in batches)
        done = sum(finished or 0 for finished, _ in batches) if counted else "some"
        many = f"{len(batches)} {'batch' if len(batches) == 1 else 'batches'}"
        total = sum(requests for _, requests in batches)
        self.watch.batches(f"At the services: {many}, {done} of {total} requests done")
