"""What services say of their limits in the headers of an answer: Retry-After and the rate-limit headers.

OpenAI and those that copy it send ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` with resets such as
``12ms`` and ``6m0s``; Anthropic sends ``anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}`` with
resets as RFC 3339 instants. Gemini sends none.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from cxr_max.records import Limits

LONGEST_WAIT_S: Final = 600.0
"""A service that asks to be left alone for longer is asked again all the same."""

_UNIT_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART: Final = r"(\d{1,12}(?:\.\d{1,12})?)(h|ms|m|s|us|µs|ns)"
_DURATION: Final = re.compile(f"(?:{_PART})+")
_PARTS: Final = re.compile(_PART)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def retry_after_s(headers: Mapping[str, str], now: Callable[[], datetime] = _utc_now) -> float | None:
    """Seconds to wait: ``Retry-After`` in both its forms (RFC 9110, section 10.2.3), or OpenAI's
    ``retry-after-ms``; ``None`` where nothing sensible is asked for."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    stated = headers.get("retry-after")
    seconds = _number(stated)
    return seconds if seconds is not None or stated is None else _until(_http_date(stated), now)


def limits_of(headers: Mapping[str, str], now: Callable[[], datetime] = _utc_now) -> Limits | None:
    """What the headers say; ``None`` where they say nothing of limits."""
    if "x-ratelimit-remaining-requests" in headers or "x-ratelimit-remaining-tokens" in headers:
        pattern = "x-ratelimit-{1}-{0}"
    elif "anthropic-ratelimit-requests-remaining" in headers or "anthropic-ratelimit-tokens-remaining" in headers:
        pattern = "anthropic-ratelimit-{0}-{1}"
    else:
        return None

    def said(kind: str, what: str) -> str | None:
        return headers.get(pattern.format(kind, what))

    return Limits(
        requests=_count(said("requests", "limit")),
        requests_left=_count(said("requests", "remaining")),
        requests_reset_s=_reset_s(said("requests", "reset"), now),
        tokens=_count(said("tokens", "limit")),
        tokens_left=_count(said("tokens", "remaining")),
        tokens_reset_s=_reset_s(said("tokens", "reset"), now),
    )


def _number(text: str | None) -> float | None:
    """A number that is not negative; services send ``-1`` for what they do not know."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _count(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _reset_s(text: str | None, now: Callable[[], datetime]) -> float | None:
    """Plain seconds, a duration, or an instant."""
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNIT_S[unit] for number, unit in _PARTS.findall(text))
    try:
        return _until(datetime.fromisoformat(text), now)
    except ValueError:
        return None


def _http_date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None


def _until(instant: datetime | None, now: Callable[[], datetime]) -> float | None:
    """Seconds, none where it is past; an instant without a zone is in UTC."""
    if instant is None:
        return None
    instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return max(0.0, (instant - now()).total_seconds())
