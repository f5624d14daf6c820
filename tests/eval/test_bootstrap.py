"""The bootstrap against scikit-learn's loop, closed forms and simulated patients whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from cxr_max.errors import RequestError
from cxr_max.eval.bootstrap import (
    FEWEST_PATIENTS,
    Draws,
    Resamples,
    difference,
    draws,
    estimate,
    macro,
    resample,
)
from cxr_max.eval.metrics.agreement import krippendorff_alpha
from cxr_max.eval.metrics.calibration import expected_calibration_error
from cxr_max.eval.metrics.classification import accuracy, f1, sensitivity
from cxr_max.eval.metrics.measured import Measured, Metric, mean_of
from cxr_max.eval.metrics.ranking import auroc
from cxr_max.eval.metrics.text import bleu
from tests.eval.clustered import Population, Sample

PLAIN = Population(prevalence=0.2, shift=1.5)


def metrics_of(sample: Sample) -> dict[str, Metric]:
    return {
        "AUROC": auroc(sample.reference, sample.score),
        "accuracy": accuracy(sample.reference, sample.claim),
        "F1": f1(sample.reference, sample.claim),
        "sensitivity": sensitivity(sample.reference, sample.claim),
    }


def copies(resamples: Resamples, row: int, patient: list[str]) -> np.ndarray:
    """The indices of the rows that one resample holds."""
    return np.repeat(np.arange(len(patient)), resamples.multiplicities[row][resamples.index(patient)])


def test_a_resample_draws_as_many_patients_as_there_are() -> None:
    drawn = resample(["b", "a", "b", "c"], seed=1, resamples=500)
    assert drawn.patients.tolist() == ["a", "b", "c"]
    assert drawn.multiplicities.shape == (500, 3)
    assert (drawn.multiplicities.sum(axis=1) == 3).all()
    assert drawn.multiplicities.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.2)


def test_the_draw_depends_on_the_seed_and_the_patients_alone() -> None:
    first = resample(["b", "a", "b", "c"], seed=1)
    assert (first.multiplicities == resample(["c", "c", "a", "b"], seed=1).multiplicities).all()
    assert (first.multiplicities != resample(["b", "a", "b", "c"], seed=2).multiplicities).any()


@pytest.mark.parametrize("decimals", [1, 15])
def test_every_resampled_auroc_is_that_of_scikit_learn(decimals: int) -> None:
    sample = PLAIN.draw(80, np.random.default_rng(decimals))
    score = np.round(sample.score, decimals)
    resamples = resample(sample.patient, resamples=130)
    found = draws(auroc(sample.reference, score), resamples, sample.patient).values
    for row in range(130):
        kept = copies(resamples, row, sample.patient)
        assert found[row] == pytest.approx(roc_auc_score(sample.reference[kept], score[kept]), abs=1e-12)


def test_every_resample_of_any_metric_is_the_metric_of_the_repeated_rows() -> None:
    rng = np.random.default_rng(8)
    sample = PLAIN.draw(40, rng)
    n = len(sample.patient)
    words = ["the heart", "is", "normal", "no effusion", "clear lungs"]
    texts = [[" ".join(rng.choice(words, 6)) for _ in range(n)] for _ in range(2)]
    codes = rng.integers(0, 3, (n, 4))

    def every(kept: np.ndarray) -> dict[str, Metric]:
        part = Sample(sample.patient, sample.reference[kept], sample.score[kept], sample.claim[kept])
        return {
            **metrics_of(part),
            "ECE": expected_calibration_error(part.reference, stats.norm.cdf(part.score)),
            "BLEU": bleu([texts[0][k] for k in kept], [texts[1][k] for k in kept])[1],
            "alpha": krippendorff_alpha(codes[kept], codes[kept] != 9, levels=3, level="ordinal"),
            "mean": mean_of(sample.score[kept], (-9, 9)),
        }

    resamples = resample(sample.patient, resamples=100)
    for name, metric in every(np.arange(n)).items():
        found = draws(metric, resamples, sample.patient).values
        for row in range(0, 100, 9):
            direct = every(copies(resamples, row, sample.patient))[name].measured().value
            assert found[row] == pytest.approx(direct, abs=1e-9), name


def test_a_share_of_independent_rows_has_the_textbook_interval() -> None:
    """One row a patient: the effective sample size is n, and the interval Wilson's."""
    claim = np.arange(200) < 140
    patient = [str(row) for row in range(200)]
    found = estimate(draws(accuracy(np.ones(200, dtype=np.bool_), claim), resample(patient), patient))
    expected = stats.binomtest(140, 200).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)
    assert found.trusted


