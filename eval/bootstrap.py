"""Patient-clustered bootstrap: intervals of any metric, and paired differences of two models.

Patients are drawn with replacement, each with all of its rows, so that images of one patient are never taken for
independent. One ``Resamples`` serves every metric of every model of a data set: differences are then paired.

The interval is not the plain percentile one, which misses its 95% where positives are few (AUROC 0.95 with 30
positives in 23 patients: 87%; ``benchmarks/bootstrap.py`` measures it). With n the patients that decide the metric
(for a metric of two classes, those of the rarer one) and s the standard deviation over the resamples:

- a share is given Wilson's score interval (Wilson 1927) for p (1 - p) / s^2 x (n - 1) / n independent rows, the
  effective sample size of a clustered sample (Korn and Graubard 1998);
- a smooth metric is given logit(value) +- 1.96 s, s being that of the resampled logits over the metric's bounds;
- a difference is given the same with Student's quantile for n - 1 degrees of freedom, since near 0 the logit is
  straight and does not widen s as it does near a bound. For bounds -1 and 1 this is Fisher's z.

A value at its bound, where no resample differs, has Wilson's interval for n rows. One between its bounds, such as
a difference of 0 everywhere, reaches as far as if as many patients made all the difference as Wilson's interval
for none of n allows. Resamples in which the metric is
undefined (no positive was drawn, say) are left out; the interval is not trusted where these are more than 1%, nor
where n is below 10.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtr, stdtrit  # type: ignore[import-untyped]

from cxr_max.errors import RequestError
from cxr_max.eval.metrics.measured import Additive, Bools, Counts, Floats, Ints, Measured, Metric, Shape

RESAMPLES: Final = 2_000
FEWEST_PATIENTS: Final = 10
MOST_UNDEFINED: Final = 0.01
CONVENTION: Final = (
    f"{RESAMPLES} bootstrap resamples of patients; 95% interval: Wilson's score interval of the effective sample"
    " size for shares; normal on the logit scale for other metrics, Student's t there for differences"
)
_AT_ONCE: Final = 64
"""Resamples computed together: as fast as any, and memory stays at 64 numbers per patient or group of scores."""
_NORMAL: Final = 1.959963984540054
"""The normal distribution's 97.5% quantile."""
_CLIP: Final = 1e-4
"""Resampled values are held this far off the bounds before their logit is taken."""


@dataclass(frozen=True, slots=True, eq=False)
class Resamples:
    """How often each patient was drawn in each resample: the same for every metric and model."""

    patients: NDArray[np.str_]
    """(p,), in ascending order."""
    multiplicities: Counts
    """(resamples, p); each row adds up to p."""
    seed: int

    def index(self, patient_ids: Sequence[str]) -> Ints:
        """(n,) positions in ``patients``.

        Raises:
            RequestError: somebody is not among the patients.
        """
        ids = np.asarray(patient_ids, dtype=str)
        found = np.minimum(np.searchsorted(self.patients, ids), len(self.patients) - 1)
        strangers = ids[self.patients[found] != ids] if len(ids) else ids
        if len(strangers):
            raise RequestError(
                f"patient {strangers[0]} is not among those resampled: resample all patients of the set"
            )
        return found.astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """A metric and its values over the resamples."""

    measured: Measured
    values: Floats
    """(resamples,); NaN, never shown, where the resample leaves the metric undefined."""
    patients: int
    """Those that decide the metric."""
    shape: Shape
    bounds: tuple[float, float]
    caveat: str | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its 95% interval."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None
    """Why there is no value."""
    trusted: bool
    """Whether the interval can be expected to hold the truth 95 times of 100."""
    distrust: str | None
    """Why not."""
    patients: int
    """Those that decide the metric."""


@dataclass(frozen=True, slots=True)
class Difference:
    """First minus second, paired, with its 95% interval."""

    value: float | None
    low: float | None
    high: float | None
    p_value: float | None
    """Two-sided; below 0.05 exactly where the interval leaves out 0, and at least 1 / (resamples + 1)."""
    reason: str | None
    trusted: bool
    distrust: str | None


def resample(patient_ids: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES) -> Resamples:
    """Draw the patients, whatever the order or number of their rows.

    Raises:
        RequestError: there is no patient, or fewer than 100 resamples are asked for.
    """
    if not len(patient_ids):
        raise RequestError("there is no patient to resample: give the patient of each row")
    if resamples < 100:
        raise RequestError(f"{resamples} resamples give no interval: draw 100 or more")
    patients = np.unique(np.asarray(patient_ids, dtype=str))
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, len(patients)), dtype=np.uint8)
    for row in drawn:
        times = np.bincount(rng.integers(0, len(patients), len(patients)), minlength=len(patients))
        row[:] = np.minimum(times, np.iinfo(np.uint8).max)
    return Resamples(patients, drawn, seed)


