"""Gemini's batches: a file is uploaded, a job is made of it, and its file of responses is fetched.

Limits (the service's guide to batches): 2 GB a file, 100 jobs at a time, and 48 hours, after which a job has no
results at all. So a file is kept well below the limit: what expires together should be little.
"""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
from google.genai import errors, types

from cxr_max.records import Reply
from cxr_max.teachers.base import TeacherError, TeacherSpec
from cxr_max.teachers.batch.base import (
    BatchLimits,
    Outcome,
    Progress,
    emptied,
    outcome,
    parsed,
)
from cxr_max.teachers.gemini import body_of, connected, headers_of, reply_of
from cxr_max.teachers.wire import ToAnotherHost, error_of, read_body, reply_or_error, transport_error

CLOCKS_APART: Final = timedelta(hours=1)
"""How far the service's clock and ours may disagree."""
_OVER: Final = {
    "JOB_STATE_SUCCEEDED": "ended",
    "JOB_STATE_PARTIALLY_SUCCEEDED": "ended",
    "JOB_STATE_FAILED": "failed",
    "JOB_STATE_CANCELLED": "cancelled",
    "JOB_STATE_EXPIRED": "expired",
}
_CODES: Final = {3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 13: 500, 14: 503, 16: 401}
"""What google.rpc.Code is as an HTTP status: a line of the responses may have either."""


class GeminiBatches:
    """See ``BatchService``."""

    limits = BatchLimits(requests=50_000, bytes=500_000_000)

    def __init__(self, spec: TeacherSpec, base_url: str, api_key: str) -> None:
        self.spec = spec
        self._base_url = base_url
        self._client, self._session = connected(spec, base_url, api_key)

    def line(self, images: Sequence[bytes], prompt: str, key: str) -> bytes:
        """See ``BatchService.line``."""
        return json.dumps({"key": key, "request": body_of(self.spec, images, prompt)}).encode() + b"\n"

    async def submit(self, batch_id: str, requests: Path) -> str:
        """See ``BatchService.submit``."""
        async with self._named():
            uploaded = await self._client.aio.files.upload(
                file=requests,
                config=types.UploadFileConfig(
                    display_name=batch_id,
                    mime_type="application/jsonl",
                    # Else the file would go to whatever host the service names for it.
                    http_options=types.HttpOptions(base_url=self._base_url),
                ),
            )
            if uploaded.name is None:
                raise TeacherError("bad_reply", "the service does not say what it calls the file")
            made = await self._client.aio.batches.create(
                model=self.spec.model,
                src=uploaded.name,
                config=types.CreateBatchJobConfig(
                    display_name=batch_id, http_options=types.HttpOptions(headers={"Idempotency-Key": batch_id})
                ),
            )
        if made.name is None:
            raise TeacherError("bad_reply", "the service does not say what it calls the batch")
        return made.name

    async def find(
        self, batch_id: str, since: datetime, requests: int, is_member: Callable[[str], bool]
    ) -> str | None:
        """See ``BatchService.find``. The newest come first."""
        async with self._named():
            async for job in await self._client.aio.batches.list(config={"page_size": 100}):
                if job.display_name == batch_id:
                    return job.name
                if job.create_time is not None and job.create_time < since - CLOCKS_APART:
                    break
        return None

    async def progress(self, service_id: str) -> Progress:
        """See ``BatchService.progress``. The service does not say how many are done."""
        job = await self._job(service_id)
        state = job.state.value if job.state else ""
        failed = state == "JOB_STATE_FAILED"
        said = job.error.message if job.error and job.error.message else "no reason given"
        refused = TeacherError("bad_request", f"the service refused the batch ({said})") if failed else None
        return Progress(ended=state in _OVER, refused=refused, how=_OVER.get(state, "running"))

    async def fetch(self, service_id: str, into: Path) -> None:
        """See ``BatchService.fetch``."""
        job = await self._job(service_id)
        await emptied(into)
        if job.dest and job.dest.file_name:
            async with self._named():
                await self._client.aio.files.download(file=job.dest.file_name, destination=into)

    def read(self, line: bytes) -> Outcome:
        """See ``BatchService.read``."""
        key, said = parsed(line, "key")
        return outcome(key, lambda: _result(said))

    async def cancel(self, service_id: str) -> None:
        """See ``BatchService.cancel``."""
        async with self._named():
            await self._client.aio.batches.cancel(name=service_id)

    async def close(self) -> None:
        """See ``BatchService.close``."""
        await self._session.close()

    async def _job(self, service_id: str) -> types.BatchJob:
        async with self._named():
            return await self._client.aio.batches.get(name=service_id)

    @asynccontextmanager
    async def _named(self) -> AsyncIterator[None]:
        try:
            yield
        except errors.APIError as error:
            raise error_of(error.code, json.dumps(error.details, default=str), headers_of(error)) from error
        except (aiohttp.ClientError, TimeoutError, ToAnotherHost) as error:
            raise transport_error(error, self.spec.timeout_s) from error
        # What the SDK raises where a service does not keep to the protocol of uploads.
        except (KeyError, ValueError) as error:
            raise TeacherError("bad_reply", str(error)) from error


def _result(said: dict[str, Any]) -> Reply:
    if said.get("response") is not None:
        raw = json.dumps(said["response"], ensure_ascii=False)
        return read_body(raw, lambda body: reply_of(body, raw))
    detail = said.get("error") or said.get("status") or {}
    code = detail.get("code") or 500
    return reply_or_error(_CODES.get(code, code), json.dumps({"error": detail}), {})
