"""Both protocols of MS-CXR-T against scikit-learn and by hand."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from cxr_max.eval.answers import Data
from cxr_max.eval.metrics.classification import macro_recall
from cxr_max.eval.reference import ReferenceRow
from cxr_max.eval.tasks.progression import ABSENT, COMMONEST, presence_top1, progression
from cxr_max.findings import FINDINGS
from cxr_max.progression import CHANGES, COMPARED, Changes
from tests.eval.data import (
    FAILED,
    REFUSED,
    Key,
    Said,
    World,
    by_key,
    close,
    count_by_hand,
    counts,
    decided,
    positive,
    random_rows,
    random_said,
    suite,
    value_of,
)

SUITE = suite(progression={}, presence_top1={})
MACRO, PLAIN, WRONG = (
    "progression_macro_accuracy", "progression_accuracy", "progression_accuracy_refusals_wrong",
)  # fmt: skip


def world(seed: int, n: int = 300) -> tuple[World, list[Changes | None]]:
    """Pairs whose labels are there for half of the findings, and somebody right about seven in ten of these."""
    chance = Random(seed)
    rows: list[ReferenceRow] = []
    said: list[Changes | None] = []
    for row in random_rows(chance, n, 90):
        truth = {name: chance.choice((*CHANGES, None, None, None)) for name in COMPARED}
        rows.append(replace(row, progression=truth if any(truth.values()) else None))
        reply = {
            name: truth[name] if chance.random() < 0.7 else chance.choice((*CHANGES, None)) for name in COMPARED
        }
        said.append(reply if any(reply.values()) else None)
    return World(rows, {"original": random_said(chance, rows)}), said


def found(made: World, said: Sequence[Changes | None]) -> dict[Key, object]:
    data = replace(made.data, changes=list(said))
    return by_key(progression(data, SUITE))  # type: ignore[return-value]


def by_hand(
    made: World, said: Sequence[Changes | None], name: str
) -> tuple[list[str], list[str], list[str | None]]:
    """Labels and answers of the answered pairs, and answers of all pairs with a reply (their labels apart)."""
    truth, answers, everything = [], [], []
    for row, reply, changes in zip(made.rows, made.said["original"], said, strict=True):
        label = (row.progression or {}).get(name)
        if label is None or reply.status == "failed":
            continue
        everything.append(label if changes and changes[name] == label else None)
        if changes is not None:
            truth.append(label)
            answers.append(changes[name] or "nothing")
    return truth, answers, everything


def test_every_finding_against_scikit_learn() -> None:
    made, said = world(1)
    scores = found(made, said)
    macro = []
    for name in COMPARED:
        truth, answers, everything = by_hand(made, said, name)
        with pytest.warns(UserWarning) if "nothing" in answers else pytest.MonkeyPatch.context():
            recall = balanced_accuracy_score(truth, answers)
        macro.append(recall)
        assert close(value_of(scores[MACRO, name, None, None]), recall)  # type: ignore[arg-type]
        assert close(value_of(scores[PLAIN, name, None, None]), accuracy_score(truth, answers))  # type: ignore[arg-type]
        right = sum(one is not None for one in everything) / len(everything)
        assert close(value_of(scores[WRONG, name, None, None]), right)  # type: ignore[arg-type]
        assert counts(scores[MACRO, name, None, None])[0] == len(truth)  # type: ignore[arg-type]
    assert close(value_of(scores[MACRO, None, None, None]), float(np.mean(macro)))  # type: ignore[arg-type]


def test_macro_accuracy_by_hand() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 2])
    said = np.array([0, 0, 0, 1, 1, -1, 2])
    assert macro_recall(truth, said, 3).measured().value == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert macro_recall(truth, np.full(7, 1), 3).measured().value == pytest.approx(1 / 3)
    none = macro_recall(truth[:6], said[:6], 3).measured()
    assert none.value is None and none.reason == "no reference of one of the classes"


def test_refusals_and_failures_are_counted_and_not_scored() -> None:
    made, said = world(2)
    statuses = [REFUSED if index % 7 == 0 else FAILED if index % 7 == 1 else Said() for index in range(len(said))]
    muted: list[Changes | None] = [
        None if one is not None and statuses[index] is not statuses[2] and index % 7 < 2 else one
        for index, one in enumerate(said)
    ]
    scores = found(replace(made, said={"original": statuses}), muted)
    for name in COMPARED:
        rows = [row for row in range(len(said)) if (made.rows[row].progression or {}).get(name)]
        failed = sum(row % 7 == 1 for row in rows)
        answered = sum(row % 7 != 1 and muted[row] is not None for row in rows)
        assert counts(scores[MACRO, name, None, None]) == (answered, len(rows) - failed - answered, failed)  # type: ignore[arg-type]


def test_whoever_says_the_commonest_has_a_third_and_the_floor_says_so() -> None:
    made, said = world(3)
    scores = found(made, said)
    for name in (None, *COMPARED):
        assert close(value_of(scores[MACRO, name, COMMONEST, None]), 1 / 3)  # type: ignore[arg-type]
        assert (value_of(scores[PLAIN, name, COMMONEST, None]) or 0) > 1 / 3  # type: ignore[arg-type]


def test_a_class_without_a_label_leaves_the_mean_without_a_value() -> None:
    made, said = world(4)
    rows = [
        replace(row, progression={**row.progression, "Edema": None}) if row.progression else row
        for row in made.rows
    ]
    scores = found(replace(made, rows=rows), said)
    assert value_of(scores[MACRO, "Pneumonia", None, None]) is not None  # type: ignore[arg-type]
    assert value_of(scores[MACRO, None, None, None]) is None  # type: ignore[arg-type]


def test_without_labels_of_progression_there_is_no_number() -> None:
    made, said = world(5, n=20)
    bare = replace(made, rows=[replace(row, progression=None) for row in made.rows])
    assert all(
        value_of(one) is None  # type: ignore[arg-type]
        for (metric, *_), one in found(bare, said).items()
        if metric != "refusal_rate"
    )


def test_presence_is_of_findings_alone() -> None:
    made, said = world(6)
    data = replace(made.data, changes=said)
    scores, without = (by_key(presence_top1(one, SUITE)) for one in (data, made.data))
    assert {key: value_of(one) for key, one in scores.items()} == {k: value_of(one) for k, one in without.items()}
    assert {metric for metric, *_ in scores} == {"top1_accuracy", "refusal_rate"}
    values = []
    for name in COMPARED:
        kept = decided(made.rows, name)
        pairs = [
            (positive(row, name), reply.findings.get(name) == 1)
            for row, reply, wanted in zip(made.rows, made.said["original"], kept, strict=True)
            if wanted and reply.ok
        ]
        values.append(sum(truth == claim for truth, claim in pairs) / len(pairs))
        assert close(value_of(scores["top1_accuracy", name, None, None]), values[-1])
        assert counts(scores["top1_accuracy", name, None, None]) == count_by_hand(made.said["original"], kept)
        negative = [not positive(row, name) for row, wanted in zip(made.rows, kept, strict=True) if wanted]
        assert close(value_of(scores["top1_accuracy", name, ABSENT, None]), sum(negative) / len(negative))
    assert close(value_of(scores["top1_accuracy", None, None, None]), float(np.mean(values)))


def test_the_two_tasks_share_no_metric_of_accuracy() -> None:
    made, said = world(7, n=60)
    data: Data = replace(made.data, changes=said)
    one, other = ({metric for metric, *_ in by_key(task(data, SUITE))} for task in (progression, presence_top1))
    assert one & other == {"refusal_rate"} and set(COMPARED) <= set(FINDINGS)
