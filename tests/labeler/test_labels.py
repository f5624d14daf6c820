"""The object that ``label`` returns, and the rules that its docstring states."""

import pytest

from cxr_max.findings import FINDINGS
from cxr_max.labeler import VERSION, label
from cxr_max.labeler.lexicon import lexicon
from cxr_max.labeler.scope import _Reader
from cxr_max.labeler.text import WINDOW, sentences


def test_labels_are_a_mapping_of_the_fourteen() -> None:
    labels = label("No effusion.")
    assert tuple(labels) == FINDINGS and len(labels) == 14
    assert dict(labels)["Pleural Effusion"] == 0
    assert VERSION == "cxr-max-labeler-2"


def test_a_span_holds_the_deciding_words() -> None:
    text = "Heart normal. There is a LEFT pleural effusion, and no pneumothorax."
    labels = label(text)
    span = labels.spans["Pleural Effusion"]
    assert span is not None and text[slice(*span)] == "pleural effusion"
    assert labels.spans["Edema"] is None


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("No effusion. A small effusion is seen. Possible effusion.", 1),
        ("No effusion. Possible effusion.", -1),
        ("No effusion. If there were an effusion, it would layer.", 0),
        ("", None),
    ],
)
def test_present_wins_over_uncertain_over_absent(text: str, state: int | None) -> None:
    assert label(text)["Pleural Effusion"] == state


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("No effusion.", 1),
        ("No effusion. A pacemaker is present.", 1),
        ("No effusion. The lungs show emphysema.", None),
        ("No pneumothorax. Possible nodule.", None),
        ("A frontal view was taken.", None),
        ("The study is abnormal.", None),
    ],
)
def test_no_finding_follows_its_rule(text: str, state: int | None) -> None:
    assert label(text)["No Finding"] == state


def test_the_block_decides_and_the_text_fills_its_gaps() -> None:
    text = "Left effusion. No edema. The heart is enlarged.\n\nANSWER\nPleural Effusion: present\nEdema: present"
    labels = label(text, structured=True)
    assert (labels["Pleural Effusion"], labels.sides["Pleural Effusion"]) == (1, "left")
    assert labels["Edema"] == 1 and labels.contradictions == ("Edema",)
    assert labels["Cardiomegaly"] == 1
    assert label("No edema.", structured=True)["Edema"] == 0


def test_a_refusal_has_no_findings_whatever_it_goes_on_to_say() -> None:
    labels = label(
        "I'm sorry, but I cannot interpret this X-ray. A left effusion is often caused by heart failure."
    )
    assert labels.refused and set(labels.values()) == {None}
    assert not label("I cannot see any effusion in this image.").refused


def test_every_class_of_phrase_has_its_rule() -> None:
    words = " ".join(sorted(lexicon().root)).split()
    kinds = {match.meaning.kind for word in words for match in lexicon().matches([word])}
    assert {"term", "negates", "quality", "structure"} <= kinds
    assert all(hasattr(_Reader, f"on_{kind}") for kind in kinds)


def test_no_sentence_is_longer_than_its_window() -> None:
    parts = list(sentences("effusion, " * 10_000, frozenset()))
    assert max(len(part.words) for part in parts) <= WINDOW
    assert sum(len(part.words) for part in parts) == 20_000


def test_a_claim_in_the_answer_takes_back_that_the_text_found_nothing() -> None:
    text = "There is no pleural effusion.\n\nANSWER\n{}"
    assert label(text.format("Fracture: absent"), structured=True)["No Finding"] == 1
    assert label(text.format("Support Devices: present"), structured=True)["No Finding"] == 1
    for claim in ("Edema: uncertain", "Pleural Effusion: present, left"):
        labels = label(text.format(claim), structured=True)
        assert labels["No Finding"] is None and labels.spans["No Finding"] is None
    assert label(text.format("Edema: present\nNo Finding: present"), structured=True)["No Finding"] == 1
