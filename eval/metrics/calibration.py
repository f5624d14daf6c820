"""Whether probabilities mean what they say: Brier score and expected calibration error."""

from typing import Final

import numpy as np

from cxr_max.errors import RequestError
from cxr_max.eval.metrics.measured import Additive, Bools, Floats, everyone, mean_of, ratio

BINS: Final = 15
ECE_CONVENTION: Final = (
    f"{BINS} bins of equal width on [0, 1], each closed above and the first below too; probability of present"
    " against the share present; bins weighted by their rows"
)
ECE_CAVEAT: Final = "the calibration error of few rows is biased upwards, which no resampling mends"


def brier(reference: Bools, probability: Floats) -> Additive:
    """Mean of (probability - reference)^2, 0 to 1, lower is better (Brier 1950)."""
    checked = _checked(reference, probability)
    return mean_of((checked - reference) ** 2)


def expected_calibration_error(reference: Bools, probability: Floats) -> Additive:
    """sum over bins of |sum of probabilities - number present| / n (Guo et al. 2017), by ``ECE_CONVENTION``."""
    checked = _checked(reference, probability)
    n = len(checked)
    bin_of = np.clip(np.ceil(checked * BINS).astype(np.int64) - 1, 0, BINS - 1)
    columns = np.zeros((n, BINS + 1))
    columns[np.arange(n), bin_of] = checked - reference
    columns[:, BINS] = 1
    return Additive(columns, _gap, "there is no row to score", (everyone(n),), shape="smooth", caveat=ECE_CAVEAT)


def _gap(sums: Floats) -> Floats:
    return ratio(np.abs(sums[:, :BINS]).sum(axis=1), sums[:, BINS])


def _checked(reference: Bools, probability: Floats) -> Floats:
    checked = np.asarray(probability, dtype=np.float64)
    if reference.shape != checked.shape or not ((checked >= 0) & (checked <= 1)).all():
        raise RequestError("give one probability between 0 and 1 for each reference")
    return checked
