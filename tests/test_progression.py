"""The answer about two radiographs: what is read, and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max import prompts
from cxr_max.progression import CHANGES, COMPARED, asked_in, changes_of, column_of, read
from cxr_max.replies import read_comparison


def said(text: str) -> dict[str, str] | None:
    """What is not null."""
    found = read(text)
    return None if found is None else {name: change for name, change in found.items() if change}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Edema grew.\n\nANSWER\nEdema: worsening", {"Edema": "worsening"}),
        ("**ANSWER**\n- **Pleural Effusion:** Improving.", {"Pleural Effusion": "improving"}),
        ("ANSWER\nEdema: stable\nEdema: worsening", {"Edema": "worsening"}),  # the last word
        ("ANSWER\nEdema: stable\n\nANSWER\nPneumonia: improving", {"Pneumonia": "improving"}),  # the last block
        ("ANSWER\nCardiomegaly: worsening\nPneumothorax: stable, right", {"Pneumothorax": "stable"}),
        ("ANSWER\nEdema: not worsening", None),
        ("ANSWER\nEdema: unchanged", None),
        ("ANSWER\nEdema: present", None),
        ("Edema: worsening", None),  # no block
        ("ANSWER\nCardiomegaly: worsening", None),  # not asked about
        ("", None),
    ],
)
def test_known_answers(text: str, expected: dict[str, str] | None) -> None:
    assert said(text) == expected


@given(st.dictionaries(st.sampled_from(COMPARED), st.sampled_from(CHANGES), min_size=1), st.text(max_size=200))
def test_whatever_stands_before_the_block_what_is_written_is_read(changes: dict[str, str], before: str) -> None:
    lines = [f"{name}: {change}" for name, change in changes.items()]
    assert said("\n".join([before, "ANSWER", *lines])) == changes


def test_the_sets_own_names() -> None:
    assert column_of("Pleural Effusion") == "pleural_effusion_progression"
    labels = {"edema_progression": "worsening", "edema_label_quality": "x", "Emphysema": "1"}
    assert {name: change for name, change in changes_of(labels).items() if change} == {"Edema": "worsening"}


def test_the_prompt_names_the_order_and_asks_for_what_is_read() -> None:
    prompt = prompts.load("progression")
    assert "Image 1 is the earlier one; image 2 is the later one" in prompt.text
    assert asked_in(prompt.text) and not asked_in(prompts.load("diagnose").text)
    assert all(word in prompt.text for word in (*COMPARED, *CHANGES))
    assert said(prompt.text) == {"Consolidation": "stable", "Edema": "worsening"}  # its example


def test_a_comparison_claims_no_finding_of_a_picture() -> None:
    text = "The pneumothorax looks alike in both.\n\nANSWER\nPneumothorax: stable\nEdema: worsening"
    assert read_comparison(text, "stop") == "ok"
    assert read_comparison("The pneumothorax looks alike in both.", "stop") == "unparsed"
    assert read_comparison("I'm sorry, but I cannot interpret medical images.", "stop") == "refused"
    assert read_comparison("The pneumo", "length") == "truncated"