def test_a_mean_of_independent_rows_has_the_textbook_interval() -> None:
    values = np.random.default_rng(9).normal(size=300)
    patient = [str(row) for row in range(300)]
    found = estimate(draws(mean_of(values, (-100, 100)), resample(patient), patient))
    half = stats.norm.ppf(0.975) * values.std(ddof=1) / 300**0.5
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - half, values.mean() + half), rel=0.05, abs=0.005
    )


def test_rows_repeated_within_patients_do_not_narrow_the_interval() -> None:
    claim = np.random.default_rng(10).random(100) < 0.7
    patient = [str(row) for row in range(100)]
    truth = np.ones(100, dtype=np.bool_)
    once = estimate(draws(accuracy(truth, claim), resample(patient), patient))
    many = estimate(
        draws(
            accuracy(np.repeat(truth, 9), np.repeat(claim, 9)),
            resample(patient),
            np.repeat(patient, 9).tolist(),
        )
    )
    assert (once.low, once.high) == (many.low, many.high)


def test_the_order_of_the_rows_changes_nothing() -> None:
    sample = PLAIN.draw(60, np.random.default_rng(11))
    order = np.random.default_rng(12).permutation(len(sample.patient))
    turned = Sample(
        [sample.patient[k] for k in order], sample.reference[order], sample.score[order], sample.claim[order]
    )
    resamples = resample(sample.patient)
    for name, metric in metrics_of(sample).items():
        first = draws(metric, resamples, sample.patient)
        second = draws(metrics_of(turned)[name], resamples, turned.patient)
        assert first.values == pytest.approx(second.values, abs=1e-12)


def test_a_perfect_score_has_an_interval_with_room_below() -> None:
    truth = np.arange(60) % 2 == 0
    patient = [str(row) for row in range(60)]
    for metric in (accuracy(truth, truth), auroc(truth, truth.astype(float))):
        found = estimate(draws(metric, resample(patient), patient))
        assert (found.value, found.high) == (1, 1)
        assert found.low is not None
        assert 0.8 < found.low < 0.96
        assert found.trusted


def test_few_patients_make_an_interval_that_says_so() -> None:
    truth = np.arange(100) < FEWEST_PATIENTS - 1
    patient = [str(row) for row in range(100)]
    found = estimate(draws(auroc(truth, np.arange(100.0) % 7), resample(patient), patient))
    assert not found.trusted
    assert found.distrust == "9 patients decide it, and fewer than 10 do not carry an interval"
    assert found.low is not None
    assert found.patients == 9
    truth = np.arange(100) < FEWEST_PATIENTS
    assert estimate(draws(auroc(truth, np.arange(100.0) % 7), resample(patient), patient)).trusted


