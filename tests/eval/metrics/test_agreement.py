"""Krippendorff's alpha against the krippendorff package and the published example; shares by hand."""

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.errors import RequestError
from cxr_max.eval.metrics.agreement import (
    Level,
    agreement_of_pairs,
    flip_rate,
    krippendorff_alpha,
    pairwise_agreement,
    self_consistency,
)
from cxr_max.eval.metrics.measured import Bools, Ints

LEVELS: tuple[Level, ...] = ("nominal", "ordinal")
_ = -1
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
).T
"""Krippendorff 2011, example C: 12 units, 4 observers, 5 levels; its text gives 0.743 and, ordinal, 0.815."""


def reference(codes: Ints, said: Bools, level: Level) -> float:
    ratings = np.where(said, codes, np.nan).T
    return float(krippendorff.alpha(ratings, level_of_measurement=level, value_domain=list(range(6))))


def test_the_published_example() -> None:
    said = PUBLISHED >= 0
    nominal, ordinal = (
        krippendorff_alpha(PUBLISHED, said, levels=6, level=level).measured().value for level in LEVELS
    )
    assert nominal == pytest.approx(0.743, abs=5e-4)
    assert ordinal == pytest.approx(0.815, abs=5e-4)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", range(5))
def test_alpha_is_that_of_the_krippendorff_package(level: Level, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 6, (50, 1))
    codes = np.where(rng.random((50, 7)) < 0.6, truth, rng.integers(0, 6, (50, 7)))
    said = rng.random((50, 7)) < 0.5
    value = krippendorff_alpha(codes, said, levels=6, level=level).measured().value
    assert value == pytest.approx(reference(codes, said, level), abs=1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_a_unit_drawn_twice_counts_twice(level: Level) -> None:
    rng = np.random.default_rng(7)
    codes, said = rng.integers(0, 4, (20, 5)), rng.random((20, 5)) < 0.8
    times = rng.integers(0, 4, 20)
    value = krippendorff_alpha(codes, said, levels=6, level=level).measured(times.astype(float)).value
    repeated = reference(np.repeat(codes, times, axis=0), np.repeat(said, times, axis=0), level)
    assert value == pytest.approx(repeated, abs=1e-9)


def test_agreement_by_hand() -> None:
    codes = np.array([[0, 0, 1], [1, 1, 1], [0, 1, 2], [2, 0, 0]])
    said = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=np.bool_)
    assert pairwise_agreement(codes, said, levels=3).measured().value == 0.5
    pairs = agreement_of_pairs(codes, said, levels=3)
    assert {pair: metric.measured().value for pair, metric in pairs.items()} == {(0, 1): 1, (0, 2): 0, (1, 2): 0}
    assert self_consistency(codes[:, :2], said[:, :2], levels=3).measured().value == 1


def test_flips_by_hand() -> None:
    original, said = np.array([1, 0, 2]), np.array([True, True, False])
    variants = np.array([[1, 0], [0, 1], [1, 1]])
    answered = np.array([[True, True], [True, False], [True, True]])
    assert flip_rate(original, said, variants, answered).measured().value == pytest.approx(1 / 3)


@pytest.mark.parametrize("level", LEVELS)
def test_without_disagreement_to_expect_there_is_no_alpha(level: Level) -> None:
    same = np.ones((4, 3), dtype=np.int64)
    for said in (np.ones((4, 3), dtype=np.bool_), np.zeros((4, 3), dtype=np.bool_)):
        found = krippendorff_alpha(same, said, levels=2, level=level).measured()
        assert found.value is None
        assert found.reason == "all ratings are the same, or no unit was rated twice"


def test_what_nobody_rated_twice_has_no_agreement() -> None:
    lonely = np.eye(3, dtype=np.bool_)
    codes = np.zeros((3, 3), dtype=np.int64)
    assert pairwise_agreement(codes, lonely, levels=2).measured().reason == "no unit was rated twice"
    empty = np.zeros((0, 3), dtype=np.int64)
    assert pairwise_agreement(empty, empty > 0, levels=2).measured().reason == "there is no row to score"
    none = np.zeros(2, dtype=np.bool_)
    found = flip_rate(np.zeros(2, dtype=np.int64), none, np.zeros((2, 1), dtype=np.int64), none[:, None])
    assert found.measured().reason == "no paraphrase and its original were both answered"


def test_bad_codes_and_shapes_are_refused() -> None:
    codes, said = np.array([[0, 5]]), np.ones((1, 2), dtype=np.bool_)
    with pytest.raises(RequestError, match="outside 0 to 2"):
        pairwise_agreement(codes, said, levels=3)
    with pytest.raises(RequestError, match="same shape"):
        pairwise_agreement(codes, said[:, :1], levels=6)
    with pytest.raises(RequestError, match="level of measurement"):
        krippendorff_alpha(codes, said, levels=6, level="interval")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="same shape"):
        flip_rate(codes[0], said[0, :1], codes.T, said.T)
    with pytest.raises(RequestError, match="one row for each"):
        flip_rate(codes[0], said[0], codes, said)


CODES = st.lists(st.lists(st.sampled_from([_, 0, 1, 2]), min_size=3, max_size=3), min_size=1, max_size=12)


@given(CODES, st.permutations(range(3)))
def test_raters_have_no_order(rows: list[list[int]], order: list[int]) -> None:
    codes = np.array(rows)
    for level in LEVELS:
        value = krippendorff_alpha(codes, codes != _, levels=3, level=level).measured().value
        turned = (
            krippendorff_alpha(codes[:, order], (codes != _)[:, order], levels=3, level=level).measured().value
        )
        assert value == (None if turned is None else pytest.approx(turned, abs=1e-9))
        assert value is None or -1 <= value <= 1


@given(CODES)
def test_raters_who_always_agree_have_an_alpha_of_1(rows: list[list[int]]) -> None:
    same = np.repeat(np.array(rows)[:, :1], 3, axis=1)
    value = krippendorff_alpha(same, same != _, levels=3).measured().value
    assert value in {None, 1.0}
    assert pairwise_agreement(same, same != _, levels=3).measured().value in {None, 1.0}
