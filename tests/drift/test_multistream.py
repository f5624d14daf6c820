"""Closed forms of the divergence; the level, the power and the limits of the test on worlds with known truth."""

from collections.abc import Callable
from math import comb, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.drift import disagreement, divergence, jensen_shannon, multistream_test
from cxr_max.drift.multistream import View
from tests.drift.worlds import Codes, committing, exchangeable

SEEDS = 200
ALPHA = 0.05


@pytest.mark.parametrize(
    ("rows", "bits"),
    [
        ([[1, 0], [1, 0]], 0),
        ([[1, 0], [0, 1]], 1),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], log2(3)),
        ([[0.5, 0.5], [1, 0]], 1.5 - 0.75 * log2(3)),
        ([[0.25, 0.75], [0.75, 0.25]], 1 - (2 - 0.75 * log2(3))),
        ([[1, 0], [1, 0], [0, 1]], log2(3) - 2 / 3),
    ],
)
def test_closed_forms(rows: list[list[float]], bits: float) -> None:
    assert jensen_shannon(np.array(rows, dtype=float)) == pytest.approx(bits, abs=1e-12)


def test_no_distribution_is_refused() -> None:
    for rows in ([[0.5, 0.6], [1, 0]], [[-0.5, 1.5], [1, 0]]):
        with pytest.raises(ValueError, match="distribution"):
            jensen_shannon(np.array(rows, dtype=float))


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 5))
def test_the_divergence_is_bounded_and_symmetric(seed: int, teachers: int, categories: int) -> None:
    rows = np.random.default_rng(seed).dirichlet(np.ones(categories), teachers)
    bits = jensen_shannon(rows)
    assert 0 <= bits <= log2(min(teachers, categories)) + 1e-9
    assert jensen_shannon(rows[::-1]) == pytest.approx(bits)


def test_identical_teachers_do_not_diverge() -> None:
    one = committing(0, teachers=1)
    states = np.repeat(one, 4, axis=1)
    assert divergence(states).tolist() == [0] * 6
    assert set(disagreement(states)) == {0.0}
    assert {test.p_value for test in multistream_test(states)} == {1.0}
    assert {test.statistic for test in multistream_test(states)} == {0.0}


def test_the_divergence_by_hand() -> None:
    states = np.zeros((2, 2, 2, 2), dtype=np.int8)
    states[:, 0, 1, 0] = 3
    assert divergence(states).tolist() == [0, 0.5]
    states[:, 1, 1, 0] = 1
    states[:, 1, 1, 1] = [1, 3]
    assert divergence(states) == pytest.approx([0, 1])
    assert divergence(states[:1, :, 1:]) == pytest.approx([1])


def test_disagreement_by_hand() -> None:
    states = np.zeros((2, 2, 3, 2), dtype=np.int8)
    states[0, 0, 0:, 0], states[0, 1, 1:, 0] = 3, 1
    states[0, 0, 1:, 1], states[0, 1, 1:, 1] = 3, 2
    states[1, :, 1:, 0] = 1
    assert disagreement(states) == (None, 0.25, None)


def rejections(
    world: Callable[[int], Codes], view: View, seeds: int = SEEDS, patients: int | None = None
) -> np.ndarray:
    """(seeds, steps): where the test rejects at ``ALPHA``; a step with nothing comparable does not."""
    rows = []
    for seed in range(seeds):
        states = world(seed)
        clusters = None if patients is None else [study % patients for study in range(len(states))]
        found = multistream_test(states, view=view, permutations=199, seed=seed, clusters=clusters)
        rows.append([test.p_value is not None and test.p_value <= ALPHA for test in found])
    return np.array(rows)


def at_most_by_chance(trials: int, rate: float = ALPHA, miss: float = 1e-4) -> int:
    """The number of rejections that a test with this rate exceeds with probability ``miss`` at most."""
    above = 1.0
    for count in range(trials + 1):
        above -= comb(trials, count) * rate**count * (1 - rate) ** (trials - count)
        if above <= miss:
            return count
    return trials


NULLS: dict[str, tuple[Callable[[int], Codes], View]] = {
    "agreement": (committing, "agreement"),
    "agreement, more is said later": (lambda seed: committing(seed, trending=True), "agreement"),
    "agreement, few studies": (lambda seed: committing(seed, studies=20, trending=True), "agreement"),
    "increments": (lambda seed: committing(seed, studies=40), "increments"),
    "states": (lambda seed: exchangeable(seed, studies=40), "states"),
}


@pytest.mark.parametrize("name", NULLS)
def test_without_drift_it_rejects_at_its_level(name: str) -> None:
    world, view = NULLS[name]
    assert rejections(world, view).sum(axis=0).max() <= at_most_by_chance(SEEDS)


