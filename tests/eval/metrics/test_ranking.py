"""Curves against scikit-learn, ties and weights included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from cxr_max.errors import RequestError
from cxr_max.eval.metrics.measured import Bools, Floats
from cxr_max.eval.metrics.ranking import Ranked, auroc, average_precision, sensitivity_at_specificity


def at_90(truth: Bools, score: Floats) -> Ranked:
    return sensitivity_at_specificity(truth, score, 0.9)


ALL = (auroc, average_precision, at_90)


def read_off(truth: Bools, score: Floats, weights: Floats | None, specificity: float) -> float:
    """The curve's point as scikit-learn draws the curve."""
    alarms, hits, _ = sklearn.roc_curve(truth, score, sample_weight=weights, drop_intermediate=False)
    return float(hits[alarms <= 1 - specificity + 1e-9].max())


def expected(metric, truth: Bools, score: Floats, weights: Floats | None = None) -> float:  # type: ignore[no-untyped-def]
    if metric is auroc:
        return float(sklearn.roc_auc_score(truth, score, sample_weight=weights))
    if metric is average_precision:
        return float(sklearn.average_precision_score(truth, score, sample_weight=weights))
    return read_off(truth, score, weights, 0.9)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("decimals", [0, 1, 15])
@pytest.mark.parametrize("weighted", [False, True])
def test_curves_are_those_of_scikit_learn(metric, decimals: int, weighted: bool) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(decimals)
    truth = rng.random(500) < 0.15
    score = np.round(rng.normal(size=500) + truth, decimals)
    weights = rng.uniform(0, 3, 500) if weighted else None
    value = metric(truth, score).measured(weights).value
    assert value == pytest.approx(expected(metric, truth, score, weights), abs=1e-12)


def test_the_curves_by_hand() -> None:
    truth = np.array([True, False, True, False])
    score = np.array([0.9, 0.8, 0.8, 0.1])
    assert auroc(truth, score).measured().value == 0.875
    assert average_precision(truth, score).measured().value == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert sensitivity_at_specificity(truth, score, 0.5).measured().value == 1
    assert sensitivity_at_specificity(truth, score, 0.51).measured().value == 0.5


def test_a_specificity_that_is_just_reached_is_reached() -> None:
    truth = np.array([False] * 10 + [True])
    score = np.array([3.0, *[1.0] * 9, 2.0])
    assert sensitivity_at_specificity(truth, score, 0.9).measured().value == 1


@pytest.mark.parametrize("metric", ALL)
def test_one_class_alone_and_no_row_have_no_value(metric) -> None:  # type: ignore[no-untyped-def]
    score = np.arange(4.0)
    assert metric(np.zeros(4, dtype=np.bool_), score).measured().reason == "no reference is positive"
    assert metric(np.ones(4, dtype=np.bool_), score).measured().reason == "no reference is negative"
    assert metric(np.zeros(0, dtype=np.bool_), score[:0]).measured().reason == "there is no row to score"
    mixed = np.array([True, False, False, False])
    assert metric(mixed, score).measured(np.array([0.0, 1, 1, 1])).reason == "no reference is positive"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_without_a_score_is_refused(bad: float) -> None:
    with pytest.raises(RequestError, match="finite score"):
        auroc(np.array([True, False]), np.array([0.5, bad]))


@pytest.mark.parametrize("specificity", [0.0, 1.0, -1.0, 90.0])
def test_a_specificity_out_of_range_is_refused(specificity: float) -> None:
    with pytest.raises(RequestError, match="out of range"):
        sensitivity_at_specificity(np.array([True]), np.array([1.0]), specificity)


ROWS = st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(0, 3)), min_size=1, max_size=30)


@given(ROWS)
def test_a_patients_multiplicity_counts_as_repeating_its_rows(rows: list[tuple[bool, int, int]]) -> None:
    """The path of the bootstrap (merged groups, a sparse product) against scikit-learn on the repeated rows."""
    truth = np.array([row[0] for row in rows], dtype=np.bool_)
    score = np.array([float(row[1]) for row in rows])
    patient = np.arange(len(rows)) // 2
    patients = int(patient[-1]) + 1
    times = np.array([rows[index][2] for index in range(patients)], dtype=np.uint8)
    copies = times[patient]
    truths, scores = np.repeat(truth, copies), np.repeat(score, copies)
    for metric in ALL:
        value = metric(truth, score).by_patient(patient, patients)(times[None])[0]
        if truths.all() or not truths.any():
            assert np.isnan(value)
        else:
            assert value == pytest.approx(expected(metric, truths, scores), abs=1e-12)


@given(ROWS)
def test_only_the_order_of_scores_counts(rows: list[tuple[bool, int, int]]) -> None:
    truth = np.array([row[0] for row in rows], dtype=np.bool_)
    score = np.array([float(row[1]) for row in rows])
    for metric in ALL:
        assert metric(truth, score).measured() == metric(truth, np.exp(score) + 7).measured()


@given(ROWS)
def test_turning_the_scores_round_mirrors_the_auroc(rows: list[tuple[bool, int, int]]) -> None:
    truth = np.array([row[0] for row in rows], dtype=np.bool_)
    score = np.array([float(row[1]) for row in rows])
    value, mirrored = auroc(truth, score).measured().value, auroc(truth, -score).measured().value
    assert (value is None) == (mirrored is None)
    if value is not None and mirrored is not None:
        assert value + mirrored == pytest.approx(1, abs=1e-12)
