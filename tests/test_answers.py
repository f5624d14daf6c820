"""The structured answer: how models decorate it, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.answers import is_refusal, read, status_of
from cxr_max.findings import FINDINGS, SIDES, STATES

PLAIN = "I looked.\n\nANSWER\nPleural Effusion: present, left\nCardiomegaly: absent\nPneumonia: uncertain\n"


def test_a_plain_block() -> None:
    answer = read(PLAIN)
    assert answer is not None
    mentioned = {name: state for name, state in answer.findings.items() if state is not None}
    assert mentioned == {"Pleural Effusion": 1, "Cardiomegaly": 0, "Pneumonia": -1}
    assert {name: side for name, side in answer.sides.items() if side} == {"Pleural Effusion": "left"}
    assert tuple(answer.findings) == FINDINGS


@pytest.mark.parametrize(
    "line",
    [
        "- Pleural Effusion: present, left",
        "* **Pleural Effusion:** present, left",
        "**Pleural Effusion**: Present, Left",
        "3. Pleural effusion: present (left)",
        "`Pleural Effusion`: `present`, `left`",
        "✅ Pleural Effusion: **present**; left",
        "| Pleural Effusion | present | left |",
    ],
)
@pytest.mark.parametrize("heading", ["ANSWER", "**ANSWER**", "## Answer:", "Final answer", "ANSWER:", "> ANSWER"])
def test_decorations_are_ignored(heading: str, line: str) -> None:
    answer = read(f"text\n{heading}\n{line}\n")
    assert answer is not None
    assert (answer.findings["Pleural Effusion"], answer.sides["Pleural Effusion"]) == (1, "left")


def test_an_absent_finding_has_no_side() -> None:
    answer = read("ANSWER\nPneumothorax: absent, left\n")
    assert answer is not None
    assert answer.sides["Pneumothorax"] is None


def test_the_last_block_and_the_last_word_count() -> None:
    answer = read("ANSWER\nEdema: present\n\nOn reflection:\nANSWER\nEdema: uncertain\nEdema: absent\n")
    assert answer is not None
    assert answer.findings["Edema"] == 0


@pytest.mark.parametrize(
    "text",
    ["", "no block", "Pleural Effusion: present", "ANSWER\n", "ANSWER\nnothing of the list: present",
     "ANSWER\nEdema: perhaps", "ANSWER\nEdema: not present", "My answer is that Edema: present"],
)  # fmt: skip
def test_no_answer(text: str) -> None:
    assert read(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "As an AI, I'm not capable of interpreting medical images.",
        "I’m sorry, but I can’t provide a diagnosis from this image.",
        "I am unable to analyze radiographs.",
        "I cannot assist with medical images.",
    ],
)
def test_refusals(text: str) -> None:
    assert is_refusal(text)
    assert status_of(text, "stop", structured_answer=True) == "refused"


@pytest.mark.parametrize(
    "text",
    ["The left base cannot be assessed.", "I see no pneumothorax.", "Pneumonia cannot be excluded; read on.",
     "A small effusion can't be excluded."],
)  # fmt: skip
def test_hedges_are_no_refusals(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize(
    ("ended", "text", "structured", "status"),
    [
        ("stop", PLAIN, True, "ok"),
        ("length", PLAIN, True, "truncated"),
        ("filtered", "", True, "filtered"),
        ("refused", PLAIN, True, "refused"),
        ("stop", "free text", True, "unparsed"),
        ("stop", "free text", False, "ok"),
        ("stop", "  \n", False, "unparsed"),
    ],
)
def test_status(ended: str, text: str, structured: bool, status: str) -> None:
    assert status_of(text, ended, structured_answer=structured) == status  # type: ignore[arg-type]


@given(
    st.dictionaries(st.sampled_from(FINDINGS), st.tuples(st.sampled_from(sorted(STATES)), st.sampled_from(SIDES)))
)
def test_what_is_written_is_read(claims: dict[str, tuple[str, str]]) -> None:
    lines = [f"{name}: {state}, {side}" for name, (state, side) in claims.items()]
    answer = read("\n".join(["ANSWER", *lines]))
    if not claims:
        assert answer is None
        return
    assert answer is not None
    for name, (state, side) in claims.items():
        assert answer.findings[name] == STATES[state]
        assert answer.sides[name] == (None if state == "absent" else side)


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    read(text)
    read("ANSWER\n" + text)
    is_refusal(text)
