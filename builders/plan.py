"""Studies -> questions: which images are asked about, with which prompt, under which request key.

An image's file is hashed once per run; an image whose questions are all answered is not rendered again.
"""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from cxr_max.builders.selection import Selection
from cxr_max.builders.sources.base import Source
from cxr_max.errors import ImageError
from cxr_max.ledger import FileIdentity, Gap, Ledger, request_key
from cxr_max.prompts import Prompt
from cxr_max.radiograph import Rendering, rendering_id
from cxr_max.records import Question, Radiograph, Study
from cxr_max.shards import sha256_of
from cxr_max.teachers.base import TeacherSpec


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a build asks of every study."""

    teachers: tuple[TeacherSpec, ...]
    prompt: Prompt
    samples: int
    rendering: Rendering
    selection: Selection
    without: frozenset[str] = frozenset()
    """Subjects that were withdrawn: nothing is asked about them, and they count for the selection still."""

    def askable(self, study: Study) -> bool:
        """Whether the prompt has what it gives away about this study."""
        return self.prompt.fill(study) is not None


@dataclass(frozen=True, slots=True)
class Work:
    """One image set of one study, and the questions about it that have no reply yet."""

    study: Study
    images: tuple[Radiograph, ...]
    questions: tuple[tuple[Question, str], ...]


class PlanWatch(Protocol):
    """Who looks on while rows are planned."""

    def planned(self, teacher: str, settled: bool) -> None:
        """A row of the release; ``settled`` if its reply is there already or on its way."""

    def study(self) -> None:
        """One more study is reached; its rows are planned next."""


_FLUSH_ROWS: Final = 2_000
"""One disk flush for so many rows. What a killed process had not flushed, the next run plans again."""


@dataclass(slots=True)
class Planner:
    """Plans study by study, and counts what it saw."""

    wanted: Wanted
    ledger: Ledger
    watch: PlanWatch
    studies: int = 0
    skipped: int = 0
    """Studies without an image of the wanted view."""
    gaps: list[Gap] = field(default_factory=list)
    burned_in: int = 0
    """Images sent that declare text burned into their pixels."""
    reused: int = 0
    """Rows whose reply was there before this run."""
    _answered: set[str] = field(default_factory=set)
    _open: Counter[str] = field(default_factory=Counter)
    """Rows by the request that was not answered when they were planned."""
    _unwritten: list[Question] = field(default_factory=list)
    _hashed: list[FileIdentity] = field(default_factory=list)

    def work(self, source: Source) -> Generator[Work, None, None]:
        """Every image set that has questions left to ask. Equal questions are handed out once."""
        self._answered = self.ledger.answered()
        try:
            for study, sets in self.wanted.selection.chosen(source, self.wanted.askable, self._skip):
                if study.subject_id in self.wanted.without:
                    continue
                self.studies += 1
                self.watch.study()
                for images in sets:
                    questions = self._plan(study, images)
                    if questions:
                        yield Work(study, images, questions)
        finally:
            self._flush()

    def unanswered(self) -> int:
        """Rows of this run that have no reply by now."""
        answered = self.ledger.answered()
        return sum(rows for key, rows in self._open.items() if key not in answered)

    def _flush(self) -> None:
        self.ledger.plan(self._unwritten, self._hashed)
        self._unwritten.clear()
        self._hashed.clear()

    def _skip(self) -> None:
        self.skipped += 1

    def _plan(self, study: Study, images: tuple[Radiograph, ...]) -> tuple[tuple[Question, str], ...]:
        prompt_text = self.wanted.prompt.fill(study)
        if prompt_text is None:
            self.gap(study, images, f"The prompt {self.wanted.prompt.name} needs a reference finding.")
            return ()
        try:
            hashed = [(self._source_sha256(image.path), self._rendering(image.path)) for image in images]
        except ImageError as error:
            self.gap(study, images, str(error))
            return ()
        questions = [
            question_of(study, images, hashed, self.wanted.prompt, prompt_text, teacher, sample)
            for teacher in self.wanted.teachers
            for sample in range(self.wanted.samples)
        ]
        self._unwritten += questions
        if len(self._unwritten) >= _FLUSH_ROWS:
            self._flush()
        return tuple((question, prompt_text) for question in questions if self._is_open(question))

    def _is_open(self, question: Question) -> bool:
        key = question.request_sha256
        answered = key in self._answered
        settled = answered or key in self._open
        self._open[key] += not answered
        self.reused += answered
        self.watch.planned(question.teacher, settled)
        return not settled

    def withdraw(self, work: Work, reason: str) -> None:
        """Name a gap that showed only when the images were rendered: nothing was asked about them."""
        self.gap(work.study, work.images, reason)
        for question, _ in work.questions:
            self._open[question.request_sha256] -= 1

    def gap(self, study: Study, images: Sequence[Radiograph], reason: str) -> None:
        """Name images that cannot be asked about."""
        self.gaps.append(Gap(study.study_id, tuple(image.image_id for image in images), reason))

    def _rendering(self, path: Path) -> str:
        return rendering_id(path, self.wanted.rendering)

    def _source_sha256(self, path: Path) -> str:
        identity, known = file_identity(path, self.ledger)
        if not known:
            self._hashed.append(identity)
        return identity.source_sha256


def file_identity(path: Path, ledger: Ledger) -> tuple[FileIdentity, bool]:
    """A file as it stands now, and whether the ledger knew it: else it is hashed.

    Raises:
        ImageError: it is absent or cannot be read.
    """
    try:
        status = path.stat()
        known = ledger.source_sha256(path, status.st_size, status.st_mtime_ns)
        sha256 = known or sha256_of(path)
    except FileNotFoundError as error:
        raise ImageError(f"{path.name} is absent: download it again, or take it out of the table.") from error
    except OSError as error:
        raise ImageError(f"{path.name} cannot be read ({error.strerror}): check the file.") from error
    return FileIdentity(path, status.st_size, status.st_mtime_ns, sha256), known is not None


def question_of(
    study: Study,
    images: Sequence[Radiograph],
    hashed: Sequence[tuple[str, str]],
    prompt: Prompt,
    prompt_text: str,
    teacher: TeacherSpec,
    sample_index: int,
) -> Question:
    """One row of the release, with the key of its request.

    Args:
        hashed: of each image, sha256 of its file and ``rendering_id``.
        prompt_text: ``prompt``, filled in for the study.
    """
    key = request_key(
        provider=teacher.provider,
        endpoint=teacher.endpoint,
        model=teacher.model,
        sampling=teacher.sampling,
        prompt_text=prompt_text,
        images=hashed,
        sample_index=sample_index,
    )
    return Question(
        study_id=study.study_id,
        subject_id=study.subject_id,
        source=study.source,
        split=study.split,
        image_ids=tuple(image.image_id for image in images),
        source_sha256=tuple(source for source, _ in hashed),
        rendering=hashed[0][1],
        teacher=teacher.name,
        provider=teacher.provider,
        model=teacher.model,
        prompt_name=prompt.name,
        prompt_version=prompt.version,
        prompt_sha256=prompt.sha256,
        prompt_given=prompt.given,
        structured_answer=prompt.structured_answer,
        sampling=teacher.sampling,
        sample_index=sample_index,
        request_sha256=key,
        given_findings=prompt.gives_away(study),
    )