def test_many_positives_of_few_patients_are_few() -> None:
    truth = np.arange(300) < 90
    patient = [str(row // 30) for row in range(300)]
    assert estimate(draws(auroc(truth, np.arange(300.0) % 7), resample(patient), patient)).patients == 3


def test_resamples_without_a_positive_are_left_out_and_told() -> None:
    truth = np.arange(50) < 2
    patient = [str(row) for row in range(50)]
    drawn = draws(sensitivity(truth, np.arange(50) < 1), resample(patient), patient)
    without = (resample(patient).multiplicities[:, resample(patient).index(["0", "1"])].sum(axis=1) == 0).mean()
    assert np.isnan(drawn.values).mean() == without
    assert without > 0.05
    found = estimate(drawn)
    assert not found.trusted
    assert found.low is not None
    enough = Draws(drawn.measured, drawn.values, 50, "share", (0.0, 1.0))
    assert estimate(enough).distrust == f"it is undefined in {without:.1%} of the resamples"


@pytest.mark.parametrize("truth", [np.zeros(20, dtype=np.bool_), np.ones(20, dtype=np.bool_)])
def test_one_class_has_neither_value_nor_interval(truth: np.ndarray) -> None:
    patient = [str(row) for row in range(20)]
    resamples = resample(patient)
    drawn = draws(auroc(truth, np.arange(20.0)), resamples, patient)
    found = estimate(drawn)
    assert (found.value, found.low, found.high, found.trusted) == (None, None, None, False)
    assert found.reason is not None
    other = draws(auroc(np.arange(20) < 10, np.arange(20.0)), resamples, patient)
    apart = difference(other, drawn)
    assert (apart.value, apart.p_value, apart.reason) == (None, None, found.reason)


def test_no_rows_at_all_have_no_value() -> None:
    nothing = np.zeros(0, dtype=np.bool_)
    found = estimate(draws(accuracy(nothing, nothing), resample(["a"]), []))
    assert found.reason == "there is no row to score"


def test_one_patient_has_a_value_without_an_interval() -> None:
    truth = np.array([True, False, True])
    found = estimate(draws(accuracy(truth, np.ones(3, dtype=np.bool_)), resample(["a"]), ["a"] * 3))
    assert found.value == pytest.approx(2 / 3)
    assert (found.low, found.high, found.trusted) == (None, None, False)


def test_the_calibration_error_is_never_trusted() -> None:
    sample = PLAIN.draw(200, np.random.default_rng(13))
    metric = expected_calibration_error(sample.reference, stats.norm.cdf(sample.score))
    found = estimate(draws(metric, resample(sample.patient), sample.patient))
    assert not found.trusted
    assert found.distrust is not None
    assert "biased" in found.distrust


def test_the_macro_mean_leaves_out_what_has_no_value() -> None:
    sample = PLAIN.draw(100, np.random.default_rng(14))
    resamples = resample(sample.patient)
    first = draws(auroc(sample.reference, sample.score), resamples, sample.patient)
    second = draws(auroc(sample.reference, -sample.score), resamples, sample.patient)
    none = draws(auroc(sample.reference & False, sample.score), resamples, sample.patient)
    found = macro([first, second, none])
    assert found.measured.value == pytest.approx(0.5)
    assert found.values == pytest.approx(np.full(len(found.values), 0.5))
    assert macro([first]).values == pytest.approx(first.values)
    assert estimate(macro([none])).reason == "no reference is positive"
    assert estimate(macro([])).value is None


def test_a_paired_difference_is_narrower_than_an_unpaired_one() -> None:
    sample = PLAIN.draw(300, np.random.default_rng(15))
    near = sample.score + np.random.default_rng(16).normal(size=len(sample.score)) * 0.2
    first, second = (auroc(sample.reference, score) for score in (sample.score, near))
    resamples, others = resample(sample.patient), resample(sample.patient, seed=1)
    paired = difference(draws(first, resamples, sample.patient), draws(second, resamples, sample.patient))
    apart = difference(draws(first, resamples, sample.patient), draws(second, others, sample.patient))
    assert paired.low is not None and paired.high is not None
    assert apart.low is not None and apart.high is not None
    assert (paired.high - paired.low) * 2 < apart.high - apart.low


@given(st.floats(-1.5, 1.5), st.integers(0, 50))
def test_the_p_value_and_the_interval_say_the_same(effect: float, seed: int) -> None:
    sample = PLAIN.draw(60, np.random.default_rng(seed))
    rng = np.random.default_rng(seed + 1)
    other = rng.normal(size=len(sample.score)) + effect * sample.reference
    resamples = resample(sample.patient, resamples=200)
    found, turned = (
        difference(draws(a, resamples, sample.patient), draws(b, resamples, sample.patient))
        for a, b in (
            (auroc(sample.reference, sample.score), auroc(sample.reference, other)),
            (auroc(sample.reference, other), auroc(sample.reference, sample.score)),
        )
    )
    assert found.low is not None and found.high is not None and found.p_value is not None
    assert 1 / 201 <= found.p_value <= 1
    assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)
    assert (turned.value, turned.p_value) == pytest.approx((-found.value if found.value else 0, found.p_value))
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_a_model_is_no_different_from_itself() -> None:
    sample = PLAIN.draw(60, np.random.default_rng(17))
    drawn = draws(auroc(sample.reference, sample.score), resample(sample.patient), sample.patient)
    found = difference(drawn, drawn)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert found.distrust == "the difference is the same in every resample"


def test_differences_of_unlike_things_are_refused() -> None:
    first = Draws(Measured(0.5), np.full(100, 0.5), 20, "smooth", (0.0, 1.0))
    for second in (
        Draws(Measured(0.5), np.full(101, 0.5), 20, "smooth", (0.0, 1.0)),
        Draws(Measured(0.5), np.full(100, 0.5), 20, "smooth", (0.0, 10.0)),
    ):
        with pytest.raises(RequestError, match="same metric and resamples"):
            difference(first, second)


def test_strangers_missing_patients_and_too_few_resamples_are_refused() -> None:
    resamples = resample(["a", "c"])
    truth = np.ones(2, dtype=np.bool_)
    for stranger in ("b", "d", "0"):
        with pytest.raises(RequestError, match=f"patient {stranger} is not among"):
            draws(accuracy(truth, truth), resamples, ["a", stranger])
    with pytest.raises(RequestError, match="patient of each row"):
        draws(accuracy(truth, truth), resamples, ["a"])
    with pytest.raises(RequestError, match="no patient"):
        resample([])
    with pytest.raises(RequestError, match="draw 100 or more"):
        resample(["a"], resamples=50)


def test_memory_stays_small_for_many_patients() -> None:
    """A byte for each patient and resample, and beside them only what a block of resamples takes."""
    import tracemalloc

    n = 20_000
    patient = [str(row) for row in range(n)]
    resamples = resample(patient, resamples=500)
    assert resamples.multiplicities.nbytes == 500 * n
    score = np.random.default_rng(18).normal(size=n)
    tracemalloc.start()
    draws(auroc(score > 1, score + 1), resamples, patient)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6


def coverage(population: Population, patients: int, trials: int, resamples: int) -> dict[str, float]:
    """Of the intervals of simulated samples, the share that holds the truth."""
    truth = population.truth()
    rng = np.random.default_rng(1)
    held = dict.fromkeys(truth, 0)
    for trial in range(trials):
        sample = population.draw(patients, rng)
        drawn = resample(sample.patient, seed=trial, resamples=resamples)
        for name, metric in metrics_of(sample).items():
            found = estimate(draws(metric, drawn, sample.patient))
            assert found.low is not None and found.high is not None
            held[name] += found.low <= truth[name] <= found.high
    return {name: count / trials for name, count in held.items()}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("patients", "positives", "shift", "shared"),
    [(100, 30, 1.0, 0.4), (100, 30, 1.5, 0.4), (100, 30, 2.33, 0.4), (100, 30, 1.5, 0.8), (300, 100, 1.5, 0.4)],
)
def test_intervals_hold_the_truth_95_times_of_100(
    patients: int, positives: int, shift: float, shared: float
) -> None:
    """1,000 trials: a coverage of 95% then has a standard error of 0.7 percentage points."""
    population = Population(positives / (2.5 * patients), shift, shared, 0.75 * shared)
    for name, share in coverage(population, patients, trials=1000, resamples=500).items():
        assert 0.93 <= share <= 0.97, f"{name}: {share:.3f}"


def test_intervals_hold_the_truth_in_a_short_simulation() -> None:
    """400 trials: what covers 90% or less, as plain percentiles of this AUROC do, would pass 1 time in 30."""
    population = Population(prevalence=30 / 250, shift=2.33)
    for name, share in coverage(population, 100, trials=400, resamples=200).items():
        assert share >= 0.93, f"{name}: {share:.3f}"
