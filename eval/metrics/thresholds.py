"""Where a score becomes a claim: thresholds chosen on the validation split, and nowhere else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from cxr_max.errors import RequestError
from cxr_max.eval.metrics.measured import Bools, Floats
from cxr_max.records import Split

Rule = Literal["youden", "f1", "specificity"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A claim is a score of at least ``value``."""

    value: float | None
    rule: str
    """What it maximises, in words."""
    reason: str | None = None
    """Why there is none."""


def choose(
    reference: Bools, score: Floats, *, split: Split, rule: Rule = "youden", specificity: float = 0.9
) -> Threshold:
    """The threshold, among the scores seen, that is best by the rule; of several the highest.

    ``youden`` maximises sensitivity + specificity - 1 (Youden 1950), ``f1`` F1, ``specificity`` the sensitivity
    with at least the given specificity.

    Raises:
        RequestError: the split is not validation, or a row lacks its finite score.
    """
    if split != "validation":
        raise RequestError(f"a threshold chosen on the {split} split flatters: choose it on the validation split")
    scores = np.asarray(score, dtype=np.float64)
    if reference.shape != scores.shape or not np.isfinite(scores).all():
        raise RequestError("give one boolean reference and one finite score for each row")
    name = {
        "youden": "highest Youden index on the validation split",
        "f1": "highest F1 on the validation split",
        "specificity": f"highest sensitivity with specificity of at least {specificity:g} on the validation split",
    }[rule]
    for rows, word in ((reference, "positive"), (~reference, "negative")):
        if not rows.any():
            return Threshold(None, name, f"no reference of the validation split is {word}")
    levels, hits, alarms = _curve(reference, scores)
    value = {"youden": _youden, "f1": _f1, "specificity": _at_specificity(specificity)}[rule](hits, alarms)
    if np.isneginf(value).all():
        return Threshold(None, name, "no threshold reaches the specificity: the highest score is a negative's")
    return Threshold(float(levels[value.argmax()]), name)


def _curve(reference: Bools, score: Floats) -> tuple[Floats, Floats, Floats]:
    """The scores seen, highest first, and the positives and negatives at or above each."""
    levels, level = np.unique(-score, return_inverse=True)
    hits = np.cumsum(np.bincount(level, reference)).astype(np.float64)
    return -levels, hits, np.cumsum(np.bincount(level)) - hits


def _youden(hits: Floats, alarms: Floats) -> Floats:
    """Times positives times negatives: whole numbers, so that ties are ties."""
    return np.asarray(hits * alarms[-1] - alarms * hits[-1])


def _f1(hits: Floats, alarms: Floats) -> Floats:
    return np.asarray(2 * hits / (hits + alarms + hits[-1]))


def _at_specificity(specificity: float) -> Callable[[Floats, Floats], Floats]:
    return lambda hits, alarms: np.where(alarms <= (1 - specificity + 1e-9) * alarms[-1], hits, -np.inf)
