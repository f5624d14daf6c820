"""The personas' claims: calibrated to the published table, correlated between teachers, repeatable."""

from hashlib import sha256
from itertools import combinations

import numpy as np
import pytest

from cxr_max.findings import FINDINGS, LATERAL, Side, State
from cxr_max.teachers.simulator.personas import PERSONAS, Persona
from cxr_max.teachers.simulator.world import (
    PATHOLOGIES,
    Claims,
    Question,
    Truth,
    claims,
    normal,
    question,
    rationale,
    uniform,
)

IMAGES = 4_000
TABLE = ("Consolidation", "Pleural Effusion", "Pneumonia", "Pneumothorax", "Edema")
PUBLISHED = {  # Top-1 on MS-CXR-T, arXiv 2510.04142, in the order of TABLE
    "sim-gpt-5-nano": (0.75, 0.68, 0.89, 0.90, 0.52),
    "sim-gemini-2.5-flash-lite": (0.28, 0.61, 0.40, 0.94, 0.42),
    "sim-claude-sonnet-4": (0.89, 0.69, 0.48, 0.15, 0.15),
    "sim-qwen-vl-max": (0.54, 0.65, 0.40, 0.95, 0.64),
    "sim-grok-4": (0.43, 0.41, 0.36, 0.97, 0.61),
    "sim-glm-4.5v": (0.59, 0.67, 0.52, 0.96, 0.72),
    "sim-moonshot-v1": (0.13, 0.46, 0.77, 0.88, 0.19),
}


def image(index: int) -> str:
    return sha256(f"image {index}".encode()).hexdigest()


def truth(index: int) -> Truth:
    """About 30% present, 5% uncertain, the rest absent or not mentioned; a side for whatever is present."""
    findings: dict[str, State | None] = {}
    sides: dict[str, Side | None] = {}
    for finding in TABLE:
        draw = uniform("truth", str(index), finding)
        findings[finding] = 1 if draw < 0.3 else -1 if draw < 0.35 else 0 if draw < 0.7 else None
        if finding in LATERAL and draw < 0.3:
            sides[finding] = ("left", "right", "bilateral")[index % 3]
    return Truth(findings, sides)


@pytest.fixture(scope="module")
def population() -> dict[str, list[Claims]]:
    """What every persona claims of the five findings in every image."""
    return {
        persona.name: [
            claims(persona, image(index), truth(index), f"{persona.name} {index}", asked=TABLE)
            for index in range(IMAGES)
        ]
        for persona in PERSONAS.values()
    }


def errors(replies: list[Claims], finding: str) -> np.ndarray:
    """1 wrong, 0 right, NaN refused; one per image."""
    said = np.array([np.nan if reply.refused else reply.findings[finding] for reply in replies], dtype=float)
    actual = np.array([(truth(index).findings or {})[finding] or 0 for index in range(IMAGES)])
    return np.where(np.isnan(said), np.nan, said != actual)


