"""The text says what is claimed, and nothing else; it varies, and keeps to the persona's style."""

import re
from collections.abc import Iterator
from hashlib import sha256

import pytest

from cxr_max.builders.consensus import compose
from cxr_max.findings import FINDINGS, LATERAL, SIDES, STATES, Side, State
from cxr_max.prompts import load
from cxr_max.records import Consensus
from cxr_max.teachers.simulator.personas import PERSONAS, Persona
from cxr_max.teachers.simulator.prose import PHRASES, STATE_WORDS, Said, reply
from cxr_max.teachers.simulator.world import Claims, Truth, claims, question, rationale

BANK = PHRASES["findings"]
TRUTH = Truth(
    {"Pleural Effusion": 1, "Atelectasis": 1, "Edema": -1, "Support Devices": 1, "Pneumothorax": 0},
    {"Pleural Effusion": "left", "Atelectasis": "bilateral"},
)
DIAGNOSE = question("Describe the image, then end with a line ANSWER and one line per finding.")
RATIONALE = question("Explain.\nDiagnoses: Atelectasis, Pleural Effusion, Edema")
SIDE_WORD = {"left": r"\bleft\b", "right": r"\bright\b", "bilateral": r"\b(bilateral|both)\b", None: r"$^"}


def said_of(persona: Persona, index: int, kind: str = "diagnose") -> tuple[Claims, Said]:
    image, key = sha256(f"prose {index}".encode()).hexdigest(), f"key {index}"
    if kind == "rationale":
        claimed = rationale(persona, image, TRUTH, key, told=RATIONALE.findings)
        return claimed, reply(persona, claimed, RATIONALE, image, key)
    claimed = claims(persona, image, TRUTH, key)
    return claimed, reply(persona, claimed, DIAGNOSE, image, key)


def answered(persona: Persona, count: int, kind: str = "diagnose") -> Iterator[tuple[Claims, Said]]:
    """The replies that are not refusals."""
    pairs = (said_of(persona, index, kind) for index in range(count))
    return ((claimed, said) for claimed, said in pairs if not claimed.refused)


def parse(block: str) -> dict[str, tuple[State, str | None]]:
    """Read an ANSWER block, whatever its decoration."""
    parsed: dict[str, tuple[State, str | None]] = {}
    for line in block.strip().splitlines():
        name, verdict = line.removeprefix("- ").split(": ")
        word, _, side = verdict.partition(", ")
        parsed[name] = (STATES[word], side or None)
    return parsed


def split(said: Said) -> tuple[str, str]:
    """The reasoning and the block that follows the ANSWER line."""
    body, block = re.split(r"\n\*{0,2}ANSWER\*{0,2}\n", said.text)
    return body, block


def has_term(finding: str, text: str) -> bool:
    return any(term in text.lower() for term in BANK[finding]["terms"])


def possible(finding: str, claimed: Claims) -> tuple[str, ...]:
    """The sentences of the bank that say what is claimed of a finding."""
    state, claimed_side = claimed.findings[finding], claimed.sides[finding]
    assert state is not None
    kinds = [STATE_WORDS[state]] + ["absent_beside"] * (finding == "Lung Opacity" and state == 0)
    pairs = [pair for kind in kinds for pair in filled(finding, kind)]
    return tuple(text[0].upper() + text[1:] for side, text in pairs if side == claimed_side)


def filled(finding: str, kind: str) -> Iterator[tuple[Side | None, str]]:
    """Every sentence of the bank, with every side and lobe."""
    for side in (*SIDES, None):
        words = PHRASES["sides"][side or "unsaid"]
        for template in BANK[finding][kind]:
            for lobe in words["lobes"]:
                yield side, template.format(**words, lobe=lobe)


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_sentence_names_its_own_finding_and_no_other(finding: str) -> None:
    for kind in ("present", "absent", "uncertain", "detail"):
        for _, sentence in filled(finding, kind):
            others = [name for name in FINDINGS if name != finding and has_term(name, sentence)]
            assert not others, sentence
            named = kind == "detail" or (finding == "No Finding" and kind != "present")
            assert named or has_term(finding, sentence), sentence


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_sentence_says_the_claimed_side_and_no_other(finding: str) -> None:
    for kind in ("present", "uncertain"):
        for side, sentence in filled(finding, kind):
            spoken = {one for one in SIDES if re.search(SIDE_WORD[one], sentence.lower())}
            assert spoken == ({side} - {None} if finding in LATERAL else set()), sentence
            assert sentence[-1] == "." and "  " not in sentence and "{" not in sentence


@pytest.mark.parametrize("finding", FINDINGS)
def test_every_finding_and_state_has_three_phrasings(finding: str) -> None:
    assert all(len(set(BANK[finding][word])) >= 3 for word in STATES)
    assert BANK[finding]["definition"] and BANK[finding]["region"] in PHRASES["regions"]


@pytest.mark.parametrize("persona", PERSONAS.values(), ids=lambda persona: persona.name)
def test_the_answer_block_is_the_claims(persona: Persona) -> None:
    for claimed, said in answered(persona, 60):
        expected = {name: (claimed.findings[name], claimed.sides[name]) for name in said.mentioned}
        assert parse(split(said)[1]) == expected
        silent = set(FINDINGS) - set(said.mentioned)
        assert all(claimed.findings[name] == 0 for name in silent)
        assert not (persona.wordy and silent)


