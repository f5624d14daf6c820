"""What a leaderboard shows: one board per suite and data set, the models on it, and how they differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cxr_max.records import Score

Verdict = Literal["yes", "no", "not shown"]


@dataclass(frozen=True, slots=True)
class Flag:
    """A judgement about a model, and what it rests on."""

    name: str
    """``uses the image``, ``robust``, ``unseen test set``."""
    verdict: Verdict
    reason: str
    """One sentence with the numbers."""


@dataclass(frozen=True, slots=True)
class Example:
    """One reply, as a page shows it."""

    study: str
    """The study's identifier, or a number where the terms of the data keep identifiers private."""
    condition: str
    status: str
    reference: tuple[str, ...]
    """The findings that are present, sides included: ``Pleural Effusion, left``."""
    claimed: tuple[str, ...]
    """Likewise, of the reply."""
    text: str | None
    """``None`` where there is none, or the terms keep it private."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model on a board."""

    name: str
    """Shown; unique on its board."""
    settings: Mapping[str, str]
    """What was asked and how, as label -> value: model, model reported, prompt, sampling, labeler, cost, ..."""
    notes: tuple[str, ...]
    """What a reader must know: simulated, retired, leaked studies, a public test set, ..."""
    flags: tuple[Flag, ...]
    scores: tuple[Score, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A number that the table shows for every model."""

    task: str
    metric: str
    """A name of ``eval.definitions``."""
    condition: str | None
    title: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """First minus second in one column, over the same resamples of the same patients."""

    first: str
    second: str
    value: float | None
    low: float | None
    high: float | None
    p_value: float | None
    """Two-sided, adjusted by Holm over all pairs of the column."""
    reason: str | None
    """Why there is no value."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One column: all pairs of models, and whom they leave together."""

    column: Column
    comparisons: tuple[Comparison, ...]
    clusters: Mapping[str, str]
    """Model -> letters, best first; two models that share a letter are not told apart (p >= 0.05)."""


@dataclass(frozen=True, slots=True)
class PerFinding:
    """Two models in one metric, finding by finding."""

    metric: str
    findings: Mapping[str, Comparison]
    """Finding -> first minus second; p-values are adjusted by Holm over the findings."""


@dataclass(frozen=True, slots=True)
class Board:
    """Models that answered the same questions, judged by the same suite."""

    suite: str
    """Name and version."""
    suite_sha256: str
    dataset: str
    """The data set's title."""
    dataset_notes: tuple[str, ...]
    """Its terms, whether models may have been trained on it, how many studies and patients."""
    columns: tuple[Column, ...]
    entries: tuple[Entry, ...]
    compared: tuple[Compared, ...]
    per_finding: tuple[PerFinding, ...]
    """Every two models in every metric that is shown finding by finding."""
    ceiling: tuple[Score, ...]
    """What the reference labels score against a second reading of the same reports: how good a perfect model could
    look. Empty where there is no second reading."""
