"""The patient-clustered bootstrap: beside scikit-learn's loop, and whether its intervals hold the truth."""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from cxr_max.eval.bootstrap import Draws, Resamples, difference, draws, estimate, macro, resample
from cxr_max.eval.metrics.classification import accuracy, f1, sensitivity
from cxr_max.eval.metrics.measured import Metric
from cxr_max.eval.metrics.ranking import auroc
from tests.eval.clustered import Population, Sample

Floats = NDArray[np.float64]

IMAGES, FINDINGS, PATIENTS, RESAMPLES = 25_000, 14, 8_000, 1_000
LOOPED: Final = 10
"""Resamples that scikit-learn's loop is timed over."""
TRIALS: Final = 1_000
DRAWN: Final = 500
"""Resamples of each trial."""
DESIGNS: Final = (
    (100, 30, 1.0, 0.4),
    (100, 30, 1.5, 0.4),
    (100, 30, 2.33, 0.4),
    (100, 30, 1.5, 0.8),
    (300, 30, 1.5, 0.4),
    (300, 100, 2.33, 0.4),
    (100, 10, 1.5, 0.4),
    (20, 15, 1.5, 0.4),
)
"""Patients, positive images expected, shift of the score, what a patient's images share of the finding."""


@dataclass(frozen=True)
class Speed:
    """1,000 resamples of macro-AUROC."""

    ours_s: float
    loop_s: float
    apart: float
    """The largest difference between the two."""


def speed(decimals: int) -> Speed:
    """25,000 x 14 scores of 8,000 patients, rounded so that they tie or not."""
    rng = np.random.default_rng(0)
    patient = rng.integers(0, PATIENTS, IMAGES)
    truth = rng.random((IMAGES, FINDINGS)) < np.linspace(0.01, 0.35, FINDINGS)
    score = np.round(1 / (1 + np.exp(1 - 1.2 * truth - rng.normal(size=truth.shape))), decimals)
    ids = [f"{number:05d}" for number in patient]
    resamples = resample(ids, resamples=RESAMPLES)
    start = time.perf_counter()
    parts = [draws(auroc(truth[:, k], score[:, k]), resamples, ids) for k in range(FINDINGS)]
    ours = macro(parts).values
    middle = time.perf_counter()
    looped = _loop(truth, score, resamples, resamples.index(ids))
    loop_s = (time.perf_counter() - middle) / LOOPED * RESAMPLES
    return Speed(middle - start, loop_s, float(np.abs(looped - ours[:LOOPED]).max()))


def _loop(truth: NDArray[np.bool_], score: Floats, resamples: Resamples, patient: NDArray[np.int64]) -> Floats:
    values = []
    for times in resamples.multiplicities[:LOOPED]:
        rows = np.repeat(np.arange(IMAGES), times[patient])
        values.append(roc_auc_score(truth[rows], score[rows], average="macro"))
    return np.array(values)


def _metrics(sample: Sample) -> dict[str, Metric]:
    return {
        "AUROC": auroc(sample.reference, sample.score),
        "accuracy": accuracy(sample.reference, sample.claim),
        "F1": f1(sample.reference, sample.claim),
        "sensitivity": sensitivity(sample.reference, sample.claim),
    }


def coverage(population: Population, patients: int) -> dict[str, Floats]:
    """Per metric, the share of intervals that hold the truth, of ours and of percentiles, and of those trusted."""
    truth = population.truth()
    rng = np.random.default_rng(1)
    held: dict[str, Floats] = {name: np.zeros(3) for name in truth}
    for trial in range(TRIALS):
        sample, resamples = _drawn(population, patients, trial, rng)
        for name, metric in _metrics(sample).items():
            held[name] += _held(draws(metric, resamples, sample.patient), truth[name])
    return {name: counts / TRIALS for name, counts in held.items()}


def _held(drawn: Draws, truth: float) -> tuple[bool, bool, bool]:
    """A sample without a value holds nothing."""
    found = estimate(drawn)
    if found.low is None or found.high is None:
        return False, False, False
    low, high = np.nanquantile(drawn.values, [0.025, 0.975])
    return found.low <= truth <= found.high, bool(low <= truth <= high), found.trusted


