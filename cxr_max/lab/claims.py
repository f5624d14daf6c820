"""The claims of the paper (arXiv 2510.04142), each judged by one rule that was stated before any run.

Claims were stated before any run too, but for those that are marked late.

A claim is that a difference is above 0. Differences are paired: the same test patients, the same resamples of
them, and the same draws of seeds. With the 95% interval [low, high] of the difference:

- low above 0: **reproduced**;
- high at most ``MARGIN``: **not reproduced**, for a gain worth having is excluded;
- otherwise: **undecided**.

Undecided, too, is what cannot be told: where the interval is not to be trusted (fewer than 10 patients), or where
neither of the two is shown to be better than chance, so that whoever claims nothing is not compared with whoever
claims nothing.

A negative control fails where low is above 0, holds where a gain worth having is excluded, and is undecided
otherwise.

The positive control is a student of a teacher that is always right. While its balanced accuracy is not above
``LEARNT``, the students of this lab cannot learn, and every verdict on one is "undecided".
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from cxr_max.drift.states import PRESENT
from cxr_max.eval.answers import Data
from cxr_max.eval.bootstrap import Draws, difference, estimate, resample
from cxr_max.eval.conditions import ORIGINAL
from cxr_max.eval.metrics.measured import Measured
from cxr_max.eval.tasks.robustness import voted
from cxr_max.findings import FINDINGS
from cxr_max.lab.settings import FINDINGS_ASKED, POSITIVE

MARGIN: Final = 0.02
"""Of balanced accuracy: a gain worth having."""
LEARNT: Final = 0.9
"""Balanced accuracy of the positive control, from which on the others' mean anything."""
RULE: Final = (
    "A claim says that a difference is above 0. Its 95% interval is over resamples of patients, paired, and over"
    " seeds where there are several. Reproduced: the interval lies above 0. Not reproduced: its upper end is at"
    f" most {MARGIN}. Undecided: anything else, and what cannot be told, because fewer than 10 patients decide it"
    " or because neither of the two is shown to be better than chance. A negative control fails where the interval"
    f" lies above 0, holds where its upper end is at most {MARGIN}, and is undecided otherwise. All is undecided"
    f" while the positive control, a student of a teacher that is always right, is not above {LEARNT}."
)
Verdict = Literal["reproduced", "not reproduced", "undecided", "holds", "fails", "no data"]
AT_CHANCE: Final = "neither is shown to be better than chance"
UNTAUGHT: Final = "the positive control has not learnt"
Key = tuple[str, str]
"""Who, and on which test."""
Table = Mapping[Key, Draws]


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the paper or a control, and what became of it here."""

    sentence: str
    verdict: Verdict
    value: float | None
    low: float | None
    high: float | None
    note: str = ""
    late: bool = False
    """Stated when results on test studies had been seen."""

    @property
    def numbers(self) -> str:
        """The difference with its interval, in points of balanced accuracy."""
        if self.value is None or self.low is None or self.high is None:
            return self.note or "no interval"
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Asked:
    sentence: str
    first: str
    second: str
    where: str = "test"
    control: bool = False
    late: bool = False


ASKED: Final = (
    _Asked("SFT on all teachers beats SFT on one", "sft-all", "sft-one"),
    _Asked("DPO against one teacher beats SFT", "dpo", "sft-all"),
    _Asked("APO without an anchor beats SFT", "apo", "sft-all"),
    _Asked("APO with an anchor beats SFT", "apo-anchor", "sft-all"),
    _Asked("APO with an anchor beats DPO against one teacher", "apo-anchor", "dpo"),
    _Asked("The anchor helps APO", "apo-anchor", "apo"),
    _Asked("APO with an anchor beats the teachers' mean", "apo-anchor", "teachers' mean"),
    _Asked("APO with an anchor beats the best teacher", "apo-anchor", "best teacher"),
    _Asked("APO with an anchor beats the teachers' vote", "apo-anchor", "teachers' vote"),
    _Asked("In another hospital, APO with an anchor beats SFT", "apo-anchor", "sft-all", "shifted"),
    _Asked(
        "In another hospital, APO with an anchor beats the best teacher", "apo-anchor", "best teacher", "shifted"
    ),
    _Asked("An anchor five times as strong helps APO more", "strong-anchor", "apo-anchor"),
    _Asked(
        "APO that prefers the student's own answers to the vote's beats SFT", "self-trained", "sft-all", late=True
    ),
    _Asked("Seven teachers teach APO more than three", "apo-anchor", "three-apo"),
    _Asked("One poisoned teacher harms APO", "apo-anchor", "poisoned-apo"),
    _Asked("Correlated errors harm APO", "uncorrelated-apo", "correlated-apo"),
    _Asked("With uncorrelated errors, APO beats SFT", "uncorrelated-apo", "uncorrelated-sft"),
    _Asked("With correlated errors, APO beats SFT", "correlated-apo", "correlated-sft"),
    _Asked("Teachers whose models are updated meanwhile harm APO", "apo-anchor", "drifting-apo", late=True),
    _Asked(
        "With teachers whose models are updated meanwhile, APO beats SFT",
        "drifting-apo",
        "drifting-sft",
        late=True,
    ),
    _Asked("Control: teachers of pure noise, APO against its SFT", "noise-apo", "noise-sft", control=True),
    _Asked("Control: consensus of other studies, APO against SFT", "apo-shuffled", "sft-all", control=True),
)


def judge(table: Table, inherited: Draws | None) -> list[Claim]:
    """Every claim for which there are numbers.

    Args:
        table: balanced accuracy over the findings that were asked about.
        inherited: see ``inheritance``.
    """
    claims = []
    if inherited is not None:
        nothing = _constant(0.0, inherited)
        claims.append(_claim("SFT on all teachers inherits their errors", inherited, nothing, control=False))
    for asked in ASKED:
        first, second = table.get((asked.first, asked.where)), table.get((asked.second, asked.where))
        if first is not None and second is not None:
            claims.append(replace(_claim(asked.sentence, first, second, control=asked.control), late=asked.late))
    return claims if learnt(table) else [_untold(claim) for claim in claims]


def learnt(table: Table) -> bool:
    """Whether the positive control has learnt what it was taught."""
    found = table.get((POSITIVE, "test"))
    value = None if found is None else found.measured.value
    return value is not None and value > LEARNT


def _untold(claim: Claim) -> Claim:
    return claim if claim.verdict == "no data" else replace(claim, verdict="undecided", note=UNTAUGHT)


def _claim(sentence: str, first: Draws, second: Draws, *, control: bool) -> Claim:
    found = difference(first, second)
    if found.value is None or found.low is None or found.high is None:
        return Claim(sentence, "no data", found.value, None, None, found.reason or found.distrust or "")
    vain = not control and _at_chance(first) and _at_chance(second)
    note = found.distrust or (AT_CHANCE if vain else "")
    verdict = _control(found.low, found.high, note) if control else _judged(found.low, found.high, note)
    return Claim(sentence, verdict, found.value, found.low, found.high, note)


def _at_chance(drawn: Draws) -> bool:
    """Whether a balanced accuracy is not shown to be above 1/2."""
    low = estimate(drawn).low
    return drawn.bounds == (0.0, 1.0) and (low is None or low <= 0.5)


def verdict_of(low: float, high: float) -> Verdict:
    """The rule."""
    if low > 0:
        return "reproduced"
    return "not reproduced" if high <= MARGIN else "undecided"


def _judged(low: float, high: float, note: str) -> Verdict:
    return "undecided" if note else verdict_of(low, high)


def _control(low: float, high: float, note: str) -> Verdict:
    if low > 0:
        return "fails"
    return "holds" if high <= MARGIN and not note else "undecided"


def _constant(value: float, like: Draws) -> Draws:
    return Draws(Measured(value), np.full_like(like.values, value), like.patients, "smooth", like.bounds)


def over_seeds(several: Sequence[Draws]) -> Draws:
    """The mean over seeds: each resample of patients draws seeds too, with replacement.

    Drawing S of S seeds shows (S - 1) / S of their variance, which is made good. The same draws for every arm, so
    that differences are paired. One seed alone says nothing of other seeds. Without a value where a seed has none.
    """
    without = next((one for one in several if one.measured.value is None), None)
    if len(several) == 1 or without is not None:
        return without or several[0]
    values, count = np.array([one.values for one in several]), len(several)
    draws = np.random.default_rng(0).integers(0, count, (values.shape[1], count))
    mean = values.mean(axis=0)
    seeded = np.take_along_axis(values, draws.T, axis=0).mean(axis=0)
    spread = mean + np.sqrt(count / (count - 1)) * (seeded - mean)
    value = float(np.mean([one.measured.value for one in several if one.measured.value is not None]))
    fewest = min(one.patients for one in several)
    return Draws(Measured(value), spread, fewest, "smooth", several[0].bounds, several[0].caveat)


def inheritance(everything: Data, seed: int, resamples: int) -> Draws:
    """How much likelier a model errs where the teachers' vote errs: 0 where it errs by itself.

    P(model wrong | vote wrong) - P(model wrong | vote right), among image sets of one finding and one truth, and
    over these strata the mean of Mantel and Haenszel (Greenland and Robins 1985). Wrong is another claim than the
    reference's. Without strata, whoever calls everything absent would seem to inherit: it errs where the finding
    is present, and there the vote errs more often too. Defined here; the paper gives no formula.
    """
    data = everything.of_split("test")
    places = [FINDINGS.index(name) for name in FINDINGS_ASKED]
    truth, answers = data.reference.states[:, places] == PRESENT, data.under(ORIGINAL)
    vote = voted(list(data.peers.values())).states[:, places] == PRESENT
    model_wrong = (answers.states[:, places] == PRESENT) != truth
    vote_wrong, ok = vote != truth, answers.ok[:, None]
    cells = [model_wrong & vote_wrong, vote_wrong, model_wrong & ~vote_wrong, ~vote_wrong]
    strata = np.concatenate([cell & ok & (truth == state) for cell in cells for state in (False, True)], axis=1)
    drawn = resample(data.reference.subjects, seed=seed, resamples=resamples)
    patient = drawn.index(data.reference.subjects)
    sums = np.array([np.bincount(patient, stratum, len(drawn.patients)) for stratum in strata.T])
    again = drawn.multiplicities.astype(np.float64) @ sums.T
    value = float(_excess(sums.sum(axis=1)[None])[0])
    measured = Measured(None, "no finding has both right and wrong votes") if np.isnan(value) else Measured(value)
    return Draws(measured, _excess(again), len(drawn.patients), "smooth", (-1.0, 1.0))


def _excess(sums: Any) -> Any:
    """(resamples, 4 x strata): both wrong, vote wrong, model alone wrong, vote right -> (resamples,)."""
    both, wrong, alone, right = np.split(sums, 4, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.nan_to_num(1 / (wrong + right), posinf=0.0)
        return ((both * right - alone * wrong) * weight).sum(1) / (wrong * right * weight).sum(1)
