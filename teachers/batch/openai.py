"""OpenAI's Batch: a file is uploaded, a batch is made of it, and its output and error files are fetched.

Limits (the service's guide to batches): 50,000 requests and 200 MB a file, and a queue of prompt tokens per model:
a batch that does not fit into the queue fails when it is looked at, and may be submitted again later.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import openai
from openai.types import Batch

from cxr_max.records import Reply
from cxr_max.teachers.base import TeacherError, TeacherSpec
from cxr_max.teachers.batch.base import (
    BatchLimits,
    Cancelled,
    Expired,
    Outcome,
    Progress,
    emptied,
    outcome,
    parsed,
    save,
)
from cxr_max.teachers.openai import body_of, connected, reply_of
from cxr_max.teachers.wire import error_of, read_body, reply_or_error, transport_error

METADATA: Final = "cxr_max_batch"
"""Under this name the service keeps our name of a batch."""
CLOCKS_APART: Final = timedelta(hours=1)
"""How far the service's clock and ours may disagree."""
_INPUT_LIVES_S: Final = 7 * 86_400
"""Pictures need not stay at the service for the month that is its default; a batch is over after a day."""
_OVER: Final = frozenset({"completed", "expired", "cancelled", "failed"})
_QUEUE_FULL: Final = "token_limit_exceeded"


class OpenAIBatches:
    """See ``BatchService``."""

    limits = BatchLimits(requests=50_000, bytes=200_000_000)

    def __init__(self, spec: TeacherSpec, base_url: str, api_key: str) -> None:
        self.spec = spec
        self._base_url = base_url
        self._client = connected(spec, base_url, api_key)

    def line(self, images: Sequence[bytes], prompt: str, key: str) -> bytes:
        """See ``BatchService.line``."""
        body = body_of(self.spec, self._base_url, images, prompt)
        request = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(request).encode() + b"\n"

    async def submit(self, batch_id: str, requests: Path) -> str:
        """See ``BatchService.submit``."""
        with requests.open("rb") as file:
            uploaded = await self._sent(
                lambda: self._client.files.create(
                    # A path would be read into memory whole; an open file is not.
                    file=(f"{batch_id}.jsonl", file),
                    purpose="batch",
                    expires_after={"anchor": "created_at", "seconds": _INPUT_LIVES_S},
                )
            )
        made: Batch = await self._sent(
            lambda: self._client.batches.create(
                input_file_id=uploaded.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={METADATA: batch_id},
                extra_headers={"Idempotency-Key": batch_id},
            )
        )
        return made.id

    async def find(
        self, batch_id: str, since: datetime, requests: int, is_member: Callable[[str], bool]
    ) -> str | None:
        """See ``BatchService.find``. The newest come first."""
        async with self._named():
            async for batch in self._client.batches.list(limit=100):
                if (batch.metadata or {}).get(METADATA) == batch_id and batch.status != "failed":
                    return batch.id
                if datetime.fromtimestamp(batch.created_at, UTC) < since - CLOCKS_APART:
                    break
        return None

    async def progress(self, service_id: str) -> Progress:
        """See ``BatchService.progress``."""
        batch: Batch = await self._sent(lambda: self._client.batches.retrieve(service_id))
        counts = batch.request_counts
        return Progress(
            ended=batch.status in _OVER,
            finished=counts.completed + counts.failed if counts else None,
            checked=batch.status != "validating",
            refused=_refusal(batch) if batch.status == "failed" else None,
            how=batch.status,
        )

    async def fetch(self, service_id: str, into: Path) -> None:
        """See ``BatchService.fetch``."""
        batch: Batch = await self._sent(lambda: self._client.batches.retrieve(service_id))
        await emptied(into)
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            async with (
                self._named(),
                self._client.files.with_streaming_response.content(file_id) as response,
            ):
                await save(response.iter_bytes(), into)

    def read(self, line: bytes) -> Outcome:
        """See ``BatchService.read``."""
        key, said = parsed(line, "custom_id")
        return outcome(key, lambda: _result(said))

    async def cancel(self, service_id: str) -> None:
        """See ``BatchService.cancel``."""
        await self._sent(lambda: self._client.batches.cancel(service_id))

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
        except openai.APIStatusError as error:
            raise error_of(error.status_code, error.response.text, error.response.headers) from error
        except openai.APIConnectionError as error:
            raise transport_error(error, self.spec.timeout_s) from error
        except openai.OpenAIError as error:
            raise TeacherError("bad_reply", str(error)) from error


def _refusal(batch: Batch) -> TeacherError:
    """Why nothing of a batch was worked on."""
    errors = (batch.errors.data if batch.errors else None) or []
    said = "; ".join(f"{error.code}: {error.message}" for error in errors[:3]) or "no reason given"
    if any(error.code == _QUEUE_FULL for error in errors):
        return TeacherError("rate_limit", f"the service's queue is full ({said})")
    return TeacherError("bad_request", f"the service refused the batch ({said})")


def _result(said: dict[str, Any]) -> Reply:
    response, error = said.get("response"), said.get("error") or {}
    if response is None:
        if error.get("code") == "batch_expired":
            raise Expired
        if error.get("code") == "batch_cancelled":
            raise Cancelled
        raise TeacherError("server", f"{error.get('code')}: {error.get('message')}")
    raw = json.dumps(response.get("body"), ensure_ascii=False)
    if response.get("status_code") != 200:
        return reply_or_error(int(response.get("status_code") or 500), raw, {})
    return read_body(raw, lambda body: reply_of(body, raw, response.get("request_id")))