def alarms(population: Population, patients: int) -> dict[str, float]:
    """Per metric, how often two models of equal worth differ with p < 0.05.

    The second model's score repeats half of the first one's deviation.
    """
    rng = np.random.default_rng(2)
    found = dict.fromkeys(population.truth(), 0)
    for trial in range(TRIALS):
        sample, resamples = _drawn(population, patients, trial, rng)
        own = np.sqrt(0.75) * _deviation(population, resamples.index(sample.patient), rng)
        mean = population.shift * sample.reference
        score = mean + 0.5 * (sample.score - mean) + own
        other = Sample(sample.patient, sample.reference, score, score > population.shift / 2)
        for (name, first), second in zip(_metrics(sample).items(), _metrics(other).values(), strict=True):
            pair = (draws(metric, resamples, sample.patient) for metric in (first, second))
            p_value = difference(*pair).p_value
            found[name] += p_value is not None and p_value < 0.05
    return {name: count / TRIALS for name, count in found.items()}


def _drawn(
    population: Population, patients: int, trial: int, rng: np.random.Generator
) -> tuple[Sample, Resamples]:
    sample = population.draw(patients, rng)
    return sample, resample(sample.patient, seed=trial, resamples=DRAWN)


def _deviation(population: Population, patient: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Of a score from its mean: variance 1, correlated within a patient as the population's scores are."""
    common = rng.normal(size=patient.max() + 1)[patient]
    shared = population.score_shared
    mixed: Floats = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=len(patient))
    return mixed


def _speed_table() -> str:
    lines = [
        f"1,000 resamples of macro-AUROC, {IMAGES:,} images x {FINDINGS} findings, {PATIENTS:,} patients, one"
        f" process; the loop measured over {LOOPED} resamples.",
        "",
        "| scores | ours, s | scikit-learn's loop, s | ratio | largest difference |",
        "|---|---|---|---|---|",
    ]
    for name, decimals in (("with ties (0.00 to 1.00)", 2), ("without ties", 15)):
        found = speed(decimals)
        ratio = found.loop_s / found.ours_s
        lines.append(f"| {name} | {found.ours_s:.2f} | {found.loop_s:.0f} | {ratio:.0f} | {found.apart:.1e} |")
    return "\n".join(lines)


def _coverage_table() -> str:
    lines = [
        f"Share of 95% intervals that hold the truth, in per cent of {TRIALS:,} simulated data sets ({DRAWN}"
        " resamples each; standard error 0.7): ours, and in brackets the plain percentile interval's. Patients"
        " have 2.5 images on average. Trusted: the share of the AUROC's intervals that say they can be.",
        "",
        "| patients | positives | shared | AUROC is | AUROC | accuracy | F1 | sensitivity | trusted |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for patients, positives, shift, shared in DESIGNS:
        population = Population(positives / (2.5 * patients), shift, shared, 0.75 * shared)
        found = coverage(population, patients)
        cells = [str(patients), str(positives), f"{shared:.1f}", f"{population.truth()['AUROC']:.2f}"]
        cells += [f"{100 * ours:.1f} ({100 * plain:.1f})" for ours, plain, _ in found.values()]
        lines.append(f"| {' | '.join(cells)} | {found['AUROC'][2]:.0%} |")
    return "\n".join(lines)


def _alarm_table() -> str:
    lines = [
        "How often two models of equal worth are called different (p < 0.05, in per cent of as many pairs):",
        "",
        "| patients | positives | AUROC is | AUROC | accuracy | F1 | sensitivity |",
        "|---|---|---|---|---|---|---|",
    ]
    for patients, positives, shift in ((100, 30, 1.0), (100, 30, 2.33), (300, 100, 1.5)):
        population = Population(positives / (2.5 * patients), shift)
        cells = [str(patients), str(positives), f"{population.truth()['AUROC']:.2f}"]
        cells += [f"{100 * share:.1f}" for share in alarms(population, patients).values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def section() -> str:
    """The section that goes into the benchmarks' page."""
    return f"## Patient-clustered bootstrap\n\n{_speed_table()}\n\n{_coverage_table()}\n\n{_alarm_table()}\n"
