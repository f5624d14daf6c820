"""Several teachers on one image set -> what they say together, and how far to trust each without any truth.

Value coding: 1 present, 0 absent, -1 uncertain, ``None`` not mentioned; not mentioned is no vote. Consensus is not
truth: teachers that err together are outvoted by nobody.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from cxr_max.findings import FINDINGS, LATERAL, Side, State, blank, blank_sides
from cxr_max.records import Consensus, Trajectory

VERSION: Final = "vote-1"
MIN_STUDIES: Final = 30
"""Image sets with two voters or more that label-free weights of a finding need."""
MIN_TEACHERS: Final = 3
"""With two, sensitivity, specificity and prevalence cannot be told apart without truth."""
WEIGHT_BOUNDS: Final = (0.1, 4.0)
"""In log-odds: no teacher is silenced, and none outvotes the others alone for being right 98.2% of the time."""
MAX_ITERATIONS: Final = 1000
TOLERANCE: Final = 1e-6
"""The largest change of a posterior at which the EM has converged."""
Tie = Literal["uncertain", "absent"]
Weights = Mapping[str, float | Mapping[str, float]]
"""Per teacher one weight, or one per finding. Only their ratios matter."""

Floats = NDArray[np.float64]
K = TypeVar("K")
_Ballots = Mapping[str, Mapping[K, Fraction]]
"""Teacher -> how its one vote is split over what can be said. Exact, so that a half is a half."""
_NONE: Final = Fraction(0)
_NORMAL_WITH: Final[frozenset[str]] = frozenset({"No Finding", "Support Devices"})


def vote(
    trajectories: Sequence[Trajectory], *, quorum: int = 2, tie: Tie = "uncertain", weights: Weights | None = None
) -> Consensus:
    """What the teachers say together about one image set, finding by finding.

    **Who votes.** Each teacher has one vote per finding, split over its samples that are ok and mention the
    finding: two samples "present" and one "absent" are 2/3 and 1/3 of a vote. A trajectory that is refused,
    truncated, filtered, unparsed or unread takes no part; a teacher with no other is listed as abstained.

    **The verdict** of a finding, of the shares (weighted, if there are weights) of all its voters:

    - fewer voters than ``quorum``: ``None``;
    - present above 1/2: 1;
    - absent above 1/2, or exactly 1/2 with ``tie="absent"``: 0;
    - anything else: -1. An uncertain voter so counts towards the total and for neither side.

    This is the median of the votes, ordered absent, uncertain, present: it does not depend on the order of the
    trajectories, and no vote moved upwards, or raised in weight, moves a verdict downwards.

    **The side** of a present or uncertain finding for which a side means something: the same shares and quorum
    among the teachers that call it present or uncertain with a side; above 1/2 wins, ``bilateral`` is a side of
    its own, and otherwise it is ``None``.

    **No Finding** follows CheXpert's rule (Irvin et al. 2019) from the other verdicts, and is 1 or ``None``, never
    0: it is 1 if at least ``quorum`` teachers vote on anything, at least one of them calls No Finding present,
    every other finding but Support Devices has the verdict 0 or ``None``, and none of these is ``None`` over a
    present or uncertain vote that found no quorum.

    Args:
        trajectories: of one study, image set and prompt; any number of samples per teacher.
        quorum: fewest voters, at least 1.
        tie: what exactly half absent means.
        weights: not negative; a teacher with weight 0 has no vote.

    Raises:
        ValueError: nothing to vote on, several image sets or prompts, a bad quorum, tie or weight.
    """
    first = _one_question(trajectories)
    if quorum < 1 or tie not in ("uncertain", "absent"):
        raise ValueError(f'quorum is {quorum} and tie {tie!r}: give 1 or more, and "uncertain" or "absent"')
    samples = _samples(trajectories)
    findings, sides = blank(), blank_sides()
    support: dict[str, tuple[float, int]] = {}
    unheard = False
    for name in FINDINGS:
        said = {teacher: _states(rows, name) for teacher, rows in samples.items()}
        worth = _worth(said, name, weights)
        ballots = {teacher: said[teacher] for teacher in worth}
        if name != "No Finding":
            findings[name] = _verdict(ballots, worth, quorum, tie)
            unheard |= findings[name] is None and name not in _NORMAL_WITH and _claimed(ballots)
        support[name] = _support(ballots, findings[name])
        if findings[name] in (1, -1) and name in LATERAL:
            sided = {teacher: _sides(rows, name) for teacher, rows in samples.items()}
            sides[name] = _majority({u: b for u, b in sided.items() if u in worth and b}, worth, quorum)
    if not unheard and _is_normal(findings, samples, quorum):
        findings["No Finding"] = 1
        support["No Finding"] = _support({u: _states(rows, "No Finding") for u, rows in samples.items()}, 1)
    return Consensus(
        study_id=first.study_id,
        image_sha256=first.image_sha256,
        prompt_sha256=first.prompt_sha256,
        findings=findings,
        sides=sides,
        support=support,
        abstained=tuple(sorted({t.teacher for t in trajectories} - samples.keys())),
        method=f"{VERSION} quorum={quorum} tie={tie}{' weighted' if weights is not None else ''}",
        text=None,
    )


def takes_part(trajectory: Trajectory) -> bool:
    """Whether a trajectory has a vote: its reply is ok, and something read it for findings."""
    return trajectory.status == "ok" and trajectory.findings is not None


def decided(consensus: Consensus) -> bool:
    """Whether the vote says anything about any finding."""
    return any(state is not None for state in consensus.findings.values())


def shares(trajectories: Iterable[Trajectory], finding: str) -> dict[str, dict[State, Fraction]]:
    """Each teacher's one vote on a finding, split over its samples; only teachers that mention it."""
    said = {teacher: _states(rows, finding) for teacher, rows in _samples(trajectories).items()}
    return {teacher: ballot for teacher, ballot in said.items() if ballot}


