"""Costs: the arithmetic, and that unknown stays unknown."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.costs import FREE, Price, add_cost, cached_input_tokens, cost_of
from cxr_max.records import Reply

PRICE = Price(1.0, 4.0)


def reply(inputs: int | None, outputs: int | None, raw: str = "") -> Reply:
    return Reply("", None, "stop", None, None, inputs, outputs, None, raw)


def test_costs() -> None:
    assert cost_of(reply(1_000_000, 500_000), PRICE) == 3.0
    assert cost_of(reply(None, 5), PRICE) is None
    assert cost_of(reply(1, 5), None) is None
    assert add_cost(1.0, 2.0) == 3.0
    assert add_cost(None, 2.0) is None and add_cost(1.0, None) is None


def test_what_is_free_costs_nothing_whatever_it_counted() -> None:
    assert cost_of(reply(None, None), FREE) == 0.0 and cost_of(reply(9, 9), FREE) == 0.0


def test_a_discount_is_on_every_part_of_a_price() -> None:
    assert Price(2.0, 8.0, 0.5, "list").times(0.5) == Price(1.0, 4.0, 0.25, "list")
    assert Price(2.0, 8.0).times(0.5) == Price(1.0, 4.0)


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({"usage": {"prompt_tokens": 2006, "prompt_tokens_details": {"cached_tokens": 1920}}}, 1920),
        ({"usage": {"prompt_tokens": 10, "cached_tokens": 4}}, 4),
        ({"usageMetadata": {"promptTokenCount": 10, "cachedContentTokenCount": 7}}, 7),
        ({"usage": {"input_tokens": 10, "cache_read_input_tokens": 0}}, 0),
        ({"usage": {"prompt_tokens": 10, "prompt_tokens_details": None}, "cached": 1}, 0),
        ({"usage": {"prompt_tokens_details": {"cached_tokens": "many"}}}, 0),
        ({"usage": {"prompt_tokens_details": {"cached_tokens": -5}}}, 0),
        (["cached"], 0),
        ({"usage": "cached"}, 0),
    ],
)
def test_cached_input_is_what_the_usage_says(body: Any, count: int) -> None:
    assert cached_input_tokens(json.dumps(body)) == count


def test_a_body_that_is_no_json_says_nothing_of_a_cache() -> None:
    assert cached_input_tokens("cached") == 0 and cached_input_tokens("") == 0


def test_cached_input_costs_what_the_list_says() -> None:
    """OpenAI's own example of a cached prompt: 1,920 of 2,006 tokens at a tenth."""
    raw = json.dumps({"usage": {"prompt_tokens": 2006, "prompt_tokens_details": {"cached_tokens": 1920}}})
    found = cost_of(reply(2006, 300, raw), Price(0.05, 0.4, 0.005))
    assert found == pytest.approx((86 * 0.05 + 1920 * 0.005 + 300 * 0.4) / 1e6)
    assert cost_of(reply(2006, 300, raw), Price(0.05, 0.4)) == pytest.approx((2006 * 0.05 + 300 * 0.4) / 1e6)


@given(
    st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 2**40),
    st.floats(0, 100), st.floats(0, 100), st.floats(0, 1),
)  # fmt: skip
def test_a_cache_never_makes_a_reply_dearer_nor_cheaper_than_all_cached(
    inputs: int, outputs: int, cached: int, charged: float, said: float, share: float
) -> None:
    raw = json.dumps({"usage": {"prompt_tokens_details": {"cached_tokens": cached}}})
    price = Price(charged, said, charged * share)
    found = cost_of(reply(inputs, outputs, raw), price)
    assert found is not None
    least = (inputs * charged * share + outputs * said) / 1e6
    most = (inputs * charged + outputs * said) / 1e6
    assert least * (1 - 1e-9) - 1e-9 <= found <= most * (1 + 1e-9) + 1e-9


def test_prices_agree_with_the_table_that_they_come_from() -> None:
    """The same replies priced by genai-prices itself."""
    import genai_prices
    from genai_prices import Usage, calc_price

    from cxr_max.teachers.prices import listed_price

    for url, model in (
        ("https://api.openai.com/v1", "gpt-5-nano"),
        ("https://generativelanguage.googleapis.com", "gemini-2.5-flash-lite"),
        ("https://api.x.ai/v1", "grok-4"),
    ):
        raw = json.dumps({"usage": {"prompt_tokens_details": {"cached_tokens": 500}}})
        usage = Usage(input_tokens=2_000, output_tokens=700, cache_read_tokens=500)
        price = listed_price(url, model)
        assert price is not None and price.source == f"genai-prices {genai_prices.__version__}"
        expected = calc_price(usage, model, provider_api_url=url).total_price
        assert cost_of(reply(2_000, 700, raw), price) == pytest.approx(float(expected))
