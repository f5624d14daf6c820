"""What the drift report counts over the rows of one prompt: conflict, agreement, laterality, statuses.

State codes are 0 not mentioned, 1 absent, 2 uncertain, 3 present (``drift.states.STATE_ORDER``); side codes 0
none, 1 left, 2 right, 3 bilateral (``drift_rows.SIDE_ORDER``). Every rate is a share, 0 to 1, with the number of
things it is a share of.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cxr_max.consensus import vote
from cxr_max.drift.conflict import COMPARED, OPPOSED, RELATIONS, conflict
from cxr_max.drift.states import STATE_ORDER, Codes
from cxr_max.eval.drift_rows import SIDE_ORDER, Bools, Ints, Rows, Watch
from cxr_max.findings import FINDINGS, LATERAL
from cxr_max.records import STATUSES, Consensus

Floats = NDArray[np.float64]
RESAMPLES: Final = 1_000
_AT_ONCE: Final = 50
"""Resamples drawn together, so that memory stays at 50 numbers per patient."""
_PRESENT: Final = STATE_ORDER.index(1)
_ABSENT: Final = STATE_ORDER.index(0)
_UNCERTAIN: Final = STATE_ORDER.index(-1)
_LEFT, _RIGHT, _BILATERAL = (SIDE_ORDER.index(side) for side in ("left", "right", "bilateral"))
_NONE: Final = -1
_IS_LATERAL: Final = np.array([name in LATERAL for name in FINDINGS])


@dataclass(frozen=True, slots=True)
class Rate:
    """A share, or another number of its section's unit; ``None`` where it would be of nothing."""

    value: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95% interval."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Replies the mean is over."""
    subjects: int
    """Patients they are of; these are what is resampled."""


@dataclass(frozen=True, slots=True)
class Statuses:
    """How the replies of one teacher ended."""

    teacher: str
    rows: int
    counts: Mapping[str, int]
    """Status -> rows, in the order of ``STATUSES``."""
    unread: int
    """Rows that are ok, and whose text nothing has read for findings: they take no part below."""
    finish_reasons: Mapping[str, int]
    """As the service words them -> rows, the commonest first."""
    models: Mapping[str, int]
    """The models that the service says answered -> rows, the commonest first."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two teachers on the same image sets, one reply each."""

    first: str
    second: str
    agreement: Rate
    """Of the findings for which both give a state, those for which it is the same."""
    kappa: Rate
    """Cohen's, over the three states: agreement beyond what the two teachers' own rates give by chance."""


@dataclass(frozen=True, slots=True)
class Laterality:
    """On which side one finding is put, over the claims (present or uncertain) of all teachers."""

    finding: str
    left: int
    right: int
    bilateral: int
    unsided: int
    teachers: Mapping[str, int]
    """Side -> teachers that put the finding there at least once."""
    split: Rate
    """Of the image sets in which two teachers or more name a side, those with both a left and a right."""


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Every row against the vote of the other teachers about the same image set."""

    score: Floats
    """(n,): 0 to 1; NaN (inside this computation only) where nothing is comparable."""
    relation: Codes
    """(n, 14): indexes ``drift.conflict.RELATIONS``; -1 where there is none."""
    states: Codes
    """(n, 14): what the others' vote says."""
    sides: Codes
    """(n, 14): the side it gives."""


def statuses(rows: Rows) -> tuple[Statuses, ...]:
    """Per teacher, how its replies ended; teachers without a row are left out."""
    ok = STATUSES.index("ok")
    found = []
    for index, teacher in enumerate(rows.teachers):
        own = rows.teacher == index
        if not own.any():
            continue
        counts = np.bincount(rows.status[own], minlength=len(STATUSES)).tolist()
        found.append(
            Statuses(
                teacher,
                int(own.sum()),
                dict(zip(STATUSES, counts, strict=True)),
                int((own & (rows.status == ok) & ~rows.read).sum()),
                _commonest(rows.finish_reason[own], rows.finish_reasons),
                _commonest(rows.model[own], rows.models),
            )
        )
    return tuple(found)


def _commonest(codes: Ints, words: tuple[str, ...]) -> dict[str, int]:
    """Ties in alphabetical order; null is ``not reported``."""
    counted = Counter(codes.tolist())
    named = {(words[code] if code >= 0 else "not reported"): times for code, times in counted.items()}
    return dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))


def quorum_of(rows: Rows) -> int:
    """Fewest voters of a verdict: 2, or 1 where there is only one other teacher to be held against."""
    return 1 if len(np.unique(rows.teacher)) <= 2 else 2


