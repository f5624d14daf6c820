"""Streams of commitments with known truth."""

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int8]


def committing(
    seed: int,
    *,
    studies: int = 80,
    teachers: int = 3,
    bins: int = 6,
    findings: int = 6,
    error: float = 0.15,
    shift_at: int | None = None,
    error_after: float = 0.5,
    overcall_at: int | None = None,
    trending: bool = False,
    patients: int | None = None,
) -> Codes:
    """(studies, teachers, bins, findings) codes: every teacher commits once to every finding, at a random bin.

    A commitment is wrong with probability ``error``; from bin ``shift_at`` on with ``error_after``; from
    bin ``overcall_at`` on everything is called present. ``trending`` makes late bins likelier, so that later steps
    say more. With ``patients``, a patient's studies are copies.
    """
    rng = np.random.default_rng(seed)
    if patients is not None:
        drawn = committing(
            seed, studies=patients, teachers=teachers, bins=bins, findings=findings, error=error, trending=trending
        )
        return drawn[np.arange(studies) % patients]
    likely = np.arange(1, bins + 1) if trending else np.ones(bins)
    when = rng.choice(bins, size=(studies, teachers, findings), p=likely / likely.sum())
    truth = rng.random((studies, 1, findings)) < 0.4
    limit = np.full(when.shape, error)
    if shift_at is not None:
        limit = np.where(when >= shift_at, error_after, error)
    opinion = np.where(truth ^ (rng.random(when.shape) < limit), 3, 1)
    if overcall_at is not None:
        opinion = np.where(when >= overcall_at, 3, opinion)
    said = when[:, :, None, :] <= np.arange(bins)[None, None, :, None]
    return np.where(said, opinion[:, :, None, :], 0).astype(np.int8)


def exchangeable(seed: int, *, studies: int = 80, teachers: int = 3, bins: int = 4, findings: int = 4) -> Codes:
    """Joint states that lean towards a state of their study, and are drawn anew at every step."""
    rng = np.random.default_rng(seed)
    lean = rng.integers(0, 4, (studies, 1, 1, findings))
    other = rng.integers(0, 4, (studies, teachers, bins, findings))
    return np.where(rng.random(other.shape) < 0.6, lean, other).astype(np.int8)
