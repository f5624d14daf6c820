"""How much worse a model gets on worse pictures, for whom it is worst, and what worse teachers do to the vote.

Losses are paired: the same image sets, as they are and made worse, over the same resamples. Findings that a
corruption paints into the picture are left out of it.
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from cxr_max.drift.states import ABSENT, PRESENT, Codes
from cxr_max.eval.answers import Answers, Data
from cxr_max.eval.bootstrap import Draws, estimate, macro, minus, undefined
from cxr_max.eval.conditions import ORIGINAL, corruption
from cxr_max.eval.corruptions import CHANGES_REFERENCE
from cxr_max.eval.metrics import classification, ranking
from cxr_max.eval.metrics.measured import Bools, Measured
from cxr_max.eval.scored import EVERY, Counted, Part, Ruler, Scored, claim_part, count, mean_over, per_finding
from cxr_max.eval.suite import Robustness, Suite
from cxr_max.eval.tasks.consistency import image_gain, on_blank, other_patient
from cxr_max.eval.tasks.generalization import CLAIMS, refusal_rate, score_part, scored_by_states
from cxr_max.eval.votes import verdicts
from cxr_max.findings import FINDINGS

BALANCED: Final = classification.balanced_accuracy
_UNDER: Final = ("accuracy", "f1", "balanced_accuracy")
_BARELY: Final = 0.1
"""Of balanced accuracy above 1/2: whoever has less has nothing of which a share could be lost."""
RELATIVE_BOUNDS: Final = (-10.0, 10.0)
"""``_BARELY`` above 1/2, losing everything is 6 and gaining everything -4; resamples are held inside."""
_FEWEST_TEACHERS: Final = 3
ALL_TEACHERS: Final = "all teachers"


def robustness(everything: Data, suite: Suite) -> Iterator[Scored]:
    """All scores of the task."""
    assert suite.robustness is not None
    test = everything.of_split(suite.split)
    yield from _worse_pictures(test.first(suite.robustness.image_sets), suite)
    whole = Ruler.of(test.reference, suite)
    *_, gain = image_gain(test, other_patient(test.reference), whole)
    yield gain
    yield from _groups(test, suite.robustness, whole)
    yield from worse_teachers(test, whole)


# Worse pictures.


def _worse_pictures(data: Data, suite: Suite) -> Iterator[Scored]:
    assert suite.robustness is not None
    ruler = Ruler.of(data.reference, suite)
    yield from _under(data, data.under(ORIGINAL), EVERY, ORIGINAL, ruler)
    if suite.robustness.blank:
        *_, blank = on_blank(data, ruler)
        yield blank
    losses: dict[int, list[Scored]] = {severity: [] for severity in suite.robustness.severities}
    for name in suite.robustness.corruptions:
        places = _unpainted(name)
        for severity in suite.robustness.severities:
            condition = corruption(name, severity)
            answers = data.under(condition)
            yield from _under(data, answers, places, condition, ruler)
            loss = _loss(data, answers, places, condition, ruler)
            losses[severity].append(loss[0])
            yield from loss
    for severity, several in losses.items():
        counted = sum((one.counted for one in several), Counted(0, 0, 0))
        mean = macro([one.drawn for one in several])
        yield Scored("mean_loss", None, f"severity {severity}", None, mean, counted)


def _unpainted(name: str) -> tuple[int, ...]:
    painted = CHANGES_REFERENCE.get(name, frozenset())
    return tuple(place for place in EVERY if FINDINGS[place] not in painted)


def _under(
    data: Data, answers: Answers, places: tuple[int, ...], condition: str, ruler: Ruler
) -> Iterator[Scored]:
    common = data.reference.common
    makes = {name: partial(claim_part, CLAIMS[name], data, answers) for name in _UNDER}
    makes["auroc"] = partial(score_part, ranking.auroc, data, scored_by_states(answers))
    for name, make in makes.items():
        yield from per_finding(name, ruler, make, places=places, condition=condition, each=False, common=common)
    yield refusal_rate(data, answers, ruler, condition)


def _loss(
    data: Data, answers: Answers, places: tuple[int, ...], condition: str, ruler: Ruler
) -> tuple[Scored, Scored]:
    """Absolute and relative, over image sets that were answered both ways."""
    before = data.under(ORIGINAL)
    both = before.ok & answers.ok
    found = [
        ruler.drawn(partial(claim_part, BALANCED, data, one, among=both), places) for one in (before, answers)
    ]
    losses = [(place, part, minus(ours, worse)) for (place, part, ours), (_, _, worse) in zip(*found, strict=True)]
    common = data.reference.common
    loss = mean_over("loss", losses, common, condition=condition)
    base = mean_over("balanced_accuracy", found[0], common).drawn
    relative = Scored("relative_degradation", None, condition, None, _relative(loss.drawn, base), loss.counted)
    return loss, relative


def _relative(loss: Draws, base: Draws) -> Draws:
    if loss.measured.value is None or base.measured.value is None:
        return undefined(loss.measured.reason or base.measured.reason or "", len(loss.values))
    above = base.measured.value - 0.5
    if above < _BARELY:
        return undefined("it does hardly better than chance on the pictures as they are", len(loss.values))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = loss.values / (base.values - 0.5)
    values = np.clip(values, *RELATIVE_BOUNDS)
    measured, fewest = Measured(loss.measured.value / above), min(loss.patients, base.patients)
    return Draws(measured, values, fewest, "smooth", RELATIVE_BOUNDS, loss.caveat or base.caveat)


# For whom.


def _groups(data: Data, settings: Robustness, ruler: Ruler) -> Iterator[Scored]:
    answers = data.under(ORIGINAL)
    worst: tuple[float, Scored] | None = None
    for group, among in groups_of(data, settings.age_bands).items():
        parts = ruler.drawn(partial(claim_part, BALANCED, data, answers, among=among))
        scored = mean_over("balanced_accuracy", parts, data.reference.common, group=group)
        yield scored
        mean = estimate(scored.drawn)
        if mean.trusted and mean.value is not None and (worst is None or mean.value < worst[0]):
            worst = mean.value, scored
    yield _worst(worst[1] if worst else None, len(ruler.resamples.multiplicities))


def groups_of(data: Data, age_bands: list[int]) -> dict[str, Bools]:
    """(n,) members of every group of view, sex and age that has any."""
    rows = data.reference.rows
    named = [f"view {row.view}" if row.view != "unknown" else None for row in rows]
    sexes = [f"sex {row.sex}" if row.sex else None for row in rows]
    ages = [None if row.age is None else f"age {_band(row.age, age_bands)}" for row in rows]
    groups = {}
    for labels in (named, sexes, ages):
        for group in sorted({label for label in labels if label}):
            groups[group] = np.array([label == group for label in labels], dtype=np.bool_)
    return groups


def _band(age: float, bands: list[int]) -> str:
    edges = [0, *sorted(bands)]
    below = max(edge for edge in edges if age >= edge)
    above = [edge for edge in edges if edge > age]
    return f"{below} to {min(above) - 1}" if above else f"{below} and over"


def _worst(scored: Scored | None, resamples: int) -> Scored:
    if scored is None:
        reason = undefined("no group has an interval that can be trusted", resamples)
        return Scored("worst_group", None, None, None, reason, Counted(0, 0, 0))
    drawn = scored.drawn
    caveat = "the lowest of several, so that chance alone makes it low"
    chosen = Draws(drawn.measured, drawn.values, drawn.patients, drawn.shape, drawn.bounds, caveat)
    return Scored("worst_group", None, None, scored.group, chosen, scored.counted)


# Worse teachers.


def worse_teachers(data: Data, ruler: Ruler) -> Iterator[Scored]:
    """What the vote of the release's teachers loses when one of them is left out or goes bad."""
    teachers = dict(data.peers)
    if data.member:
        teachers["the model"] = data.under(ORIGINAL)
    if len(teachers) < _FEWEST_TEACHERS:
        return
    before = voted(list(teachers.values()))
    yield from _vote(data, before, before, ALL_TEACHERS, ruler)
    partner = other_patient(data.reference)
    for name, answers in teachers.items():
        rest = [other for teacher, other in teachers.items() if teacher != name]
        changed = {
            f"without {name}": rest,
            f"{name} answers about other patients": [*rest, answers.take(partner)],
            f"{name} claims the opposite of the truth": [*rest, liar(data)],
        }
        for condition, several in changed.items():
            yield from _vote(data, voted(several), before, condition, ruler)


