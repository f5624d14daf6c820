"""Multi-stream drift: how several teachers' streams of commitments differ, and where along the text that changes.

The paper (arXiv 2510.04142) looks at the joint state S_j = (s_j^1 ... s_j^N) of N teachers after step j, s_j^u
being what teacher u has committed to so far, and speaks of multi-stream drift when its distribution P_j(S)
differs from P_{j+d}(S). Arrays are (studies, teachers, steps, findings) of state codes: 0 not mentioned, 1
absent, 2 uncertain, 3 present.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cxr_max.drift.states import STATE_ORDER, Codes

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
View = Literal["agreement", "increments", "states"]
VIEWS: Final[tuple[View, ...]] = get_args(View)
_STATES: Final = len(STATE_ORDER)
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class StepTest:
    """Whether something changes between two steps."""

    step: int
    """j, 0-based."""
    later: int
    """j + d."""
    statistic: float | None
    """Total variation distance, 0 to 1; ``None`` where nothing is comparable."""
    p_value: float | None
    """At least 1 / (permutations + 1)."""
    p_adjusted: float | None
    """Holm's over all steps of the test: holds whatever their dependence."""
    studies: int
    """Studies compared."""


def jensen_shannon(distributions: Floats) -> Floats:
    """Jensen-Shannon divergence of N distributions, in bits: H(mean of the P_u) - mean of the H(P_u).

    All N weigh the same; H is Shannon's entropy to base 2. Between 0 (all equal) and log2 N (no two overlap), and
    never above log2 of the number of categories. Source: Lin 1991, IEEE Trans. Inf. Theory 37(1), eq. 5.1.

    Args:
        distributions: (..., N, categories), each row summing to 1.

    Returns:
        (...), not divided by log2 N.

    Raises:
        ValueError: a row is no distribution.
    """
    if distributions.ndim < 2 or not np.allclose(distributions.sum(axis=-1), 1) or (distributions < 0).any():
        raise ValueError("Each row is to be a distribution: no negative entry, and a sum of 1")
    gap = _entropy(distributions.mean(axis=-2)) - _entropy(distributions).mean(axis=-1)
    bits: Floats = np.maximum(gap, 0)
    return bits


def divergence(states: Codes) -> Floats:
    """(steps,): how far the teachers' distributions lie apart after each step, in bits.

    After step j teacher u has, over the studies, an empirical distribution over the four states for every
    finding. The value is the Jensen-Shannon divergence between the teachers' distributions, averaged over the
    findings: 0 for identical teachers, at most log2 min(teachers, 4). With one study, each teacher's
    distribution is a point, and the value is the entropy of the states across teachers. It compares margins
    only, and empirical distributions of n studies lie about 3 (N - 1) / (2 n N ln 2) bits apart by chance: hold
    it against ``multistream_test``.

    Raises:
        ValueError: the array is empty, not four-dimensional, or holds other codes.
    """
    _checked(states)
    counts = np.stack([(states == code).mean(axis=0) for code in range(_STATES)], axis=-1)
    bits: Floats = jensen_shannon(counts.transpose(1, 2, 0, 3)).mean(axis=-1)
    return bits


def disagreement(states: Codes) -> tuple[float | None, ...]:
    """Per step, the share of newly comparable opinions that oppose each other, 0 to 1; ``None`` where none is new.

    A pair of teachers and a finding become comparable at step j when both have committed to a state by then and at
    least one did so, or revised it, at j. They oppose each other if one says present and the other absent. A mean
    over the studies in which anything is newly comparable, so that each counts once.

    Raises:
        ValueError: as ``divergence``.
    """
    _checked(states)
    opposed, compared = _new_pairs(states)
    return tuple(
        float((contrary[pairs > 0] / pairs[pairs > 0]).mean()) if pairs.any() else None
        for contrary, pairs in zip(opposed.T, compared.T, strict=True)
    )


def multistream_test(
    states: Codes,
    *,
    d: int = 1,
    view: View = "agreement",
    permutations: int = 999,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
) -> tuple[StepTest, ...]:
    """For every step j, whether the teachers' joint behaviour differs between j and j + d.

    A paired permutation test: under the null hypothesis what a study shows at j and at j + d may be exchanged, so
    the two are swapped at random, within all studies of a patient together, and p is the share of swaps (the
    observed arrangement is one) whose statistic is at least the observed one. Where the null hypothesis is that
    exchangeability, the level is exact (Lehmann and Romano 2005, section 15.2). What is compared, the ``view``:

    - ``states``: the joint states themselves, as the paper defines them, by the mean total variation distance
      1/2 sum |P_j - P_{j+d}| of the joint distributions of every pair of teachers on every finding. Commitments
      only accumulate, so this null hypothesis says that *nothing is said* between j and j + d: any commitment is
      a drift. Literal, and rejected for every text that goes on.
    - ``increments``: the same statistic on what is new at each step (a state that was entered at j, else nothing).
      The null hypothesis: the same things are said, by the same teachers together, at j and at j + d. Growth is no
      drift; a fixed order of topics (lungs before bones) is one.
    - ``agreement``: the difference in the share of newly comparable opinions that oppose each other, as
      ``disagreement`` defines them, over the studies in which both steps have some. The null hypothesis: what
      is new at j + d opposes the other teachers as often as what is new at j. Neither growth nor topics that are
      equally contested are a drift. Exact where the two shares are exchangeable; where a study's two steps rest on
      different numbers of opinions, the level holds for large numbers of patients (Romano 1990).

    Args:
        states: (studies, teachers, steps, findings), at least two teachers.
        d: distance in steps, 1 to steps - 1.
        view: what is compared.
        permutations: random swaps, at least 19 for any p at 0.05.
        seed: same seed, same p.
        clusters: the patient of each study; without it each study is its own.

    Returns:
        steps - d results, in order. The sign of a change shows in ``disagreement`` and ``divergence``.

    Raises:
        ValueError: as ``divergence``; fewer than two teachers; ``d``, ``view``, ``permutations`` or the number of
            clusters do not fit.
    """
    _checked(states)
    studies, teachers, length, _ = states.shape
    owners = tuple(range(studies)) if clusters is None else tuple(clusters)
    if teachers < 2 or not 1 <= d < length or permutations < 1 or len(owners) != studies or view not in VIEWS:
        raise ValueError(
            f"{teachers} teachers, {length} steps, d={d}, {permutations} permutations, {len(owners)} clusters for"
            f" {studies} studies, view {view!r}: give 2 teachers or more, 1 <= d < steps, and one of {VIEWS}"
        )
    order = {owner: index for index, owner in enumerate(dict.fromkeys(owners))}
    patient = np.array([order[owner] for owner in owners])
    signs = _signs(permutations, len(order), seed)
    if view == "agreement":
        found = _compare_rates(states, d, patient, signs)
    else:
        codes = states if view == "states" else _increments(states)
        found = [_compare_joints(codes[:, :, j], codes[:, :, j + d], patient, signs) for j in range(length - d)]
    adjusted = holm([p for _, p, _ in found])
    return tuple(
        StepTest(j, j + d, statistic, p, corrected, n)
        for j, ((statistic, p, n), corrected) in enumerate(zip(found, adjusted, strict=True))
    )


