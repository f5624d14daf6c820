"""The vote of ``consensus.vote`` over whole arrays: equal weights, one sample each, quorum 2, ties uncertain."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from cxr_max.drift.states import ABSENT, PRESENT, UNCERTAIN, Codes
from cxr_max.eval.answers import Answers
from cxr_max.findings import FINDINGS

QUORUM: Final = 2
_NORMAL: Final = FINDINGS.index("No Finding")
_DEVICES: Final = FINDINGS.index("Support Devices")
_ILL: Final = tuple(place for place in range(len(FINDINGS)) if place not in (_NORMAL, _DEVICES))


def verdicts(teachers: Sequence[Answers]) -> Codes:
    """(n, 14): state codes of what the teachers say together; 0 where fewer than two say anything."""
    said = np.stack([answers.states for answers in teachers])
    voters = (said > 0).sum(axis=0)
    verdict = np.full(voters.shape, UNCERTAIN, dtype=np.int8)
    for state in (ABSENT, PRESENT):
        verdict[2 * (said == state).sum(axis=0) > voters] = state
    verdict[voters < QUORUM] = 0
    verdict[:, _NORMAL] = np.where(_normal(said, verdict, voters), PRESENT, 0)
    return verdict


def _normal(said: Codes, verdict: Codes, voters: Codes) -> Codes:
    """(n,): CheXpert's rule, as ``consensus.vote`` has it."""
    claimed = ((said == PRESENT) | (said == UNCERTAIN)).any(axis=0)
    clear = np.isin(verdict, (0, ABSENT)) & ~((verdict == 0) & claimed)
    anybody = (said[:, :, _NORMAL] == PRESENT).any(axis=0)
    enough = (said > 0).any(axis=2).sum(axis=0) >= QUORUM
    normal: Codes = clear[:, _ILL].all(axis=1) & anybody & enough
    return normal