def test_an_exact_test_rejects_no_less_than_its_level() -> None:
    rejected = rejections(lambda seed: exchangeable(seed, studies=40, bins=2), "states", seeds=400)
    assert 400 - rejected.sum() <= at_most_by_chance(400, rate=1 - ALPHA)


def test_the_increments_may_not_depend_on_the_step() -> None:
    assert rejections(lambda seed: committing(seed, trending=True), "increments", seeds=20)[:, 0].mean() > 0.8


def test_the_bare_states_drift_whenever_anything_is_said() -> None:
    assert rejections(committing, "states", seeds=5).all()


@pytest.mark.parametrize("view", ["agreement", "increments"])
def test_studies_of_a_patient_are_swapped_together(view: View) -> None:
    def world(seed: int) -> Codes:
        return committing(seed, studies=80, patients=20)

    limit = at_most_by_chance(SEEDS)
    assert rejections(world, view, patients=20).sum(axis=0).max() <= limit
    assert rejections(world, view, seeds=50).mean() > 0.2


@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_planted_shift_is_found_where_it_is(step: int) -> None:
    for seed in range(5):
        late = multistream_test(committing(seed, studies=300, shift_at=step), seed=seed)
        assert [test.later for test in late if test.p_adjusted is not None and test.p_adjusted <= 0.01] == [step]
        rates = disagreement(committing(seed, studies=300, shift_at=step))
        assert (rates[step] or 0) - (rates[step - 1] or 1) > 0.15


def test_a_planted_bias_is_found_in_the_increments() -> None:
    for seed in range(5):
        found = multistream_test(committing(seed, studies=80, overcall_at=3), view="increments", seed=seed)
        assert min(found, key=lambda test: test.p_value or 0).later == 3
        assert (found[2].p_adjusted or 1) <= 0.05


def test_power_at_a_planted_shift() -> None:
    assert rejections(lambda seed: committing(seed, shift_at=3), "agreement", seeds=50)[:, 2].mean() > 0.9


def test_same_seed_same_result_and_distance() -> None:
    states = committing(1)
    assert multistream_test(states, seed=3) == multistream_test(states, seed=3)
    found = multistream_test(states, d=4)
    assert [(test.step, test.later) for test in found] == [(0, 4), (1, 5)]


def test_holm_by_hand_and_nothing_comparable() -> None:
    states = committing(0, bins=3, studies=60)
    states[:, :, 0] = 0
    nothing, rest = multistream_test(states)
    assert (nothing.statistic, nothing.p_value, nothing.p_adjusted, nothing.studies) == (None, None, None, 0)
    assert rest.p_adjusted == rest.p_value
    found = multistream_test(committing(0))
    smallest = min(test.p_value or 0 for test in found)
    assert min(test.p_adjusted or 0 for test in found) == pytest.approx(min(1, 5 * smallest))


@pytest.mark.parametrize("view", ["agreement", "increments", "states"])
def test_the_statistic_does_not_depend_on_order(view: View) -> None:
    states = committing(2, studies=30, shift_at=3)
    shuffled = states[np.random.default_rng(0).permutation(30)][:, ::-1]
    one, other = (multistream_test(s, view=view, permutations=19) for s in (states, shuffled))
    assert [test.statistic for test in one] == pytest.approx([test.statistic for test in other])


def test_the_total_variation_by_hand() -> None:
    states = np.zeros((4, 2, 2, 1), dtype=np.int8)
    states[:, :, 0] = 1
    states[:3, :, 1] = 3
    states[3, :, 1] = 1
    (found,) = multistream_test(states, view="states", permutations=19)
    assert found.statistic == pytest.approx(0.75)


@pytest.mark.parametrize(
    "states",
    [np.zeros((2, 2, 2)), np.zeros((0, 2, 2, 14)), np.full((2, 2, 2, 14), 4), np.full((2, 2, 2, 14), -1)],
)
def test_what_are_no_states_is_refused(states: Codes) -> None:
    for function in (divergence, disagreement, multistream_test):
        with pytest.raises(ValueError, match="States of shape"):
            function(states.astype(np.int8))


def test_a_test_that_does_not_fit_is_refused() -> None:
    states = committing(0, studies=5)
    for options in ({"d": 0}, {"d": 6}, {"permutations": 0}, {"clusters": [1]}, {"view": "joint"}):
        with pytest.raises(ValueError, match="give 2 teachers or more"):
            multistream_test(states, **options)
    with pytest.raises(ValueError, match="1 teachers"):
        multistream_test(states[:, :1])
