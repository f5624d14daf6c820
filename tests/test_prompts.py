"""Prompts: what they give away, and that a changed word is another prompt."""

import dataclasses
import re
from pathlib import Path

import pytest

from cxr_max import prompts
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, blank
from cxr_max.records import Radiograph, Study
from tests.builders.test_consensus import said


def study(**findings: int) -> Study:
    labels = {**blank(), **{name.replace("_", " "): value for name, value in findings.items()}}
    images = (Radiograph("i", Path("i.jpg")),)
    return Study("s", "p", "test", None, images, reference_findings=labels)  # type: ignore[arg-type]


def test_diagnose_gives_nothing_away() -> None:
    prompt = prompts.load("diagnose")
    assert prompt.given == "nothing" and prompt.structured_answer
    assert prompt.fill(study(Pneumonia=1)) == prompt.text == prompt.fill(study())
    assert all(name in prompt.text for name in FINDINGS)


def test_rationale_gives_the_positive_findings() -> None:
    prompt = prompts.load("rationale")
    assert prompt.given == "findings" and not prompt.structured_answer
    text = prompt.fill(study(Pleural_Effusion=1, Atelectasis=1, Edema=-1, Pneumonia=0))
    assert text is not None
    assert text.endswith("Diagnoses: Atelectasis, Pleural Effusion")


def test_rationale_without_a_positive_finding_has_nothing_to_ask() -> None:
    prompt = prompts.load("rationale")
    assert prompt.fill(study(Edema=-1)) is None
    assert prompt.fill(dataclasses.replace(study(), reference_findings=None)) is None


def test_a_changed_word_is_another_prompt() -> None:
    prompt = prompts.load("diagnose")
    assert dataclasses.replace(prompt, text=prompt.text + " ").sha256 != prompt.sha256


def test_consensus_shows_every_reply_and_names_nobody() -> None:
    prompt, asked = prompts.load("consensus"), prompts.load("diagnose")
    assert prompt.given == "trajectories" and prompt.structured_answer
    rows = [said(teacher, f"the words of number {n}") for n, teacher in enumerate(("grok-4", "glm", "moonshot"))]
    text = prompt.fill_trajectories(asked, rows)
    assert text.count(asked.text) == 1
    assert all(text.count(row.text) == 1 and row.teacher not in text for row in rows)
    assert re.findall(r"^Reader (\d+):$", text, re.MULTILINE) == ["1", "2", "3"]
    assert "{" not in text


def test_a_reply_cannot_pass_for_a_place_to_be_filled() -> None:
    prompt, asked = prompts.load("consensus"), prompts.load("diagnose")
    odd = said("a", "{trajectories} {question}")
    assert prompt.fill_trajectories(asked, [odd]).count("{trajectories} {question}") == 1


def test_the_order_of_readers_depends_on_study_and_images_alone() -> None:
    prompt, asked = prompts.load("consensus"), prompts.load("diagnose")

    def first(number: int, *, turned: bool = False) -> str:
        rows = [said(teacher, f"words of {teacher}", study=f"s{number}") for teacher in "abcd"]
        text = prompt.fill_trajectories(asked, rows[::-1] if turned else rows)
        return re.findall(r"^words of (.)$", text, re.MULTILINE)[0]

    firsts = [first(number) for number in range(400)]
    assert firsts == [first(number, turned=True) for number in range(400)]
    # 100 each on average, with a standard deviation of 8.7.
    assert all(60 < firsts.count(teacher) < 140 for teacher in "abcd")


def test_consensus_is_nothing_to_ask_of_a_study() -> None:
    assert prompts.load("consensus").fill(study(Pneumonia=1)) is None


def test_an_unknown_prompt_names_those_there_are() -> None:
    with pytest.raises(RequestError, match=r"choose one of diagnose, .*, rationale, report"):
        prompts.load("diagnosis")
