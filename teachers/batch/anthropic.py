"""Anthropic's Message Batches: the requests are the body of one call, the results a file of lines.

Limits (the service's guide to batches): 100,000 requests or 256 MB, and 24 hours; results stay for 29 days. A
batch takes no name of ours: one that may have arrived is known by its time, its size and the keys in its results.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import anthropic
import anyio
from anthropic.types.messages import MessageBatch

from cxr_max.records import Reply
from cxr_max.teachers.anthropic import body_of, connected, reply_of
from cxr_max.teachers.base import TeacherError, TeacherSpec
from cxr_max.teachers.batch.base import (
    BatchLimits,
    Cancelled,
    Expired,
    Outcome,
    Progress,
    Unsure,
    emptied,
    outcome,
    parsed,
    save,
)
from cxr_max.teachers.wire import JSON, error_of, read_body, reply_or_error, transport_error

CLOCKS_APART: Final = timedelta(hours=1)
"""How far the service's clock and ours may disagree."""
_CHUNK: Final = 2**20
_STATUS: Final = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "api_error": 500,
    "timeout_error": 504, "overloaded_error": 529,
}  # fmt: skip
"""The statuses that the service's error types have where a request is asked by itself."""


class AnthropicBatches:
    """See ``BatchService``."""

    limits = BatchLimits(requests=100_000, bytes=255_000_000)

    def __init__(self, spec: TeacherSpec, base_url: str, api_key: str) -> None:
        self.spec = spec
        self._client = connected(spec, base_url, api_key)

    def line(self, images: Sequence[bytes], prompt: str, key: str) -> bytes:
        """See ``BatchService.line``."""
        return json.dumps({"custom_id": key, "params": body_of(self.spec, images, prompt)}).encode() + b"\n"

    async def submit(self, batch_id: str, requests: Path) -> str:
        """See ``BatchService.submit``."""
        # The SDK's own way past its models, which would hold the whole batch in memory, twice.
        made: MessageBatch = await self._sent(
            lambda: self._client.post(
                "/v1/messages/batches",
                cast_to=MessageBatch,
                content=_body(requests),
                options={"headers": {**JSON, "Idempotency-Key": batch_id}},
            )
        )
        return made.id

    async def find(
        self, batch_id: str, since: datetime, requests: int, is_member: Callable[[str], bool]
    ) -> str | None:
        """See ``BatchService.find``. The newest come first."""
        unsure = False
        async with self._named():
            async for batch in self._client.messages.batches.list(limit=100):
                if batch.created_at < since - CLOCKS_APART:
                    break
                if _size(batch) != requests:
                    continue
                if batch.processing_status != "ended":
                    unsure = True
                elif await self._holds(batch.id, is_member):
                    return batch.id
        if unsure:
            raise Unsure
        return None

    async def _holds(self, service_id: str, is_member: Callable[[str], bool]) -> bool:
        """Whether the results' first line is about one of our requests: they are ours all, or none is."""
        async with self._client.messages.batches.with_streaming_response.results(service_id) as response:
            async for line in response.iter_lines():
                if line.strip():
                    return is_member(parsed(line.encode(), "custom_id")[0])
        return False

    async def progress(self, service_id: str) -> Progress:
        """See ``BatchService.progress``. The service counts only when all is over."""
        batch: MessageBatch = await self._sent(lambda: self._client.messages.batches.retrieve(service_id))
        ended = batch.processing_status == "ended"
        counts = batch.request_counts
        how = "cancelled" if counts.canceled else "expired" if counts.expired else "ended"
        return Progress(ended, _size(batch) - counts.processing, how=how)

    async def fetch(self, service_id: str, into: Path) -> None:
        """See ``BatchService.fetch``."""
        await emptied(into)
        async with (
            self._named(),
            self._client.messages.batches.with_streaming_response.results(service_id) as response,
        ):
            await save(response.iter_bytes(_CHUNK), into)

    def read(self, line: bytes) -> Outcome:
        """See ``BatchService.read``."""
        key, said = parsed(line, "custom_id")
        return outcome(key, lambda: _result(said.get("result") or {}))

    async def cancel(self, service_id: str) -> None:
        """See ``BatchService.cancel``."""
        await self._sent(lambda: self._client.messages.batches.cancel(service_id))

    async def close(self) -> None:
        """See ``BatchService.close``."""
        await self._client.close()

    async def _sent(self, call: Callable[[], Awaitable[Any]]) -> Any:
        async with self._named():
            return await call()

    @asynccontextmanager
    async def _named(self) -> AsyncIterator[None]:
        try:
            yield
        except anthropic.APIStatusError as error:
            raise error_of(error.status_code, error.response.text, error.response.headers) from error
        except anthropic.APIConnectionError as error:
            raise transport_error(error, self.spec.timeout_s) from error
        except anthropic.AnthropicError as error:
            raise TeacherError("bad_reply", str(error)) from error


async def _body(requests: Path) -> AsyncIterator[bytes]:
    """The lines of a file as one JSON object, a line at a time."""
    opening = b'{"requests":['
    async with await anyio.open_file(requests, "rb") as file:
        async for line in file:
            yield opening + line.rstrip(b"\n")
            opening = b","
    yield b"]}"


def _size(batch: MessageBatch) -> int:
    counts = batch.request_counts
    return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired


def _result(said: dict[str, Any]) -> Reply:
    kind = said.get("type")
    if kind == "succeeded":
        raw = json.dumps(said.get("message"), ensure_ascii=False)
        return read_body(raw, lambda body: reply_of(body, raw, None))
    if kind == "expired":
        raise Expired
    if kind == "canceled":
        raise Cancelled
    detail = said.get("error") or {}
    named = (detail.get("error") or detail).get("type")
    return reply_or_error(_STATUS.get(str(named), 500), json.dumps(detail), {})
