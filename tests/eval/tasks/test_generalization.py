"""Every number of the generalization task against scikit-learn, from the raw rows."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from cxr_max.eval.scored import Scored
from cxr_max.eval.scoring import score_all
from cxr_max.eval.tasks.generalization import generalization
from cxr_max.findings import FINDINGS
from tests.eval.data import (
    FAILED,
    REFUSED,
    Key,
    Said,
    World,
    by_key,
    check_score,
    close,
    common_by_hand,
    count_by_hand,
    counts,
    decided,
    mean_of,
    positive,
    random_rows,
    random_said,
    random_world,
    row,
    suite,
    value_of,
    with_scores,
)

SUITE = suite(generalization={})
SCORED = FINDINGS[:5]
"""Findings for which the scored model gives probabilities."""
Metric = Callable[[list[bool], list[float]], float | None]
Curve = list[tuple[list[bool], list[float]]]


def found(world: World, **settings: object) -> dict[Key, Scored]:
    return by_key(generalization(world.data, suite(generalization=settings)))


@cache
def plain() -> tuple[World, dict[Key, Scored]]:
    """A model without probabilities, and its validation rows."""
    world = random_world(1)
    chance = Random(2)
    more = random_rows(chance, 80, 40, split="validation", first=500)
    said = {"original": [*world.said["original"], *random_said(chance, more)]}
    for name in ("sample-1", "sample-2"):
        said[name] = [*world.said[name], *[FAILED] * len(more)]
    both = World([*world.rows, *more], said)
    return both, found(both)


@cache
def with_probabilities() -> tuple[World, dict[Key, Scored]]:
    """The same with probabilities of some findings."""
    world = plain()[0]
    chance = Random(3)
    scored = replace(world, said={**world.said, "original": with_scores(chance, world.said["original"], SCORED)})
    return scored, found(scored)


@pytest.fixture(params=[plain, with_probabilities], ids=["states", "probabilities"])
def both(request: pytest.FixtureRequest) -> tuple[World, dict[Key, Scored]]:
    world, scores = request.param()
    return world.of_split("test"), scores


def worth(said: Said, name: str) -> float:
    return {1: 1.0, -1: 0.5}.get(said.state(name), 0.0)


def score_by_hand(world: World, name: str, index: int, *, made: bool = True) -> float | None:
    """The probability given, or, for a finding without any, the mean worth of the samples that were answered."""
    original = world.said["original"]
    if any(name in one.scores for one in original if one.ok):
        return original[index].scores.get(name) if original[index].ok else None
    samples = [world.said[c][index] for c in ("original", "sample-1", "sample-2")]
    worths = [worth(one, name) for one in samples if one.ok]
    return sum(worths) / len(worths) if made and original[index].ok and worths else None


def claims(world: World, name: str) -> tuple[list[bool], list[bool]]:
    pairs = [
        (positive(one, name), said.findings.get(name) == 1)
        for one, said, kept in zip(world.rows, world.said["original"], decided(world.rows, name), strict=True)
        if kept and said.ok
    ]
    return [truth for truth, _ in pairs], [claim for _, claim in pairs]


def ordered(world: World, name: str, *, made: bool = True) -> tuple[list[bool], list[float]]:
    kept = decided(world.rows, name)
    rows = [
        (index, score_by_hand(world, name, index, made=made)) for index in range(len(world.rows)) if kept[index]
    ]
    known = [(positive(world.rows[index], name), score) for index, score in rows if score is not None]
    return [truth for truth, _ in known], [score for _, score in known]


def check_findings_and_mean(
    scores: dict[Key, Scored], metric: str, expected: dict[str, float | None], world: World
) -> None:
    for name in FINDINGS:
        assert close(value_of(scores[metric, name, None, None]), expected[name]), (metric, name)
    mean = scores[metric, None, None, None]
    common = common_by_hand(world.rows)
    assert 0 < len(common) <= 14
    whole = all(expected[name] is not None for name in common)
    assert close(value_of(mean), mean_of(expected, common) if whole else None)
    parts = [counts(scores[metric, name, None, None]) for name in common]
    assert counts(mean) == tuple(map(sum, zip(*parts, strict=True)))


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        ("balanced_accuracy", balanced_accuracy_score),
        ("accuracy", accuracy_score),
        ("f1", f1_score),
        ("sensitivity", recall_score),
        ("specificity", lambda truth, claim: recall_score(truth, claim, pos_label=False)),
        ("precision", precision_score),
    ],
)
def test_claims_score_what_scikit_learn_says(
    both: tuple[World, dict[Key, Scored]], metric: str, reference: Callable[..., float]
) -> None:
    world, scores = both
    expected: dict[str, float | None] = {name: float(reference(*claims(world, name))) for name in FINDINGS}
    check_findings_and_mean(scores, metric, expected, world)
    for name in FINDINGS:
        kept = decided(world.rows, name)
        assert counts(scores[metric, name, None, None]) == count_by_hand(world.said["original"], kept)


@pytest.mark.parametrize(
    ("metric", "reference"), [("auroc", roc_auc_score), ("average_precision", average_precision_score)]
)
def test_scores_rank_as_scikit_learn_says(
    both: tuple[World, dict[Key, Scored]], metric: str, reference: Callable[..., float]
) -> None:
    world, scores = both
    expected: dict[str, float | None] = {name: float(reference(*ordered(world, name))) for name in FINDINGS}
    check_findings_and_mean(scores, metric, expected, world)


def sensitivity_at(truth: list[bool], score: list[float], specificity: float) -> float:
    """By scikit-learn's curve of every threshold."""
    false, true, _ = roc_curve(truth, score, drop_intermediate=False)
    return float(max(hit for alarm, hit in zip(false, true, strict=True) if 1 - alarm >= specificity - 1e-12))


