"""Thresholds by hand, by exhaustion, and on the validation split only."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.errors import RequestError
from cxr_max.eval.metrics.classification import f1, sensitivity, specificity
from cxr_max.eval.metrics.measured import Bools, Floats
from cxr_max.eval.metrics.thresholds import RULES, Rule, choose

TRUTH = np.array([True, True, False, True, False, False])
SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.1])


def value_of(rule: Rule, truth: Bools, claim: Bools) -> float:
    """What the rule maximises, -1 where it is not allowed."""
    hits, quiet = sensitivity(truth, claim).measured().value, specificity(truth, claim).measured().value
    assert hits is not None
    assert quiet is not None
    if rule == "specificity":
        return hits if quiet >= 0.9 - 1e-12 else -1
    return hits + quiet if rule == "youden" else f1(truth, claim).measured().value or 0.0


@pytest.mark.parametrize(("rule", "value"), [("youden", 0.8), ("f1", 0.6), ("specificity", 0.8)])
def test_thresholds_by_hand(rule: Rule, value: float) -> None:
    """Of the two cuts of equal Youden index, 0.8 and 0.6, the higher is taken."""
    found = choose(TRUTH, SCORE, split="validation", rule=rule)
    assert found.value == value
    assert "validation" in found.rule


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=25), st.sampled_from(RULES))
def test_no_other_score_makes_a_better_threshold(rows: list[tuple[bool, int]], rule: Rule) -> None:
    truth = np.array([row[0] for row in rows], dtype=np.bool_)
    score: Floats = np.array([float(row[1]) for row in rows])
    found = choose(truth, score, split="validation", rule=rule)
    if truth.all() or not truth.any():
        assert found.value is None
        assert found.reason
        return
    values = {level: value_of(rule, truth, score >= level) for level in score.tolist()}
    best = max(values.values())
    if found.value is None:
        assert best == -1
    else:
        assert values[found.value] == pytest.approx(best)
        assert all(value < best - 1e-12 for level, value in values.items() if level > found.value)


@pytest.mark.parametrize("split", ["train", "test"])
def test_only_the_validation_split_may_choose(split) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RequestError, match="validation split"):
        choose(TRUTH, SCORE, split=split)


def test_one_class_and_an_unreachable_specificity_have_no_threshold() -> None:
    assert (
        choose(TRUTH[:2], SCORE[:2], split="validation").reason
        == "no reference of the validation split is negative"
    )
    nothing = choose(TRUTH[:0], SCORE[:0], split="validation")
    assert nothing.reason == "no reference of the validation split is positive"
    worst = choose(~TRUTH, SCORE, split="validation", rule="specificity")
    assert worst.value is None
    assert worst.reason is not None
    with pytest.raises(RequestError, match="finite score"):
        choose(TRUTH, np.full(6, np.nan), split="validation")