def voted(teachers: list[Answers]) -> Answers:
    """The vote as answers."""
    return _claiming(verdicts(teachers))


def liar(data: Data) -> Answers:
    """A teacher that is sure of the opposite of every reference."""
    states = np.where(data.reference.states == PRESENT, ABSENT, PRESENT).astype(np.int8)
    states[~data.reference.labelled] = 0
    return _claiming(states)


def _claiming(states: Codes) -> Answers:
    """A reply to every question, of nothing but these states, (n, 14)."""
    nobody = np.zeros(states.shape, dtype=np.bool_)
    return Answers(
        status=np.zeros(len(states), dtype=np.int8),
        states=states,
        sides=np.zeros_like(states),
        scores=np.full(states.shape, np.nan),
        contradicted=nobody,
        compared=nobody[:, 0],
    )


def _vote(data: Data, after: Answers, before: Answers, condition: str, ruler: Ruler) -> Iterator[Scored]:
    make = partial(claim_part, BALANCED, data, after)
    yield from per_finding(
        "vote_accuracy", ruler, make, condition=condition, each=False, common=data.reference.common
    )
    if after is not before:
        make_moved = partial(_moved, before, after)
        yield from per_finding("verdicts_moved", ruler, make_moved, condition=condition, each=False)


def _moved(before: Answers, after: Answers, place: int) -> Part:
    decided = (before.states[:, place] > 0) | (after.states[:, place] > 0)
    rows = np.flatnonzero(decided)
    moved = before.states[rows, place] != after.states[rows, place]
    metric = classification.sensitivity(np.ones(len(rows), dtype=np.bool_), moved)
    return Part(metric, rows, count(before, decided))
