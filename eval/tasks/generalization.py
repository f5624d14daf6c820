"""How good a model is on this data set, finding by finding, and on average over findings.

Claims are the model's own: present is a claim, everything else is none. Scores are the probabilities that the
model gives; where it gives none they are made of its states: the mean over its samples of 1 for present, 1/2 for
uncertain and 0 otherwise.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np

from cxr_max.drift.states import PRESENT, UNCERTAIN
from cxr_max.eval.answers import Answers, Data
from cxr_max.eval.conditions import ORIGINAL, parse
from cxr_max.eval.metrics import calibration, classification, ranking
from cxr_max.eval.metrics.measured import Bools, Floats, Metric
from cxr_max.eval.metrics.thresholds import choose
from cxr_max.eval.scored import (
    Counted,
    Part,
    Ruler,
    Scored,
    claim_part,
    count,
    counted,
    decides,
    pairs,
    per_finding,
)
from cxr_max.eval.suite import Suite
from cxr_max.findings import FINDINGS

CLAIMS: Final[dict[str, Callable[[Bools, Bools], Metric]]] = {
    "balanced_accuracy": classification.balanced_accuracy,
    "accuracy": classification.accuracy,
    "f1": classification.f1,
    "sensitivity": classification.sensitivity,
    "specificity": classification.specificity,
    "precision": classification.precision,
}
ORDERED: Final[dict[str, Callable[[Bools, Floats], Metric]]] = {
    "auroc": ranking.auroc,
    "average_precision": ranking.average_precision,
}
PROBABILITIES: Final[dict[str, Callable[[Bools, Floats], Metric]]] = {
    "brier": calibration.brier,
    "calibration_error": calibration.expected_calibration_error,
}
_NO_PROBABILITY: Final = "the model gives no probabilities"
_BY_SEEN: Final = ("balanced_accuracy", "f1")


def generalization(everything: Data, suite: Suite) -> Iterator[Scored]:
    """All scores of the task."""
    assert suite.generalization is not None
    settings = suite.generalization
    data = everything.of_split(suite.split)
    answers = data.under(ORIGINAL)
    ruler, common = Ruler.of(data.reference, suite), data.reference.common
    for name, make in CLAIMS.items():
        yield from per_finding(name, ruler, partial(claim_part, make, data, answers), common=common)
    yield from per_finding("accuracy_refusals_wrong", ruler, partial(_refusals_wrong, data), common=common)
    scored = answers.with_scores(scores_of(data))
    ordered = ORDERED | {
        "sensitivity_at_specificity": partial(ranking.sensitivity_at_specificity, specificity=settings.specificity)
    }
    for name, score_metric in ordered.items():
        yield from per_finding(name, ruler, partial(score_part, score_metric, data, scored), common=common)
    for name, score_metric in PROBABILITIES.items():
        yield from per_finding(name, ruler, partial(score_part, score_metric, data, answers), common=common)
    at_threshold = partial(_at_threshold, everything, data, suite)
    yield from per_finding("f1_at_threshold", ruler, at_threshold, common=common)
    yield refusal_rate(data, answers, ruler, None)
    yield from _by_seen(data, answers, ruler)


def scores_of(data: Data) -> Floats:
    """(n, 14): the model's probabilities; for a finding for which it gives none, made of its states. NaN: none."""
    return _given_or(data.under(ORIGINAL), _from_states(data))


def scored_by_states(answers: Answers) -> Answers:
    """The same for one sample under any condition."""
    made = np.where(answers.ok[:, None], worth(answers), np.nan)
    return answers.with_scores(_given_or(answers, made))


def _given_or(answers: Answers, made: Floats) -> Floats:
    given = np.isfinite(answers.scores).any(axis=0)
    scores: Floats = np.where(given, answers.scores, made)
    return scores


