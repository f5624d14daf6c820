"""What simulated teachers claim is read back from their words alone, without the ANSWER block."""

import re
from collections.abc import Iterator
from hashlib import sha256
from random import Random

import pytest

from cxr_max.findings import FINDINGS, LATERAL, Side, State
from cxr_max.labeler import Labels, label
from cxr_max.teachers.simulator.personas import PERSONAS, Persona
from cxr_max.teachers.simulator.prose import Said, reply
from cxr_max.teachers.simulator.world import Claims, Truth, claims, question

ASKED = question("Describe the image, then end with a line ANSWER and one line per finding.")
REPLIES = 200
SIDES: tuple[Side | None, ...] = ("left", "right", "bilateral", None)


def truth(index: int) -> Truth:
    """A patient with every mixture of states, and every fifth one healthy."""
    dice = Random(index)
    states: tuple[State | None, ...] = (0, 0, 0, 1, 1, -1, None)
    findings = {name: dice.choice(states) if index % 5 else 0 for name in FINDINGS if name != "No Finding"}
    return Truth(findings, {name: dice.choice(SIDES) for name in LATERAL if findings[name] in (1, -1)})


def replies(persona: Persona) -> Iterator[tuple[Claims, Said]]:
    for index in range(REPLIES):
        image, key = sha256(f"image {index}".encode()).hexdigest(), f"key {index}"
        claimed = claims(persona, image, truth(index), key)
        yield claimed, reply(persona, claimed, ASKED, image, key)


def wanted(claimed: Claims, said: Said, finding: str) -> tuple[State | None, Side | None]:
    state = claimed.findings[finding] if finding in said.mentioned else None
    return state, claimed.sides[finding] if state in (1, -1) else None


def read(labels: Labels, finding: str) -> tuple[State | None, Side | None]:
    return labels[finding], labels.sides[finding]


@pytest.mark.parametrize("persona", PERSONAS.values(), ids=lambda persona: persona.name)
def test_claims_are_read_from_the_text_alone(persona: Persona) -> None:
    wrong = []
    for claimed, said in replies(persona):
        body = re.split(r"\n\*{0,2}ANSWER\*{0,2}\n", said.text)[0]
        labels = label(body)
        assert labels.refused is claimed.refused
        for finding in FINDINGS:
            state, side = wanted(claimed, said, finding)
            if finding == "No Finding" and state == 0:
                state = None  # free text says 1 or nothing
            if read(labels, finding) != (state, side):
                wrong.append((finding, state, side, read(labels, finding)))
    assert len(wrong) <= 0.02 * REPLIES * len(FINDINGS), wrong


@pytest.mark.parametrize("persona", PERSONAS.values(), ids=lambda persona: persona.name)
def test_claims_are_read_from_the_answer_block(persona: Persona) -> None:
    wrong = []
    for claimed, said in replies(persona):
        labels = label(said.text, structured=True)
        for finding in said.mentioned:
            if read(labels, finding) != wanted(claimed, said, finding):
                wrong.append((finding, wanted(claimed, said, finding), read(labels, finding)))
        assert set(labels.contradictions) <= {"No Finding"}, labels.contradictions
    assert len(wrong) <= 0.02 * REPLIES * len(FINDINGS), wrong
