"""How far several raters, samples or paraphrases say the same.

Codes are (units, raters) integers 0 ... levels - 1; ``said``, of the same shape, is false where a rater said
nothing that counts. Whether *not mentioned* is a missing rating or a level of its own is the caller's choice, made
by ``said`` and ``levels``. A unit is what is rated: one finding of one image set, say.
"""

from itertools import combinations
from typing import Literal, get_args

import numpy as np

from cxr_max.errors import RequestError
from cxr_max.eval.metrics.measured import Additive, Bools, Floats, Ints, ratio

Level = Literal["nominal", "ordinal"]
"""How far apart two codes are: merely different, or by their ranks."""
_NOBODY = "no unit was rated twice"


def krippendorff_alpha(codes: Ints, said: Bools, *, levels: int, level: Level = "nominal") -> Additive:
    """alpha = 1 - D_o / D_e: observed over expected disagreement, -1 to 1 (Krippendorff 2011, Computing alpha).

    A unit with m ratings adds 1 / (m - 1) for each ordered pair of its ratings to the coincidences o_ck. With n_c
    their row sums and n their total, D_o = sum o_ck d_ck / n and D_e = sum n_c n_k d_ck / (n (n - 1)); d is 0 or 1
    for nominal codes, and (sum of n_g for g from c to k, less (n_c + n_k) / 2)^2 for ordinal ones. Units with
    fewer than two ratings take no part. Undefined where all ratings that do are the same code.

    Raises:
        RequestError: codes and said differ in shape, a code is out of range, or the level is unknown.
    """
    if level not in get_args(Level):
        raise RequestError(f"{level!r} is no level of measurement: give one of {', '.join(get_args(Level))}")
    counts = _counts(codes, said, levels)
    rated = counts.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :]
    diagonal = np.arange(levels)
    pairs[:, diagonal, diagonal] -= counts
    columns = np.where(rated >= 2, 1 / np.maximum(rated - 1, 1), 0)[:, None] * pairs.reshape(len(counts), -1)

    def formula(sums: Floats) -> Floats:
        return _alpha(sums.reshape(-1, levels, levels), level)

    reason = "all ratings are the same, or no unit was rated twice"
    return Additive(columns, formula, reason, (rated >= 2,), "smooth", (-1.0, 1.0))


def pairwise_agreement(codes: Ints, said: Bools, *, levels: int) -> Additive:
    """Of all pairs of ratings of the same unit, the share that is equal: observed agreement, every pair once."""
    counts = _counts(codes, said, levels)
    rated = counts.sum(axis=1)
    columns = np.stack([(counts * (counts - 1)).sum(axis=1), rated * (rated - 1)], axis=1) / 2
    return Additive(columns, _share, _NOBODY, (rated >= 2,))


def agreement_of_pairs(codes: Ints, said: Bools, *, levels: int) -> dict[tuple[int, int], Additive]:
    """``pairwise_agreement`` of each two raters, by their columns."""
    return {
        pair: pairwise_agreement(codes[:, pair], said[:, pair], levels=levels)
        for pair in combinations(range(codes.shape[1]), 2)
    }


def self_consistency(samples: Ints, said: Bools, *, levels: int) -> Additive:
    """The probability that two samples of one model for the same request say the same: the samples are the raters.

    Unlike the share of the commonest answer it does not depend, in expectation, on how many samples were drawn.
    """
    return pairwise_agreement(samples, said, levels=levels)


def flip_rate(original: Ints, original_said: Bools, variants: Ints, variants_said: Bools) -> Additive:
    """Of the answers to (units, variants) paraphrased prompts, the share unlike the (units,) original's.

    Only variants whose original was answered too are compared.

    Raises:
        RequestError: the shapes do not fit.
    """
    if original.shape != original_said.shape or variants.shape != variants_said.shape:
        raise RequestError("give for each answer, in an array of the same shape, whether it was given")
    if variants.ndim != 2 or len(variants) != len(original):
        raise RequestError("give the variants as (units, variants), one row for each original answer")
    compared = variants_said & original_said[:, None]
    flipped = compared & (variants != original[:, None])
    columns = np.stack([flipped.sum(axis=1), compared.sum(axis=1)], axis=1).astype(np.float64)
    return Additive(columns, _share, "no paraphrase and its original were both answered", (columns[:, 1] > 0,))


def _counts(codes: Ints, said: Bools, levels: int) -> Floats:
    """(units, levels): how many raters gave each code."""
    if codes.ndim != 2 or codes.shape != said.shape:
        raise RequestError("give codes and said as (units, raters), of the same shape")
    if (said & ((codes < 0) | (codes >= levels))).any():
        raise RequestError(f"a code lies outside 0 to {levels - 1}: say which ratings are missing in said")
    counts = [((codes == code) & said).sum(axis=1) for code in range(levels)]
    return np.stack(counts, axis=1).astype(np.float64)


def _alpha(coincidences: Floats, level: Level) -> Floats:
    """(m, levels, levels) -> (m,)."""
    marginal = coincidences.sum(axis=2)
    total = marginal.sum(axis=1)
    distance = _distance(marginal, level)
    observed = (coincidences * distance).sum(axis=(1, 2))
    expected = (marginal[:, :, None] * marginal[:, None, :] * distance).sum(axis=(1, 2))
    return 1 - ratio(observed * (total - 1), expected)


def _distance(marginal: Floats, level: Level) -> Floats:
    """(m, levels, levels), squared."""
    if level == "nominal":
        return np.broadcast_to(1 - np.eye(marginal.shape[1]), (len(marginal), *[marginal.shape[1]] * 2))
    rank = np.cumsum(marginal, axis=1) - marginal / 2
    squared: Floats = (rank[:, :, None] - rank[:, None, :]) ** 2
    return squared


def _share(sums: Floats) -> Floats:
    return ratio(sums[:, 0], sums[:, 1])