def _from_states(data: Data) -> Floats:
    samples = [answers for name, answers in data.answers.items() if parse(name).kind in (ORIGINAL, "sample")]
    total = np.zeros((len(data.reference), len(FINDINGS)))
    drawn = np.zeros((len(data.reference), 1))
    for answers in samples:
        total += np.where(answers.ok[:, None], worth(answers), 0)
        drawn += answers.ok[:, None]
    mean: Floats = np.divide(total, drawn, out=np.full(total.shape, np.nan), where=drawn > 0)
    return mean


def worth(answers: Answers) -> Floats:
    """(n, 14): 1 for present, 1/2 for uncertain, 0 otherwise."""
    worths: Floats = np.where(answers.states == PRESENT, 1.0, np.where(answers.states == UNCERTAIN, 0.5, 0.0))
    return worths


def refusal_rate(data: Data, answers: Answers, ruler: Ruler, condition: str | None) -> Scored:
    """Of the image sets with a reply, those with a reply without findings."""
    replied = np.flatnonzero(~answers.failed)
    refused = answers.refused[replied]
    metric = classification.sensitivity(np.ones(len(replied), dtype=np.bool_), refused)
    everybody = np.ones(len(answers), dtype=np.bool_)
    part = Part(metric, replied, count(answers, everybody))
    return Scored("refusal_rate", None, condition, None, ruler.draw(part), part.counted)


def _refusals_wrong(data: Data, place: int) -> Part:
    answers = data.under(ORIGINAL)
    found = pairs(data.reference, answers, place)
    return Part(classification.accuracy_refusals_wrong(found), found.rows, counted(data.reference, answers, place))


def score_part(make: Callable[[Bools, Floats], Metric], data: Data, answers: Answers, place: int) -> Part:
    """A metric of scores, over the answered rows that have one."""
    scores = answers.scores[:, place]
    rows = np.flatnonzero(decides(data.reference, place) & answers.ok & np.isfinite(scores))
    among = counted(data.reference, answers, place)
    counts = Counted(len(rows), among.refused, among.failed)
    if among.scored and not len(rows):
        return Part(_NO_PROBABILITY, rows, counts)
    return Part(make(data.reference.states[rows, place] == PRESENT, scores[rows]), rows, counts)


def _at_threshold(everything: Data, data: Data, suite: Suite, place: int) -> Part:
    """F1 of the claims that a threshold makes; it is chosen on the validation split."""
    assert suite.generalization is not None
    if suite.split == "validation":
        return _no_threshold("the validation split is what thresholds are chosen on")
    validation = everything.of_split("validation")
    given = [bool(np.isfinite(one.under(ORIGINAL).scores[:, place]).any()) for one in (validation, data)]
    if given[0] != given[1]:
        return _no_threshold("the model gives probabilities on one of the two splits alone")
    chosen_on = scores_of(validation)
    usable = np.flatnonzero(decides(validation.reference, place) & np.isfinite(chosen_on[:, place]))
    threshold = choose(
        validation.reference.states[usable, place] == PRESENT,
        chosen_on[usable, place],
        split="validation",
        rule=suite.generalization.threshold,
        specificity=suite.generalization.specificity,
    )
    if threshold.value is None:
        return _no_threshold(threshold.reason or "there is none")
    value = threshold.value
    scored = data.under(ORIGINAL).with_scores(scores_of(data))
    return score_part(lambda truth, score: classification.f1(truth, score >= value), data, scored, place)


def _no_threshold(reason: str) -> Part:
    return Part(reason, np.empty(0, np.int64), Counted(0, 0, 0))


def _by_seen(data: Data, answers: Answers, ruler: Ruler) -> Iterator[Scored]:
    """Apart for what the training release has seen, if it has seen any."""
    seen = np.array([row.seen for row in data.reference.rows], dtype=np.bool_)
    if not seen.any():
        return
    for group, among in (("seen in training", seen), ("unseen", ~seen)):
        for name in _BY_SEEN:
            make = partial(claim_part, CLAIMS[name], data, answers, among=among)
            yield from per_finding(name, ruler, make, group=group, each=False, common=data.reference.common)
