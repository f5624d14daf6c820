"""Any text is read without an exception, spans stay inside it, and work stays linear in its length."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_max.findings import FINDINGS, LATERAL
from cxr_max.labeler import Labels, label

PIECES = (
    "effusion", "no", "left", "right", "heart", "is", "enlarged", "cannot be excluded", "ANSWER",
    "Edema: present", "**", "#", "|", "\n", "\n\n", ":", ".", ",", "?", "✅", "❌", " - ", "- ", "1.", "if",
    "would", "but", "typically", "I cannot", "interpret", "lungs", "clear", "versus", "possible", "with", "it",
    "İ", "ß", "\u202e", "\x00", "\r", "’", "e.g.", "4.5",
)  # fmt: skip
TEXTS = st.one_of(
    st.text(), st.lists(st.sampled_from(PIECES)).map(" ".join), st.binary().map(lambda raw: raw.decode("latin-1"))
)


def check(text: str, labels: Labels) -> None:
    assert tuple(labels) == FINDINGS
    for finding in FINDINGS:
        state, side, span = labels[finding], labels.sides[finding], labels.spans[finding]
        assert state in (1, 0, -1, None)
        assert side is None or (state in (1, -1) and finding in LATERAL)
        assert (span is None) is (state is None)
        assert span is None or 0 <= span[0] < span[1] <= len(text)


def hostile(dice: Random) -> str:
    """A string of pieces that mean something, of random characters, or of one thing many times over."""
    kind = dice.randrange(4)
    if kind == 0:
        return dice.choice(("", " ")).join(dice.choices(PIECES, k=dice.randrange(60)))
    if kind == 1:
        return "".join(chr(dice.randrange(0x110000)) for _ in range(dice.randrange(80)))
    if kind == 2:
        return dice.choice(PIECES) * dice.randrange(200)
    return dice.randbytes(dice.randrange(200)).decode("utf-8", "replace")


def survive(count: int) -> None:
    dice = Random(count)
    for index in range(count):
        text = hostile(dice)
        check(
            text, label(text, structured=index % 2 == 0, given=("Edema", "Pleural Effusion") if index % 3 else ())
        )


@given(TEXTS, st.booleans(), st.sets(st.sampled_from(FINDINGS)))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read(text: str, structured: bool, told: set[str]) -> None:
    check(text, label(text, structured=structured, given=tuple(told)))


@given(TEXTS)
@settings(max_examples=100, deadline=None)
def test_white_space_at_the_end_changes_nothing(text: str) -> None:
    one, other = label(text.rstrip()), label(text.rstrip() + "  \n\n")
    assert (dict(one), one.sides, one.spans) == (dict(other), other.sides, other.spans)


def test_two_thousand_hostile_strings() -> None:
    survive(2_000)


@pytest.mark.slow
def test_a_hundred_thousand_hostile_strings() -> None:
    survive(100_000)


@pytest.mark.parametrize(
    "piece", ["\n", "*", "# ", "a", "no ", "effusion, ", "|", " -", "- **_", "heart ", "left ", "ANSWER\n", "é"]
)
def test_a_megabyte_of_one_thing_ends(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    check(text, label(text, structured=True))


def test_every_plane_of_unicode() -> None:
    text = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    check(text, label(text))
