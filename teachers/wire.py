"""What the adapters share: reading a body, and telling apart the ways in which there is none."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cxr_max.records import Ended, Reply
from cxr_max.teachers.base import ErrorKind, TeacherError

TIMEOUT_S = 300.0
"""A reply of a reasoning model can take minutes; one that takes longer is not coming."""

LONGEST_WAIT_S = 600.0
"""A service that asks to be left alone for longer is asked again all the same; a request gives up in the end."""

_DELAY = re.compile(r'"retrydelay": ?"([0-9.]{1,12})s"')
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""An error is shown on a terminal, which must not obey it."""
_FILTER_CODES = ("content_filter", "content_policy_violation", "data_inspection_failed", '"1301"')
_QUOTA_WORDS = ("insufficient_quota", "credit balance", "billing", "insufficient balance", "arrearage")


def read_body(raw: str, reader: Callable[[dict[str, Any]], Reply]) -> Reply:
    """Turn a body into a reply.

    Raises:
        TeacherError: the body is no JSON object, or lacks what a reply needs.
    """
    try:
        return _checked(reader(json.loads(raw)))
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
    message = f"HTTP {status}: {' '.join(_CONTROL.sub(' ', body).split())[:300] or 'no body'}"
    raise TeacherError(_kind_of_status(status, lowered), message, _retry_after(headers, lowered))


def transport_error(error: BaseException) -> TeacherError:
    """Name a request that ended without an HTTP status.

    By its causes, not by itself: the SDKs' transport reports a server that hung up as a connection that timed out.
    """
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return TeacherError("timeout", f"no reply within {TIMEOUT_S:.0f} s")
    return TeacherError("transport", f"{type(causes[-1]).__name__}: {causes[-1]}")


def _kind_of_status(status: int, body: str) -> ErrorKind:
    if status == 402 or (status in {400, 403, 429} and any(word in body for word in _QUOTA_WORDS)):
        return "quota"
    if status in {401, 403} or "api_key_invalid" in body:
        return "auth"
    if status == 404:
        return "model"
    if status == 429:
        return "rate_limit"
    if status == 408:
        return "timeout"
    return "server" if status >= 500 or status == 409 else "bad_request"


def _retry_after(headers: Mapping[str, str], body: str) -> float | None:
    """Seconds, at most ``LONGEST_WAIT_S``: the Retry-After header (RFC 9110, section 10.2.3, its delay form), or
    Gemini's retryDelay."""
    delay = _DELAY.search(body)
    stated = headers.get("retry-after") or (delay[1] if delay else "")
    try:
        return min(max(0.0, float(stated)), LONGEST_WAIT_S)
    except ValueError:
        return None