@pytest.mark.parametrize("specificity", [0.5, 0.9])
def test_sensitivity_at_specificity(specificity: float) -> None:
    everything = with_probabilities()[0]
    world = everything.of_split("test")
    scores = found(everything, specificity=specificity)
    expected: dict[str, float | None] = {
        name: sensitivity_at(*ordered(world, name), specificity) for name in FINDINGS
    }
    check_findings_and_mean(scores, "sensitivity_at_specificity", expected, world)


def calibration_error(truth: list[bool], score: list[float]) -> float:
    """Fifteen bins, closed above: a plain loop."""
    gap = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = [i for i, p in enumerate(score) if low < p <= high or (number == 0 and p == 0)]
        gap += abs(sum(score[i] - truth[i] for i in inside))
    return gap / len(score)


@pytest.mark.parametrize(
    ("metric", "reference"), [("brier", brier_score_loss), ("calibration_error", calibration_error)]
)
def test_probabilities(metric: str, reference: Callable[..., float]) -> None:
    """Only what the model gives is one: states are not made into probabilities here."""
    everything, scores = with_probabilities()
    world = everything.of_split("test")
    expected: dict[str, float | None] = {
        name: float(reference(*ordered(world, name, made=False))) if name in SCORED else None for name in FINDINGS
    }
    check_findings_and_mean(scores, metric, expected, world)
    assert scores[metric, FINDINGS[-1], None, None].drawn.measured.reason == "the model gives no probabilities"
    assert all(value_of(plain()[1][metric, name, None, None]) is None for name in (*FINDINGS, None))


def threshold_by_hand(truth: list[bool], score: list[float], rule: str) -> float:
    """Every score seen is tried; of equals the highest."""

    def worth_of(threshold: float) -> float:
        claim = [p >= threshold for p in score]
        if rule == "f1":
            return float(f1_score(truth, claim))
        return float(recall_score(truth, claim) + recall_score(truth, claim, pos_label=False))

    return max(sorted(set(score), reverse=True), key=lambda threshold: round(worth_of(threshold), 12))


@pytest.mark.parametrize("rule", ["youden", "f1"])
@pytest.mark.parametrize("given", [plain, with_probabilities])
def test_f1_at_a_threshold_of_the_validation_split(rule: str, given: Callable[[], tuple[World, object]]) -> None:
    everything = given()[0]
    world, validation = everything.of_split("test"), everything.of_split("validation")
    scores = found(everything, threshold=rule)
    expected: dict[str, float | None] = {}
    for name in FINDINGS:
        threshold = threshold_by_hand(*ordered(validation, name), rule)
        truth, score = ordered(world, name)
        expected[name] = float(f1_score(truth, [p >= threshold for p in score]))
    check_findings_and_mean(scores, "f1_at_threshold", expected, world)


