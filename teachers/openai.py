"""OpenAI chat completions, and every service that speaks them (xAI, DashScope, Zhipu, Moonshot, vLLM)."""

import base64
from collections.abc import Sequence
from typing import Any

import openai

from cxr_max.records import Reply
from cxr_max.teachers.base import TeacherError, TeacherSpec
from cxr_max.teachers.wire import TIMEOUT_S, ended_of, read_body, reply_or_error, transport_error

OFFICIAL = "https://api.openai.com/v1"


class OpenAITeacher:
    """A model behind the chat completions interface."""

    def __init__(self, spec: TeacherSpec, base_url: str, api_key: str) -> None:
        self.spec = spec
        # OpenAI's own reasoning models refuse the name that all compatible services know.
        self._limit = "max_completion_tokens" if base_url == OFFICIAL else "max_tokens"
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=TIMEOUT_S,
            # Neither a redirect nor a proxy of the environment may carry an image to another host.
            http_client=openai.DefaultAioHttpClient(
                timeout=TIMEOUT_S, follow_redirects=False, trust_env=spec.place == "remote"
            ),
        )

        if base_url != OFFICIAL:
            # Read from the environment by the SDK, and nobody else's business.
            self._client.organization = self._client.project = None

    async def ask(self, images: Sequence[bytes], prompt: str, key: str) -> Reply:
        """See ``Teacher.ask``."""
        try:
            response = await self._client.chat.completions.with_raw_response.create(
                model=self.spec.model,
                messages=[{"role": "user", "content": _content(images, prompt)}],  # type: ignore[list-item,misc]
                extra_headers={"Idempotency-Key": key},
                **self._sampling(),
            )
            return read_body(response.text, lambda body: _reply(body, response.text, response.request_id))
        except openai.APIStatusError as error:
            return reply_or_error(error.status_code, error.response.text, error.response.headers)
        except openai.APIConnectionError as error:
            raise transport_error(error) from error
        except openai.OpenAIError as error:
            raise TeacherError("bad_reply", str(error)) from error

    async def close(self) -> None:
        """See ``Teacher.close``."""
        await self._client.close()

    def _sampling(self) -> dict[str, Any]:
        sampling = self.spec.sampling
        chosen = {
            self._limit: sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        return {name: value for name, value in chosen.items() if value is not None}


def _content(images: Sequence[bytes], prompt: str) -> list[dict[str, Any]]:
    urls = ["data:image/jpeg;base64," + base64.b64encode(image).decode() for image in images]
    return [{"type": "image_url", "image_url": {"url": url}} for url in urls] + [{"type": "text", "text": prompt}]


def _reply(body: dict[str, Any], raw: str, request_id: str | None) -> Reply:
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
        output_tokens=usage.get("completion_tokens"),
        request_id=request_id or body.get("id"),
        raw=raw,
    )


def _text(content: Any) -> Any:
    """Some compatible services send a list of parts instead of a string."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    return content
