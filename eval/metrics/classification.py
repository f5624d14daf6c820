"""One finding, present or not: what a model claims against what the reference says.

Each function returns an ``Additive``: its value is ``.measured()``, its interval comes from ``bootstrap``. TP, FP,
FN, TN are the (weighted) counts of claims that are right, claims that are wrong, positives without a claim and
negatives without one. Metrics of scores are in ``ranking``, of probabilities in ``calibration``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cxr_max.errors import RequestError
from cxr_max.eval.metrics.measured import Additive, Bools, Floats, Ints, everyone, ratio
from cxr_max.findings import FINDINGS, Findings

NULL_RULES: Final = (
    "a prediction of uncertain or not mentioned is no positive claim; a reference of not mentioned is negative,"
    " and one of uncertain leaves the row out; a reply without findings is refused, and no claim"
)
"""How the four states become two."""


@dataclass(frozen=True, slots=True, eq=False)
class Binary:
    """One finding over the rows whose reference decides it."""

    rows: Ints
    """(n,): which of the given rows these are, ascending."""
    reference: Bools
    """(n,): the finding is there."""
    claim: Bools
    """(n,): the model says it is there; false where it refused."""
    answered: Bools
    """(n,): the model gave findings."""

    def of_answered(self) -> "Binary":
        """Only the rows that the model answered."""
        kept = self.answered
        return Binary(self.rows[kept], self.reference[kept], self.claim[kept], self.answered[kept])


def binary(references: Sequence[Findings], predictions: Sequence[Findings | None], finding: str) -> Binary:
    """One finding of paired references and predictions, by ``NULL_RULES``; ``None`` is a refusal.

    What failed for want of a reply (a broken connection) is no prediction: leave its row out of both.

    Raises:
        RequestError: the two differ in length, or the finding is none of the 14.
    """
    if finding not in FINDINGS:
        raise RequestError(f"{finding!r} is none of the 14 findings: give one of {', '.join(FINDINGS)}")
    if len(references) != len(predictions):
        raise RequestError(f"{len(references)} references and {len(predictions)} predictions: give one a row")
    truth = np.array([_code(findings.get(finding)) for findings in references], dtype=np.int8)
    said = np.array([row is not None and row.get(finding) == 1 for row in predictions], dtype=np.bool_)
    answered = np.array([row is not None for row in predictions], dtype=np.bool_)
    rows = np.flatnonzero(truth != -1)
    return Binary(rows, truth[rows] == 1, said[rows], answered[rows])


def accuracy(reference: Bools, claim: Bools) -> Additive:
    """(TP + TN) / n. Over ``Binary.of_answered()`` refusals are left out."""
    right = _checked(reference, claim) == claim
    return _share(right, everyone(len(right)), "there is no row to score")


def accuracy_refusals_wrong(pairs: Binary) -> Additive:
    """(TP + TN) / n, where a refusal is wrong: the one metric that punishes refusing."""
    right = (pairs.reference == pairs.claim) & pairs.answered
    return _share(right, everyone(len(right)), "there is no row to score")


def sensitivity(reference: Bools, claim: Bools) -> Additive:
    """TP / (TP + FN): recall."""
    return _share(claim, reference, "no reference is positive")


def specificity(reference: Bools, claim: Bools) -> Additive:
    """TN / (TN + FP)."""
    return _share(~claim, ~reference, "no reference is negative")


def balanced_accuracy(reference: Bools, claim: Bools) -> Additive:
    """(sensitivity + specificity) / 2: one half for whoever does not look, whatever the prevalence."""
    right = _checked(reference, claim) == claim
    columns = np.stack([right & reference, reference, right & ~reference, ~reference], axis=1).astype(np.float64)
    return Additive(columns, _balanced, "references of one kind only", (reference, ~reference))


def macro_recall(reference: Ints, said: Ints, classes: int) -> Additive:
    """The mean over classes of the share of its references that is said to be it: 1 / classes for guessing.

    Args:
        reference, said: (n,), 0 to ``classes`` - 1; what is said may be another number, which is always wrong.
    """
    of_class = [reference == one for one in range(classes)]
    right = reference == said
    columns = np.stack([part for one in of_class for part in (one & right, one)], axis=1).astype(np.float64)
    return Additive(columns, _mean_of_ratios, "no reference of one of the classes", tuple(of_class))


def precision(reference: Bools, claim: Bools) -> Additive:
    """TP / (TP + FP): positive predictive value."""
    return _share(reference, claim, "the model claims nothing")


def f1(reference: Bools, claim: Bools) -> Additive:
    """2 TP / (2 TP + FP + FN).

    Undefined where no reference is positive: every claim would be wrong, and no model could score better than 0.
    """
    columns = np.stack([_checked(reference, claim) & claim, reference, claim], axis=1).astype(np.float64)
    return Additive(columns, _dice, "no reference is positive", (reference,))


def micro_f1(pairs: Sequence[tuple[Bools, Bools]], kept: Sequence[Bools]) -> Additive:
    """F1 over the counts of several findings together.

    ``pairs`` holds (n,) references and claims per finding, ``kept`` the (n,) rows whose reference decides it.
    """
    columns = sum(
        np.stack([truth & claim & keep, truth & keep, claim & keep], axis=1).astype(np.float64)
        for (truth, claim), keep in zip(pairs, kept, strict=True)
    )
    if not isinstance(columns, np.ndarray):
        raise RequestError("micro F1 is of one finding or more: give at least one")
    return Additive(columns, _dice, "no reference is positive", (columns[:, 1] > 0,))


def _code(state: int | None) -> int:
    return 0 if state is None else state


def _share(numerator: Bools, denominator: Bools, undefined: str) -> Additive:
    """Of the rows in the denominator, those in the numerator; the former decide."""
    _checked(numerator, denominator)
    columns = np.stack([numerator & denominator, denominator], axis=1).astype(np.float64)
    return Additive(columns, _ratio_of_sums, undefined, (denominator,))


def _checked(reference: Bools, claim: Bools) -> Bools:
    if reference.shape != claim.shape or reference.dtype != np.bool_ or claim.dtype != np.bool_:
        raise RequestError(f"references {reference.shape} and claims {claim.shape} differ: give one boolean a row")
    return reference


def _ratio_of_sums(sums: Floats) -> Floats:
    return ratio(sums[:, 0], sums[:, 1])


def _mean_of_ratios(sums: Floats) -> Floats:
    return np.asarray(ratio(sums[:, ::2], sums[:, 1::2]).mean(axis=1))


def _balanced(sums: Floats) -> Floats:
    return np.asarray((ratio(sums[:, 0], sums[:, 1]) + ratio(sums[:, 2], sums[:, 3])) / 2)


def _dice(sums: Floats) -> Floats:
    """Sums of TP, of positive references, of claims."""
    score = ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2])
    return np.where(sums[:, 1] > 0, score, np.nan)