def test_refusals_by_hand(both: tuple[World, dict[Key, Scored]]) -> None:
    world, scores = both
    said = world.said["original"]
    replies = [one for one in said if one.status != "failed"]
    rate = scores["refusal_rate", None, None, None]
    assert close(value_of(rate), sum(not one.ok for one in replies) / len(replies))
    assert counts(rate) == count_by_hand(said, [True] * len(said))
    expected: dict[str, float | None] = {}
    for name in FINDINGS:
        kept = [
            one.ok and (one.findings.get(name) == 1) == positive(ref, name)
            for ref, one, use in zip(world.rows, said, decided(world.rows, name), strict=True)
            if use and one.status != "failed"
        ]
        expected[name] = sum(kept) / len(kept)
    check_findings_and_mean(scores, "accuracy_refusals_wrong", expected, world)


@pytest.mark.parametrize(
    ("metric", "reference"), [("balanced_accuracy", balanced_accuracy_score), ("f1", f1_score)]
)
def test_what_training_has_seen_stands_apart(metric: str, reference: Callable[..., float]) -> None:
    everything, scores = plain()
    world = everything.of_split("test")
    common = common_by_hand(world.rows)
    for group, seen in (("seen in training", True), ("unseen", False)):
        part = world.take([index for index, one in enumerate(world.rows) if one.seen is seen])
        expected: dict[str, float | None] = {name: float(reference(*claims(part, name))) for name in common}
        assert close(value_of(scores[metric, None, None, group]), mean_of(expected, common))


def test_the_two_groups_are_left_out_where_nothing_was_seen() -> None:
    world = random_world(5, n=60, patients=30)
    unseen = replace(world, rows=[replace(one, seen=False) for one in world.rows])
    assert {group for *_, group in found(unseen)} == {None}


