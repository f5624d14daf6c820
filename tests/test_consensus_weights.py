"""The label-free weights against known answers, a reference implementation, and too little to go by."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_max.consensus import WEIGHT_BOUNDS, Estimate, dawid_skene, log_odds, reliability, vote
from cxr_max.records import Trajectory
from tests.test_consensus import EDEMA, EFFUSION, trajectory


def drawn(
    seed: int, accuracy: Sequence[float], items: int = 400, prevalence: float = 0.4, answered: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth (n,), and the present and absent votes (n, m) of independent raters."""
    rng = np.random.default_rng(seed)
    truth = rng.random(items) < prevalence
    calls = truth[:, None] ^ (rng.random((items, len(accuracy))) > np.array(accuracy))
    asked = rng.random(calls.shape) < answered
    return truth, (calls & asked).astype(float), (~calls & asked).astype(float)


def test_unanimous_raters_are_believed() -> None:
    truth, present, absent = drawn(0, [1.0] * 4, items=50)
    estimate = dawid_skene(present, absent)
    assert estimate.converged
    assert ((estimate.posterior > 0.5) == truth).all()
    assert estimate.sensitivity == pytest.approx(np.full(4, (truth.sum() + 2) / (truth.sum() + 3)), abs=1e-4)
    assert estimate.prevalence == pytest.approx((truth.sum() + 1) / 52, abs=1e-4)


def test_error_rates_are_recovered_without_truth() -> None:
    accuracy = [0.95, 0.9, 0.8, 0.7, 0.6]
    _, present, absent = drawn(1, accuracy, items=6000)
    estimate = dawid_skene(present, absent)
    assert estimate.sensitivity == pytest.approx(accuracy, abs=0.03)
    assert estimate.specificity == pytest.approx(accuracy, abs=0.03)
    assert estimate.prevalence == pytest.approx(0.4, abs=0.03)
    assert log_odds(estimate) == pytest.approx(np.log(np.array(accuracy) / (1 - np.array(accuracy))), abs=0.35)


def test_the_estimate_does_not_depend_on_order() -> None:
    _, present, absent = drawn(2, [0.9, 0.8, 0.7, 0.6], answered=0.8)
    one = dawid_skene(present, absent)
    rows = np.random.default_rng(0).permutation(len(present))
    other = dawid_skene(present[rows][:, ::-1], absent[rows][:, ::-1])
    assert other.posterior == pytest.approx(one.posterior[rows], abs=1e-6)
    assert other.sensitivity[::-1] == pytest.approx(one.sensitivity, abs=1e-6)


def test_a_silent_rater_changes_nothing_for_the_others() -> None:
    _, present, absent = drawn(3, [0.9, 0.8, 0.7])
    silent = np.zeros((len(present), 1))
    one = dawid_skene(present, absent)
    other = dawid_skene(np.hstack([present, silent]), np.hstack([absent, silent]))
    assert other.posterior == pytest.approx(one.posterior)
    assert other.sensitivity[-1] == pytest.approx(2 / 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("answered", [1.0, 0.7])
def test_against_crowd_kit(answered: float) -> None:
    aggregation = pytest.importorskip("crowdkit.aggregation")
    pandas = pytest.importorskip("pandas")
    _, present, absent = drawn(4, [0.95, 0.9, 0.9, 0.85, 0.8], items=200, answered=answered)
    cast = [(n, m, int(present[n, m])) for n, m in np.argwhere(present + absent > 0)]
    theirs = aggregation.DawidSkene(n_iter=2000, tol=1e-13)
    theirs.fit(pandas.DataFrame(cast, columns=["task", "worker", "label"]))
    ours = dawid_skene(present, absent, right=0, wrong=0, uniform=0)
    reference = theirs.probas_[1].reindex(range(len(present))).to_numpy()
    voted_on = ~np.isnan(reference)
    assert ours.posterior[voted_on] == pytest.approx(reference[voted_on], abs=1e-4)
    assert ours.sensitivity == pytest.approx([theirs.errors_.loc[(m, 1), 1] for m in range(5)], abs=1e-4)
    assert ours.specificity == pytest.approx([theirs.errors_.loc[(m, 0), 0] for m in range(5)], abs=1e-4)


@pytest.mark.parametrize(
    ("present", "absent"),
    [
        (np.ones((3, 2)), np.ones((3, 2))),
        (-np.ones((3, 2)), np.zeros((3, 2))),
        (np.full((3, 2), np.nan), np.zeros((3, 2))),
        (np.zeros((3, 2)), np.zeros((2, 2))),
        (np.zeros(3), np.zeros(3)),
        (np.zeros((0, 2)), np.zeros((0, 2))),
    ],
)
def test_votes_that_are_none_are_refused(present: np.ndarray, absent: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"vote|Votes"):
        dawid_skene(present, absent)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 5), st.floats(0, 1))
