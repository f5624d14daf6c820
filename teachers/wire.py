"""What the adapters share: reading a body, and telling apart the ways in which there is none."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from cxr_max.records import Ended, Reply
from cxr_max.teachers.base import ErrorKind, TeacherError

TIMEOUT_S = 300.0
"""A reply of a reasoning model can take minutes; one that takes longer is not coming."""

_FILTER_CODES = ("content_filter", "content_policy_violation", "data_inspection_failed", '"1301"')
_QUOTA_WORDS = ("insufficient_quota", "credit balance", "billing", "insufficient balance", "arrearage")


def read_body(raw: str, reader: Callable[[dict[str, Any]], Reply]) -> Reply:
    """Turn a body into a reply.

    Raises:
        TeacherError: the body is no JSON object, or lacks what a reply needs.
    """
    try:
        return reader(json.loads(raw))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        start = " ".join(raw.split())[:120]
        raise TeacherError("bad_reply", f"the reply cannot be read ({error!r}); it starts {start!r}") from error


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
    message = f"HTTP {status}: {' '.join(body.split())[:300] or 'no body'}"
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
    """Seconds: the Retry-After header (RFC 9110, section 10.2.3, its delay form), or Gemini's retryDelay."""
    stated = headers.get("retry-after", "")
    if not stated and '"retrydelay"' in body:
        stated = body.split('"retrydelay"', 1)[1].split('"')[1].removesuffix("s")
    try:
        return max(0.0, float(stated))
    except ValueError:
        return None
