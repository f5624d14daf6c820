"""Gemini generateContent."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import requests  # noqa: F401 - whole before the SDK looks at it while another thread is still importing it
from google import genai
from google.genai import errors, types

from cxr_max.records import Ended, Reply
from cxr_max.teachers.base import TeacherSpec
from cxr_max.teachers.wire import TIMEOUT_S, ended_of, read_body, reply_or_error, transport_error

_FILTERED = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY"}


class GeminiTeacher:
    """A model behind the Gemini developer interface."""

    def __init__(self, spec: TeacherSpec, base_url: str, api_key: str) -> None:
        self.spec = spec
        # A session of our own: the SDK's would follow proxies of the environment to a local endpoint too.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), trust_env=spec.place == "remote"
        )
        options = types.HttpOptions(
            base_url=base_url,
            timeout=int(TIMEOUT_S * 1000),
            aiohttp_client=self._session,
            async_client_args={"allow_redirects": False},
            # Without this the SDK repeats a request by itself after a lost connection.
            retry_options=types.HttpRetryOptions(attempts=1),
        )
        self._client = genai.Client(vertexai=False, api_key=api_key, http_options=options)

    async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
        """See ``Teacher.ask``."""
        parts = [types.Part.from_bytes(data=image, mime_type="image/jpeg") for image in images]
        parts.append(types.Part.from_text(text=prompt))
        try:
            response = await self._client.aio.models.generate_content(
                model=self.spec.model,
                contents=types.Content(role="user", parts=parts),
                config=self._config(key),
            )
        except errors.APIError as error:
            return reply_or_error(error.code, json.dumps(error.details, default=str), _headers(error))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise transport_error(error) from error
        answered = response.sdk_http_response
        raw = (answered.body if answered else None) or ""
        return read_body(raw, lambda body: _reply(body, raw))

    async def close(self) -> None:
        """See ``Teacher.close``."""
        await self._session.close()

    def _config(self, key: str) -> types.GenerateContentConfig:
        sampling = self.spec.sampling
        return types.GenerateContentConfig(
            max_output_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            # One request is one request: no follow-ups behind the ledger's back.
            automatic_continuation=False,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            should_return_http_response=True,
            http_options=types.HttpOptions(headers={"Idempotency-Key": key}),
        )


def _headers(error: errors.APIError) -> Mapping[str, str]:
    return getattr(error.response, "headers", None) or {}


def _reply(body: dict[str, Any], raw: str) -> Reply:
    candidate = (body.get("candidates") or [{}])[0]
    parts = (candidate.get("content") or {}).get("parts") or []
    blocked = (body.get("promptFeedback") or {}).get("blockReason")
    finish_reason = candidate.get("finishReason") or blocked
    if finish_reason is None:
        raise LookupError("neither a candidate nor a block reason")
    usage = body.get("usageMetadata") or {}
    return Reply(
        text="".join(part.get("text", "") for part in parts if not part.get("thought")),
        reasoning="".join(part.get("text", "") for part in parts if part.get("thought")) or None,
        ended="filtered" if blocked else _ended(finish_reason),
        finish_reason=finish_reason,
        model_reported=body.get("modelVersion"),
        input_tokens=usage.get("promptTokenCount"),
        output_tokens=_output_tokens(usage),
        request_id=body.get("responseId"),
        raw=raw,
    )


def _ended(finish_reason: str) -> Ended:
    return ended_of(finish_reason, length={"MAX_TOKENS"}, filtered=_FILTERED)


def _output_tokens(usage: dict[str, Any]) -> int | None:
    """Thinking is billed as output, but counted apart."""
    counts = [usage.get("candidatesTokenCount"), usage.get("thoughtsTokenCount")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