def test_estimates_are_probabilities(seed: int, items: int, raters: int, answered: float) -> None:
    _, present, absent = drawn(seed, [0.7] * raters, items=items, answered=answered)
    estimate = dawid_skene(present, absent)
    for values in (estimate.posterior, estimate.sensitivity, estimate.specificity):
        assert ((values >= 0) & (values <= 1)).all()
    assert ((log_odds(estimate) >= WEIGHT_BOUNDS[0]) & (log_odds(estimate) <= WEIGHT_BOUNDS[1])).all()


def groups(seed: int, accuracy: Sequence[float], studies: int) -> tuple[np.ndarray, list[list[Trajectory]]]:
    truth, present, _ = drawn(seed, accuracy, items=studies)
    rows = [
        [trajectory(f"t{m}", {EFFUSION: 1 if call else 0}, study=str(n)) for m, call in enumerate(calls)]
        for n, calls in enumerate(present)
    ]
    return truth, rows


def test_weights_rank_teachers_and_help_the_vote() -> None:
    truth, rows = groups(5, [0.95, 0.9, 0.6, 0.6, 0.6], 300)
    trust = reliability(rows)
    worth = [trust.weights[f"t{m}"][EFFUSION] for m in range(5)]
    assert min(worth[:2]) > max(worth[2:])
    assert isinstance(trust.estimates[EFFUSION], Estimate)
    plain = [vote(group).findings[EFFUSION] == t for group, t in zip(rows, truth, strict=True)]
    weighted = [
        vote(group, weights=trust.weights).findings[EFFUSION] == t for group, t in zip(rows, truth, strict=True)
    ]
    assert np.mean(weighted) > np.mean(plain)


def test_too_little_falls_back_to_equal_weights_and_says_so() -> None:
    _, rows = groups(6, [0.9, 0.8, 0.7], 29)
    trust = reliability(rows)
    assert trust.fallbacks[EFFUSION] == "29 image sets with two voters, fewer than 30"
    assert trust.fallbacks[EDEMA].startswith("0 image sets")
    assert {worth for weights in trust.weights.values() for worth in weights.values()} == {1.0}
    assert not trust.estimates
    _, pairs = groups(6, [0.9, 0.8], 60)
    assert reliability(pairs).fallbacks[EFFUSION] == "2 teachers vote, fewer than 3"


def test_no_convergence_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxr_max.consensus.MAX_ITERATIONS", 2)
    _, rows = groups(7, [0.8, 0.7, 0.6], 60)
    assert reliability(rows).fallbacks[EFFUSION] == "no convergence in 2 iterations"


def test_uncertain_votes_and_samples_in_the_weights() -> None:
    rows = [
        [trajectory(u, {EFFUSION: 1 if n % 2 else 0}, study=str(n)) for u in "abc"]
        + [trajectory("d", {EFFUSION: -1}, study=str(n))]
        + [trajectory("e", {EFFUSION: 1}, study=str(n)), trajectory("e", {EFFUSION: 0}, study=str(n), sample=1)]
        for n in range(40)
    ]
    estimate = reliability(rows).estimates[EFFUSION]
    assert estimate.sensitivity[:3].min() > 0.9
    assert estimate.sensitivity[3] == pytest.approx(2 / 3)
    assert estimate.sensitivity[4] == pytest.approx((10 + 2) / (20 + 3), abs=1e-3)


def test_weights_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to estimate"):
        reliability([])
    with pytest.raises(ValueError, match="group the trajectories"):
        reliability([[]])
