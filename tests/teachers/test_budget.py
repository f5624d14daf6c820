"""The budget: the limit is never passed, and no more is left unspent than the next request could cost."""

import asyncio
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_max.costs import FREE, Price, usd
from cxr_max.errors import RequestError
from cxr_max.records import Question, Sampling
from cxr_max.teachers.asking import Batch, Picture
from cxr_max.teachers.base import TeacherSpec
from cxr_max.teachers.budget import AROUND, MARGIN, Budget
from tests.radiograph_files import jpeg_bytes
from tests.teachers.scripted import spec
from tests.test_ledger import question

PROMPT = "What do you see?"


PRICE = Price(1.0, 10.0)


def teacher(name: str = "a", price: Price | None = PRICE, max_tokens: int = 1000) -> TeacherSpec:
    sampling = Sampling(max_tokens=max_tokens)
    return spec(
        "openai", "https://api.openai.com/v1", name=name, model="gpt-5-nano", price=price, sampling=sampling
    )


def ask(number: int, name: str = "a", max_tokens: int = 1000) -> Question:
    asked = question(f"s{number}", name)
    return replace(asked, sampling=Sampling(max_tokens=max_tokens))


BATCH = Batch((Picture(jpeg_bytes(np.zeros((1024, 1024), np.uint8)), "j"),), ())
MOST = ((MARGIN * 2520 + len(PROMPT) + AROUND) * 1.0 + 1000 * 10.0) / 1e6
"""A picture of 1,024 x 1,024 is 2,520 tokens of gpt-5-nano."""


def test_the_most_that_a_request_can_cost_is_set_aside() -> None:
    assert Budget(MOST, [teacher()]).reserve(ask(0), BATCH, PROMPT)
    assert not Budget(MOST * 0.999, [teacher()]).reserve(ask(0), BATCH, PROMPT)


def test_what_is_in_flight_counts() -> None:
    budget = Budget(2.5 * MOST, [teacher()])
    assert [budget.reserve(ask(number), BATCH, PROMPT) for number in range(3)] == [True, True, False]
    budget.settle(ask(0), MOST / 10)
    assert budget.spent_usd == MOST / 10
    assert budget.reserve(ask(2), BATCH, PROMPT)


def test_a_request_given_up_frees_all_of_it() -> None:
    budget = Budget(MOST, [teacher()])
    assert budget.reserve(ask(0), BATCH, PROMPT)
    budget.settle(ask(0), 0.0)
    assert budget.spent_usd == 0 and budget.reserve(ask(1), BATCH, PROMPT)


def test_a_reply_that_does_not_say_what_it_took_counts_as_the_most() -> None:
    budget = Budget(1.5 * MOST, [teacher()])
    assert budget.reserve(ask(0), BATCH, PROMPT)
    budget.settle(ask(0), None)
    assert budget.spent_usd == pytest.approx(MOST) and not budget.reserve(ask(1), BATCH, PROMPT)


def test_what_earlier_runs_spent_counts() -> None:
    assert not Budget(5.0, [teacher()], spent_usd=5.0).reserve(ask(0), BATCH, PROMPT)
    assert Budget(5.0, [teacher()], spent_usd=5.0 - 2 * MOST).reserve(ask(0), BATCH, PROMPT)


def test_what_is_free_is_never_refused() -> None:
    budget = Budget(1.0, [teacher(price=FREE)], spent_usd=2.0)
    assert all(budget.reserve(ask(number), BATCH, PROMPT) for number in range(100))


def test_a_limit_of_nothing_buys_nothing() -> None:
    assert not Budget(0.0, [teacher()]).reserve(ask(0), BATCH, PROMPT)


def test_unknown_prices_are_refused_with_their_names_and_the_remedy() -> None:
    teachers = [teacher("a"), teacher("b", None), teacher("c", None)]
    with pytest.raises(RequestError, match=r"price of b, c is unknown.*price = .*--roster"):
        Budget(1.0, teachers)