def _one_question(trajectories: Sequence[Trajectory]) -> Trajectory:
    asked = {(t.study_id, t.image_sha256, t.prompt_sha256) for t in trajectories}
    if len(asked) != 1:
        raise ValueError(
            f"A vote is about one study, image set and prompt, and these are {len(asked)}: group the trajectories"
        )
    return trajectories[0]


def _samples(trajectories: Iterable[Trajectory]) -> dict[str, list[Trajectory]]:
    """Per teacher, in alphabetical order, what takes part."""
    samples: defaultdict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        if takes_part(trajectory):
            samples[trajectory.teacher].append(trajectory)
    return dict(sorted(samples.items()))


def _states(rows: Iterable[Trajectory], finding: str) -> dict[State, Fraction]:
    return _split(row.findings.get(finding) for row in rows if row.findings is not None)


def _sides(rows: Iterable[Trajectory], finding: str) -> dict[Side, Fraction]:
    claims = (row for row in rows if row.findings is not None and row.findings.get(finding) in (1, -1))
    return _split((row.sides or {}).get(finding) for row in claims)


def _split(values: Iterable[K | None]) -> dict[K, Fraction]:
    said = [value for value in values if value is not None]
    return {value: Fraction(said.count(value), len(said)) for value in dict.fromkeys(said)}


def _worth(said: _Ballots[State], finding: str, weights: Weights | None) -> dict[str, Fraction]:
    """The weights of the teachers that vote on a finding."""
    worth = {teacher: _weight(teacher, finding, weights) for teacher, ballot in said.items() if ballot}
    return {teacher: weight for teacher, weight in worth.items() if weight}


def _weight(teacher: str, finding: str, weights: Weights | None) -> Fraction:
    if weights is None:
        return Fraction(1)
    entry = weights.get(teacher)
    weight = entry.get(finding) if isinstance(entry, Mapping) else entry
    if weight is None or not isfinite(weight) or weight < 0:
        raise ValueError(f"{teacher} has the weight {weight} for {finding}: give a finite number, 0 or more")
    return Fraction(weight)


def _tally(ballots: _Ballots[K], worth: Mapping[str, Fraction]) -> tuple[Mapping[K, Fraction], Fraction]:
    """What each value got, and half of everything."""
    got: dict[K, Fraction] = {}
    for teacher, ballot in ballots.items():
        for value, part in ballot.items():
            got[value] = got.get(value, _NONE) + worth[teacher] * part
    return got, sum((worth[teacher] for teacher in ballots), _NONE) / 2


def _verdict(ballots: _Ballots[State], worth: Mapping[str, Fraction], quorum: int, tie: Tie) -> State | None:
    if len(ballots) < quorum:
        return None
    got, half = _tally(ballots, worth)
    if got.get(1, _NONE) > half:
        return 1
    absent = got.get(0, _NONE)
    return 0 if absent > half or (tie == "absent" and absent == half) else -1


