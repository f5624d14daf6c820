"""Brier score against scikit-learn, calibration error by hand and by its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from cxr_max.errors import RequestError
from cxr_max.eval.metrics.calibration import BINS, brier, expected_calibration_error


@pytest.mark.parametrize("weighted", [False, True])
def test_the_brier_score_is_that_of_scikit_learn(weighted: bool) -> None:
    rng = np.random.default_rng(5)
    truth, probability = rng.random(300) < 0.3, rng.random(300)
    weights = rng.random(300) if weighted else None
    value = brier(truth, probability).measured(weights).value
    assert value == pytest.approx(brier_score_loss(truth, probability, sample_weight=weights), abs=1e-12)


def test_the_calibration_error_by_hand() -> None:
    truth = np.array([True, False, True, True])
    probability = np.array([0.05, 0.05, 0.95, 1.0])
    assert expected_calibration_error(truth, probability).measured().value == pytest.approx((0.9 + 0.05) / 4)


def test_the_calibration_error_is_its_definition_bin_by_bin() -> None:
    rng = np.random.default_rng(6)
    probability = np.concatenate([rng.random(500), np.arange(BINS + 1) / BINS])
    truth = rng.random(len(probability)) < probability**2
    total = 0.0
    for k in range(BINS):
        low, high = k / BINS, (k + 1) / BINS
        inside = (probability > low) & (probability <= high) | ((k == 0) & (probability == 0))
        if inside.any():
            total += inside.mean() * abs(probability[inside].mean() - truth[inside].mean())
    assert expected_calibration_error(truth, probability).measured().value == pytest.approx(total, abs=1e-9)


def test_probabilities_that_come_true_have_no_error() -> None:
    truth = np.array([True, False, True, False])
    half = np.full(4, 0.5)
    assert expected_calibration_error(truth, half).measured().value == pytest.approx(0)
    assert brier(truth, truth.astype(float)).measured().value == 0


@pytest.mark.parametrize("metric", [brier, expected_calibration_error])
def test_no_row_and_what_is_no_probability(metric) -> None:  # type: ignore[no-untyped-def]
    nothing = np.zeros(0, dtype=np.bool_)
    assert metric(nothing, np.zeros(0)).measured().reason == "there is no row to score"
    for bad in (-0.1, 1.1, np.nan):
        with pytest.raises(RequestError, match="between 0 and 1"):
            metric(np.array([True]), np.array([bad]))


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=50))
def test_both_lie_between_0_and_1(rows: list[tuple[bool, float]]) -> None:
    truth = np.array([row[0] for row in rows], dtype=np.bool_)
    probability = np.array([row[1] for row in rows])
    for metric in (brier, expected_calibration_error):
        value = metric(truth, probability).measured().value
        assert value is not None
        assert 0 <= value <= 1