def compare(rows: Rows, watch: Watch) -> Compared:
    """Hold every usable row against the vote of the other teachers about its image set (leave-one-out).

    A teacher's own replies, all its samples, have no vote in what it is held against: with them every teacher
    would agree with the consensus partly because it agrees with itself.

    Args:
        rows: of one prompt.
    """
    shape = (len(rows), len(FINDINGS))
    score = np.full(len(rows), np.nan)
    relation, states, sides = np.full(shape, _NONE, np.int8), np.zeros(shape, np.int8), np.zeros(shape, np.int8)
    usable = np.flatnonzero(rows.usable)
    order = usable[np.lexsort((rows.sample[usable], rows.teacher[usable], rows.image_set[usable]))]
    groups = np.split(order, np.flatnonzero(np.diff(rows.image_set[order])) + 1)
    quorum = quorum_of(rows)
    for done, group in enumerate(groups if len(order) else []):
        said = {int(index): rows.trajectory(int(index)) for index in group}
        for teacher in np.unique(rows.teacher[group]):
            others = [said[int(index)] for index in group if rows.teacher[index] != teacher]
            if not others:
                continue
            verdict = vote(others, quorum=quorum)
            coded = _coded(verdict)
            for index in group[rows.teacher[group] == teacher]:
                states[index], sides[index] = coded
                own = said[int(index)]
                held = conflict(own.findings or {}, own.sides, verdict)
                score[index] = np.nan if held.score is None else held.score
                relation[index] = [_relation_code(held.relations[name]) for name in FINDINGS]
        if done % 50 == 0 or done + 1 == len(groups):
            watch("Comparing teachers", done + 1, len(groups))
    return Compared(score, relation, states, sides)


def _coded(verdict: Consensus) -> tuple[list[int], list[int]]:
    states = [STATE_ORDER.index(verdict.findings.get(name)) for name in FINDINGS]
    return states, [SIDE_ORDER.index(verdict.sides.get(name)) for name in FINDINGS]


def _relation_code(relation: str | None) -> int:
    return _NONE if relation is None else RELATIONS.index(relation)


def conflict_rates(rows: Rows, compared: Compared) -> dict[str, dict[str, Rate]]:
    """Teacher -> finding -> of the replies that can be held against the others' vote, the opposed."""
    opposed = np.isin(compared.relation, [RELATIONS.index(relation) for relation in OPPOSED])
    held = np.isin(compared.relation, [RELATIONS.index(relation) for relation in COMPARED])
    return _per_teacher_and_finding(rows, opposed, held)


def positive_rates(rows: Rows) -> dict[str, dict[str, Rate]]:
    """Teacher -> finding -> of its usable replies, those that call the finding present."""
    usable = np.repeat(rows.usable[:, None], len(FINDINGS), axis=1)
    return _per_teacher_and_finding(rows, (rows.states == _PRESENT) & usable, usable)


def _per_teacher_and_finding(rows: Rows, part: Bools, whole: Bools) -> dict[str, dict[str, Rate]]:
    table = {}
    for index in np.unique(rows.teacher):
        own = rows.teacher == index
        parts, wholes = part[own].sum(axis=0).tolist(), whole[own].sum(axis=0).tolist()
        table[rows.teachers[index]] = {
            name: _rate(parts[column], wholes[column]) for column, name in enumerate(FINDINGS)
        }
    return table


def _rate(part: int, whole: int) -> Rate:
    return Rate(part / whole if whole else None, whole)


def side_conflict(rows: Rows, compared: Compared) -> dict[str, Rate]:
    """Teacher -> of the findings that both claim with a side, those with another side than the others' vote."""
    claims = _claims(rows.states) & _claims(compared.states) & _IS_LATERAL
    sided = claims & (rows.sides > 0) & (compared.sides > 0)
    differ = sided & (rows.sides != compared.sides)
    return {
        rows.teachers[index]: _rate(
            int(differ[rows.teacher == index].sum()), int(sided[rows.teacher == index].sum())
        )
        for index in np.unique(rows.teacher)
    }


def _claims(states: Codes) -> Bools:
    claimed: Bools = (states == _PRESENT) | (states == _UNCERTAIN)
    return claimed


def mean_conflict(rows: Rows, compared: Compared, seed: int) -> dict[str, Estimate]:
    """Teacher -> mean conflict score with a 95% percentile interval, patients resampled with replacement.

    Rows of one patient are not independent, so that whole patients are drawn (the cluster bootstrap; Davison and
    Hinkley 1997, section 3.8), 1,000 times, the same draws for every teacher.
    """
    patients, owner = np.unique(rows.subject, return_inverse=True)
    present = np.unique(rows.teacher)
    sums, counts = np.zeros((2, len(patients), len(present)))
    held = ~np.isnan(compared.score)
    for column, index in enumerate(present):
        own = held & (rows.teacher == index)
        sums[:, column] = np.bincount(owner[own], weights=compared.score[own], minlength=len(patients))
        counts[:, column] = np.bincount(owner[own], minlength=len(patients))
    means = _resampled(sums, counts, seed)
    return {
        rows.teachers[index]: _estimate(sums[:, column], counts[:, column], means[:, column])
        for column, index in enumerate(present)
    }