def _majority(ballots: _Ballots[Side], worth: Mapping[str, Fraction], quorum: int) -> Side | None:
    if len(ballots) < quorum:
        return None
    got, half = _tally(ballots, worth)
    return next((side for side, votes in got.items() if votes > half), None)


def _support(ballots: _Ballots[State], verdict: State | None) -> tuple[float, int]:
    voters = [ballot for ballot in ballots.values() if ballot]
    votes = _NONE if verdict is None else sum((b.get(verdict, _NONE) for b in voters), _NONE)
    return float(votes), len(voters)


def _claimed(ballots: _Ballots[State]) -> bool:
    return any(ballot.get(1) or ballot.get(-1) for ballot in ballots.values())


def _is_normal(
    findings: Mapping[str, State | None], samples: Mapping[str, Sequence[Trajectory]], quorum: int
) -> bool:
    votes = [any(_states(rows, name) for name in FINDINGS) for rows in samples.values()]
    said = any(_states(rows, "No Finding").get(1) for rows in samples.values())
    clear = all(findings[name] in (0, None) for name in FINDINGS if name not in _NORMAL_WITH)
    return said and clear and sum(votes) >= quorum


@dataclass(frozen=True, slots=True)
class Estimate:
    """What expectation-maximisation says of one finding; n items, m raters."""

    posterior: Floats
    """(n,): the probability that the finding is present."""
    sensitivity: Floats
    """(m,): share of the present that the rater calls present."""
    specificity: Floats
    """(m,): share of the absent that the rater calls absent."""
    prevalence: float
    iterations: int
    converged: bool


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far to trust each teacher on each finding, estimated from the teachers' agreement alone."""

    weights: Mapping[str, Mapping[str, float]]
    """Teacher -> finding -> log-odds within ``WEIGHT_BOUNDS``, as ``vote`` takes them; 1 for everybody where the
    finding fell back."""
    estimates: Mapping[str, Estimate]
    """Finding -> the estimate behind the weights: items as the groups were given, raters as ``weights`` lists
    them. Only the findings that did not fall back."""
    fallbacks: Mapping[str, str]
    """Finding -> why its weights are equal."""


def dawid_skene(
    present: Floats, absent: Floats, *, right: float = 2.0, wrong: float = 1.0, uniform: float = 1.0
) -> Estimate:
    """Error rates of raters without truth (Dawid and Skene 1979), for one binary finding.

    The model: given the truth, each rater errs independently of the others. Teachers trained on the same pictures
    do not, and where errors are shared the estimate takes the shared error for the truth. The first posterior is
    the share of present votes; the M step adds pseudo-counts (a Beta prior's); the iteration is deterministic.

    Args:
        present: (n, m) in [0, 1]: the part of rater m's one vote on item n that says present.
        absent: (n, m) likewise; present + absent is at most 1, and 0 where the rater is silent or uncertain.
        right: pseudo-count of right votes in every sensitivity and specificity.
        wrong: pseudo-count of wrong votes likewise.
        uniform: pseudo-count of present and of absent items in the prevalence.

    Raises:
        ValueError: the shapes differ, or a vote is negative or above 1.
    """
    if present.shape != absent.shape or present.ndim != 2 or not present.size:
        raise ValueError(
            f"Votes of shapes {present.shape} and {absent.shape}: give two equal (items, raters) arrays"
        )
    if not (min(present.min(), absent.min()) >= 0 and (present + absent).max() <= 1 + 1e-9):
        raise ValueError("The votes of a rater on an item are negative, or add up to more than 1: split one vote")
    votes = present + absent
    cast = votes.sum(axis=1)
    posterior = np.divide(present.sum(axis=1), cast, out=np.full(len(votes), 0.5), where=cast > 0)
    converged, iterations = False, 0
    while True:
        prevalence = float((posterior.sum() + uniform) / (len(posterior) + 2 * uniform))
        sensitivity = _rate(posterior, present, votes, right, wrong)
        specificity = _rate(1 - posterior, absent, votes, right, wrong)
        if converged or iterations == MAX_ITERATIONS:
            return Estimate(posterior, sensitivity, specificity, prevalence, iterations, converged)
        evidence = present @ (_log(sensitivity) - _log(1 - specificity))
        evidence += absent @ (_log(1 - sensitivity) - _log(specificity))
        evidence += _log(np.float64(prevalence)) - _log(np.float64(1 - prevalence))
        updated = 0.5 * (1 + np.tanh(evidence / 2))
        converged = bool(np.abs(updated - posterior).max() < TOLERANCE)
        posterior, iterations = updated, iterations + 1


