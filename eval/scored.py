"""From a metric over some rows to a score: one way for all tasks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cxr_max.drift.states import PRESENT, UNCERTAIN
from cxr_max.eval.answers import Answers, Data
from cxr_max.eval.bootstrap import (
    FEWEST_PATIENTS,
    Draws,
    Resamples,
    draws_together,
    estimate,
    macro,
    resample,
    undefined,
)
from cxr_max.eval.metrics.classification import Binary
from cxr_max.eval.metrics.measured import Bools, Ints, Metric
from cxr_max.eval.reference import Reference
from cxr_max.eval.suite import Suite
from cxr_max.findings import FINDINGS
from cxr_max.records import Score

EVERY: Final = tuple(range(len(FINDINGS)))
"""The places of all findings."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows behind a number."""

    scored: int
    refused: int
    failed: int

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(self.scored + other.scored, self.refused + other.refused, self.failed + other.failed)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A metric of one finding, and the rows of the data that it is of."""

    metric: Metric | str
    """Or the reason why there is none."""
    rows: Ints
    """(m,), ascending."""
    counted: Counted


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A number before its interval is taken."""

    metric: str
    finding: str | None
    condition: str | None
    group: str | None
    drawn: Draws
    counted: Counted

    def score(self, model: str, dataset: str, task: str, suite: Suite) -> Score:
        """With its interval."""
        found = estimate(self.drawn)
        return Score(
            model=model,
            dataset=dataset,
            task=task,
            metric=self.metric,
            finding=self.finding,
            condition=self.condition,
            group=self.group,
            value=found.value,
            low=found.low,
            high=found.high,
            reason=found.reason,
            trusted=found.trusted,
            distrust=found.distrust,
            patients=found.patients,
            n_scored=self.counted.scored,
            n_refused=self.counted.refused,
            n_failed=self.counted.failed,
            suite_sha256=suite.sha256,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Ruler:
    """Draws any metric of one set of rows over the same resamples of their patients."""

    patient: Ints
    """(n,): whose each row is, by position in ``resamples``."""
    resamples: Resamples

    @staticmethod
    def of(reference: Reference, suite: Suite) -> "Ruler":
        """For these image sets, of which there is at least one."""
        drawn = resample(reference.subjects, seed=suite.seed, resamples=suite.resamples)
        return Ruler(drawn.index(reference.subjects), drawn)

    def draw(self, part: Part) -> Draws:
        """One part's."""
        return self.draw_all([part])[0]

    def draw_all(self, parts: Sequence[Part]) -> list[Draws]:
        """Several at once, which is faster."""
        metrics = [(part.metric, self.patient[part.rows]) for part in parts if not isinstance(part.metric, str)]
        drawn = iter(draws_together(metrics, self.resamples))
        times = len(self.resamples.multiplicities)
        return [undefined(part.metric, times) if isinstance(part.metric, str) else next(drawn) for part in parts]

    def drawn(self, make: Callable[[int], Part], places: Iterable[int] = EVERY) -> list[tuple[int, Part, Draws]]:
        """Of several findings, by their places in ``FINDINGS``."""
        parts = [(place, make(place)) for place in places]
        found = self.draw_all([part for _, part in parts])
        return [(place, part, drawn) for (place, part), drawn in zip(parts, found, strict=True)]


def per_finding(
    metric: str,
    ruler: Ruler,
    make: Callable[[int], Part],
    *,
    places: Iterable[int] = EVERY,
    condition: str | None = None,
    group: str | None = None,
    each: bool = True,
    common: Sequence[int] | None = None,
) -> Iterator[Scored]:
    """A metric of every finding, and the mean over findings; or the mean alone.

    Args:
        places: of the findings.
        common: of those in the mean (see ``mean_over``).
    """
    found = ruler.drawn(make, places)
    if each:
        for place, part, drawn in found:
            yield Scored(metric, FINDINGS[place], condition, group, drawn, part.counted)
    yield mean_over(metric, found, common, condition=condition, group=group)


def mean_over(
    metric: str,
    found: Sequence[tuple[int, Part, Draws]],
    common: Sequence[int] | None,
    *,
    condition: str | None = None,
    group: str | None = None,
) -> Scored:
    """The mean over findings; its rows are those of all of these.

    Args:
        common: the findings' places, where the reference chooses them (``Reference.common``); there is no mean
            where one of them has no value. Where it chooses none, they are those that ``FEWEST_PATIENTS`` or more
            decide, or all with a value where there are none.
    """
    among = [one for one in found if common is not None and one[0] in common]
    if among:
        drawn = _whole([one for _, _, one in among])
    else:
        among = [one for one in found if one[2].patients >= FEWEST_PATIENTS] or list(found)
        drawn = macro([one for _, _, one in among])
    counted = sum((part.counted for _, part, _ in among), Counted(0, 0, 0))
    return Scored(metric, None, condition, group, drawn, counted)


def _whole(drawn: Sequence[Draws]) -> Draws:
    """The mean over all: nobody may leave out the findings that go badly."""
    missing = [one.measured.reason for one in drawn if one.measured.value is None]
    if missing and len(missing) < len(drawn):
        reason = f"{len(missing)} of {len(drawn)} findings have no value ({missing[0]})"
        return undefined(reason, len(drawn[0].values))
    return macro(drawn)


def pairs(reference: Reference, answers: Answers, place: int, among: Bools | None = None) -> Binary:
    """One finding of reference and answers, by ``classification.NULL_RULES``; what failed is left out.

    Args:
        among: (n,) the image sets to look at; all if ``None``.
    """
    decided = decides(reference, place) & ~answers.failed
    if among is not None:
        decided &= among
    rows = np.flatnonzero(decided)
    return Binary(
        rows,
        reference.states[rows, place] == PRESENT,
        answers.states[rows, place] == PRESENT,
        answers.ok[rows],
    )


def counted(reference: Reference, answers: Answers, place: int, among: Bools | None = None) -> Counted:
    """The rows whose reference decides the finding: answered, refused, failed."""
    decided = decides(reference, place)
    if among is not None:
        decided = decided & among
    return count(answers, decided)


def count(answers: Answers, among: Bools) -> Counted:
    """Answered, refused and failed among some image sets."""
    return Counted(*(int((among & kind).sum()) for kind in (answers.ok, answers.refused, answers.failed)))


def decides(reference: Reference, place: int) -> Bools:
    """(n,): there are labels, and the finding is not uncertain."""
    decided: Bools = reference.labelled & (reference.states[:, place] != UNCERTAIN)
    return decided


def claim_part(
    make: Callable[[Bools, Bools], Metric],
    data: Data,
    answers: Answers,
    place: int,
    among: Bools | None = None,
) -> Part:
    """A metric of claims, over the answered rows."""
    found = pairs(data.reference, answers, place, among).of_answered()
    return Part(make(found.reference, found.claim), found.rows, counted(data.reference, answers, place, among))
