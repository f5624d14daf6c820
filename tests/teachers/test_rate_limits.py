"""What headers say of limits: the forms that services send, and the odd ones."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.records import Limits
from cxr_max.teachers.rate_limits import limits_of, retry_after_s

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def now() -> datetime:
    return NOW


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:59:00 GMT"}, 0.0),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30"}, 30.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "1"}, 1.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, now) == seconds


def test_openais_headers() -> None:
    headers = {
        "x-ratelimit-limit-requests": "5000",
        "x-ratelimit-remaining-requests": "4999",
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-limit-tokens": "160000",
        "x-ratelimit-remaining-tokens": "150",
        "x-ratelimit-reset-tokens": "6m0.5s",
    }
    limits = limits_of(headers, now)
    assert limits is not None and limits.requests_reset_s == pytest.approx(0.012)
    assert (limits.requests, limits.requests_left) == (5000, 4999)
    assert (limits.tokens, limits.tokens_left, limits.tokens_reset_s) == (160_000, 150, 360.5)


def test_anthropics_headers() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-03-01T12:01:00Z",
        "anthropic-ratelimit-tokens-limit": "40000",
        "anthropic-ratelimit-tokens-remaining": "39000",
        "anthropic-ratelimit-tokens-reset": "2026-03-01T13:00:01+01:00",
        "anthropic-ratelimit-input-tokens-remaining": "1",
    }
    assert limits_of(headers, now) == Limits(50, 0, 60.0, 40_000, 39_000, 1.0)


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("1s", 1.0), ("1h2m3s", 3723.0), ("90", 90.0), ("0s", 0.0), ("-1", None), ("6 min", None), ("1s!", None)],
)
def test_resets(reset: str, seconds: float | None) -> None:
    limits = limits_of({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": reset}, now)
    assert limits is not None and limits.requests_reset_s == seconds


def test_what_a_service_does_not_know_is_not_zero() -> None:
    """Azure sends -1 of -1."""
    limits = limits_of({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-limit-tokens": "-1"}, now)
    assert limits == Limits()


def test_no_headers_no_limits() -> None:
    assert limits_of({"content-type": "application/json"}, now) is None


@given(st.text(), st.text())
def test_nothing_a_service_sends_is_an_error(left: str, reset: str) -> None:
    for kind in ("x-ratelimit-{}-requests", "anthropic-ratelimit-requests-{}"):
        limits_of({kind.format("remaining"): left, kind.format("reset"): reset}, now)
    retry_after_s({"retry-after": left, "retry-after-ms": reset}, now)
