"""OpenAI chat completions, and every service that speaks them (xAI, DashScope, Zhipu, Moonshot, vLLM)."""

from collections.abc import Sequence
from typing import Any

import httpx2
import openai

from cxr_max.records import Reply
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

OFFICIAL = "https://api.openai.com/v1"


class OpenAITeacher:
    """A model behind the chat completions interface."""

    def __init__(self, spec: TeacherSpec, base_url: str, api_key: str) -> None:
        self.spec = spec
        self._base_url = base_url
        self._client = connected(spec, base_url, api_key)

    async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
        """See ``Teacher.ask``."""
        body = _body(self.spec, self._base_url, [PICTURE] * len(images), prompt)
        try:
            # The SDK's own way past its models: its typed call walks through every part of the body.
            response = await self._client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                content=with_pictures(body, images),
                options={"headers": {**JSON, "Idempotency-Key": key}},
            )
            raw, request_id = response.text, response.headers.get("x-request-id")
            return read_body(raw, lambda body: reply_of(body, raw, request_id), response.headers)
        except openai.APIStatusError as error:
            return reply_or_error(error.status_code, error.response.text, error.response.headers)
        except openai.APIConnectionError as error:
            raise transport_error(error, self.spec.timeout_s) from error
        except openai.OpenAIError as error:
            raise TeacherError("bad_reply", str(error)) from error

    async def close(self) -> None:
        """See ``Teacher.close``."""
        await self._client.close()


def connected(spec: TeacherSpec, base_url: str, api_key: str) -> openai.AsyncOpenAI:
    """A client that sends once, and to nobody else."""
    client = openai.AsyncOpenAI(
        api_key=api_key,
        base_url=base_url,
        max_retries=0,
        timeout=spec.timeout_s,
        # Neither a redirect nor a proxy of the environment may carry an image to another host.
        http_client=openai.DefaultAioHttpClient(
            timeout=spec.timeout_s,
            follow_redirects=False,
            trust_env=heeds_environment(spec),
            event_hooks=stays_at(base_url),
        ),
    )
    if base_url != OFFICIAL:
        # Read from the environment by the SDK, and nobody else's business.
        client.organization = client.project = None
    return client


def body_of(spec: TeacherSpec, base_url: str, images: Sequence[bytes], prompt: str) -> dict[str, Any]:
    """One request as the service wants it, in a batch or at once."""
    return _body(spec, base_url, [base64_of(image).decode() for image in images], prompt)


def _body(spec: TeacherSpec, base_url: str, pictures: Sequence[str], prompt: str) -> dict[str, Any]:
    sampling = spec.sampling
    chosen = {
        # OpenAI's own reasoning models refuse the name that all compatible services know.
        "max_completion_tokens" if base_url == OFFICIAL else "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
    named = {name: value for name, value in chosen.items() if value is not None}
    return {"model": spec.model, "messages": [{"role": "user", "content": _content(pictures, prompt)}], **named}


def _content(pictures: Sequence[str], prompt: str) -> list[dict[str, Any]]:
    urls = ["data:image/jpeg;base64," + picture for picture in pictures]
    return [{"type": "image_url", "image_url": {"url": url}} for url in urls] + [{"type": "text", "text": prompt}]


def reply_of(body: dict[str, Any], raw: str, request_id: str | None) -> Reply:
    """What one good body says."""
    choice = body["choices"][0]
    message = choice["message"]
    usage = body.get("usage") or {}
    refusal = message.get("refusal")
    finish_reason = choice.get("finish_reason")
    return Reply(
        text=_text(message.get("content")) or refusal or "",
        reasoning=message.get("reasoning_content") or message.get("reasoning"),
        ended="refused"
        if refusal
        else ended_of(finish_reason, length={"length"}, filtered={"content_filter", "sensitive"}),
        finish_reason=finish_reason,
        model_reported=body.get("model"),
        input_tokens=usage.get("prompt_tokens"),
        output_tokens=_output_tokens(usage),
        request_id=request_id or body.get("id"),
        raw=raw,
    )


def _output_tokens(usage: dict[str, Any]) -> Any:
    """Reasoning is charged as output. OpenAI counts it in; xAI beside it, as the total then shows."""
    said: Any = usage.get("completion_tokens")
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    counts = (usage.get("prompt_tokens"), said, reasoning)
    beside = all(type(count) is int for count in counts) and usage.get("total_tokens") == sum(counts)
    return said + reasoning if beside else said


def _text(content: Any) -> Any:
    """Some compatible services send a list of parts instead of a string."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    return content