def _resampled(sums: Floats, counts: Floats, seed: int) -> Floats:
    """(1,000, teachers): the mean of each resample; NaN where it drew nobody with a score."""
    generator = np.random.default_rng(seed)
    patients = len(sums)
    means = []
    for _ in range(0, RESAMPLES, _AT_ONCE):
        drawn = generator.multinomial(patients, np.full(patients, 1 / patients), size=_AT_ONCE).astype(np.float64)
        total = drawn @ counts
        means.append(np.divide(drawn @ sums, total, out=np.full(total.shape, np.nan), where=total > 0))
    return np.concatenate(means)


def _estimate(sums: Floats, counts: Floats, means: Floats) -> Estimate:
    n, subjects = int(counts.sum()), int((counts > 0).sum())
    if not n:
        return Estimate(None, None, None, 0, 0)
    value = float(sums.sum() / n)
    if subjects < 2:
        return Estimate(value, None, None, n, subjects)
    low, high = np.nanpercentile(means, [2.5, 97.5]).tolist()
    return Estimate(value, low, high, n, subjects)


def first_samples(rows: Rows, chosen: Bools) -> Ints:
    """(image sets, teachers): each teacher's chosen row of the lowest sample number; -1 where there is none."""
    table = np.full((len(rows.image_sets), len(rows.teachers)), _NONE, dtype=np.int64)
    candidates = np.flatnonzero(chosen)
    latest_first = candidates[np.argsort(-rows.sample[candidates], kind="stable")]
    table[rows.image_set[latest_first], rows.teacher[latest_first]] = latest_first
    return table


def agreement(rows: Rows) -> tuple[Pair, ...]:
    """Every pair of teachers, over the findings for which both give a state about the same image set.

    Cohen's kappa (Cohen 1960) is computed per finding, with each teacher's own rates of the three states, and
    averaged over the findings with the number of shared opinions as weight: pooled over findings, it would credit
    teachers for knowing that some are rare. A finding on which chance alone gives full agreement has no kappa.
    """
    table = first_samples(rows, rows.usable)
    present = np.unique(rows.teacher)
    return tuple(_pair(rows, table, int(u), int(v)) for u, v in combinations(present, 2))


def _pair(rows: Rows, table: Ints, u: int, v: int) -> Pair:
    both = (table[:, u] >= 0) & (table[:, v] >= 0)
    ours, theirs = rows.states[table[both, u]], rows.states[table[both, v]]
    same = whole = kappa_n = 0
    kappa_sum = 0.0
    for column in range(len(FINDINGS)):
        joint = _joint(ours[:, column], theirs[:, column])
        n = int(joint.sum())
        same, whole = same + int(np.trace(joint)), whole + n
        kappa = _kappa(joint)
        if kappa is not None:
            kappa_sum, kappa_n = kappa_sum + n * kappa, kappa_n + n
    kappa_rate = Rate(kappa_sum / kappa_n if kappa_n else None, kappa_n)
    return Pair(rows.teachers[u], rows.teachers[v], _rate(same, whole), kappa_rate)


def _joint(ours: Codes, theirs: Codes) -> Ints:
    """(3, 3): how often each pair of states is given."""
    stated = (ours > 0) & (theirs > 0)
    cell = (ours[stated].astype(np.int64) - 1) * 3 + theirs[stated] - 1
    return np.bincount(cell, minlength=9).reshape(3, 3)


def _kappa(joint: Ints) -> float | None:
    n = joint.sum()
    if not n:
        return None
    chance = float((joint.sum(axis=0) / n) @ (joint.sum(axis=1) / n))
    return None if chance > 1 - 1e-12 else (float(np.trace(joint) / n) - chance) / (1 - chance)


def laterality(rows: Rows) -> tuple[Laterality, ...]:
    """On which side each finding is put, for the findings for which a side means something."""
    usable = rows.where(rows.usable)
    claims = _claims(usable.states)
    return tuple(
        _laterality(usable, column, claims[:, column]) for column, name in enumerate(FINDINGS) if name in LATERAL
    )


def _laterality(rows: Rows, column: int, claimed: Bools) -> Laterality:
    said = rows.sides[:, column]
    places = {"left": _LEFT, "right": _RIGHT, "bilateral": _BILATERAL}
    counts = {name: int((claimed & (said == code)).sum()) for name, code in places.items()}
    speakers = {name: len(np.unique(rows.teacher[claimed & (said == code)])) for name, code in places.items()}
    sided = claimed & (said > 0)
    pairs = np.unique(np.stack([rows.image_set[sided], rows.teacher[sided]]), axis=1)
    speaking = np.bincount(pairs[0], minlength=len(rows.image_sets)) >= 2
    left, right = (np.isin(np.arange(len(speaking)), rows.image_set[sided & (said == c)]) for c in (_LEFT, _RIGHT))
    unsided = int((claimed & (said == 0)).sum())
    split = _rate(int((speaking & left & right).sum()), int(speaking.sum()))
    return Laterality(FINDINGS[column], **counts, unsided=unsided, teachers=speakers, split=split)