@pytest.mark.parametrize("persona", PERSONAS.values(), ids=lambda persona: persona.name)
def test_the_reasoning_says_every_mentioned_finding(persona: Persona) -> None:
    for claimed, said in answered(persona, 60):
        body = split(said)[0]
        for name in said.mentioned:
            side = claimed.sides[name]
            assert name == "No Finding" or has_term(name, body), (name, body)
            assert side is None or re.search(SIDE_WORD[side], body.lower()), (name, side, body)


@pytest.mark.parametrize("name", ["sim-claude-sonnet-4", "sim-qwen-vl-max"])
def test_the_line_of_a_finding_says_its_state_and_its_side_and_no_other(name: str) -> None:
    """These two give each finding a line of its own, so that sides cannot lend themselves to one another."""
    checked = 0
    for claimed, said in answered(PERSONAS[name], 60):
        lines = dict(re.findall(r"^- (?:\S )?\*\*([A-Z][A-Za-z ]+?):?\*\*:? (.*)$", split(said)[0], re.MULTILINE))
        assert set(lines) == set(said.mentioned)
        for finding, line in lines.items():
            spoken = {side for side in SIDES if re.search(SIDE_WORD[side], line.lower())}
            assert spoken == {claimed.sides[finding]} - {None}, line
            assert line.startswith(possible(finding, claimed)), line
            checked += len(spoken)
    assert checked > 60


@pytest.mark.parametrize("persona", PERSONAS.values(), ids=lambda persona: persona.name)
def test_a_brief_reply_is_a_line_for_each_finding_in_the_words_of_a_composed_consensus(persona: Persona) -> None:
    brief = question(load("diagnose_five").text)
    for index in range(30):
        image = sha256(f"brief {index}".encode()).hexdigest()
        claimed = claims(persona, image, TRUTH, "key", asked=brief.findings)
        if claimed.refused:
            continue
        agreed = Consensus("s", (image,), "p", claimed.findings, claimed.sides, {}, (), "m", None)
        said = reply(persona, claimed, brief, image)
        plain = said.text.replace("**", "").replace("\n- ", "\n")
        assert (said.mentioned, plain) == (brief.findings, compose(agreed))


@pytest.mark.parametrize("persona", PERSONAS.values(), ids=lambda persona: persona.name)
def test_a_rationale_gives_the_basis_of_what_was_told_and_no_answer(persona: Persona) -> None:
    for _, said in answered(persona, 30, "rationale"):
        assert "ANSWER" not in said.text
        assert said.mentioned == RATIONALE.findings
        assert all(has_term(name, said.text) for name in RATIONALE.findings)
        assert not has_term("Pneumothorax", said.text)


def test_a_refusal_defines_a_disease_and_answers_nothing() -> None:
    said = [said_of(PERSONAS["sim-moonshot-v1"], index) for index in range(300)]
    refused = [words.text for claimed, words in said if claimed.refused]
    definitions = [sentence for table in BANK.values() for sentence in table["definition"]]
    assert len(refused) > 20
    assert not any("ANSWER" in text for text in refused)
    assert any(text.startswith("As an AI, I'm not capable of") for text in refused)
    assert sum(any(sentence in text for sentence in definitions) for text in refused) > len(refused) / 2


def test_answer_blocks_vary_in_a_small_share() -> None:
    texts = [said.text for _, said in answered(PERSONAS["sim-glm-4.5v"], 300)]
    bold = sum("**ANSWER**" in text for text in texts) / len(texts)
    bulleted = sum("\n- Edema:" in text for text in texts) / len(texts)
    assert 0.02 < bold < 0.16 and 0.02 < bulleted < 0.16


def test_styles_differ() -> None:
    text = {name: next(answered(persona, 20))[1].text for name, persona in PERSONAS.items()}
    assert "### Lungs" in text["sim-gpt-5-nano"]
    assert "*   **Lungs:**" in text["sim-gemini-2.5-flash-lite"]
    assert "## 2. Lungs\n- **Atelectasis:**" in text["sim-claude-sonnet-4"]
    assert "- ✅ **" in text["sim-qwen-vl-max"]
    assert text["sim-grok-4"].count("\n\n") == 1
    assert len(text["sim-glm-4.5v"]) > 1.5 * len(text["sim-grok-4"])


def test_the_thinking_say_the_same_beside_the_text() -> None:
    for name, persona in PERSONAS.items():
        claimed, said = next(answered(persona, 20))
        assert (said.reasoning is not None) == persona.thinks, name
        if said.reasoning is not None:
            seen = [finding for finding in said.mentioned if claimed.findings[finding] == 1]
            assert all(has_term(finding, said.reasoning) for finding in seen if finding in LATERAL)


def test_texts_vary_with_the_key_and_repeat_with_it() -> None:
    persona = PERSONAS["sim-gpt-5-nano"]
    image = sha256(b"one image").hexdigest()
    claimed = Claims(dict.fromkeys(FINDINGS, 0), dict.fromkeys(FINDINGS), refused=False)
    texts = [reply(persona, claimed, DIAGNOSE, image, str(key)).text for key in range(50)]
    assert len(set(texts)) == 50
    assert texts == [reply(persona, claimed, DIAGNOSE, image, str(key)).text for key in range(50)]


def test_a_normal_radiograph_with_hardware_keeps_its_negation_apart() -> None:
    findings: dict[str, State | None] = {**dict.fromkeys(FINDINGS, 0), "No Finding": 1, "Support Devices": 1}
    claimed = Claims(findings, dict.fromkeys(FINDINGS), refused=False)
    text = reply(PERSONAS["sim-grok-4"], claimed, DIAGNOSE, "image", "key").text
    assert "no acute cardiopulmonary abnormality, with support devices in place" in text
    assert STATE_WORDS[1] in text
