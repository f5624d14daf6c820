"""The structured answer that the ``diagnose`` prompt asks for -> findings and sides; and what is no answer.

The block reads ``ANSWER``, then ``Pleural Effusion: present, left`` line by line. Models decorate it with
bullets, bold type, code fences and headings, all of which are ignored.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from cxr_max.findings import FINDINGS, SIDES, STATES, Side, State, blank, blank_sides
from cxr_max.records import Ended, Status

_HEADING = re.compile(
    r"^(?:[^\w\n]|_){0,20}(?:final[ \t]{1,5})?answer(?:[^\w\n]|_){0,20}$", re.IGNORECASE | re.MULTILINE
)
# Bounded, so that no line, however long or odd, takes more than linear time.
_LINE = re.compile(
    r"^[\W\d_]{0,20}(?P<name>[A-Za-z][A-Za-z /]{0,40}?)[\W_]{0,10}?[:|][\W_]{0,20}(?P<value>[A-Za-z].{0,80})"
)
_REFUSAL = re.compile(
    r"\b(?:as an ai|i(?:['’]m| am) (?:not (?:able|capable)|unable)|i (?:can(?:no|['’])t|cannot|won['’]t)"
    r"|i(?:['’]m| am) sorry)\b[^.\n]{0,200}"
    r"\b(?:interpret|analy[sz]|diagnos|read|view|see|assist|help|provid|medical|image|radiograph|x-ray)",
    re.IGNORECASE,
)
_BY_LOWER_NAME = {name.lower(): name for name in FINDINGS}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one reply commits itself to, all 14 findings each: 1 / 0 / -1 / None, and sides."""

    findings: dict[str, State | None]
    sides: dict[str, Side | None]


def last_heading(text: str) -> re.Match[str] | None:
    """The last line that only says "answer": what follows it is the structured answer."""
    return next(iter(deque(_HEADING.finditer(text), maxlen=1)), None)


def read(text: str) -> Answer | None:
    """The last answer block of ``text``; ``None`` where there is no block or it names no finding.

    A finding said twice keeps the last word. A side is kept only with a present or uncertain finding.
    """
    answer = Answer(blank(), blank_sides())
    said = [_read_line(name, value, answer) for name, value in answer_lines(text)]
    return answer if any(said) else None


def answer_lines(text: str) -> Iterator[tuple[str, str]]:
    """Name and value of every line of the last answer block; none where there is no block."""
    heading = last_heading(text)
    for line in text[heading.end() :].splitlines() if heading else ():
        if match := _LINE.match(line):
            yield match["name"].strip(), match["value"]


def _read_line(said: str, value: str, answer: Answer) -> bool:
    name = _BY_LOWER_NAME.get(said.lower())
    if name is None:
        return False
    words = re.findall(r"[a-z]+", value.lower())
    # The first word or nothing: "not present" must not be read as present.
    state = STATES.get(words[0])
    if state is None:
        return False
    answer.findings[name] = state
    answer.sides[name] = None if state == 0 else next((side for side in SIDES if side in words), None)
    return True


def is_refusal(text: str) -> bool:
    """Whether the reply opens by declining to read the image (its first 400 characters are looked at)."""
    return _REFUSAL.search(text[:400]) is not None


def status_of(text: str, ended: Ended, *, structured_answer: bool) -> Status:
    """How a reply counts: what the service says first, then what the text shows."""
    if ended == "refused" or is_refusal(text):
        return "refused"
    if ended == "filtered":
        return "filtered"
    if ended == "length":
        return "truncated"
    if not text.strip() or (structured_answer and read(text) is None):
        return "unparsed"
    return "ok"