@pytest.fixture(scope="module")
def mistakes(population: dict[str, list[Claims]]) -> dict[str, np.ndarray]:
    """Per persona, images x the five findings."""
    return {
        name: np.stack([errors(replies, finding) for finding in TABLE], axis=1)
        for name, replies in population.items()
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_accuracy_is_the_published_one(mistakes: dict[str, np.ndarray], name: str) -> None:
    accuracy = 1 - np.nanmean(mistakes[name], axis=0)
    assert accuracy == pytest.approx(PUBLISHED[name], abs=0.03)


@pytest.mark.parametrize("state", [1, 0])
def test_accuracy_does_not_depend_on_the_prevalence(state: State) -> None:
    persona = PERSONAS["sim-moonshot-v1"]
    known = Truth(dict.fromkeys(TABLE, state))
    replies = [claims(persona, image(index), known, str(index), asked=TABLE) for index in range(IMAGES)]
    answered = [reply.findings["Consolidation"] for reply in replies if not reply.refused]
    assert np.mean([claimed == state for claimed in answered]) == pytest.approx(0.13, abs=0.03)


def test_errors_are_correlated_between_teachers(mistakes: dict[str, np.ndarray]) -> None:
    for one, other in combinations(mistakes, 2):
        both = ~np.isnan(mistakes[one] + mistakes[other])
        centred = [mistakes[name] - np.nanmean(mistakes[name], axis=0) for name in (one, other)]
        correlation = np.corrcoef(centred[0][both], centred[1][both])[0, 1]
        assert 0.1 < correlation < 0.6, (one, other, correlation)


def test_errors_grow_with_difficulty() -> None:
    persona = PERSONAS["sim-glm-4.5v"]
    known: dict[str, State | None] = dict.fromkeys(TABLE, 1)

    def accuracy(difficulty: float) -> float:
        told = Truth(known, None, difficulty)
        replies = [claims(persona, image(index), told, str(index), asked=TABLE) for index in range(500)]
        return float(np.mean([reply.findings["Edema"] == 1 for reply in replies if not reply.refused]))

    assert accuracy(0.0) > accuracy(0.5) > accuracy(1.0)


def test_repeated_sampling_agrees_more_than_teachers_do() -> None:
    persona = PERSONAS["sim-qwen-vl-max"]
    again = [
        [claims(persona, image(index), truth(index), key, asked=TABLE) for index in range(1_000)] for key in "ab"
    ]
    pairs = [
        (one.findings["Edema"], two.findings["Edema"])
        for one, two in zip(*again, strict=True)
        if not (one.refused or two.refused)
    ]
    assert 0.6 < np.mean([one == two for one, two in pairs]) < 0.95


@pytest.mark.parametrize("persona", PERSONAS.values(), ids=lambda persona: persona.name)
def test_laterality_error_is_as_set(population: dict[str, list[Claims]], persona: Persona) -> None:
    wrong = [
        reply.sides[finding] != (truth(index).sides or {})[finding]
        for index, reply in enumerate(population[persona.name])
        for finding in (truth(index).sides or {})
        if reply.findings[finding] == 1
    ]
    assert len(wrong) > 1_000
    assert np.mean(wrong) == pytest.approx(persona.laterality_error, abs=0.04)


@pytest.mark.parametrize("persona", PERSONAS.values(), ids=lambda persona: persona.name)
def test_refusal_rate_is_as_set(population: dict[str, list[Claims]], persona: Persona) -> None:
    refused = [reply for reply in population[persona.name] if reply.refused]
    assert len(refused) / IMAGES == pytest.approx(persona.refusal_rate, abs=0.02)
    assert all(state is None for reply in refused for state in reply.findings.values())


def test_only_wrong_stances_are_hedged() -> None:
    persona, known = PERSONAS["sim-moonshot-v1"], Truth(dict.fromkeys(TABLE, 1))
    replies = [claims(persona, image(index), known, str(index), asked=TABLE) for index in range(2_000)]
    said = [reply.findings["Edema"] for reply in replies if not reply.refused]
    assert said.count(-1) / (len(said) - said.count(1)) == pytest.approx(persona.hedge_rate, abs=0.03)


@pytest.mark.parametrize("known", [Truth(None), Truth({}), Truth(dict.fromkeys(FINDINGS))])
def test_no_reference_is_as_if_all_were_absent(known: Truth) -> None:
    persona = PERSONAS["sim-gpt-5-nano"]
    absent = Truth(dict.fromkeys(FINDINGS, 0))
    for index in range(50):
        assert claims(persona, image(index), known, "k") == claims(persona, image(index), absent, "k")


def test_no_finding_follows_from_the_other_claims() -> None:
    seen = set()
    for index in range(400):
        reply = claims(PERSONAS["sim-gpt-5-nano"], image(index), Truth(None), str(index))
        if not reply.refused:
            clear = all(reply.findings[name] == 0 for name in PATHOLOGIES)
            assert reply.findings["No Finding"] == int(clear)
            seen.add(clear)
    assert seen == {True, False}
    assert len(PATHOLOGIES) == 12


def test_the_same_arguments_claim_the_same_and_others_do_not() -> None:
    persona = PERSONAS["sim-glm-4.5v"]

    def all_of(seed: int, key: str) -> list[Claims]:
        return [claims(persona, image(index), truth(index), key, seed) for index in range(20)]

    assert all_of(0, "k") == all_of(0, "k")
    assert all_of(0, "k") != all_of(1, "k")
    assert all_of(0, "k") != all_of(0, "other")


def test_draws_are_the_same_on_every_machine() -> None:
    assert uniform("a", "b") != uniform("ab")
    assert uniform("seed", "image") == 0.3345685478375643
    assert normal("seed", "image") == pytest.approx(-0.4273325941241458, abs=1e-12)


def test_only_what_is_asked_is_claimed() -> None:
    reply = claims(PERSONAS["sim-grok-4"], image(1), Truth(None), "k", asked=["Edema", "No Finding"])
    assert {name for name, state in reply.findings.items() if state is not None} == {"Edema", "No Finding"}
    assert set(reply.findings) == set(reply.sides) == set(FINDINGS)


def test_a_rationale_claims_what_was_told_with_sides_of_its_own() -> None:
    known = Truth({"Pleural Effusion": 1}, {"Pleural Effusion": "left"})
    replies = [
        rationale(PERSONAS["sim-grok-4"], image(index), known, "k", told=["Edema", "Pleural Effusion"])
        for index in range(1_000)
    ]
    assert all(reply.findings["Edema"] == reply.findings["Pleural Effusion"] == 1 for reply in replies)
    assert np.mean([reply.sides["Pleural Effusion"] != "left" for reply in replies]) == pytest.approx(
        0.10, abs=0.03
    )


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Reason, then write a line ANSWER and ...", Question("diagnose", FINDINGS)),
        ("Answer freely.", Question("describe", FINDINGS)),
        ("Findings: edema, Fracture.\nEnd with ANSWER.", Question("diagnose", ("Edema", "Fracture"))),
        (
            "Explain.\nDiagnoses: Pleural Effusion, Atelectasis\n",
            Question("rationale", ("Atelectasis", "Pleural Effusion")),
        ),
        ("Diagnoses: none of ours", Question("describe", FINDINGS)),
    ],
)
def test_the_prompt_is_recognised_by_its_text(prompt: str, expected: Question) -> None:
    assert question(prompt) == expected
