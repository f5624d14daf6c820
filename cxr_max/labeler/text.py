"""Text -> sentences of lower-case words that know their place in the text, with markdown read as structure.

One linear scan; the pattern has no nested quantifier. A sentence of more than ``WINDOW`` words is cut.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

WINDOW: Final = 250
"""Words: no sentence is longer, so that what is done per sentence stays bounded."""
MARGIN: Final = 60
"""Characters: a shorter line that ends was meant to end."""
HEAD: Final = 12
"""Words: nothing longer is a heading."""

_TOKEN = re.compile(
    r"[A-Za-z]+(?:['’][A-Za-z]+)?|\d+(?:\.\d+)?|\*\*|__|\n[ \t]*\n|\n|#|[.!?;:,|()–—]|[ \t]-+[ \t]|[✅✓✔☑❌✗✘❎❓]"
)
_MARKS: Final = {**dict.fromkeys("✅✓✔☑", 1), **dict.fromkeys("❌✗✘❎", 0), "❓": -1}
_STOPS: Final = frozenset(".!?;")
_DASHES: Final = frozenset("–—")


@dataclass(slots=True)
class Sentence:
    """A run of words; ``starts[i]`` and ``ends[i]`` are the place of word i in the text."""

    words: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    head: bool = False
    """It stands before a colon, a dash or a table's bar, is a heading or a question: "Fracture:", "## Edema"."""
    titled: bool = False
    """It is a heading on a line of its own."""
    bold: int = 0
    """How many of its words are in bold type."""
    opens: bool = False
    """It begins its line."""
    paragraph: bool = False
    """A blank line stands before it."""
    mark: int | None = None
    """A check mark in it: 1, 0 or -1."""


def sentences(text: str, abbreviations: frozenset[str]) -> Iterator[Sentence]:
    """The sentences of ``text`` in order; commas stay in them as words."""
    return _Splitter(abbreviations).split(text)


class _Splitter:
    def __init__(self, abbreviations: frozenset[str]) -> None:
        self.abbreviations = abbreviations
        self.now = Sentence(opens=True)
        self.hash = False
        self.bold = False
        self.line = 0
        """Where the line began, in characters."""

    def split(self, text: str) -> Iterator[Sentence]:
        for match in _TOKEN.finditer(text):
            token = match[0]
            first = token[0]
            if first.isalnum() or first == ",":
                self._word(token, match.start(), match.end())
                if len(self.now.words) >= WINDOW:
                    yield from self._close()
            elif first in _MARKS:
                self.now.mark = _MARKS[first]
            elif first == "\n":
                if not self._wrapped(text, match):
                    yield from self._line(paragraph=len(token) > 1)
                self.line = match.end()
            elif first == "#":
                self.hash = self.hash or (self.now.opens and not self.now.words)
            elif first == "*" or first == "_":
                self.bold = not self.bold
            elif first in _STOPS:
                if first == "?":
                    self.now.head = len(self.now.words) <= HEAD
                if first != "." or not self._abbreviated():
                    yield from self._stop()
            elif first in ":|" or token in _DASHES or first in " \t":
                yield from self._separator(first)
        yield from self._close()

    def _word(self, token: str, start: int, end: int) -> None:
        now = self.now
        now.words.append(token.lower().replace("’", "'"))
        now.starts.append(start)
        now.ends.append(end)
        now.bold += self.bold

    def _wrapped(self, text: str, match: re.Match[str]) -> bool:
        """Whether a line break is the margin's, not the writer's."""
        following = text[match.end() : match.end() + 1]
        return match.start() - self.line >= MARGIN and not self.hash and "a" <= following <= "z"

    def _abbreviated(self) -> bool:
        return bool(self.now.words) and self.now.words[-1] in self.abbreviations

    def _stop(self) -> Iterator[Sentence]:
        words = self.now.words
        self.now.head = self.now.head or 0 < len(words) == self.now.bold <= HEAD
        if not self.hash and not (len(words) == 1 and words[0].isdigit() and self.now.opens):
            yield from self._close()
        elif not self.hash:  # "1." before a heading is no sentence of its own
            self.now = Sentence(opens=True, paragraph=self.now.paragraph, mark=self.now.mark)

    def _separator(self, sign: str) -> Iterator[Sentence]:
        if not self.now.words:
            return
        self.now.head = self.now.opens and len(self.now.words) <= HEAD
        yield from self._close()

    def _line(self, *, paragraph: bool) -> Iterator[Sentence]:
        now = self.now
        if now.words and now.opens and (self.hash or now.bold == len(now.words)) and len(now.words) <= HEAD:
            now.head = now.titled = True
        yield from self._close()
        self.bold = False
        self.now.opens, self.now.paragraph, self.hash = True, self.now.paragraph or paragraph, False

    def _close(self) -> Iterator[Sentence]:
        now = self.now
        if now.words or now.mark is not None:
            self.now = Sentence()
            yield now
