"""Two images in one prompt: every adapter keeps their order, and a simulated teacher knows how they differ."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

import pytest

from cxr_max import progression, prompts
from cxr_max.progression import CHANGES, COMPARED, Change
from cxr_max.records import Reply
from cxr_max.teachers import roster
from cxr_max.teachers.base import TeacherError
from cxr_max.teachers.simulator import Simulator, Truth
from cxr_max.teachers.simulator.personas import PERSONAS, WIRES
from cxr_max.teachers.simulator.world import changes
from tests.teachers.scripted import JPEG

EARLIER, LATER = JPEG + b"1", JPEG + b"2"
PROMPT = prompts.load("progression").text
TRUTH = Truth(None, changes={"Edema": "worsening", "Pneumonia": "improving"})


def named(*images: bytes) -> list[str]:
    return [sha256(image).hexdigest() for image in images]


def ask(persona: str, simulator: Simulator, images: Sequence[bytes], key: str = "k") -> Reply:
    [spec] = roster.choose(roster.load(), persona)

    async def run() -> Reply:
        teacher = roster.connect(spec, "any", simulator.address)
        try:
            return await teacher.ask(images, PROMPT, key)
        finally:
            await teacher.close()

    return asyncio.run(run())


@pytest.mark.parametrize("wire", WIRES)
def test_an_adapter_keeps_the_order_or_the_simulator_does_not_know_the_pair(wire: str) -> None:
    persona = next(name for name, one in PERSONAS.items() if one.wire == wire)
    with Simulator() as simulator:
        simulator.learn(named(EARLIER, LATER), TRUTH)
        replies = [ask(persona, simulator, (EARLIER, LATER), f"key {number}") for number in range(3)]
        assert any(progression.read(reply.text) for reply in replies)
        assert replies[0].text == ask(persona, simulator, (EARLIER, LATER), "key 0").text
        for wrong in ((LATER, EARLIER), (EARLIER,), (LATER,)):
            with pytest.raises(TeacherError, match="not told the truth"):
                ask(persona, simulator, wrong)


def test_images_together_cost_as_much_as_each_alone() -> None:
    with Simulator() as simulator:
        simulator.learn(named(EARLIER, LATER), TRUTH)
        simulator.learn(named(EARLIER), TRUTH)
        both, one = (
            ask("sim-gpt-5-nano", simulator, images).input_tokens for images in ((EARLIER, LATER), (EARLIER,))
        )
    text = -(-len(PROMPT) // 4)
    assert both is not None and one is not None and both - text == 2 * (one - text) > 0


@pytest.mark.parametrize("actual", CHANGES)
def test_a_persona_is_as_often_right_about_a_change_as_its_table_says(actual: Change) -> None:
    persona = PERSONAS["sim-gpt-5-nano"]
    truth = Truth(None, changes=dict.fromkeys(COMPARED, actual))
    said = [changes(persona, f"{number:064}", truth, "once") for number in range(3000)]
    answered = [one for one in said if one is not None]
    assert 0 < len(said) - len(answered) < 80  # a refusal in a hundred
    for finding in ("Pneumothorax", "Edema"):
        counts = Counter(one[finding] for one in answered)
        # Four standard deviations of 3,000 independent draws.
        assert counts[actual] / len(answered) == pytest.approx(persona.accuracy[finding], abs=0.037)
        wrong = [counts[change] for change in CHANGES if change != actual]
        assert min(wrong) / sum(wrong) > 0.35
