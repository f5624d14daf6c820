"""Counts against scikit-learn and by hand; what is undefined says why."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from cxr_max.errors import RequestError
from cxr_max.eval.metrics.classification import (
    accuracy,
    accuracy_refusals_wrong,
    binary,
    f1,
    micro_f1,
    precision,
    sensitivity,
    specificity,
)
from cxr_max.findings import State, blank

ALL = (accuracy, sensitivity, specificity, precision, f1)
EDEMA = "Edema"
NONE = np.zeros(0, dtype=np.bool_)


def findings(state: State | None) -> dict[str, State | None]:
    return {**blank(), EDEMA: state}


@pytest.mark.parametrize("weighted", [False, True])
def test_counts_are_those_of_scikit_learn(weighted: bool) -> None:
    rng = np.random.default_rng(3)
    truth, claim = rng.random(400) < 0.2, rng.random(400) < 0.3
    weights = rng.integers(0, 5, 400).astype(float) if weighted else None
    expected = {
        accuracy: sklearn.accuracy_score(truth, claim, sample_weight=weights),
        sensitivity: sklearn.recall_score(truth, claim, sample_weight=weights),
        specificity: sklearn.recall_score(~truth, ~claim, sample_weight=weights),
        precision: sklearn.precision_score(truth, claim, sample_weight=weights),
        f1: sklearn.f1_score(truth, claim, sample_weight=weights),
    }
    for metric, value in expected.items():
        assert metric(truth, claim).measured(weights).value == pytest.approx(value, abs=1e-12)


def test_micro_f1_is_that_of_scikit_learn_over_the_rows_that_count() -> None:
    rng = np.random.default_rng(4)
    truth, claim, keep = rng.random((3, 60, 4)) < 0.4
    found = micro_f1([(truth[:, k], claim[:, k]) for k in range(4)], [keep[:, k] for k in range(4)])
    assert found.measured().value == pytest.approx(sklearn.f1_score(truth[keep], claim[keep]), abs=1e-12)


@pytest.mark.parametrize("metric", ALL)
def test_no_row_has_no_value(metric) -> None:  # type: ignore[no-untyped-def]
    found = metric(NONE, NONE).measured()
    assert found.value is None
    assert found.reason == "there is no row to score"


@pytest.mark.parametrize(
    ("metric", "truth", "claim", "reason"),
    [
        (sensitivity, False, True, "no reference is positive"),
        (f1, False, True, "no reference is positive"),
        (f1, False, False, "no reference is positive"),
        (specificity, True, True, "no reference is negative"),
        (precision, True, False, "the model claims nothing"),
    ],
)
def test_one_class_has_no_value(metric, truth: bool, claim: bool, reason: str) -> None:  # type: ignore[no-untyped-def]
    found = metric(np.full(5, truth), np.full(5, claim)).measured()
    assert (found.value, found.reason) == (None, reason)


def test_the_states_become_two_by_the_null_rules() -> None:
    references = [findings(state) for state in (1, 0, None, -1, 1, 0)]
    predictions = [findings(1), findings(None), findings(-1), findings(1), None, None]
    found = binary(references, predictions, EDEMA)
    assert found.rows.tolist() == [0, 1, 2, 4, 5]
    assert found.reference.tolist() == [True, False, False, True, False]
    assert found.claim.tolist() == [True, False, False, False, False]
    assert found.answered.tolist() == [True, True, True, False, False]


def test_only_one_accuracy_punishes_refusals() -> None:
    references = [findings(state) for state in (1, 0, 0, 0)]
    found = binary(references, [findings(1), findings(1), None, None], EDEMA)
    answered = found.of_answered()
    assert accuracy(answered.reference, answered.claim).measured().value == 0.5
    assert accuracy_refusals_wrong(found).measured().value == 0.25


def test_where_all_refused_nothing_is_scored() -> None:
    found = binary([findings(1), findings(0)], [None, None], EDEMA)
    answered = found.of_answered()
    for metric in ALL:
        assert metric(answered.reference, answered.claim).measured().value is None
    assert accuracy_refusals_wrong(found).measured().value == 0


def test_where_every_reference_is_uncertain_nothing_is_scored() -> None:
    found = binary([findings(-1)], [findings(1)], EDEMA)
    assert accuracy_refusals_wrong(found).measured().reason == "there is no row to score"


def test_an_unknown_finding_and_unpaired_rows_are_refused() -> None:
    with pytest.raises(RequestError, match="none of the 14"):
        binary([], [], "Oedema")
    with pytest.raises(RequestError, match="one a row"):
        binary([findings(1)], [], EDEMA)
    with pytest.raises(RequestError, match="one boolean"):
        accuracy(np.ones(2, dtype=np.bool_), np.ones(3, dtype=np.bool_))
    with pytest.raises(RequestError, match="at least one"):
        micro_f1([], [])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, np.nan]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(RequestError, match="one finite weight"):
        accuracy(np.ones(2, dtype=np.bool_), np.ones(2, dtype=np.bool_)).measured(np.array(weights))


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)), min_size=1, max_size=40))
def test_a_weight_counts_as_repeating_the_row(rows: list[tuple[bool, bool, int]]) -> None:
    truth, claim = (np.array([row[k] for row in rows], dtype=np.bool_) for k in (0, 1))
    times = np.array([row[2] for row in rows])
    for metric in ALL:
        weighted = metric(truth, claim).measured(times.astype(float)).value
        repeated = metric(np.repeat(truth, times), np.repeat(claim, times)).measured().value
        assert weighted == (None if repeated is None else pytest.approx(repeated, abs=1e-12))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_sensitivity_and_specificity_are_mirror_images(rows: list[tuple[bool, bool]]) -> None:
    truth, claim = (np.array([row[k] for row in rows], dtype=np.bool_) for k in (0, 1))
    assert sensitivity(truth, claim).measured().value == specificity(~truth, ~claim).measured().value