def draws(metric: Metric, resamples: Resamples, patient_ids: Sequence[str]) -> Draws:
    """The metric over all rows and over each resample; ``patient_ids`` (n,) says whose each of its rows is.

    Raises:
        RequestError: the metric has another number of rows, or a patient is not among those resampled.
    """
    (drawn,) = draws_together([(metric, resamples.index(patient_ids))], resamples)
    return drawn


def draws_together(metrics: Sequence[tuple[Metric, Ints]], resamples: Resamples) -> list[Draws]:
    """The draws of several metrics, each with the (n,) positions of its rows' patients in ``resamples``.

    Metrics of sums share one matrix product: what takes time is to read the multiplicities, not to add.
    """
    for metric, patient in metrics:
        for rows in metric.deciding:
            if len(rows) != len(patient):
                raise RequestError(f"{len(rows)} rows and {len(patient)} patients: give the patient of each row")
    values = [np.full(len(resamples.multiplicities), np.nan) for _ in metrics]
    measured = [metric.measured() for metric, _ in metrics]
    defined = [number for number, one in enumerate(measured) if one.value is not None]
    compute = _computing([metrics[number] for number in defined], len(resamples.patients))
    for start in range(0, len(resamples.multiplicities), _AT_ONCE):
        block = slice(start, start + _AT_ONCE)
        for number, drawn in zip(defined, compute(resamples.multiplicities[block]), strict=True):
            values[number][block] = drawn
    return [
        Draws(
            one, drawn, min(_patients(patient, rows) for rows in metric.deciding), metric.shape, metric.bounds,
            metric.caveat,
        )
        for (metric, patient), one, drawn in zip(metrics, measured, values, strict=True)
    ]  # fmt: skip


def _computing(metrics: Sequence[tuple[Metric, Ints]], patients: int) -> Callable[[Counts], list[Floats]]:
    """From multiplicities to the values of each metric."""
    sums = {
        number: metric.per_patient(patient, patients)
        for number, (metric, patient) in enumerate(metrics)
        if isinstance(metric, Additive)
    }
    others = {
        number: metric.by_patient(patient, patients)
        for number, (metric, patient) in enumerate(metrics)
        if number not in sums
    }
    matrix = np.concatenate([*sums.values(), np.empty((patients, 0))], axis=1)
    ends = np.cumsum([part.shape[1] for part in sums.values()])

    def compute(multiplicities: Counts) -> list[Floats]:
        added = multiplicities.astype(np.float64) @ matrix if sums else np.empty((len(multiplicities), 0))
        parts = dict(zip(sums, np.split(added, ends[:-1], axis=1), strict=True)) if sums else {}
        return [
            metric.formula(parts[number]) if isinstance(metric, Additive) else others[number](multiplicities)
            for number, (metric, _) in enumerate(metrics)
        ]

    return compute


def macro(parts: Sequence[Draws]) -> Draws:
    """The mean of one metric over several findings, of those for which it has a value.

    A resample that leaves one of these undefined leaves the mean undefined; the fewest patients of any decide.
    """
    scored = [part for part in parts if part.measured.value is not None]
    if not scored:
        reasons = {part.measured.reason for part in parts}
        common = next(iter(reasons)) if len(reasons) == 1 else None
        return undefined(common or "no finding has a value", len(parts[0].values) if parts else 0)
    value = float(np.mean([part.measured.value for part in scored if part.measured.value is not None]))
    values = np.mean([part.values for part in scored], axis=0)
    caveat = next((part.caveat for part in scored if part.caveat), None)
    fewest = min(part.patients for part in scored)
    return Draws(Measured(value), values, fewest, "smooth", scored[0].bounds, caveat)


def undefined(reason: str, resamples: int) -> Draws:
    """No value, and why."""
    return Draws(Measured(None, reason), np.full(resamples, np.nan), 0, "smooth", (0.0, 1.0))


def minus(first: Draws, second: Draws) -> Draws:
    """First minus second over the same resamples, as a metric of its own.

    Raises:
        RequestError: see ``difference``.
    """
    span = _span(first, second)
    if first.measured.value is None or second.measured.value is None:
        return undefined(first.measured.reason or second.measured.reason or "", len(first.values))
    value = Measured(first.measured.value - second.measured.value)
    fewest = min(first.patients, second.patients)
    return Draws(
        value, first.values - second.values, fewest, "smooth", (-span, span), first.caveat or second.caveat
    )


