"""Reasoning steps, and what is committed to after each."""

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cxr_max.drift import align, commit_states, steps, streams
from cxr_max.drift.states import decode, encode
from cxr_max.findings import FINDINGS, Findings, State, blank

EFFUSION, EDEMA = FINDINGS.index("Pleural Effusion"), FINDINGS.index("Edema")


def said(text: str) -> list[str]:
    return [text[start:end] for start, end in steps(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("   \n\n", []),
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("A 1.5 cm nodule. It is small.", ["A 1.5 cm nodule.", "It is small."]),
        ("Read by Dr. Smith vs. Jones, e.g. Today.", ["Read by Dr. Smith vs. Jones, e.g. Today."]),
        ("One line\nof a paragraph.\n\nAnother", ["One line\nof a paragraph.", "Another"]),
        ("- first\n- second. Third\n  goes on", ["- first", "- second.", "Third\n  goes on"]),
        ("1. Heart is large. Lungs clear.\n2) Bones", ["1. Heart is large.", "Lungs clear.", "2) Bones"]),
        ("✅ Effusion\n❌ Edema", ["✅ Effusion", "❌ Edema"]),
        ("## Lungs\nClear. No mass.\n## Heart\nLarge.", ["## Lungs\nClear.", "No mass.", "## Heart\nLarge."]),
        ("**Lungs**\n\nClear.\n\n**Heart:**\n- Large", ["**Lungs**\n\nClear.", "**Heart:**\n- Large"]),
        ("**Lungs:** clear. Heart large.", ["**Lungs:** clear.", "Heart large."]),
        ("# A\n## B\nText.\n# Last", ["# A\n## B\nText.", "# Last"]),
        ("Findings:\n- edema", ["Findings:\n- edema"]),
        (
            "**A large effusion, seen on the left side**\nIndeed.",
            ["**A large effusion, seen on the left side**\nIndeed."],
        ),
        ("One.\n\n---\n\nTwo.", ["One.", "Two."]),
        (
            'He said (so.) Then "no." Then **bold.** End.',
            ["He said (so.)", 'Then "no."', "Then **bold.**", "End."],
        ),
        ("Clear. ANSWER is near.\nANSWER\nEdema: absent", ["Clear.", "ANSWER is near."]),
        ("One.\n**Final Answer:**\n- Edema: absent", ["One."]),
        ("ANSWER\nEdema: absent\n\nSo.\n\n## Answer\nEdema: present", ["ANSWER\nEdema: absent", "So."]),
        ("ANSWER\nEdema: absent", []),
        ("! ! Effusion. ! ?", ["! ! Effusion. ! ?"]),
        ("Windows.\r\n\r\n- line\r\n- ends\r\n", ["Windows.", "- line", "- ends"]),
    ],
)
def test_steps_by_hand(text: str, expected: list[str]) -> None:
    assert said(text) == expected


texts = st.text(alphabet=st.sampled_from("aZ1.!?:-*# \n\r\t)(✅é_"), max_size=80) | st.text(max_size=60)


@given(texts)
@example("a.\n#")
@example("1. ")
def test_steps_cover_every_letter_once_in_order(text: str) -> None:
    ranges = steps(text)
    assert all(start < end for start, end in ranges)
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    if "answer" not in text.lower():
        covered = {index for start, end in ranges for index in range(start, end)}
        assert {index for index, character in enumerate(text) if character.isalnum()} <= covered
    for start, end in ranges:
        assert any(character.isalnum() for character in text[start:end])


@pytest.mark.parametrize(
    "piece", ["! ", "a. B", "\n", "- ", "**a**\n", "a:\n", ". ! ", "dr. A", "#", "1. ", "answer\n"]
)
def test_long_texts_take_linear_time(piece: str) -> None:
    begin = time.perf_counter()
    steps(piece * 50_000)
    assert time.perf_counter() - begin < 5


WORDS: dict[str, tuple[str, State]] = {
    "effusion": ("Pleural Effusion", 1),
    "effusion?": ("Pleural Effusion", -1),
    "no-effusion": ("Pleural Effusion", 0),
    "edema": ("Edema", 1),
}


def label(text: str) -> Findings:
    """A labeler of four words."""
    findings = blank()
    for word in text.lower().strip(".").split():
        if word in WORDS:
            findings[WORDS[word][0]] = WORDS[word][1]
    return findings


def test_commitments_accumulate() -> None:
    states = commit_states("Look. No-effusion. Effusion? now. Effusion. No-effusion. Edema.", label)
    assert states.shape == (6, 14)
    assert states[:, EFFUSION].tolist() == [0, 1, 2, 3, 3, 3]
    assert states[:, EDEMA].tolist() == [0, 0, 0, 0, 0, 3]
    assert decode(states[-1]) == {**blank(), "Pleural Effusion": 1, "Edema": 1}


def test_the_answer_is_no_step_and_nothing_is_nothing() -> None:
    assert commit_states("Effusion.\nANSWER\nedema", label)[-1, EDEMA] == 0
    assert commit_states("", label).shape == (0, 14)


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        commit_states("Edema.", lambda text: {"Edema": 2})  # type: ignore[dict-item]


@given(st.lists(st.sampled_from([*WORDS, "look"]), max_size=12))
def test_a_state_never_falls_and_each_step_is_read_once(words: list[str]) -> None:
    read: list[str] = []

    def counting(text: str) -> Findings:
        read.append(text)
        return label(text)

    states = commit_states(" ".join(f"{word.capitalize()}." for word in words), counting)
    assert len(read) == len(states) == len(words)
    assert (np.diff(states, axis=0) >= 0).all()


@given(st.fixed_dictionaries({name: st.sampled_from([1, 0, -1, None]) for name in FINDINGS}))
def test_codes_are_read_back(findings: dict[str, State | None]) -> None:
    assert decode(encode(findings)) == findings


@pytest.mark.parametrize(
    ("length", "bins", "expected"),
    [
        (4, 4, [1, 2, 3, 4]),
        (8, 4, [2, 4, 6, 8]),
        (2, 4, [0, 1, 1, 2]),
        (3, 2, [1, 3]),
        (0, 3, [0, 0, 0]),
        (1, 1, [1]),
    ],
)
def test_alignment_by_hand(length: int, bins: int, expected: list[int]) -> None:
    states = np.arange(1, length + 1, dtype=np.int8)[:, None]
    assert align(states, bins)[:, 0].tolist() == expected


def test_alignment_of_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="bins"):
        align(np.zeros((3, 14), dtype=np.int8), 0)
    with pytest.raises(ValueError, match="bins"):
        align(np.zeros(3, dtype=np.int8))


def test_streams_keep_the_studies_that_everybody_answered() -> None:
    texts = [{"b": "Effusion. Edema.", "a": "Edema."}, {"a": "Edema."}, {"a": "Look.", "b": "No-effusion."}]
    kept, teachers, states = streams(texts, label, bins=2)
    assert (kept, teachers, states.shape) == ((0, 2), ("a", "b"), (2, 2, 2, 14))
    assert states[0, 1, :, EFFUSION].tolist() == [3, 3]
    assert states[0, 1, :, EDEMA].tolist() == [0, 3]
    assert streams([], label)[2].shape == (0, 0, 10, 14)