def test_what_failed_lowers_no_score() -> None:
    """Nor does an uncertain reference: whatever is said about it, the numbers are the same."""
    world = plain()[0].of_split("test")
    said = world.said["original"]
    whole = found(World(world.rows, {"original": said}))
    answered = [index for index, one in enumerate(said) if one.status != "failed"]
    assert len(answered) < len(said)
    less = found(World(world.rows, {"original": said}).take(answered))
    moved = [
        replace(
            one, findings={**one.findings, **{n: 1 for n in FINDINGS if ref.findings and ref.findings[n] == -1}}
        )
        for ref, one in zip(world.rows, said, strict=True)
    ]
    other = found(World(world.rows, {"original": moved}))
    for name in FINDINGS:
        for metric in ("balanced_accuracy", "auroc", "f1", "refusal_rate", "accuracy_refusals_wrong"):
            key: Key = (metric, None if metric == "refusal_rate" else name, None, None)
            assert close(value_of(whole[key]), value_of(less[key]))
            assert close(value_of(whole[key]), value_of(other[key]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_numbers_do_not_depend_on_the_order_of_rows(seed: int) -> None:
    world = plain()[0]
    order = list(range(len(world.rows)))
    Random(seed).shuffle(order)
    first, second = plain()[1], found(world.take(order))
    assert first.keys() == second.keys()
    for key, one in first.items():
        assert close(value_of(one), value_of(second[key])) and counts(one) == counts(second[key]), key


def test_numbers_do_not_depend_on_the_suites_beside_it() -> None:
    """Samples that another suite asked for: the hash is the same, so must be the numbers."""
    world, using = plain()[0], suite(generalization={})
    alone = World(world.rows, {"original": world.said["original"]})
    first, second = (by_key(one for _, one in score_all(each.data, using)) for each in (world, alone))
    assert first.keys() == second.keys()
    for key, one in first.items():
        assert close(value_of(one), value_of(second[key])), key


def test_a_threshold_is_not_chosen_on_the_scored_split() -> None:
    world = plain()[0]
    scores = by_key(generalization(world.data, suite(generalization={}, split="validation")))
    assert value_of(scores["f1_at_threshold", None, None, None]) is None
    without = found(world.of_split("test"))
    reason = without["f1_at_threshold", FINDINGS[0], None, None].drawn.measured.reason
    assert reason == "no reference of the validation split is positive"


# Degenerate worlds.


def degenerate() -> dict[str, World]:
    chance = Random(9)
    rows = random_rows(chance, 30, 12)
    said = random_said(chance, rows)
    everything_absent = [row(k, k, dict.fromkeys(FINDINGS, 0)) for k in range(20)]
    everything_present = [row(k, k, dict.fromkeys(FINDINGS, 1)) for k in range(20)]
    some = random_said(chance, everything_absent)
    return {
        "no positives": World(everything_absent, {"original": some}),
        "positives only": World(everything_present, {"original": some}),
        "all uncertain": World([row(k, k, dict.fromkeys(FINDINGS, -1)) for k in range(20)], {"original": some}),
        "all refused": World(rows, {"original": [REFUSED] * 30}),
        "all failed": World(rows, {"original": [FAILED] * 30}),
        "nothing asked": World(rows, {}),
        "nothing labelled": World([row(k, k, labelled=False) for k in range(20)], {"original": some}),
        "one patient": World([replace(one, subject_id="p") for one in rows], {"original": said}),
        "one image set": World(rows[:1], {"original": said[:1]}),
        "one class in the seen": World([replace(one, seen=True) for one in rows], {"original": said}),
        "scores of refusals only": World(
            rows, {"original": [replace(one, scores={"Edema": 0.5}) for one in said]}
        ),
    }


@pytest.mark.parametrize("name", degenerate())
def test_a_degenerate_world_has_reasons_and_no_nan(name: str) -> None:
    world = degenerate()[name]
    for scored in generalization(world.data, SUITE):
        check_score(scored.score("m", "d", "generalization", SUITE))


def test_the_reasons_by_hand() -> None:
    worlds = degenerate()
    reasons = {
        ("no positives", "sensitivity"): "no reference is positive",
        ("no positives", "balanced_accuracy"): "references of one kind only",
        ("no positives", "f1"): "no reference is positive",
        ("positives only", "specificity"): "no reference is negative",
        ("positives only", "auroc"): "no reference is negative",
        ("all refused", "accuracy"): "there is no row to score",
        ("all failed", "accuracy_refusals_wrong"): "there is no row to score",
        ("nothing labelled", "auroc"): "there is no row to score",
    }
    for (name, metric), reason in reasons.items():
        assert found(worlds[name])[metric, "Edema", None, None].drawn.measured.reason == reason
    assert value_of(found(worlds["all refused"])["accuracy_refusals_wrong", "Edema", None, None]) == 0
    assert value_of(found(worlds["all refused"])["refusal_rate", None, None, None]) == 1


def test_intervals_hold_their_values() -> None:
    for world, scores in (plain(), with_probabilities()):
        assert len(world.rows) > 200
        for scored in scores.values():
            check_score(scored.score("m", "d", "generalization", SUITE))


def test_a_perfect_and_a_blind_model() -> None:
    rows = [row(k, k, dict.fromkeys(FINDINGS, 1 if k % 3 == 0 else 0)) for k in range(90)]
    perfect: Sequence[Said] = [Said(dict(one.findings or {})) for one in rows]
    scores = found(World(rows, {"original": perfect}))
    for metric in (
        "balanced_accuracy",
        "accuracy",
        "f1",
        "auroc",
        "average_precision",
        "sensitivity_at_specificity",
    ):
        assert value_of(scores[metric, None, None, None]) == 1
    blind = found(World(rows, {"original": [Said(dict.fromkeys(FINDINGS, 1))] * 90}))
    assert value_of(blind["balanced_accuracy", None, None, None]) == 0.5
    assert value_of(blind["auroc", None, None, None]) == 0.5
    np.testing.assert_allclose(value_of(blind["average_precision", None, None, None]), 1 / 3)
