"""300 sentences, labelled by hand, half of them before the labeler had any rule."""

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from cxr_max.findings import FINDINGS, SIDES
from cxr_max.labeler import label

SENTENCES: Final[list[dict[str, Any]]] = tomllib.loads(
    Path(__file__).with_name("sentences.toml").read_text("utf-8")
)["sentence"]
WORDS: Final = {1: "present", 0: "absent", -1: "uncertain", None: "not mentioned"}


def half(before_rules: bool) -> list[dict[str, Any]]:
    return [one for one in SENTENCES if one.get("before_rules", False) is before_rules]


def misread(one: dict[str, Any]) -> str | None:
    """What is wrong about the reading of a sentence, or ``None``."""
    labels = label(one["text"], given=tuple(one.get("given", ())))
    read = (WORDS[labels[one["finding"]]], labels.sides[one["finding"]])
    wanted = (one["state"], one.get("side"))
    return None if read == wanted else f"{one['text']!r}: {one['finding']} {wanted}, not {read}"


@pytest.mark.parametrize("before_rules", [True, False])
def test_at_least_95_percent_of_each_half_are_read_right(before_rules: bool) -> None:
    sentences = half(before_rules)
    wrong = [found for found in map(misread, sentences) if found]
    assert len(wrong) <= 0.05 * len(sentences), "\n".join(wrong)


def test_the_sentences_cover_findings_states_sides_and_kinds() -> None:
    assert len(half(True)) == len(half(False)) == 150
    assert {one["finding"] for one in SENTENCES} == set(FINDINGS)
    assert {one["state"] for one in SENTENCES} == set(WORDS.values())
    assert {one["side"] for one in SENTENCES if "side" in one} == set(SIDES)
    kinds = Counter(one.get("kind") for one in SENTENCES)
    assert min(kinds["refusal"], kinds["definition"], kinds["echo"]) >= 7
    assert all(one["state"] == "not mentioned" for one in SENTENCES if "kind" in one)


def test_a_refused_text_is_marked_refused() -> None:
    for one in SENTENCES:
        assert label(one["text"]).refused is (one.get("kind") == "refusal"), one["text"]


def test_without_given_findings_nothing_is_an_echo() -> None:
    text = "Diagnoses: Pleural Effusion, Cardiomegaly"
    assert label(text)["Cardiomegaly"] == 1
    assert label(text, given=("Cardiomegaly",))["Cardiomegaly"] is None
    assert label(text, given=("Cardiomegaly",))["Pleural Effusion"] == 1
