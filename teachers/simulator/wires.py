"""The three wire formats: how a service's request is read, and how its reply and its errors are written.

Shapes as the services document them, so that the official SDKs parse them; only what this project reads is
filled.
"""

from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from aiohttp import web

from cxr_max.teachers.simulator.personas import Wire

EPOCH: Final = 1_750_000_000
"""Seconds since 1970 from which ``created`` is derived."""
CHARACTERS_PER_TOKEN: Final = 4
_URL_SAFE: Final = str.maketrans("-_", "+/")

Ending = Literal["stop", "length", "blocked", "refused", "filtered"]
"""``blocked`` is a persona's refusal in the wire's own form, which is a safety stop at Gemini. The last two are
for faults: a refusal by the model itself, and an output that a filter stopped."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, whatever its wire."""

    model: str
    prompt: str
    images: tuple[bytes, ...]
    """One or more, in the order of the request."""
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, before it takes a wire's shape."""

    model: str
    text: str
    """In an OpenAI refusal, what ``message.refusal`` says."""
    reasoning: str | None
    ending: Ending
    digest: str
    """Hexadecimal; ids and timestamps are made of it."""
    text_tokens: int
    image_tokens: int
    output_tokens: int

    @property
    def input_tokens(self) -> int:
        return self.text_tokens + self.image_tokens


class Fault(Exception):
    """A request that gets an error reply."""

    def __init__(self, status: Literal[400, 401, 404], message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class WireFormat(Protocol):
    """How one service's requests are read and its replies written."""

    def authorized(self, request: web.Request) -> bool: ...
    def read(self, body: Any, request: web.Request) -> Ask: ...
    def write(self, answer: Answer) -> dict[str, Any]: ...
    def error(self, fault: Fault) -> tuple[int, dict[str, Any]]: ...


class OpenAI:
    """Chat completions."""

    def authorized(self, request: web.Request) -> bool:
        return bool(request.headers.get("Authorization", "").removeprefix("Bearer").strip())

    def read(self, body: Any, request: web.Request) -> Ask:
        if body.get("stream"):
            raise Fault(400, "The simulator does not stream; send stream=false.")
        parts = [part for message in body["messages"] for part in _blocks(message["content"])]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        limit = _limit(body.get("max_completion_tokens", body.get("max_tokens")))
        return Ask(str(body["model"]), _joined(parts), _images(url.partition(",")[2] for url in urls), limit)

    def write(self, answer: Answer) -> dict[str, Any]:
        blocked = answer.ending in {"blocked", "refused"}
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if blocked or answer.ending == "filtered" else answer.text,
            "refusal": answer.text if blocked else None,
            "annotations": [],
        }
        if answer.reasoning is not None:
            message["reasoning_content"] = answer.reasoning
        reasons = {"length": "length", "filtered": "content_filter"}
        reasoning_tokens = tokens(answer.reasoning or "")
        return {
            "id": f"chatcmpl-{answer.digest[:29]}",
            "object": "chat.completion",
            "created": EPOCH + int(answer.digest[:6], 16),
            "model": answer.model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": reasons.get(answer.ending, "stop"),
                }
            ],
            "usage": {
                "prompt_tokens": answer.input_tokens,
                "completion_tokens": answer.output_tokens,
                "total_tokens": answer.input_tokens + answer.output_tokens,
                "prompt_tokens_details": {"cached_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
            },
            "system_fingerprint": "fp_simulated",
        }

    def error(self, fault: Fault) -> tuple[int, dict[str, Any]]:
        code = {400: None, 401: "invalid_api_key", 404: "model_not_found"}[fault.status]
        detail = {"message": fault.message, "type": "invalid_request_error", "param": None, "code": code}
        return fault.status, {"error": detail}


