"""What lies on a teacher's desk in the sending loop: images, the questions about them; and who looks on."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from cxr_max.records import Question, Status
from cxr_max.teachers.base import Teacher
from cxr_max.teachers.pacing import Pace

WORKERS: Final = 6
"""Per request in flight: where a third of all requests is turned away for a second, most of them rest."""


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
    again: Callable[[], tuple[Picture, ...]] | None = None
    """Renders the images once more, where they can be dropped while a teacher is parked. May raise ImageError."""


class Watch(Protocol):
    """Who looks on: progress bars, or nobody."""

    def answered(self, teacher: str, status: Status, cost_usd: float | None) -> None:
        """A reply was committed."""

    def failed(self, teacher: str, message: str) -> None:
        """A request was given up."""

    def stopped(self, teacher: str, message: str) -> None:
        """A teacher is out for the rest of this run."""

    def warned(self, message: str) -> None:
        """Something the user should know."""


@dataclass(slots=True, eq=False)
class Load:
    """A batch in memory, and by teacher how many of its questions are still to be settled."""

    batch: Batch
    open: Counter[str]

    @property
    def size(self) -> int:
        return sum(len(picture.jpeg) for picture in self.batch.pictures)


@dataclass(slots=True, eq=False)
class Job:
    """One question, until it is settled. ``load`` is ``None`` while its images are not in memory."""

    question: Question
    prompt: str
    load: Load | None
    attempts: int = 0
    rests: int = 0
    missed: tuple[str, str] | None = None
    """Kind and message of the last attempt's error."""
    reserved: bool = False


@dataclass(slots=True, eq=False)
class Desk:
    """One teacher's side of the loop. ``ready`` counts the queue's entries; ``None`` ends a worker."""

    teacher: Teacher
    pace: Pace
    queue: deque[Job | None] = field(default_factory=deque)
    ready: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    refused_in_a_row: int = 0
    out: bool = False

    @property
    def name(self) -> str:
        return self.teacher.spec.name

    @property
    def workers(self) -> int:
        """More than can be in flight: a worker whose request rests before its next attempt leaves its place."""
        return WORKERS * self.teacher.spec.concurrency

    @property
    def ended(self) -> bool:
        """Whether only the workers' ends are left."""
        return bool(self.queue) and self.queue[0] is None

    def next(self) -> Job | None:
        return None if not self.queue or self.ended else self.queue.popleft()

    def put(self, job: Job | None) -> None:
        self.queue.append(job)
        self.ready.release()

    def put_first(self, job: Job) -> None:
        self.queue.appendleft(job)
        self.ready.release()

    def put_last(self, job: Job) -> None:
        """Behind all other jobs, but before what ends the workers."""
        self.queue.insert(len(self.queue) - self.queue.count(None), job)
        self.ready.release()
