"""The ledger's record of batches at the services, so that none is submitted twice and no reply of one is lost.

The rule is to write ahead: a batch has its row, with all its members, before anything is sent, and the service's
name for it is committed before anybody hears that it was submitted. A row without that name was in the sending
when the process died: the service is asked whether it has the batch.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from math import fsum
from typing import Any, Final, Literal, get_args

from cxr_max.costs import Spent

BatchState = Literal["submitting", "running", "ended", "unsent"]
"""``submitting``: the service may have it or not. ``running``: the service has it. ``ended``: every reply that it
gave is in the ledger. ``unsent``: the service never had it."""

_OPEN: Final = ("submitting", "running")
_COLUMNS: Final = "batch_id, teacher, endpoint, service_id, state, submitted_at"
assert set(_OPEN) <= set(get_args(BatchState))


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A batch as the ledger knows it."""

    batch_id: str
    """Ours; the service is told it where it takes one."""
    teacher: str
    endpoint: str
    """Where it runs: a teacher may have moved since."""
    submitted_at: datetime
    """In UTC."""
    requests: int
    service_id: str | None = None
    state: BatchState = "submitting"


@dataclass(frozen=True, slots=True)
class Member:
    """One request of a batch, and what is needed to keep its reply when nothing else is at hand."""

    request_sha256: str
    image_sha256: tuple[str, ...]
    structured_answer: bool
    most_usd: float | None = None
    """What it can cost at most; ``None`` where the price is unknown."""


class BatchTables(ABC):
    """The part of a ledger that is about batches."""

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Any]: ...

    @abstractmethod
    def _read(self, query: str, parameters: Sequence[object] = ()) -> Iterator[Any]: ...

    def begin_batch(self, batch: SentBatch, members: Iterable[Member]) -> None:
        """Write a batch with its members, before anything of it is sent."""
        row = (batch.batch_id, batch.teacher, batch.endpoint, None, "submitting", batch.submitted_at.isoformat())
        with self._transaction() as db:
            db.execute(f"INSERT INTO batches ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row)
            db.executemany(
                "INSERT INTO batch_members VALUES (?, ?, ?, ?, ?)",
                (_member_row(batch.batch_id, member) for member in members),
            )

    def batch_accepted(self, batch_id: str, service_id: str) -> None:
        """Keep what the service calls the batch."""
        with self._transaction() as db:
            change = "UPDATE batches SET service_id = ?, state = 'running' WHERE batch_id = ?"
            db.execute(change, (service_id, batch_id))

    def batch_is(self, batch_id: str, state: BatchState) -> None:
        """Keep what became of the batch. One in ``submitting`` again has no name at the service."""
        with self._transaction() as db:
            if state == "submitting":
                db.execute("UPDATE batches SET service_id = NULL WHERE batch_id = ?", (batch_id,))
            db.execute("UPDATE batches SET state = ? WHERE batch_id = ?", (state, batch_id))

    def batches(self) -> list[SentBatch]:
        """Every batch, oldest first."""
        query = (
            f"SELECT {_COLUMNS}, (SELECT COUNT(*) FROM batch_members m WHERE m.batch_id = b.batch_id)"
            " FROM batches b ORDER BY submitted_at, batch_id"
        )
        return [
            SentBatch(batch_id, teacher, endpoint, datetime.fromisoformat(at), requests, service_id, state)
            for batch_id, teacher, endpoint, service_id, state, at, requests in self._read(query)
        ]

    def open_batches(self) -> list[SentBatch]:
        """Those that the service has, or may have, and whose replies are not all here."""
        return [batch for batch in self.batches() if batch.state in _OPEN]

    def requests_in_batches(self) -> dict[str, float | None]:
        """Every request that an open batch holds, by its key: it must not be asked another way meanwhile.

        The values are what each can cost at most, in US dollars; ``None`` where the price is unknown.
        """
        query = (
            "SELECT request_sha256, most_usd FROM batch_members JOIN batches USING (batch_id)"
            f" WHERE state IN {_OPEN} AND request_sha256 NOT IN (SELECT request_sha256 FROM replies)"
        )
        return dict(self._read(query))

    def most_in_batches(self) -> Spent:
        """US dollars that open batches can cost at most, and how many of their requests have no known price."""
        most = list(self.requests_in_batches().values())
        return fsum(usd for usd in most if usd is not None), most.count(None)

    def waiting_member(self, batch_id: str, request_sha256: str) -> Member | None:
        """A member of the batch that has no reply yet; ``None`` if there is none of that key."""
        query = (
            "SELECT image_sha256, structured_answer, most_usd FROM batch_members"
            " WHERE batch_id = ? AND request_sha256 = ?"
            " AND NOT EXISTS (SELECT 1 FROM replies r WHERE r.request_sha256 = batch_members.request_sha256)"
        )
        for images, structured, most_usd in self._read(query, (batch_id, request_sha256)):
            return Member(request_sha256, tuple(json.loads(images)), bool(structured), most_usd)
        return None

    def is_member(self, batch_id: str, request_sha256: str) -> bool:
        """Whether the request is in the batch, answered or not."""
        query = "SELECT 1 FROM batch_members WHERE batch_id = ? AND request_sha256 = ?"
        return any(self._read(query, (batch_id, request_sha256)))

    def waiting_members(self, batch_id: str) -> list[str]:
        """The keys of the batch's requests that have no reply yet."""
        query = (
            "SELECT request_sha256 FROM batch_members WHERE batch_id = ?"
            " AND request_sha256 NOT IN (SELECT request_sha256 FROM replies)"
        )
        return [row[0] for row in self._read(query, (batch_id,))]


def _member_row(batch_id: str, member: Member) -> tuple[object, ...]:
    images = json.dumps(member.image_sha256)
    return batch_id, member.request_sha256, images, member.structured_answer, member.most_usd