def test_a_service_that_charges_more_than_its_formula_is_believed_from_then_on() -> None:
    budget = Budget(100 * MOST, [teacher(), teacher("b")])
    assert budget.reserve(ask(0), BATCH, PROMPT)
    budget.settle(ask(0), 3 * MOST)
    left = Budget(100 * MOST, [teacher(), teacher("b")], spent_usd=0)
    assert left.reserve(ask(1), BATCH, PROMPT)
    for number in range(1, 40):
        fits = budget.reserve(ask(number), BATCH, PROMPT)
        assert fits == (3 * MOST * (number + 1) <= 100 * MOST)


def test_replies_that_come_at_once_do_not_multiply_the_excess() -> None:
    budget = Budget(1000 * MOST, [teacher()])
    asked = [ask(number) for number in range(10)]
    assert all(budget.reserve(one, BATCH, PROMPT) for one in asked)
    for one in asked:
        budget.settle(one, 2 * MOST)
    reserved = sum(budget.reserve(ask(number), BATCH, PROMPT) for number in range(10, 1000))
    assert reserved == 490


def test_the_message_names_what_is_spent_and_what_to_do() -> None:
    budget = Budget(20.0, [teacher()], spent_usd=19.987)
    assert not budget.reserve(ask(0), BATCH, PROMPT) and "next request could cost $0.0151" in budget.message
    assert budget.message.startswith("$19.99 of --max-cost-usd 20 is spent") and "raise it" in budget.message
    assert (usd(0), usd(0.00042), usd(1234.5)) == ("$0.00", "$0.0004", "$1,234.50")


# In the loop


async def _spend(budget: Budget, teachers: dict[str, int], requests: int, rng: random.Random) -> tuple[int, float]:
    """Ask all at once, each reply after a random number of turns at a random share of the most it can cost."""
    sent, highest, in_flight = 0, 0.0, 0

    async def one(number: int) -> None:
        nonlocal sent, highest, in_flight
        name = rng.choice(sorted(teachers))
        asked = ask(number, name, teachers[name])
        if budget.refused or not await budget.admitted(asked, BATCH, PROMPT):
            return
        sent, in_flight = sent + 1, in_flight + 1
        for _ in range(rng.randrange(20)):
            await asyncio.sleep(0)
        most = ((MARGIN * 2520 + len(PROMPT) + AROUND) * 1.0 + teachers[name] * 10.0) / 1e6
        fate = rng.random()
        budget.settle(asked, 0.0 if fate < 0.1 else None if fate < 0.2 else most * rng.random())
        in_flight -= 1
        highest = max(highest, budget.spent_usd)

    await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(requests))), 30)
    assert in_flight == 0
    return sent, highest


@given(
    st.integers(0, 2**32), st.floats(0, 40), st.integers(1, 60),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 20_000), min_size=1),
)  # fmt: skip
@settings(deadline=None)
def test_the_limit_is_never_passed_whatever_the_order_of_replies(
    seed: int, limit: float, requests: int, teachers: dict[str, int]
) -> None:
    specs = [teacher(name, max_tokens=most) for name, most in teachers.items()]
    budget = Budget(limit * MOST, specs)
    sent, highest = asyncio.run(_spend(budget, teachers, requests, random.Random(seed)))
    assert highest <= limit * MOST
    assert budget.refused or sent == requests
    if budget.refused:
        most = ((MARGIN * 2520 + len(PROMPT) + AROUND) * 1.0 + max(teachers.values()) * 10.0) / 1e6
        assert budget.spent_usd + most > limit * MOST, "no more is left than the next request could cost"


def test_waiting_for_replies_spends_what_setting_aside_alone_would_leave() -> None:
    """200 at once at a tenth of the most: by what is set aside 10 fit, by what they cost 91."""
    budget = Budget(10.05 * MOST, [teacher()])

    async def one(number: int) -> bool:
        if not await budget.admitted(ask(number), BATCH, PROMPT):
            return False
        await asyncio.sleep(0)
        budget.settle(ask(number), MOST / 10)
        return True

    async def every() -> list[bool]:
        return await asyncio.gather(*(one(number) for number in range(200)))

    answers: list[Any] = asyncio.run(every())
    assert sum(answers) == 91 and budget.spent_usd == pytest.approx(9.1 * MOST)
