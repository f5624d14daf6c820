"""All sentences of a text -> one label per finding."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cxr_max import answers
from cxr_max.findings import FINDINGS, LATERAL, Side, State, blank, blank_sides
from cxr_max.labeler.lexicon import Lexicon, Match, lexicon
from cxr_max.labeler.reading import Mention, Reading
from cxr_max.labeler.scope import read
from cxr_max.labeler.sides import give_sides, joined, loose_side
from cxr_max.labeler.text import Sentence, sentences
from cxr_max.labeler.topics import Topics

VERSION: Final = "cxr-max-labeler-2"

Span = tuple[int, int]
_RANK: Final[tuple[State, ...]] = (1, -1, 0)
_OPENING: Final = 6
"""Sentences within which a refusal must come."""
_BLOCK_LINES: Final = 200
_BLOCK_WIDTH: Final = 200
"""No ANSWER block is longer or wider; the rest is not looked at."""


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


@dataclass(slots=True)
class _Tally:
    """The labels in the making."""

    states: dict[str, State | None] = field(default_factory=blank)
    sides: dict[str, Side | None] = field(default_factory=blank_sides)
    spans: dict[str, Span | None] = field(default_factory=lambda: dict.fromkeys(FINDINGS))

    def add(self, mention: Mention) -> None:
        """Present wins over uncertain, uncertain over absent; equal ones join their sides."""
        finding, state = mention.finding, mention.state
        held = self.states[finding]
        if held is None or _RANK.index(state) < _RANK.index(held):
            self.states[finding], self.sides[finding] = state, None
            self.spans[finding] = (mention.start, mention.end)
        if state == self.states[finding] and state != 0 and finding in LATERAL:
            self.sides[finding] = joined(self.sides[finding], mention.side)

    def conclude(self, normal: Span | None) -> None:
        """No Finding, by the rule in the package's docstring."""
        found = [name for name in FINDINGS if self.states[name] in (1, -1) and name != "Support Devices"]
        denied = next((self.spans[name] for name in FINDINGS if self.states[name] == 0), None)
        if not found and (normal or denied):
            self.states["No Finding"], self.spans["No Finding"] = 1, normal or denied


def label(text: str, *, structured: bool = False, given: tuple[str, ...] = ()) -> Labels:
    """Read the findings of ``text``.

    Args:
        structured: The prompt asked for an ANSWER block: it decides, and the text before it is the cross-check.
            A finding that the block leaves out, and a side that it leaves out, are taken from the text.
        given: The findings that the prompt gave away. A bare repetition of one is an echo and no finding; a
            sentence that says where it is seen is one.
    """
    heading = answers.last_heading(text) if structured else None
    if heading is None:
        return _of_text(text, given)
    lines = [line[:_BLOCK_WIDTH] for line in text[heading.end() :].split("\n", _BLOCK_LINES)[:_BLOCK_LINES]]
    answer = answers.read("ANSWER\n" + "\n".join(lines))
    if answer is None:
        return _of_text(text, given)
    return _decided(answer, _of_text(text[: heading.start()], given), heading)


def _decided(answer: answers.Answer, before: Labels, heading: re.Match[str]) -> Labels:
    states, sides, spans = dict(before.states), dict(before.sides), dict(before.spans)
    against = []
    for finding, state in answer.findings.items():
        if state is None:
            continue
        said = before.states[finding]
        if said not in (None, state):
            against.append(finding)
        agreed = before.sides[finding] if said == state else None
        states[finding] = state
        sides[finding] = (answer.sides[finding] or agreed) if finding in LATERAL else None
        spans[finding] = heading.span()
    if answer.findings["No Finding"] is None and _ill(states):
        # What the text concluded from its denials does not stand beside what the answer claims.
        states["No Finding"], spans["No Finding"] = None, None
    return Labels(states, sides, spans, refused=False, contradictions=tuple(against))


def _ill(states: Mapping[str, State | None]) -> bool:
    return any(state in (1, -1) for name, state in states.items() if name not in ("No Finding", "Support Devices"))


def _of_text(text: str, given: Sequence[str]) -> Labels:
    words = lexicon()
    pairs = list(_read_all(text, words))
    if _refuses(pairs):
        return Labels(blank(), blank_sides(), dict.fromkeys(FINDINGS), refused=True)
    tally, topics = _Tally(), Topics(words, frozenset(given))
    normal: Span | None = None
    other = False
    last: list[Mention] = []
    mentions: list[Mention] = []
    for sentence, reading in pairs:
        mentions += topics.hear(sentence, reading)
        kept = [one for one in reading.mentions if not one.void]
        _follow(sentence, reading, last, words)
        last = kept or last
        mentions += kept
        other = other or reading.other
        if reading.normal and normal is None:
            normal = (sentence.starts[0], sentence.ends[-1])
    for mention in mentions + topics.close():
        tally.add(mention)
    if not other:
        tally.conclude(normal)
    return Labels(tally.states, tally.sides, tally.spans)


def _read_all(text: str, words: Lexicon) -> Iterator[tuple[Sentence, Reading]]:
    """Read the sentences in order; the one behind a heading knows the heading's structures."""
    about: Sequence[Match] = ()
    where: Side | None = None
    for sentence in sentences(text, words.words["abbreviation"]):
        if sentence.opens:
            about, where = (), None
        reading = read(sentence, words, about)
        give_sides(reading, sentence.words, words)
        for mention in reading.mentions:
            mention.start, mention.end = sentence.starts[mention.first], sentence.ends[mention.last - 1]
            mention.side = mention.side or where
        about = reading.structures if sentence.head and not reading.mentions else ()
        where = loose_side(sentence.words, words) if sentence.head and not reading.mentions else where
        yield sentence, reading


def _follow(sentence: Sentence, reading: Reading, last: Sequence[Mention], words: Lexicon) -> None:
    """Pass sides on between what was named last and "It lies at the left base.", "This may be pneumonia."."""
    if not last or reading.generic or not _goes_on(sentence, words):
        return
    for mention in reading.mentions:
        mention.side = mention.side or last[-1].side
    side = loose_side(sentence.words, words) if not reading.mentions else None
    for mention in last:
        if mention.side is None and mention.state != 0:
            mention.side = side


def _goes_on(sentence: Sentence, words: Lexicon) -> bool:
    """Whether the subject is what was named last: "it lies", "these may", not "this radiograph"."""
    classes, first = words.words, sentence.words[:2]
    return len(first) == 2 and first[0] in classes["pronoun"] and first[1] in classes["verb"] | classes["modal"]


def _refuses(pairs: Sequence[tuple[Sentence, Reading]]) -> bool:
    opening = [reading for _, reading in pairs[:_OPENING]]
    return any(one.refuses for one in opening) and not any(one.willing for one in opening)