_Found = tuple[float | None, float | None, int]
"""Statistic, p and the studies compared."""


def _checked(states: Codes) -> None:
    if states.ndim != 4 or not states.size or states.min() < 0 or states.max() >= _STATES:
        raise ValueError(
            f"States of shape {states.shape}: give a non-empty (studies, teachers, steps, findings) array of the"
            f" codes 0 to {_STATES - 1}"
        )


def _signs(permutations: int, clusters: int, seed: int) -> Singles:
    """(1 + permutations, clusters) of 1 (as observed) and -1 (swapped); the first row is the observed one."""
    swapped = np.random.default_rng(seed).integers(0, 2, (permutations + 1, clusters), dtype=np.int8)
    swapped[0] = 0
    signs: Singles = (1 - 2 * swapped).astype(np.float32)
    return signs


def _entropy(distributions: Floats) -> Floats:
    logs = np.log2(distributions, out=np.zeros_like(distributions), where=distributions > 0)
    bits: Floats = -(distributions * logs).sum(axis=-1)
    return bits


def _increments(states: Codes) -> Codes:
    """The state entered at each step, 0 where none was."""
    entered = np.diff(states, axis=2, prepend=np.zeros_like(states[:, :, :1])) != 0
    return np.where(entered, states, 0).astype(np.int8)


def _new_pairs(states: Codes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(studies, steps) twice: the newly comparable pairs that oppose each other, and all of them."""
    new = _increments(states) > 0
    shape = (states.shape[0], states.shape[2])
    opposed, compared = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for u, v in combinations(range(states.shape[1]), 2):
        both = (states[:, u] > 0) & (states[:, v] > 0) & (new[:, u] | new[:, v])
        contrary = np.abs(states[:, u] - states[:, v]) == STATE_ORDER.index(1) - STATE_ORDER.index(0)
        compared += both.sum(axis=-1)
        opposed += (both & contrary).sum(axis=-1)
    return opposed, compared


def _compare_rates(states: Codes, d: int, patient: NDArray[np.intp], signs: Singles) -> list[_Found]:
    opposed, compared = _new_pairs(states)
    rates = np.divide(opposed, compared, out=np.zeros(opposed.shape), where=compared > 0)
    found: list[_Found] = []
    for j in range(states.shape[2] - d):
        both = (compared[:, j] > 0) & (compared[:, j + d] > 0)
        if not both.any():
            found.append((None, None, 0))
            continue
        change = np.where(both, rates[:, j + d] - rates[:, j], 0.0)
        per_patient = np.bincount(patient, weights=change, minlength=signs.shape[1])
        statistics = np.abs(signs @ per_patient) / both.sum()
        found.append((float(statistics[0]), _p_value(statistics), int(both.sum())))
    return found


def _compare_joints(before: Codes, after: Codes, patient: NDArray[np.intp], signs: Singles) -> _Found:
    """Mean total variation distance over pairs of teachers and findings; (studies, teachers, findings) each."""
    studies, teachers, findings = before.shape
    pairs = list(combinations(range(teachers), 2))
    total = np.zeros(len(signs))
    for u, v in pairs:
        moved = _one_hot(after, u, v) - _one_hot(before, u, v)
        per_patient = np.zeros((signs.shape[1], moved.shape[1]), dtype=np.float32)
        np.add.at(per_patient, patient, moved)
        total += np.abs(signs @ per_patient).sum(axis=1, dtype=np.float64)
    statistics = total / (2 * studies * len(pairs) * findings)
    return float(statistics[0]), _p_value(statistics), studies


def _one_hot(codes: Codes, u: int, v: int) -> Singles:
    """(studies, findings x 16): which joint state the two teachers are in."""
    joint = codes[:, u].astype(np.int64) * _STATES + codes[:, v]
    hot: Singles = (joint[..., None] == np.arange(_STATES**2)).reshape(len(codes), -1).astype(np.float32)
    return hot


def _p_value(statistics: Floats) -> float:
    """The first is the observed one."""
    return float((statistics >= statistics[0] - _ROUNDING).mean())


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm 1979: step-down Bonferroni over the tests that were made."""
    ranked = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - rank) * p))
        adjusted[index] = highest
    return adjusted
