"""What the adapters share: reading a body, and telling apart the ways in which there is none."""

import base64
import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from cxr_max.data_use import host_of, place_of
from cxr_max.records import Ended, Reply
from cxr_max.teachers.base import ErrorKind, TeacherError, TeacherSpec
from cxr_max.teachers.rate_limits import LONGEST_WAIT_S, limits_of, retry_after_s

JSON: Final = {"Content-Type": "application/json"}
PICTURE: Final = "<picture>"
"""What stands for an image's base64 in a body that ``with_pictures`` completes."""

_OVERRUN: Final = {503, 529}
_DELAY = re.compile(r'"retrydelay": ?"([0-9.]{1,12})s"')
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""An error is shown on a terminal, which must not obey it."""
_FILTER_CODES = (
    "content_filter", "content_policy_violation", "content filtering policy", "data_inspection_failed", '"1301"',
)  # fmt: skip
_DAY_WORDS = ("perday",)
"""Gemini's quota of the day. The seconds that its RetryInfo names beside it do not bring it back."""
_THROTTLE_WORDS = (
    "perminute", "retrydelay", "please retry in", "rate_limit_exceeded", "rate limit reached",
    "rate_limit_reached", "throttling", "token-limit", "limit_requests",
)  # fmt: skip
"""They pass. Gemini, OpenAI and DashScope advise on billing even where an account is merely too fast."""
_QUOTA_WORDS = (
    "insufficient_quota", "credit balance", "credit_balance", "billing", "insufficient balance", "arrearage",
    "spend_limit", "spending limit", "usage_limit", "usage limits", "credits are depleted", '"1113"',
)  # fmt: skip
_KEY_WORDS = ("api_key_invalid", "incorrect api key")


@lru_cache(maxsize=16)
def base64_of(image: bytes) -> bytes:
    """In base64; once for all teachers that are asked about an image at about the same time."""
    return base64.b64encode(image)


def with_pictures(body: Mapping[str, Any], images: Sequence[bytes]) -> bytes:
    """``body`` as JSON, with ``PICTURE`` replaced by each image in turn.

    The images are put in as bytes: to hand them through a JSON encoder costs more than to send them.

    Args:
        body: as many values ``PICTURE`` as there are images, before anything that a user wrote.
    """
    first, *rest = json.dumps(body).encode().split(PICTURE.encode(), len(images))
    pieces = [first]
    for image, piece in zip(images, rest, strict=True):
        pieces += base64_of(image), piece
    return b"".join(pieces)


def read_body(
    raw: str, reader: Callable[[dict[str, Any]], Reply], headers: Mapping[str, str] | None = None
) -> Reply:
    """Turn a body into a reply.

    Raises:
        TeacherError: the body is no JSON object, or lacks what a reply needs.
    """
    try:
        reply = _checked(reader(json.loads(raw)))
        limits = limits_of(headers) if headers is not None else None
        return reply if limits is None else replace(reply, limits=limits)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        start = " ".join(raw.split())[:120]
        raise TeacherError("bad_reply", f"the reply cannot be read ({error!r}); it starts {start!r}") from error


def _checked(reply: Reply) -> Reply:
    """Only what the ledger and a shard can hold: services send what they like.

    Raises:
        TypeError, ValueError: a field is of another kind, or a count beyond 32 bits.
    """
    for name in ("text", "reasoning", "finish_reason", "model_reported", "request_id", "raw"):
        value = getattr(reply, name)
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} is no text")
    for name in ("input_tokens", "output_tokens"):
        count = getattr(reply, name)
        if count is not None and (type(count) is not int or not 0 <= count < 2**31):
            raise ValueError(f"{name} is no count")
    # Half a surrogate pair can be neither stored nor shown.
    reasoning = None if reply.reasoning is None else _whole(reply.reasoning)
    return replace(reply, text=_whole(reply.text), reasoning=reasoning, raw=_whole(reply.raw))


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def ended_of(finish_reason: str | None, *, length: set[str], filtered: set[str]) -> Ended:
    """A service's finish reason in the common vocabulary."""
    if finish_reason in length:
        return "length"
    return "filtered" if finish_reason in filtered else "stop"


