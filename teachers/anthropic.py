"""Anthropic messages."""

import base64
from collections.abc import Sequence
from typing import Any

import anthropic

from cxr_max.records import Ended, Reply
from cxr_max.teachers.base import TeacherError, TeacherSpec
from cxr_max.teachers.wire import TIMEOUT_S, ended_of, read_body, reply_or_error, transport_error


class AnthropicTeacher:
    """A model behind the messages interface."""

    def __init__(self, spec: TeacherSpec, base_url: str, api_key: str) -> None:
        self.spec = spec
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=TIMEOUT_S,
            # Neither a redirect nor a proxy of the environment may carry an image to another host.
            http_client=anthropic.DefaultAioHttpClient(
                timeout=TIMEOUT_S, follow_redirects=False, trust_env=spec.place == "remote"
            ),
        )

    async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
        """See ``Teacher.ask``."""
        try:
            response = await self._client.messages.with_raw_response.create(
                model=self.spec.model,
                messages=[{"role": "user", "content": _content(images, prompt)}],  # type: ignore[list-item,misc]
                max_tokens=self.spec.sampling.max_tokens,
                extra_headers={"Idempotency-Key": key},
                # The SDK no longer names these; the models of the roster still take them.
                extra_body=self._sampling(),
            )
            raw = await response.text()
            return read_body(raw, lambda body: _reply(body, raw, response.request_id))
        except anthropic.APIStatusError as error:
            return reply_or_error(error.status_code, error.response.text, error.response.headers)
        except anthropic.APIConnectionError as error:
            raise transport_error(error) from error
        except anthropic.AnthropicError as error:
            raise TeacherError("bad_reply", str(error)) from error

    async def close(self) -> None:
        """See ``Teacher.close``."""
        await self._client.close()

    def _sampling(self) -> dict[str, Any]:
        """This service takes no seed."""
        sampling = self.spec.sampling
        chosen = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        return {name: value for name, value in chosen.items() if value is not None}


def _content(images: Sequence[bytes], prompt: str) -> list[dict[str, Any]]:
    sources = [
        {"type": "base64", "media_type": "image/jpeg", "data": base64.b64encode(image).decode()}
        for image in images
    ]
    return [{"type": "image", "source": source} for source in sources] + [{"type": "text", "text": prompt}]


def _reply(body: dict[str, Any], raw: str, request_id: str | None) -> Reply:
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
