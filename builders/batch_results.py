"""What a batch brought: line by line into the ledger, by the same keys as replies that were asked for at once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

from cxr_max.costs import cost_of
from cxr_max.ledger import Answered, Failure, Ledger
from cxr_max.ledger_batches import Member, SentBatch
from cxr_max.records import Reply
from cxr_max.teachers.base import TeacherError
from cxr_max.teachers.batch.base import BatchService, Cancelled, Progress
from cxr_max.teachers.secrets import cleaned, redact

AT_ONCE: Final = 200
"""Lines of results that are kept with one flush of the disk."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is in the ledger now about one request of a batch: its reply, or why there is none."""

    member: Member
    result: Answered | TeacherError


@dataclass(frozen=True, slots=True)
class Results:
    """Keeps one batch's results.

    Args:
        keys: the API keys in use, to keep them out of everything that is written.
    """

    service: BatchService
    ledger: Ledger
    batch: SentBatch
    keys: Sequence[str]

    def keep(self, lines: Sequence[bytes]) -> list[Kept]:
        """Commit what some lines say. One about no member, or about what was kept before, says nothing.

        Raises:
            StorageError: the disk refused.
        """
        return self._commit({entry.member.request_sha256: entry for entry in self._read(lines)}.values())

    def keep_missing(self, progress: Progress, failed: set[str]) -> list[Kept]:
        """Commit why there is no reply to what no line was about, and that is known not to have ``failed``."""
        how = f"its batch {progress.how} without a reply to it"
        lost = Cancelled() if progress.how == "cancelled" else TeacherError("timeout", how)
        keys = [key for key in self.ledger.waiting_members(self.batch.batch_id) if key not in failed]
        return self._commit([Kept(Member(key, (), False), progress.refused or lost) for key in keys])

    def _read(self, lines: Sequence[bytes]) -> Iterator[Kept]:
        for line in lines:
            try:
                outcome = self.service.read(line)
            except TeacherError:
                continue  # What it is about will be missing.
            member = self.ledger.waiting_member(self.batch.batch_id, outcome.request_sha256)
            if member is not None:
                result = outcome.result
                yield Kept(member, self._answered(member, result) if isinstance(result, Reply) else result)

    def _answered(self, member: Member, reply: Reply) -> Answered:
        now, clean = datetime.now(UTC), cleaned(reply, self.keys)
        # Nobody knows how long one reply of a batch took. What is known is how long it was waited for.
        waited_s = (now - self.batch.submitted_at).total_seconds()
        cost = cost_of(clean, self.service.spec.price)
        return Answered(member.request_sha256, member.image_sha256, clean, cost, waited_s, now)

    def _commit(self, kept: Iterable[Kept]) -> list[Kept]:
        entries = list(kept)
        answers = [entry.result for entry in entries if isinstance(entry.result, Answered)]
        failed = [entry for entry in entries if not isinstance(entry.result, Answered)]
        failures = [self._failure(entry) for entry in failed]
        self.ledger.commit(answers, failures)
        return entries

    def _failure(self, entry: Kept) -> Failure:
        error = entry.result
        assert isinstance(error, TeacherError)
        message = redact(str(error), self.keys)
        return Failure(entry.member.request_sha256, self.batch.teacher, datetime.now(UTC), error.kind, message)


def lines_of(path: Path) -> Iterator[list[bytes]]:
    """The lines of a file of results that are not empty, ``AT_ONCE`` at a time."""
    with path.open("rb") as file:
        lines = (line for line in file if line.strip())
        while group := list(islice(lines, AT_ONCE)):
            yield group