def reliability(groups: Sequence[Sequence[Trajectory]]) -> Reliability:
    """Label-free weights per teacher and finding, for ``vote``.

    The weight is (logit sensitivity + logit specificity) / 2: for a finding as often present as absent, and errors
    that are independent and symmetric, no other weighting of the vote is right more often (Nitzan and Paroush
    1982). It leaves out what the posteriors use: the prevalence, and that a teacher's yes may be worth more than
    its no. Uncertain votes tell nothing here, and several samples of a teacher share one vote. The more the
    teachers err together, the less it gains over the plain vote: ``benchmarks/consensus_weights.py``.

    A finding falls back to equal weights, and says so, where fewer than ``MIN_STUDIES`` groups have two voters,
    fewer than ``MIN_TEACHERS`` vote at all, the iteration does not converge, or the teachers come out no better
    than chance on average.

    Args:
        groups: the trajectories of one image set and prompt each, as ``vote`` takes them.

    Raises:
        ValueError: no group, or one that is not about one image set and prompt.
    """
    if not groups:
        raise ValueError("There is nothing to estimate from: give the trajectories of at least one image set")
    for group in groups:
        _one_question(group)
    teachers = sorted({t.teacher for group in groups for t in group})
    weights: dict[str, dict[str, float]] = {teacher: {} for teacher in teachers}
    estimates: dict[str, Estimate] = {}
    fallbacks: dict[str, str] = {}
    for name in FINDINGS:
        present, absent = _matrices(groups, teachers, name)
        estimate = _estimated(present, absent)
        if isinstance(estimate, str):
            fallbacks[name] = estimate
            worth = np.ones(len(teachers))
        else:
            estimates[name] = estimate
            worth = log_odds(estimate)
        for teacher, weight in zip(teachers, worth.tolist(), strict=True):
            weights[teacher][name] = weight
    return Reliability(weights, estimates, fallbacks)


def log_odds(estimate: Estimate) -> Floats:
    """(m,): (logit sensitivity + logit specificity) / 2, clipped to ``WEIGHT_BOUNDS``."""
    right = _log(estimate.sensitivity) + _log(estimate.specificity)
    wrong = _log(1 - estimate.sensitivity) + _log(1 - estimate.specificity)
    clipped: Floats = np.clip((right - wrong) / 2, *WEIGHT_BOUNDS)
    return clipped


def _matrices(
    groups: Sequence[Sequence[Trajectory]], teachers: Sequence[str], finding: str
) -> tuple[Floats, Floats]:
    column = {teacher: index for index, teacher in enumerate(teachers)}
    present, absent = np.zeros((2, len(groups), len(teachers)))
    for row, group in enumerate(groups):
        for teacher, ballot in shares(group, finding).items():
            present[row, column[teacher]] = ballot.get(1, 0)
            absent[row, column[teacher]] = ballot.get(0, 0)
    return present, absent


def _estimated(present: Floats, absent: Floats) -> Estimate | str:
    """The estimate of one finding, or why there is none."""
    voting = present + absent > 0
    studies, raters = int((voting.sum(axis=1) >= 2).sum()), int(voting.any(axis=0).sum())
    if studies < MIN_STUDIES:
        return f"{studies} image sets with two voters, fewer than {MIN_STUDIES}"
    if raters < MIN_TEACHERS:
        return f"{raters} teachers vote, fewer than {MIN_TEACHERS}"
    estimate = dawid_skene(present, absent)
    if not estimate.converged:
        return f"no convergence in {estimate.iterations} iterations"
    informed = float((estimate.sensitivity + estimate.specificity)[voting.any(axis=0)].mean()) - 1
    return estimate if informed > 0 else "the teachers come out no better than chance"


def _rate(truth: Floats, hits: Floats, votes: Floats, right: float, wrong: float) -> Floats:
    counted = truth @ votes + right + wrong
    rate: Floats = np.divide(truth @ hits + right, counted, out=np.full(votes.shape[1], 0.5), where=counted > 0)
    return rate


def _log(value: Floats | np.float64) -> Floats:
    """Of a probability, away from minus infinity."""
    logarithm: Floats = np.log(np.clip(value, 1e-12, None))
    return logarithm