def estimate(drawn: Draws) -> Estimate:
    """The value with its interval, which says whether it can be trusted."""
    value = drawn.measured.value
    if value is None:
        return Estimate(None, None, None, drawn.measured.reason, False, "there is no value", drawn.patients)
    values = drawn.values[np.isfinite(drawn.values)]
    distrust = drawn.caveat or _distrust(drawn.patients, values, len(drawn.values))
    if drawn.patients < 2 or len(values) < 2:
        return Estimate(value, None, None, None, False, distrust, drawn.patients)
    low, high = _interval(value, values, drawn)
    return Estimate(value, low, high, None, distrust is None, distrust, drawn.patients)


def difference(first: Draws, second: Draws) -> Difference:
    """First minus second over the same resamples.

    Raises:
        RequestError: the two were not drawn over the same number of resamples, or have other bounds.
    """
    span = _span(first, second)
    if first.measured.value is None or second.measured.value is None:
        reason = first.measured.reason or second.measured.reason
        return Difference(None, None, None, None, reason, False, "there is no value")
    value = first.measured.value - second.measured.value
    both = first.values - second.values
    values = both[np.isfinite(both)]
    patients = min(first.patients, second.patients)
    distrust = first.caveat or second.caveat or _distrust(patients, values, len(both))
    if patients < 2 or len(values) < 2:
        return Difference(value, None, None, None, None, False, distrust)
    if not np.ptp(values) > 0:
        distrust = distrust or "the difference is the same in every resample"
        return Difference(value, value, value, 1.0 if value == 0 else None, None, False, distrust)
    low, high, p_value = _tested(value, values, span, patients)
    return Difference(value, low, high, max(p_value, 1 / (len(both) + 1)), None, distrust is None, distrust)


def _span(first: Draws, second: Draws) -> float:
    if len(first.values) != len(second.values) or first.bounds != second.bounds:
        raise RequestError("these two are not of the same metric and resamples: draw both with one Resamples")
    return first.bounds[1] - first.bounds[0]


def _patients(patient: Ints, rows: Bools) -> int:
    return len(np.unique(patient[rows]))


def _distrust(patients: int, values: Floats, resamples: int) -> str | None:
    if patients < FEWEST_PATIENTS:
        return f"{patients} patients decide it, and fewer than {FEWEST_PATIENTS} do not carry an interval"
    undefined = (resamples - len(values)) / resamples
    if undefined > MOST_UNDEFINED:
        return f"it is undefined in {undefined:.1%} of the resamples"
    return None


def _interval(value: float, values: Floats, drawn: Draws) -> tuple[float, float]:
    low, high = drawn.bounds
    share, spread = (value - low) / (high - low), float(values.std(ddof=1)) / (high - low)
    if not 0 < share < 1:
        bottom, top = _wilson(share, drawn.patients)
    elif not spread > 0:
        # No patient makes a difference, so at most that many in n do.
        most = _wilson(0.0, drawn.patients)[1]
        bottom, top = max(share - most / 2, 0.0), min(share + most / 2, 1.0)
    elif drawn.shape == "share":
        n = drawn.patients
        bottom, top = _wilson(share, share * (1 - share) / spread**2 * (n - 1) / n)
    else:
        centre, deviation = _logit(value, values, drawn.bounds)
        return _back(centre, _NORMAL * deviation, drawn.bounds)
    return low + (high - low) * bottom, low + (high - low) * top


def _wilson(share: float, n: float) -> tuple[float, float]:
    """Those p for which the share is within 1.96 sqrt(p (1 - p) / n) of p."""
    square = _NORMAL**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = _NORMAL / (1 + square / n) * np.sqrt(share * (1 - share) / n + square / (4 * n**2))
    return 0.0 if share <= 0 else float(centre - half), 1.0 if share >= 1 else float(centre + half)


def _tested(value: float, values: Floats, span: float, patients: int) -> tuple[float, float, float]:
    """Interval and p-value of a difference that lies between -span and span."""
    centre, spread = _logit(value, values, (-span, span))
    low, high = _back(centre, stdtrit(patients - 1, 0.975) * spread, (-span, span))
    return low, high, float(2 * stdtr(patients - 1, -abs(centre) / spread))


def _logit(value: float, values: Floats, bounds: tuple[float, float]) -> tuple[float, float]:
    """The value's logit between its bounds, and the standard deviation of the resampled ones."""
    low, high = bounds
    share = (value - low) / (high - low)
    clip = min(_CLIP, share / 2, (1 - share) / 2)
    resampled = logit(np.clip((values - low) / (high - low), clip, 1 - clip))
    return float(logit(share)), float(resampled.std(ddof=1))


def _back(centre: float, half: float, bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    return float(low + (high - low) * expit(centre - half)), float(low + (high - low) * expit(centre + half))