class Anthropic:
    """Messages."""

    def authorized(self, request: web.Request) -> bool:
        return bool(request.headers.get("x-api-key") or request.headers.get("Authorization"))

    def read(self, body: Any, request: web.Request) -> Ask:
        if body.get("stream"):
            raise Fault(400, "The simulator does not stream; send stream=false.")
        if "max_tokens" not in body:
            raise Fault(400, "max_tokens: Field required")
        contents = [body.get("system"), *(message["content"] for message in body["messages"])]
        parts = [part for content in contents for part in _blocks(content)]
        images = (part["source"]["data"] for part in parts if part["type"] == "image")
        return Ask(str(body["model"]), _joined(parts), _images(images), _limit(body["max_tokens"]))

    def write(self, answer: Answer) -> dict[str, Any]:
        reasons = {"stop": "end_turn", "length": "max_tokens", "blocked": "refusal", "refused": "refusal"}
        silent = answer.ending in {"blocked", "refused"} or not answer.text
        return {
            "id": f"msg_{answer.digest[:24]}",
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": [] if silent else [{"type": "text", "text": answer.text}],
            "stop_reason": reasons[answer.ending],
            "stop_sequence": None,
            "usage": {
                "input_tokens": answer.input_tokens,
                "output_tokens": answer.output_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
            },
        }

    def error(self, fault: Fault) -> tuple[int, dict[str, Any]]:
        kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
        return fault.status, {
            "type": "error",
            "error": {"type": kinds[fault.status], "message": fault.message},
        }


class Gemini:
    """generateContent."""

    def authorized(self, request: web.Request) -> bool:
        return bool(request.headers.get("x-goog-api-key") or request.query.get("key"))

    def read(self, body: Any, request: web.Request) -> Ask:
        contents = [body.get("systemInstruction") or {}, *body["contents"]]
        parts = [part for content in contents for part in content.get("parts", ())]
        images = (part["inlineData"]["data"] for part in parts if "inlineData" in part)
        limit = _limit((body.get("generationConfig") or {}).get("maxOutputTokens"))
        return Ask(request.match_info["model"], _joined(parts), _images(images), limit)

    def write(self, answer: Answer) -> dict[str, Any]:
        # A refusal of the model's own is prose here, and has no sign.
        reasons = {"stop": "STOP", "length": "MAX_TOKENS", "blocked": "SAFETY", "refused": "STOP"}
        if answer.ending == "filtered":
            found: dict[str, Any] = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
        else:
            candidate: dict[str, Any] = {"finishReason": reasons[answer.ending], "index": 0}
            if answer.ending != "blocked":
                parts = [{"text": answer.text}] if answer.text else []
                candidate["content"] = {"parts": parts, "role": "model"}
            found = {"candidates": [candidate]}
        return {
            **found,
            "usageMetadata": {
                "promptTokenCount": answer.input_tokens,
                "candidatesTokenCount": answer.output_tokens,
                "totalTokenCount": answer.input_tokens + answer.output_tokens,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": answer.text_tokens},
                    {"modality": "IMAGE", "tokenCount": answer.image_tokens},
                ],
            },
            "modelVersion": answer.model,
            "responseId": answer.digest[:22],
        }

    def error(self, fault: Fault) -> tuple[int, dict[str, Any]]:
        # The service answers a missing key with 403, where the other two say 401.
        codes = {400: (400, "INVALID_ARGUMENT"), 401: (403, "PERMISSION_DENIED"), 404: (404, "NOT_FOUND")}
        code, status = codes[fault.status]
        return code, {"error": {"code": code, "message": fault.message, "status": status}}


FORMATS: Final[Mapping[Wire, WireFormat]] = {"openai": OpenAI(), "anthropic": Anthropic(), "gemini": Gemini()}


def _blocks(content: Any) -> list[Any]:
    """A message's content as a list of parts: nothing, a string or such a list."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def _joined(parts: list[Any]) -> str:
    return "\n".join(part["text"] for part in parts if "text" in part)


def _images(encoded: Iterable[str]) -> tuple[bytes, ...]:
    # google-genai encodes with the URL-safe alphabet.
    found = tuple(b64decode(data.translate(_URL_SAFE) if "-" in data or "_" in data else data) for data in encoded)
    if not found:
        raise Fault(400, "The request holds no inline image; send one as base64.")
    return found


def _limit(value: object) -> int | None:
    if value is not None and (not isinstance(value, int) or value < 1):
        raise Fault(400, f"The limit on output tokens is {value!r}; it must be a positive whole number.")
    return value


def tokens(text: str) -> int:
    """One per 4 characters, rounded up: the services' own rule of thumb for English."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)
