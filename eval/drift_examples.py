"""The image sets on which teachers contradict each other most, with the words that do so.

Texts are kept as they are, in pieces; whoever shows them escapes them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from cxr_max.drift.conflict import OPPOSED, RELATIONS
from cxr_max.drift.states import STATE_ORDER
from cxr_max.drift.steps import steps
from cxr_max.eval.drift_numbers import Compared, first_samples
from cxr_max.eval.drift_rows import SIDE_ORDER, Ints, Rows
from cxr_max.findings import FINDINGS, Side, State
from cxr_max.labeler import label
from cxr_max.records import STATUSES

EXAMPLES: Final = 8
SHOWN: Final = 6_000
"""Characters of a text that are shown."""
_WORDS: Final = {1: "present", 0: "absent", -1: "uncertain", None: "nothing"}
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, those that turn the direction of writing among them: what is shown must be what is there."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One finding on which a reply opposes the others."""

    finding: str
    state: State | None
    side: Side | None
    others_state: State | None
    others_side: Side | None

    @property
    def words(self) -> str:
        """For people: ``Pleural Effusion: present, left; the others: present, right``."""
        ours, theirs = _said(self.state, self.side), _said(self.others_state, self.others_side)
        return f"{self.finding}: {ours}; the others: {theirs}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text."""

    text: str
    claim: str | None
    """In words, where the stretch makes a claim that opposes the others."""


@dataclass(frozen=True, slots=True)
class Voice:
    """What one teacher says of an example."""

    teacher: str
    status: str
    score: float | None
    """Its conflict with the others' vote, 0 to 1."""
    claims: tuple[Claim, ...]
    pieces: tuple[Piece, ...]
    """The text; not part of ``drift.json``."""
    hidden: int
    """Characters that are not shown."""


@dataclass(frozen=True, slots=True)
class Example:
    """One image set."""

    study_id: str
    image_ids: tuple[str, ...]
    conflict: float
    """Mean over the replies that have a score, 0 to 1."""
    n: int
    """Replies that have one."""
    voices: tuple[Voice, ...]


def worst(rows: Rows, compared: Compared) -> dict[int, float]:
    """Image set -> mean conflict, of at most eight, the highest first; at least two replies, and some conflict.

    Ties in the order of study and image identifiers.
    """
    held = ~np.isnan(compared.score)
    sets = len(rows.image_sets)
    sums = np.bincount(rows.image_set[held], weights=compared.score[held], minlength=sets)
    counts = np.bincount(rows.image_set[held], minlength=sets)
    means = np.divide(sums, counts, out=np.zeros(sets), where=counts > 1).round(9).tolist()

    def rank(index: int) -> tuple[float, str, tuple[str, ...]]:
        return -means[index], rows.image_sets[index].study_id, rows.image_sets[index].image_ids

    contested = sorted((index for index in range(sets) if means[index] > 0), key=rank)
    return {index: means[index] for index in contested[:EXAMPLES]}


def shown_rows(rows: Rows, chosen: Mapping[int, float]) -> dict[int, Ints]:
    """Image set -> the row to show of each teacher that was asked: a usable one if there is one."""
    usable, asked = first_samples(rows, rows.usable), first_samples(rows, np.ones(len(rows), dtype=np.bool_))
    table = np.where(usable >= 0, usable, asked)
    return {index: table[index][table[index] >= 0] for index in chosen}


def examples(rows: Rows, compared: Compared, texts: Mapping[int, str]) -> tuple[Example, ...]:
    """The worst image sets, with their texts.

    Args:
        texts: row number in the release -> text, of at least ``shown_rows``.
    """
    chosen = worst(rows, compared)
    shown = shown_rows(rows, chosen)
    found = []
    for index, mean in chosen.items():
        asked = rows.image_sets[index]
        scored = int((~np.isnan(compared.score[rows.image_set == index])).sum())
        voices = tuple(_voice(rows, compared, int(row), texts[int(rows.position[row])]) for row in shown[index])
        found.append(Example(asked.study_id, asked.image_ids, mean, scored, voices))
    return tuple(found)


def _voice(rows: Rows, compared: Compared, row: int, text: str) -> Voice:
    score = compared.score[row]
    claims = tuple(_claims(rows, compared, row))
    shown = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text[:SHOWN].replace("\r\n", "\n"))
    return Voice(
        teacher=rows.teachers[rows.teacher[row]],
        status=STATUSES[rows.status[row]],
        score=None if np.isnan(score) else float(score),
        claims=claims,
        pieces=pieces(shown, claims),
        hidden=max(0, len(text) - SHOWN),
    )


def _claims(rows: Rows, compared: Compared, row: int) -> Iterator[Claim]:
    for column, name in enumerate(FINDINGS):
        relation = int(compared.relation[row, column])
        if relation < 0 or RELATIONS[relation] not in OPPOSED:
            continue
        side_matters = RELATIONS[relation] == "side"
        yield Claim(
            name,
            STATE_ORDER[rows.states[row, column]],
            SIDE_ORDER[rows.sides[row, column]] if side_matters else None,
            STATE_ORDER[compared.states[row, column]],
            SIDE_ORDER[compared.sides[row, column]] if side_matters else None,
        )


def _said(state: State | None, side: Side | None) -> str:
    return _WORDS[state] if side is None else f"{_WORDS[state]}, {side}"


def pieces(text: str, claims: tuple[Claim, ...]) -> tuple[Piece, ...]:
    """Cut ``text`` where a claim is made: the labeler's span in the prose, and the line of a structured answer."""
    marks = sorted(_marks(text, claims))
    found: list[Piece] = []
    position = 0
    for start, end, words in marks:
        if start < position:
            continue
        if start > position:
            found.append(Piece(text[position:start], None))
        found.append(Piece(text[start:end], words))
        position = end
    if position < len(text):
        found.append(Piece(text[position:], None))
    return tuple(found)


def _marks(text: str, claims: tuple[Claim, ...]) -> Iterator[tuple[int, int, str]]:
    if not claims:
        return
    # Only the prose: the structured answer behind it has its lines marked whole.
    prose = steps(text)
    labels = label(text[: prose[-1][1]] if prose else "")
    for claim in claims:
        span = labels.spans.get(claim.finding)
        if span is not None and span[0] < span[1] and labels[claim.finding] == claim.state:
            yield *span, claim.words
        said = rf"{re.escape(claim.finding)}[^\w\n]{{0,10}}[:|][^\w\n]{{0,20}}{_WORDS[claim.state]}"
        line = rf"^[^\w\n]{{0,20}}({said}\b[^\n]{{0,40}})"
        for match in re.finditer(line, text, re.IGNORECASE | re.MULTILINE):
            yield *match.span(1), claim.words
