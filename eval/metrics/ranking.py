"""Metrics of scores, for which only their order matters: AUROC, average precision, sensitivity at a specificity.

Under resampling, the rows are sorted once. Rows of equal score form a group; neighbouring groups that hold one
class only may be merged where that leaves the metric as it is. A sparse matrix (groups, patients) times the
patients' multiplicities gives every group's weight in many resamples at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

from cxr_max.errors import RequestError
from cxr_max.eval.metrics.measured import (
    Bools,
    Counts,
    Floats,
    Ints,
    Measured,
    Shape,
    Values,
    checked_weights,
    measured_of,
    ratio,
)

Curve = Callable[[Any, Any], Floats]
"""(groups, resamples) weights of positives and negatives, from the highest score down -> (resamples,) values."""
_EXACT: Final = 4_000_000
"""Rows up to which float32 holds a resample's doubled counts exactly (2^24), with room for a heavy resample."""
_SLACK: Final = 1e-9
"""A specificity of 0.9 of 10 negatives is reached by 9, whatever 0.9 x 10 rounds to."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """A metric of the order of scores."""

    reference: Bools
    """(n,): the finding is there."""
    score: Floats
    """(n,): higher means more likely there."""
    curve: Curve
    merged: tuple[bool, bool]
    """Whether neighbouring groups of positives only, and of negatives only, may be merged."""
    shape: Shape
    bounds: tuple[float, float] = (0.0, 1.0)
    caveat: str | None = None

    @property
    def deciding(self) -> tuple[Bools, ...]:
        """Both classes."""
        return self.reference, ~self.reference

    def measured(self, weights: Floats | None = None) -> Measured:
        """The value over all rows; one class alone has none."""
        counts = np.ones(len(self.score)) if weights is None else checked_weights(weights, self.score)
        for rows, name in ((self.reference, "positive"), (~self.reference, "negative")):
            if not counts[rows].sum() > 0:
                return Measured(None, f"no reference is {name}" if len(self.score) else "there is no row to score")
        group, groups = self._groups()
        sums = [
            np.bincount(group[rows], counts[rows], groups)[:, None] for rows in (self.reference, ~self.reference)
        ]
        return measured_of(self.curve(*sums)[0], "the curve is undefined")

    def by_patient(self, patient: Ints, patients: int) -> Values:
        """Sort once, and multiply for each block of resamples."""
        precision: type[np.float32] | type[np.float64] = np.float32 if len(self.score) <= _EXACT else np.float64
        group, groups = self._groups()
        positive, negative = (
            csr_matrix((np.ones(rows.sum(), precision), (group[rows], patient[rows])), shape=(groups, patients))
            for rows in (self.reference, ~self.reference)
        )

        def values(multiplicities: Counts) -> Floats:
            weights = np.ascontiguousarray(multiplicities.T, dtype=precision)
            return self.curve(positive @ weights, negative @ weights)

        return values

    def _groups(self) -> tuple[Ints, int]:
        """(n,) the group of each row, 0 for the highest score, and how many there are."""
        _, tied = np.unique(-self.score, return_inverse=True)
        positive, negative = np.bincount(tied, self.reference) > 0, np.bincount(tied, ~self.reference) > 0
        starts = np.ones(len(positive), dtype=np.bool_)
        if self.merged[0]:
            starts[1:] &= negative[1:] | negative[:-1]
        if self.merged[1]:
            starts[1:] &= positive[1:] | positive[:-1]
        return (np.cumsum(starts) - 1)[tied], int(starts.sum())


def auroc(reference: Bools, score: Floats) -> Ranked:
    """Area under the ROC curve: P(positive scores above negative) + P(equal) / 2 (Mann and Whitney 1947)."""
    return Ranked(reference, _checked(reference, score), _auroc, (True, True), "smooth")


def average_precision(reference: Bools, score: Floats) -> Ranked:
    """AUPRC as average precision: the sum over thresholds of precision times the step in recall."""
    return Ranked(reference, _checked(reference, score), _average_precision, (False, True), "smooth")


def sensitivity_at_specificity(reference: Bools, score: Floats, specificity: float) -> Ranked:
    """The highest sensitivity of any threshold (score >= threshold) with at least this specificity.

    A point of the curve of these very rows, not the performance of a threshold fixed beforehand: that is
    ``classification.sensitivity`` of claims made with a threshold from ``thresholds``.

    Raises:
        RequestError: the specificity does not lie between 0 and 1.
    """
    if not 0 < specificity < 1:
        raise RequestError(f"a specificity of {specificity} is out of range: give one above 0 and below 1")

    def curve(positive: Any, negative: Any) -> Floats:
        return _sensitivity_at(positive, negative, specificity)

    return Ranked(reference, _checked(reference, score), curve, (True, True), "share")


def _checked(reference: Bools, score: Floats) -> Floats:
    scores = np.asarray(score, dtype=np.float64)
    if reference.shape != scores.shape or reference.dtype != np.bool_ or not np.isfinite(scores).all():
        raise RequestError(
            "give one boolean reference and one finite score for each row; leave out rows without a score"
        )
    return scores


def _auroc(positive: Any, negative: Any) -> Floats:
    """Twice the pairs: below each group's positives lie the negatives of later groups, and half of its own."""
    above = np.cumsum(negative, axis=0)
    total = above[-1].astype(np.float64)
    above *= 2
    above -= negative
    lost = np.einsum("gb,gb->b", positive, above, dtype=np.float64)
    pairs = 2 * positive.sum(axis=0, dtype=np.float64) * total
    return 1 - ratio(lost, pairs)


def _average_precision(positive: Any, negative: Any) -> Floats:
    hits = np.cumsum(positive, axis=0, dtype=np.float64)
    claims = np.cumsum(negative, axis=0, dtype=np.float64)
    claims += hits
    precision = np.divide(hits, claims, out=np.zeros_like(hits), where=claims > 0)
    area = np.einsum("gb,gb->b", precision, positive)
    return np.where(claims[-1] > hits[-1], ratio(area, hits[-1]), np.nan)


def _sensitivity_at(positive: Any, negative: Any, specificity: float) -> Floats:
    hits = np.cumsum(positive, axis=0, dtype=np.float64)
    alarms = np.cumsum(negative, axis=0, dtype=np.float64)
    allowed = alarms <= (1 - specificity + _SLACK) * alarms[-1]
    best = np.where(allowed, hits, 0.0).max(axis=0)
    return np.where(alarms[-1] > 0, ratio(best, hits[-1]), np.nan)
