"""The forms in which others keep image-text conversations: one row of theirs <-> what a trajectory holds of it.

ms-swift: ``messages`` (role, content), ``images``; before version 3 ``query``, ``response``, ``history``.
LLaVA: ``id``, ``image``, ``conversations`` (from, value). OpenAI chat: ``messages`` whose contents are parts.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

Form = Literal["ms-swift", "llava", "openai"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)
IMAGE: Final = "<image>"
_THINK: Final = ("<think>", "</think>")
_ROLES: Final = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system",
}  # fmt: skip


class FormError(ValueError):
    """A row is not in the form, or cannot become a trajectory; the words say why."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question about images, and one reply."""

    images: tuple[str, ...]
    """As the row names them: paths, URLs or identifiers."""
    prompt: str
    reply: str
    reasoning: str | None
    row_id: str | None
    """The row's own identifier, if it has one."""


def form_of(row: Mapping[str, Any]) -> Form:
    """The form that a row is in.

    Raises:
        FormError: none of them.
    """
    if "conversations" in row:
        return "llava"
    messages = row.get("messages")
    if isinstance(messages, list):
        parts = any(isinstance(one, dict) and isinstance(one.get("content"), list) for one in messages)
        return "openai" if parts and "images" not in row else "ms-swift"
    if "response" in row:
        return "ms-swift"
    raise FormError("has neither messages, conversations nor query and response")


def read(row: Mapping[str, Any], form: Form) -> Exchange:
    """What a row says.

    Raises:
        FormError: it is not in the form, has no reply, or more than one turn.
    """
    turns, images = {"ms-swift": _swift_turns, "llava": _llava_turns, "openai": _openai_turns}[form](row)
    asked = [text for role, text in turns if role == "user"]
    replies = [text for role, text in turns if role == "assistant"]
    if not replies:
        raise FormError("has no reply of an assistant")
    if len(replies) > 1 or len(asked) > 1:
        raise FormError("has several turns, and a trajectory is one question and one reply")
    if not images:
        raise FormError("names no image")
    reply, reasoning = _apart(replies[0])
    row_id = row.get("id")
    prompt = "\n\n".join(text for role, text in turns if role in ("system", "user"))
    return Exchange(
        tuple(images),
        _without_tags(prompt, len(images)),
        reply,
        reasoning,
        None if row_id is None else str(row_id),
    )


def write(exchange: Exchange, form: Form) -> dict[str, Any]:
    """A row of the form. ``reasoning`` goes before the reply, between think tags."""
    reply = exchange.reply
    if exchange.reasoning is not None:
        reply = f"{_THINK[0]}{exchange.reasoning}{_THINK[1]}\n{reply}"
    tagged = "".join(f"{IMAGE}\n" for _ in exchange.images) + exchange.prompt
    if form == "ms-swift":
        messages = [{"role": "user", "content": tagged}, {"role": "assistant", "content": reply}]
        return {"id": exchange.row_id, "messages": messages, "images": list(exchange.images)}
    if form == "llava":
        image = exchange.images[0] if len(exchange.images) == 1 else list(exchange.images)
        said = [{"from": "human", "value": tagged}, {"from": "gpt", "value": reply}]
        return {"id": exchange.row_id, "image": image, "conversations": said}
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in exchange.images]
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": [*parts, {"type": "text", "text": exchange.prompt}]},
        {"role": "assistant", "content": reply},
    ]
    return {"id": exchange.row_id, "messages": chat}


Turns = list[tuple[str, str]]


def _swift_turns(row: Mapping[str, Any]) -> tuple[Turns, list[str]]:
    if "messages" in row:
        turns, inline = _openai_turns(row)
    else:
        if row.get("history"):
            raise FormError("has several turns, and a trajectory is one question and one reply")
        turns, inline = [], []
        for role, name in (("system", "system"), ("user", "query"), ("assistant", "response")):
            if row.get(name) is not None:
                turns.append((role, _text(row[name])))
    return turns, [*_paths(row.get("images") or row.get("image") or []), *inline]


def _llava_turns(row: Mapping[str, Any]) -> tuple[Turns, list[str]]:
    said = row.get("conversations")
    if not isinstance(said, list):
        raise FormError("has conversations that are no list")
    turns = []
    for one in said:
        if not isinstance(one, dict) or one.get("from") not in _ROLES:
            raise FormError("has a turn that says not from whom it is")
        turns.append((_ROLES[one["from"]], _text(one.get("value"))))
    return turns, _paths(row.get("image") or row.get("images") or [])


def _openai_turns(row: Mapping[str, Any]) -> tuple[Turns, list[str]]:
    said = row.get("messages")
    if not isinstance(said, list):
        raise FormError("has messages that are no list")
    turns, images = [], []
    for one in said:
        if not isinstance(one, dict) or one.get("role") not in _ROLES:
            raise FormError("has a message without a role that is known")
        content = one.get("content")
        if isinstance(content, list):
            texts = [_text(part.get("text")) for part in content if _kind(part) in ("text", "input_text")]
            images += [_url(part) for part in content if _kind(part) in ("image", "image_url", "input_image")]
            content = "\n".join(texts)
        turns.append((_ROLES[one["role"]], _text(content)))
    return turns, images


def _kind(part: object) -> str:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise FormError("has a part without a type")
    return str(part["type"])


def _url(part: Mapping[str, Any]) -> str:
    url = part.get("image_url", part.get("image", part.get("path")))
    url = url.get("url") if isinstance(url, dict) else url
    if not isinstance(url, str):
        raise FormError("has an image without a path or URL")
    return url


def _paths(images: object) -> list[str]:
    listed = images if isinstance(images, list) else [images]
    paths = [one.get("path") if isinstance(one, dict) else one for one in listed]
    if not all(isinstance(path, str) and path for path in paths):
        raise FormError("has an image without a path or URL")
    return [str(path) for path in paths]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise FormError("has a turn without text")
    return value


def _without_tags(prompt: str, number: int) -> str:
    """The places of ``number`` images, in front or behind, are no part of the question."""
    for _ in range(number):
        if prompt.startswith(IMAGE):
            prompt = prompt.removeprefix(IMAGE).removeprefix("\n")
        else:
            prompt = prompt.removesuffix(IMAGE).removesuffix("\n") if prompt.endswith(IMAGE) else prompt
    return prompt


def _apart(reply: str) -> tuple[str, str | None]:
    begin, end = _THINK
    if not reply.startswith(begin) or end not in reply:
        return reply, None
    reasoning, _, text = reply.removeprefix(begin).partition(end)
    return text.removeprefix("\n"), reasoning


def sha256(text: str) -> str:
    """Of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def line_of(row: Mapping[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(row, ensure_ascii=False) + "\n"
