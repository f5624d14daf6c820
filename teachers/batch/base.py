"""What every batch interface offers. Waiting, retrying and the ledger are the business of who submits.

A batch is a file of one request per line; so are its results. Neither is ever in memory as a whole.
"""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import anyio

from cxr_max.records import Reply
from cxr_max.teachers.base import TeacherError, TeacherSpec

PRICE_SHARE: Final = 0.5
"""Of the price of asking at once: what all three services charge."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may hold at most."""

    requests: int
    bytes: int
    """Of the file with the requests."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the service is with a batch."""

    ended: bool
    """Whether nothing more will be finished; what is, can be fetched."""
    finished: int | None = None
    """Requests done with, well or not; ``None`` where the service does not say."""
    checked: bool = True
    """Whether the service has looked at the batch and found that it can be worked on."""
    refused: TeacherError | None = None
    """Why the service did not work on the batch at all."""
    how: str = "ended"
    """How it ended, in the service's word."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request of a batch."""

    request_sha256: str
    result: Reply | TeacherError


class Cancelled(TeacherError):
    """The batch was cancelled before the service came to this request."""

    def __init__(self) -> None:
        super().__init__("timeout", "its batch was cancelled before it was answered")


class Expired(TeacherError):
    """The batch ran out of time before the service came to this request."""

    def __init__(self) -> None:
        super().__init__("timeout", "its batch expired before it was answered")


class Unsure(Exception):
    """Whether the service has a batch cannot be told yet."""


class BatchService(Protocol):
    """A teacher that answers batches."""

    spec: TeacherSpec
    limits: BatchLimits

    def line(self, images: Sequence[bytes], prompt: str, key: str) -> bytes:
        """One request as a line of the file, with its newline.

        Args:
            images: JPEG files, in the order in which the prompt may speak of them.
            key: the request's key, under which its reply will come back.
        """
        ...

    async def submit(self, batch_id: str, requests: Path) -> str:
        """Send the file, once; the service's name of the batch.

        Raises:
            TeacherError: there is no answer, or a refusal. Only after a refusal (``refused_to_submit``) it is
                certain that the service does not have the batch.
        """
        ...

    async def find(
        self, batch_id: str, since: datetime, requests: int, is_member: Callable[[str], bool]
    ) -> str | None:
        """The service's name of a batch that may have reached it; ``None`` if it has none such.

        Args:
            since: when it was submitted, in UTC.
            requests: how many it holds.
            is_member: whether a request's key is one of them.

        Raises:
            TeacherError: there is no answer.
            Unsure: it cannot be told yet.
        """
        ...

    async def progress(self, service_id: str) -> Progress:
        """How far the service is.

        Raises:
            TeacherError: there is no answer; of kind ``model`` if the service knows no such batch.
        """
        ...

    async def fetch(self, service_id: str, into: Path) -> None:
        """Stream the results of an ended batch to a file, one per line; an empty file if there are none.

        Raises:
            TeacherError: they did not arrive whole.
        """
        ...

    def read(self, line: bytes) -> Outcome:
        """What one line of the results says.

        Raises:
            TeacherError: it does not even say which request it is about.
        """
        ...

    async def cancel(self, service_id: str) -> None:
        """Ask the service to stop; what is finished by then can be fetched once the batch has ended.

        Raises:
            TeacherError: there is no answer.
        """
        ...

    async def close(self) -> None:
        """Release the connections."""
        ...


def refused_to_submit(error: TeacherError) -> bool:
    """Whether a service that ended a submission like this certainly does not have the batch."""
    return error.kind in {"auth", "bad_request", "model", "moved", "quota", "rate_limit"}


def parsed(line: bytes, key_name: str) -> tuple[str, dict[str, Any]]:
    """A line of results, and the key of the request that it is about.

    Raises:
        TeacherError: it is no JSON object, or says no key.
    """
    try:
        said = json.loads(line)
        key = said[key_name]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise TeacherError("bad_reply", f"a line of the results cannot be read: {line[:120]!r}") from error
    if not isinstance(said, dict) or not isinstance(key, str):
        raise TeacherError("bad_reply", f"a line of the results says no key: {line[:120]!r}")
    return key, said


def outcome(key: str, read: Callable[[], Reply]) -> Outcome:
    """What ``read`` returns or raises, as one request's outcome."""
    try:
        return Outcome(key, read())
    except TeacherError as error:
        return Outcome(key, error)


async def emptied(path: Path) -> None:
    """Make an empty file of it."""
    await anyio.Path(path).write_bytes(b"")


async def save(chunks: AsyncIterator[bytes], into: Path) -> None:
    """Append what arrives to a file; a last line without its end gets one."""
    last = b"\n"
    async with await anyio.open_file(into, "ab") as file:
        async for chunk in chunks:
            if chunk:
                last = chunk[-1:]
                await file.write(chunk)
        if last != b"\n":
            await file.write(b"\n")
