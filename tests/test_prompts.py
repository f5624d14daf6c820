"""Prompts: what they give away, and that a changed word is another prompt."""

import dataclasses
from pathlib import Path

import pytest

from cxr_max import prompts
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, blank
from cxr_max.records import Radiograph, Study


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


def test_an_unknown_prompt_names_those_there_are() -> None:
    with pytest.raises(RequestError, match="diagnose, rationale"):
        prompts.load("diagnosis")
