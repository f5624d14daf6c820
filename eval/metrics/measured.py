"""What a metric is: a number, or the reason why there is none, and how it changes when patients are resampled.

Most metrics are functions of sums over rows (``Additive``): accuracy of four counts, corpus BLEU of its n-gram
counts, Krippendorff's alpha of a coincidence matrix. Resampling patients then means adding up patients' sums, a
matrix product, whatever the metric. Those that need the rows' order are in ``ranking``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cxr_max.errors import RequestError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.uint8]
Values = Callable[[Counts], Floats]
"""(resamples, patients) multiplicities -> (resamples,) values; NaN, inside this computation only, where a resample
leaves the metric undefined."""
Shape = Literal["share", "smooth"]
"""How its interval is made (see ``bootstrap``): a ``share`` of things counted is discrete near its bounds; a
``smooth`` number is not."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric's value, or ``None`` with the reason."""

    value: float | None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError("a measured number has either a value or the reason why there is none")


class Metric(Protocol):
    """One metric of one model over n rows. Rows belong to patients only when it is resampled."""

    @property
    def shape(self) -> Shape: ...
    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value there can be."""

    @property
    def deciding(self) -> tuple[Bools, ...]:
        """(n,) each: rows without which the metric means nothing, as the positives and the negatives of AUROC."""

    @property
    def caveat(self) -> str | None:
        """Why no interval of this metric can be trusted, if so."""

    def measured(self, weights: Floats | None = None) -> Measured:
        """The value over all rows; (n,) weights, not negative, say how often each row counts (once if None)."""

    def by_patient(self, patient: Ints, patients: int) -> Values:
        """Prepare for resampling. ``patient`` (n,) indexes 0 ... ``patients`` - 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Additive:
    """A metric that is a function of sums over rows."""

    columns: Floats
    """(n, k): what each row adds to the k sums."""
    formula: Callable[[Floats], Floats]
    """(m, k) sums -> (m,) values; NaN where undefined."""
    undefined: str
    """The reason where the formula gives none."""
    deciding: tuple[Bools, ...]
    shape: Shape = "share"
    bounds: tuple[float, float] = (0.0, 1.0)
    caveat: str | None = None

    def measured(self, weights: Floats | None = None) -> Measured:
        """The value over all rows."""
        if not len(self.columns):
            return Measured(None, "there is no row to score")
        sums = (
            self.columns.sum(axis=0) if weights is None else checked_weights(weights, self.columns) @ self.columns
        )
        return measured_of(self.formula(sums[None])[0], self.undefined)

    def by_patient(self, patient: Ints, patients: int) -> Values:
        """Sums per patient once; then each resample is one row of a matrix product."""
        sums = self.per_patient(patient, patients)
        return lambda multiplicities: self.formula(multiplicities.astype(np.float64) @ sums)

    def per_patient(self, patient: Ints, patients: int) -> Floats:
        """(patients, k): what each patient's rows add to the k sums."""
        width = self.columns.shape[1]
        sums = np.empty((patients, width))
        for column in range(width):
            sums[:, column] = np.bincount(patient, self.columns[:, column], patients)
        return sums


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise; NaN where the denominator is 0."""
    undefined = np.full(numerator.shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=undefined, where=denominator != 0))


def mean_of(values: Sequence[float] | Floats, bounds: tuple[float, float] = (0.0, 1.0)) -> Additive:
    """The mean of one number per row, as a smooth metric."""
    numbers = np.asarray(values, dtype=np.float64)
    columns = np.stack([numbers, np.ones(len(numbers))], axis=1)
    return Additive(columns, _mean, "there is no row to score", (everyone(len(numbers)),), "smooth", bounds)


def everyone(n: int) -> Bools:
    """(n,): every row decides."""
    return np.ones(n, dtype=np.bool_)


def measured_of(value: float, undefined: str) -> Measured:
    """A NaN of the computation becomes ``None`` with its reason."""
    return Measured(None, undefined) if np.isnan(value) else Measured(float(value))


def checked_weights(weights: Floats, rows: Floats | Bools) -> Floats:
    """(n,) weights as float64.

    Raises:
        RequestError: there is not one finite weight, 0 or more, per row.
    """
    checked = np.asarray(weights, dtype=np.float64)
    if checked.shape != (len(rows),) or not (np.isfinite(checked) & (checked >= 0)).all():
        raise RequestError(f"give one finite weight, 0 or more, for each of the {len(rows)} rows")
    return checked


def _mean(sums: Floats) -> Floats:
    return ratio(sums[:, 0], sums[:, 1])
