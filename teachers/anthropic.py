"""Anthropic messages."""

from collections.abc import Sequence
from typing import Any

import anthropic
import httpx2

from cxr_max.records import Ended, Reply
from cxr_max.teachers.base import TeacherError, TeacherSpec
from cxr_max.teachers.wire import (
    JSON,
    PICTURE,
    base64_of,
    ended_of,
    heeds_environment,
    read_body,
    reply_or_error,
    stays_at,
    transport_error,
    with_pictures,
)


class AnthropicTeacher:
    """A model behind the messages interface."""

    def __init__(self, spec: TeacherSpec, base_url: str, api_key: str) -> None:
        self.spec = spec
        self._client = connected(spec, base_url, api_key)

    async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
        """See ``Teacher.ask``."""
        body = _body(self.spec, [PICTURE] * len(images), prompt)
        try:
            # The SDK's own way past its models: its typed call walks through every part of the body.
            response = await self._client.post(
                "/v1/messages",
                cast_to=httpx2.Response,
                content=with_pictures(body, images),
                options={"headers": {**JSON, "Idempotency-Key": key}},
            )
            raw, request_id = response.text, response.headers.get("request-id")
            return read_body(raw, lambda body: reply_of(body, raw, request_id), response.headers)
        except anthropic.APIStatusError as error:
            return reply_or_error(error.status_code, error.response.text, error.response.headers)
        except anthropic.APIConnectionError as error:
            raise transport_error(error, self.spec.timeout_s) from error
        except anthropic.AnthropicError as error:
            raise TeacherError("bad_reply", str(error)) from error

    async def close(self) -> None:
        """See ``Teacher.close``."""
        await self._client.close()


def connected(spec: TeacherSpec, base_url: str, api_key: str) -> anthropic.AsyncAnthropic:
    """A client that sends once, and to nobody else."""
    return anthropic.AsyncAnthropic(
        api_key=api_key,
        base_url=base_url,
        max_retries=0,
        timeout=spec.timeout_s,
        # Neither a redirect nor a proxy of the environment may carry an image to another host.
        http_client=anthropic.DefaultAioHttpClient(
            timeout=spec.timeout_s,
            follow_redirects=False,
            trust_env=heeds_environment(spec),
            event_hooks=stays_at(base_url),
        ),
    )


def body_of(spec: TeacherSpec, images: Sequence[bytes], prompt: str) -> dict[str, Any]:
    """One request as the service wants it, in a batch or at once. It takes no seed."""
    return _body(spec, [base64_of(image).decode() for image in images], prompt)


def _body(spec: TeacherSpec, pictures: Sequence[str], prompt: str) -> dict[str, Any]:
    sampling = spec.sampling
    chosen = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    return {
        "model": spec.model,
        "max_tokens": sampling.max_tokens,
        "messages": [{"role": "user", "content": _content(pictures, prompt)}],
        **{name: value for name, value in chosen.items() if value is not None},
    }


def _content(pictures: Sequence[str], prompt: str) -> list[dict[str, Any]]:
    sources = [{"type": "base64", "media_type": "image/jpeg", "data": picture} for picture in pictures]
    return [{"type": "image", "source": source} for source in sources] + [{"type": "text", "text": prompt}]


def reply_of(body: dict[str, Any], raw: str, request_id: str | None) -> Reply:
    """What one good body says."""
    stop_reason = body.get("stop_reason")
    usage = body.get("usage") or {}
    return Reply(
        text=_joined(body, "text"),
        reasoning=_joined(body, "thinking") or None,
        ended=_ended(stop_reason),
        finish_reason=stop_reason,
        model_reported=body.get("model"),
        input_tokens=usage.get("input_tokens"),
        output_tokens=usage.get("output_tokens"),
        request_id=request_id or body.get("id"),
        raw=raw,
    )


def _joined(body: dict[str, Any], kind: str) -> str:
    return "".join(block[kind] for block in body["content"] if block["type"] == kind)


def _ended(stop_reason: str | None) -> Ended:
    if stop_reason == "refusal":
        return "refused"
    return ended_of(stop_reason, length={"max_tokens", "model_context_window_exceeded"}, filtered=set())
