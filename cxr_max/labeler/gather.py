"""All sentences of a text -> one label per finding."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from cxr_max import answers
from cxr_max.findings import FINDINGS, LATERAL, Side, State, blank, blank_sides
from cxr_max.labeler.lexicon import Lexicon, lexicon
from cxr_max.labeler.scope import Mention, Reading, joined, read, sides_of
from cxr_max.labeler.text import Sentence, sentences

VERSION: Final = "cxr-max-labeler-1"

Span = tuple[int, int]
_RANK: Final[tuple[State, ...]] = (1, -1, 0)
_OPENING: Final = 5
"""Sentences within which a refusal must come."""


@dataclass(frozen=True, eq=False)
class Labels(Mapping[str, State | None]):
    """The 14 findings of one text: 1 present, 0 absent, -1 uncertain, ``None`` not mentioned."""

    states: Mapping[str, State | None]
    sides: Mapping[str, Side | None]
    spans: Mapping[str, Span | None]
    """Start and end, in characters, of the words that decided the state."""
    refused: bool = False
    """The text declines to read the image; nothing in it is a finding."""
    contradictions: tuple[str, ...] = ()
    """Findings of which the structured answer says another state than the text before it."""

    def __getitem__(self, finding: str) -> State | None:
        return self.states[finding]

    def __iter__(self) -> Iterator[str]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)


def label(text: str, *, structured: bool = False, given: tuple[str, ...] = ()) -> Labels:
    """Read the findings of ``text``.

    Args:
        structured: The prompt asked for an ANSWER block: it decides, what it leaves out is taken from the text.
        given: The findings that the prompt gave away. A bare repetition of one is an echo and no finding.
    """
    return _of_text(text, given)


def _of_text(text: str, given: tuple[str, ...]) -> Labels:
    words = lexicon()
    pairs = [(one, read(one, words)) for one in sentences(text, words.words["abbreviation"])]
    states, sides, spans = blank(), blank_sides(), dict.fromkeys(FINDINGS)
    normal = other = False
    best: dict[str, Mention] = {}
    found = []
    for sentence, reading in pairs:
        sides_of(reading, sentence, words)
        normal = normal or reading.normal
        other = other or reading.other
        for mention in reading.mentions:
            if not mention.void:
                mention.start = sentence.starts[mention.first]
                mention.end = sentence.ends[mention.last - 1]
                found.append(mention)
    for name in FINDINGS:
        ms = [m for m in found if m.finding == name]
        for state in _RANK:
            w = [m for m in ms if m.state == state]
            if w:
                states[name] = state
                spans[name] = (w[0].start, w[0].end)
                break
    return Labels(states, sides, spans)