def reply_or_error(status: int, body: str, headers: Mapping[str, str]) -> Reply:
    """The meaning of an HTTP error, the same for every service.

    A content filter's refusal is what the service answers to this image: a reply, and never asked again.

    Raises:
        TeacherError: anything else.
    """
    lowered = body.lower()
    for code in _FILTER_CODES:
        if status == 400 and code in lowered:
            return Reply("", None, "filtered", code.strip('"'), None, None, None, None, body)
    raise error_of(status, body, headers)


def error_of(status: int, body: str, headers: Mapping[str, str]) -> TeacherError:
    """What an HTTP error means that is no reply: to any request but one about an image, all of them."""
    if 300 <= status < 400:
        return _moved(status, headers)
    lowered = body.lower()
    message = f"HTTP {status}: {' '.join(_CONTROL.sub(' ', body).split())[:300] or 'no body'}"
    return TeacherError(
        _kind_of_status(status, lowered), message, _asked_wait(headers, lowered), limits_of(headers),
        overrun=status in _OVERRUN,
    )  # fmt: skip


def _moved(status: int, headers: Mapping[str, str]) -> TeacherError:
    """A redirect, which could carry an image to anybody."""
    named = {name.lower(): value for name, value in headers.items()}.get("location", "")
    host = host_of(named) or "another address"
    return TeacherError("moved", f"HTTP {status} sends on to {host}, and nothing follows there")


class ToAnotherHost(Exception):
    """A client was about to call a host that is not its teacher's; nothing was sent."""


def refuse_other_than(base_url: str) -> Callable[[str], None]:
    """What raises ``ToAnotherHost`` for any URL at another scheme, host or port than ``base_url``.

    A service can name such URLs: in a redirect, for an upload, or for the results of a batch.
    """
    own = urlsplit(base_url)

    def refuse(url: str) -> None:
        asked = urlsplit(url)
        if (asked.scheme, asked.hostname, _port(asked)) != (own.scheme, own.hostname, _port(own)):
            raise ToAnotherHost(f"the service names {asked.hostname} for it, and nothing is sent there")

    return refuse


def heeds_environment(spec: TeacherSpec) -> bool:
    """Whether proxies and .netrc of the environment count: never for what listens here, gateway or not."""
    return spec.place == "remote" and place_of(spec.endpoint) == "remote"


def stays_at(base_url: str) -> dict[str, list[Callable[[Any], Awaitable[None]]]]:
    """``event_hooks`` of an httpx client that calls nobody but ``base_url``'s host."""
    refuse = refuse_other_than(base_url)

    async def look(request: Any) -> None:
        refuse(str(request.url))

    return {"request": [look]}


def _port(parts: SplitResult) -> int | None:
    return parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def transport_error(error: BaseException, timeout_s: float | None) -> TeacherError:
    """Name a request that ended without an HTTP status.

    By its causes, not by itself: the SDKs' transport reports a server that hung up as a connection that timed out.
    """
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    for cause in causes:
        if isinstance(cause, ToAnotherHost):
            return TeacherError("moved", str(cause))
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return TeacherError("timeout", f"no reply within {timeout_s or 0:g} s")
    return TeacherError("transport", f"{type(causes[-1]).__name__}: {causes[-1]}")


def _kind_of_status(status: int, body: str) -> ErrorKind:
    def says(words: Collection[str]) -> bool:
        return any(word in body for word in words)

    if status == 429 and says(_THROTTLE_WORDS) and not says(_DAY_WORDS):
        return "rate_limit"
    if status == 402 or (status in {400, 403, 429} and says((*_QUOTA_WORDS, *_DAY_WORDS))):
        return "quota"
    if status in {401, 403} or (status == 400 and says(_KEY_WORDS)):
        return "auth"
    if status == 404 or (status == 400 and '"1211"' in body):
        return "model"
    if status == 429:
        return "rate_limit"
    if status == 408:
        return "timeout"
    return "server" if status >= 500 or status == 409 else "bad_request"


def _asked_wait(headers: Mapping[str, str], body: str) -> float | None:
    """Seconds, at most ``LONGEST_WAIT_S``: what the headers ask for, or Gemini's retryDelay."""
    asked = retry_after_s(headers)
    delay = _DELAY.search(body)
    if asked is None and delay:
        try:
            asked = float(delay[1])
        except ValueError:
            return None
    return None if asked is None else min(asked, LONGEST_WAIT_S)
