"""Prices: the roster's first, the kept table's next, and unknown ones left unknown."""

from pathlib import Path

import pytest

from cxr_max.costs import FREE, Price
from cxr_max.teachers.openai import reply_of
from cxr_max.teachers.prices import listed_price, priced
from cxr_max.teachers.roster import choose, load
from tests.teachers.scripted import spec

KNOWN = {"gpt-5-nano", "gemini-2.5-flash-lite", "claude-sonnet-4", "grok-4", "moonshot-v1"}


def test_five_of_the_seven_are_in_the_table_and_the_others_are_unknown() -> None:
    chosen = choose(load(), "all")
    assert {teacher.name for teacher in chosen if teacher.price is not None} == KNOWN
    assert {teacher.name for teacher in chosen if teacher.price is None} == {"qwen-vl-max", "glm-4.5v"}
    assert all(t.price.source.startswith("genai-prices ") for t in chosen if t.price is not None)


def test_personas_cost_nothing() -> None:
    assert {teacher.price for teacher in choose(load(), "simulated")} == {FREE}


def test_the_rosters_price_wins(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        "[gpt-5-nano]\nprice = { input = 7, output = 8 }\n[qwen-vl-max]\nprice = { input = 0, output = 1 }"
    )
    nano, qwen = choose(load(mine), "gpt-5-nano,qwen-vl-max")
    assert (nano.price, qwen.price) == (Price(7.0, 8.0), Price(0.0, 1.0))


@pytest.mark.parametrize(
    ("endpoint", "model"),
    [
        ("https://reseller.example/v1", "gpt-5-nano"),
        ("https://api.openai.com/v1", "gpt-17-micro"),
        ("https://api.openai.com.example/v1", "gpt-5-nano"),
        ("https://api.moonshot.cn/v1", "moonshot-v1-32k-vision-preview"),
        ("https://open.bigmodel.cn/api/paas/v4", "glm-4.5v"),
    ],
)
def test_a_price_is_known_by_address_and_model_or_not_at_all(endpoint: str, model: str) -> None:
    assert listed_price(endpoint, model) is None


def test_a_server_of_ones_own_is_not_looked_up() -> None:
    mine = spec("openai", "http://127.0.0.1:8000/v1", model="gpt-5-nano", price=None)
    assert priced(mine) is mine


def _output(usage: dict[str, object]) -> object:
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    return reply_of(body, "", None).output_tokens


def test_reasoning_is_output_whichever_way_a_service_counts_it() -> None:
    """OpenAI's 64 of 82 are within; xAI's documented example counts 94 beside its 9."""
    openai = {"prompt_tokens": 17, "completion_tokens": 82, "total_tokens": 99}
    xai = {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135}
    assert _output({**openai, "completion_tokens_details": {"reasoning_tokens": 64}}) == 82
    assert _output({**xai, "completion_tokens_details": {"reasoning_tokens": 94}}) == 103


@pytest.mark.parametrize("details", [None, {}, {"reasoning_tokens": None}, {"reasoning_tokens": 0}])
def test_a_service_that_counts_no_reasoning_is_taken_at_its_word(details: object) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12, "completion_tokens_details": details}
    assert _output(usage) == 7
