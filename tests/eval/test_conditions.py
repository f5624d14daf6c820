"""Every condition has one name, and every name one condition."""

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.errors import RequestError
from cxr_max.eval import conditions
from cxr_max.eval.conditions import Condition, parse
from cxr_max.eval.corruptions import blank, corrupt, mirror
from cxr_max.eval.corruptions.severities import CORRUPTIONS, SEVERITIES
from cxr_max.eval.corruptions.severities import VERSION as CORRUPTIONS_VERSION
from cxr_max.eval.suite import shipped

ALL = [
    *(Condition(kind) for kind in ("original", "mirror", "blank", "report")),
    *(Condition("paraphrase", name) for name in conditions.PARAPHRASES),
    *(Condition("sample", number=number) for number in (1, 2, 10, 123)),
    *(Condition("corruption", name, severity) for name, severity in product(CORRUPTIONS, SEVERITIES)),
]
BAD = [
    "", "-", " original", "original ", "Original", "original-1", "mirror-1", "blank-2", "report-brief", "sample",
    "sample-", "sample-0", "sample-01", "sample--1", "sample-1.0", "sample-+1", "sample-²", "sample-٣",
    "sample-1-2",
    "paraphrase", "paraphrase-", "paraphrase-long", "paraphrase-1", "noise", "noise-0", "noise-6", "noise-03",
    "noise--3", "noise-x", "fog-3", "rotation-crop-1", "rotation_crop", "Noise-3", "noise-3\n", "corruption-3",
]  # fmt: skip


@pytest.mark.parametrize("condition", ALL, ids=str)
def test_a_name_is_read_back(condition: Condition) -> None:
    assert parse(str(condition)) == condition


def test_names_are_different() -> None:
    assert len({str(condition) for condition in ALL}) == len(ALL) == 4 + 3 + 4 + 5 * len(CORRUPTIONS)


@given(st.integers(1, 10**12))
def test_samples_of_any_number_are_read_back(number: int) -> None:
    assert parse(conditions.sample(number)) == Condition("sample", number=number)


@given(st.text(max_size=20) | st.from_regex(r"(sample|noise|paraphrase)-\S{0,4}"))
def test_what_is_read_is_written_the_same(text: str) -> None:
    try:
        condition = parse(text)
    except RequestError:
        return
    assert str(condition) == text


@pytest.mark.parametrize("text", BAD)
def test_what_is_none_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(RequestError, match=r"There is no condition .*noise-3\.$") as refused:
        parse(text)
    assert str(refused.value).count("\n") == 0


def test_a_number_of_thousands_of_digits_is_refused_too() -> None:
    with pytest.raises(RequestError, match="There is no condition"):
        parse("sample-" + "9" * 5000)


def test_prompts_and_renderings_by_hand() -> None:
    for text, prompt, rendering in (
        ("original", "diagnose", ""),
        ("sample-2", "diagnose", ""),
        ("paraphrase-brief", "diagnose_brief", ""),
        ("mirror", "diagnose", "+mirror"),
        ("blank", "diagnose", "+blank"),
        ("noise-3", "diagnose", f"+noise-3.{CORRUPTIONS_VERSION}"),
        ("report", "report", ""),
    ):
        condition = parse(text)
        assert (condition.prompt("diagnose"), condition.rendering) == (prompt, rendering)


def test_only_changed_pictures_have_a_rendering_of_their_own() -> None:
    assert all((condition.change is None) == (condition.rendering == "") for condition in ALL)
    changed = [condition.rendering for condition in ALL if condition.rendering]
    assert len(set(changed)) == len(changed), "two changes would share replies"


def test_a_change_does_what_its_name_says() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (96, 64), dtype=np.uint8)
    key = "ab" * 32
    for condition in ALL:
        if condition.change is None:
            continue
        expected = {
            "mirror": lambda: mirror(picture),
            "blank": lambda: blank((96, 64)),
            "corruption": lambda c=condition: corrupt(picture, c.name, c.number, key),
        }[condition.kind]()
        changed = condition.change(picture, key)
        np.testing.assert_array_equal(changed, expected)
        assert changed.dtype == np.uint8 and (condition.kind == "corruption" or changed.shape == (96, 64))


def test_the_mirror_turns_left_and_right_only() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    change = parse("mirror").change
    assert change is not None
    np.testing.assert_array_equal(change(picture, ""), picture[:, ::-1])


def test_prompts_of_all_conditions_are_there() -> None:
    from cxr_max import prompts

    texts = {prompts.load(condition.prompt("diagnose")).text for condition in ALL}
    assert len(texts) == 2 + len(conditions.PARAPHRASES)
    forms = {
        prompts.load(parse(f"paraphrase-{name}").prompt("diagnose")).structured_answer
        for name in conditions.PARAPHRASES
    }
    assert forms == {prompts.load("diagnose").structured_answer} == {True}


def test_the_docstring_names_real_conditions() -> None:
    named = re.findall(r"^``([^`]+)``", str(conditions.__doc__), re.MULTILINE)
    assert len(named) == 7 and all(str(parse(name)) == name for name in named)
    assert shipped()
