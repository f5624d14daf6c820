"""MS-CXR-T, in two protocols that have nothing in common but pictures: two tasks, whose numbers share no table.

``progression`` is the official one (Bannur et al. 2023, BioViL-T): two pictures in time order, one of three
classes for each finding, macro accuracy. ``presence_top1`` is what arXiv 2510.04142 seems to report: whether a
finding is there, on the later picture alone. That paper says neither which classes its top-1 accuracy is over nor
what it is held against; what is computed here is the project's own reading, and stands in the documentation.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from cxr_max.drift.states import PRESENT
from cxr_max.eval.answers import OK, Answers, Data
from cxr_max.eval.conditions import ORIGINAL
from cxr_max.eval.metrics import classification
from cxr_max.eval.metrics.measured import Bools, Ints, Metric
from cxr_max.eval.scored import Counted, Part, Ruler, Scored, claim_part, count, decides, per_finding
from cxr_max.eval.suite import Suite
from cxr_max.eval.tasks.generalization import refusal_rate
from cxr_max.findings import FINDINGS
from cxr_max.progression import CHANGES, COMPARED, Change, Changes
from cxr_max.records import PREDICTION_STATUSES

COMMONEST: Final = "floor: the commonest change"
ABSENT: Final = "floor: nothing is there"
PLACES: Final = tuple(FINDINGS.index(name) for name in COMPARED)
"""Of the five findings: means are over all of them, whatever the reference holds."""
_UNPARSED: Final = PREDICTION_STATUSES.index("unparsed")
_NOTHING: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """What is true and what is said about n pairs."""

    truth: Ints
    """(n, 5): index ``CHANGES``; -1 where nothing says."""
    said: Ints
    """(n, 5): likewise."""
    answers: Answers
    """With status ok where, and only where, a change was said."""


def progression(everything: Data, suite: Suite) -> Iterator[Scored]:
    """All scores of the official protocol."""
    data = everything.of_split(suite.split)
    pairs, ruler = _compared(data), Ruler.of(data.reference, suite)
    for name, make in _METRICS.items():
        yield from per_finding(name, ruler, partial(_part, make, pairs), places=PLACES, common=PLACES)
    yield from per_finding(
        "progression_accuracy_refusals_wrong", ruler, partial(_refusals_wrong, pairs), places=PLACES, common=PLACES
    )
    yield refusal_rate(data, pairs.answers, ruler, None)
    floor = replace(pairs, said=_commonest(pairs.truth), answers=_answering(pairs.answers))
    for name, make in _METRICS.items():
        of_floor = partial(_part, make, floor)
        yield from per_finding(name, ruler, of_floor, places=PLACES, common=PLACES, condition=COMMONEST)


def presence_top1(everything: Data, suite: Suite) -> Iterator[Scored]:
    """All scores of the other one: a claim of presence against the labels of the later study."""
    data = everything.of_split(suite.split)
    answers, ruler = data.under(ORIGINAL), Ruler.of(data.reference, suite)
    make = partial(claim_part, classification.accuracy, data, answers)
    yield from per_finding("top1_accuracy", ruler, make, places=PLACES, common=PLACES)
    yield refusal_rate(data, answers, ruler, None)
    floor = partial(_nothing_there, data)
    yield from per_finding("top1_accuracy", ruler, floor, places=PLACES, common=PLACES, condition=ABSENT)


def _macro(truth: Ints, said: Ints) -> Metric:
    return classification.macro_recall(truth, said, len(CHANGES))


def _plain(truth: Ints, said: Ints) -> Metric:
    return classification.accuracy(np.ones(len(truth), dtype=np.bool_), truth == said)


_METRICS: Final[dict[str, Callable[[Ints, Ints], Metric]]] = {
    "progression_macro_accuracy": _macro,
    "progression_accuracy": _plain,
}


def _compared(data: Data) -> _Compared:
    answers = data.under(ORIGINAL)
    changes = data.changes or [None] * len(data.reference)
    said = _codes(changes)
    answered = (said != _NOTHING).any(axis=1) & ~answers.failed
    mute = answers.ok & ~answered
    status = np.where(answered, OK, np.where(mute, _UNPARSED, answers.status)).astype(answers.status.dtype)
    return _Compared(
        _codes([row.progression for row in data.reference.rows]), said, replace(answers, status=status)
    )


def _codes(changes: Sequence[Changes | None]) -> Ints:
    rows = [[_code((one or {}).get(name)) for name in COMPARED] for one in changes]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(COMPARED))


def _code(change: Change | None) -> int:
    return _NOTHING if change is None else CHANGES.index(change)


def _part(make: Callable[[Ints, Ints], Metric], pairs: _Compared, place: int) -> Part:
    """One finding, over the pairs that have a label and an answer."""
    column = PLACES.index(place)
    decided = pairs.truth[:, column] != _NOTHING
    rows = np.flatnonzero(decided & pairs.answers.ok)
    return Part(make(pairs.truth[rows, column], pairs.said[rows, column]), rows, count(pairs.answers, decided))


def _refusals_wrong(pairs: _Compared, place: int) -> Part:
    column = PLACES.index(place)
    decided = pairs.truth[:, column] != _NOTHING
    rows = np.flatnonzero(decided & ~pairs.answers.failed)
    said = np.where(pairs.answers.ok[rows], pairs.said[rows, column], _NOTHING)
    return Part(_plain(pairs.truth[rows, column], said), rows, count(pairs.answers, decided))


def _commonest(truth: Ints) -> Ints:
    """(n, 5): of every finding its commonest label, everywhere; the first in order where two are as common."""
    common = [np.bincount(column[column != _NOTHING], minlength=len(CHANGES)).argmax() for column in truth.T]
    return np.tile(np.array(common, dtype=np.int64), (len(truth), 1))


def _answering(answers: Answers) -> Answers:
    """Somebody who replies to everything."""
    return replace(answers, status=np.full(len(answers), OK, dtype=answers.status.dtype))


def _nothing_there(data: Data, place: int) -> Part:
    """Somebody who claims nothing, about all rows whose reference decides the finding."""
    rows = np.flatnonzero(decides(data.reference, place))
    present: Bools = data.reference.states[rows, place] == PRESENT
    return Part(
        classification.accuracy(present, np.zeros(len(rows), dtype=np.bool_)), rows, Counted(len(rows), 0, 0)
    )
