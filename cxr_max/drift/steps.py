"""A text -> its reasoning steps."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cxr_max.answers import last_heading

_MARK: Final = r"(?:[-*+•▪◦●‣–—✓✔✅❌❓]\ufe0f?+|\(?[0-9]{1,3}[.)]|\(?[A-Za-z]\))"
_BULLET: Final = re.compile(rf"(?:{_MARK}[ \t]++)*+")
_END: Final = re.compile(r"""[.!?]["'”’)\]*_`]*+\s++(?![a-z])""")
_ABBREVIATIONS: Final[frozenset[str]] = frozenset(
    {"dr", "mr", "mrs", "ms", "prof", "st", "vs", "fig", "approx", "ca", "cf", "resp", "i.e", "e.g"}
)
_LONGEST_BOLD_HEADING: Final = 8
"""Words. Longer bold lines are sentences."""


@dataclass(frozen=True, slots=True)
class _Block:
    start: int
    said: int
    """Where the text behind the bullet begins."""
    end: int
    heading: bool = False


def steps(text: str) -> list[tuple[int, int]]:
    """The reasoning steps of a reply: half-open character ranges of ``text``, in order, none overlapping.

    A step is a sentence; a bullet, a numbered item and a blank line begin a new one, a line break within a
    paragraph does not. A heading (a ``#`` line, a bold line of at most eight words, a line that ends with a
    colon) belongs to the sentence that follows, and a last heading that nothing follows is a step. A sentence
    ends at ``.``, ``!`` or ``?`` before white space, unless a lower-case letter follows, or the stop belongs to
    an abbreviation or to the number that opens the sentence. The structured answer, from its last heading to the
    end of the text, is no reasoning and is left out; every other letter and digit lies in exactly one step.

    Deterministic, and linear in the length of the text. Source: this project; the paper (arXiv 2510.04142) counts
    reasoning steps and does not say what one is.
    """
    found: list[tuple[int, int]] = []
    waiting: _Block | None = None
    for block in _blocks(text, _answer_start(text)):
        if block.heading:
            waiting = _Block(waiting.start if waiting else block.start, block.said, block.end)
            continue
        sentences = list(_sentences(text, block))
        if waiting:
            sentences[0] = (waiting.start, sentences[0][1])
        found += sentences
        waiting = None
    if waiting:
        found.append((waiting.start, waiting.end))
    return found


def _lines(text: str) -> Iterator[tuple[int, int]]:
    """Each line without the white space around it."""
    position = 0
    for line in text.split("\n"):
        left = len(line) - len(line.lstrip())
        yield position + left, position + max(left, len(line.rstrip()))
        position += len(line) + 1


def _answer_start(text: str) -> int:
    """Where the structured answer begins; the text's length where there is none."""
    heading = last_heading(text)
    return heading.start() if heading else len(text)


def _blocks(text: str, limit: int) -> Iterator[_Block]:
    """Headings, and runs of lines that belong together."""
    current: _Block | None = None
    for start, end in _lines(text[:limit]):
        bullet = _BULLET.match(text, start, end)
        said = bullet.end() if bullet else start
        spoken = any(character.isalnum() for character in text[start:end])
        heading = spoken and _is_heading(text[said:end])
        if current and (not spoken or heading or said > start):
            yield current
            current = None
        if heading:
            yield _Block(start, said, end, heading=True)
        elif spoken:
            current = _Block(current.start, current.said, end) if current else _Block(start, said, end)
    if current:
        yield current


def _is_heading(line: str) -> bool:
    if line.startswith("#") or line.rstrip("*_ ").endswith(":"):
        return True
    bold = line.startswith(("**", "__")) and line.endswith(("**", "__"))
    bare = line.strip("*_ ")
    return bold and not bare.endswith((".", "!", "?")) and len(bare.split()) <= _LONGEST_BOLD_HEADING


def _sentences(text: str, block: _Block) -> Iterator[tuple[int, int]]:
    """Ranges that cover a block's letters and digits; each has at least one."""
    last = next(i for i in range(block.end - 1, block.said - 1, -1) if text[i].isalnum())
    start, first = block.start, _next_word(text, block.said)
    for stop in _END.finditer(text, block.said, last):
        if stop.start() <= first or _goes_on(text, first, stop.start()):
            continue
        yield start, stop.start() + len(stop[0].rstrip())
        start, first = stop.end(), _next_word(text, stop.end())
    yield start, block.end


def _next_word(text: str, position: int) -> int:
    while not text[position].isalnum():
        position += 1
    return position


def _goes_on(text: str, first: int, stop: int) -> bool:
    """Whether the full stop belongs to an abbreviation, or to the number that opens the sentence."""
    word = re.split(r"[\s(]", text[max(first, stop - 12) : stop])[-1].lower()
    return word in _ABBREVIATIONS or (word.isdigit() and stop - len(word) == first)
