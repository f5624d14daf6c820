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
from cxr_max.teachers.wire import (
    ToAnotherHost,
    base64_of,
    ended_of,
    heeds_environment,
    read_body,
    refuse_other_than,
    reply_or_error,
    transport_error,
)

_PLACEHOLDER = "."
"""The SDK insists on contents of its own, which ``extra_body`` then replaces."""
_FILTERED = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY"}


class GeminiTeacher:
    """A model behind the Gemini developer interface."""

    def __init__(self, spec: TeacherSpec, base_url: str, api_key: str) -> None:
        self.spec = spec
        self._client, self._session = connected(spec, base_url, api_key)

    async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
        """See ``Teacher.ask``."""
        try:
            response = await self._client.aio.models.generate_content(
                model=self.spec.model, contents=_PLACEHOLDER, config=self._config(images, prompt, key)
            )
        except errors.APIError as error:
            return reply_or_error(error.code, json.dumps(error.details, default=str), headers_of(error))
        except (aiohttp.ClientError, TimeoutError, ToAnotherHost) as error:
            raise transport_error(error, self.spec.timeout_s) from error
        answered = response.sdk_http_response
        raw = (answered.body if answered else None) or ""
        return read_body(raw, lambda body: reply_of(body, raw), (answered.headers if answered else None) or {})

    async def close(self) -> None:
        """See ``Teacher.close``."""
        await self._session.close()

    def _config(self, images: Sequence[bytes], prompt: str, key: str) -> types.GenerateContentConfig:
        return types.GenerateContentConfig(
            # One request is one request: no follow-ups behind the ledger's back.
            automatic_continuation=False,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            should_return_http_response=True,
            http_options=types.HttpOptions(
                headers={"Idempotency-Key": key},
                # The body as it goes out: the SDK's own models would encode and copy every image on the way.
                extra_body=body_of(self.spec, images, prompt),
            ),
        )


def connected(spec: TeacherSpec, base_url: str, api_key: str) -> tuple[genai.Client, aiohttp.ClientSession]:
    """A client that sends once, and to nobody else; and its session, to be closed."""
    # A session of our own: the SDK's would follow proxies of the environment to a local endpoint too.
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        trust_env=heeds_environment(spec),
        trace_configs=[_staying_at(base_url)],
    )
    options = types.HttpOptions(
        base_url=base_url,
        timeout=None if spec.timeout_s is None else int(spec.timeout_s * 1000),
        aiohttp_client=session,
        async_client_args={"allow_redirects": False},
        # Without this the SDK repeats a request by itself after a lost connection.
        retry_options=types.HttpRetryOptions(attempts=1),
    )
    return genai.Client(vertexai=False, api_key=api_key, http_options=options), session


def _staying_at(base_url: str) -> aiohttp.TraceConfig:
    """The SDK follows redirects and URLs of uploads wherever they lead, unless the session itself refuses."""
    refuse = refuse_other_than(base_url)

    async def started(_: aiohttp.ClientSession, __: object, request: aiohttp.TraceRequestStartParams) -> None:
        refuse(str(request.url))

    async def redirected(_: aiohttp.ClientSession, __: object, ___: aiohttp.TraceRequestRedirectParams) -> None:
        raise ToAnotherHost("the service sends on to another address, and nothing follows there")

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(started)
    trace.on_request_redirect.append(redirected)
    return trace


def body_of(spec: TeacherSpec, images: Sequence[bytes], prompt: str) -> dict[str, Any]:
    """One request as the service wants it, in a batch or at once."""
    encoded = [base64_of(image).decode() for image in images]
    parts: list[dict[str, Any]] = [{"inlineData": {"mimeType": "image/jpeg", "data": data}} for data in encoded]
    return {
        "contents": [{"role": "user", "parts": [*parts, {"text": prompt}]}],
        "generationConfig": _generation(spec),
    }


def _generation(spec: TeacherSpec) -> dict[str, Any]:
    """The sampling in the service's names."""
    sampling = spec.sampling
    chosen = {
        "maxOutputTokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "topP": sampling.top_p,
        "seed": sampling.seed,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def headers_of(error: errors.APIError) -> Mapping[str, str]:
    """Of the response that the error is about; none where there was none."""
    return getattr(error.response, "headers", None) or {}


def reply_of(body: dict[str, Any], raw: str) -> Reply:
    """What one good body says."""
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
