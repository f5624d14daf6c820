"""How a claim is said: sentences from ``phrases.toml``, laid out in the persona's style.

Everything said of the image follows from the claims, so that the claims can be read back from the text. The
choice of wording depends on the dice alone, which the request's noise key loads.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from cxr_max.findings import FINDINGS, STATES, Side, State
from cxr_max.progression import COMPARED, Changes
from cxr_max.teachers.simulator.personas import Layout, Persona
from cxr_max.teachers.simulator.world import Claims, Question

T = TypeVar("T")

PHRASES: Final[Mapping[str, Any]] = tomllib.loads(
    Path(__file__).with_name("phrases.toml").read_text(encoding="utf-8")
)
STATE_WORDS: Final[Mapping[State, str]] = {state: word for word, state in STATES.items()}
MARKS: Final[Mapping[State, str]] = {1: "✅", 0: "❌", -1: "❓"}
OPAQUE: Final[tuple[str, ...]] = ("Atelectasis", "Consolidation", "Edema", "Lung Lesion", "Pneumonia")
"""Findings that are opacities themselves: beside one, an absent Lung Opacity means no further one."""
BOLD_SHARE: Final = 0.08
BULLET_SHARE: Final = 0.08
"""Shares of the replies whose ANSWER block is in bold, or bulleted: services do not keep to a format."""
NEGATIVES: Final = 3
"""How many absent findings a terse persona mentions."""


@dataclass(frozen=True, slots=True)
class Said:
    """One reply in words."""

    text: str
    reasoning: str | None = None
    """What a thinking persona sends beside the text."""
    mentioned: tuple[str, ...] = ()
    """The findings the text speaks of, in the order of ``FINDINGS``."""


class Dice:
    """Choices that depend on the key alone.

    Built on ``Random.random``, the generator's only method that is fixed across Python versions.
    """

    def __init__(self, *key: str) -> None:
        self._random = Random(int.from_bytes(sha256("\x1f".join(key).encode()).digest(), "big")).random

    def chance(self, share: float) -> bool:
        return self._random() < share

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self._random() * len(items))]

    def some(self, items: Iterable[T], count: int) -> list[T]:
        """``count`` of the items, or all if there are fewer, in their order."""
        pool = list(items)
        keys = [self._random() for _ in pool]
        kept = sorted(sorted(range(len(pool)), key=keys.__getitem__)[:count])
        return [pool[index] for index in kept]


@dataclass(frozen=True, slots=True)
class _Item:
    """One finding as it is about to be said."""

    finding: str
    state: State
    sentence: str
    details: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.sentence, *self.details))


@dataclass(frozen=True, slots=True)
class _Step:
    """One region of the chest, one step of the reasoning."""

    title: str
    lead: str
    items: list[_Item] = field(default_factory=list)


def reply(persona: Persona, claims: Claims, question: Question, *key: str) -> Said:
    """Say the claims, or refuse."""
    dice = Dice("prose", persona.name, *key)
    if claims.refused:
        return Said(refusal(question, dice))
    mentioned = _mentioned(persona, claims, question, dice)
    told = question.kind == "rationale"
    if question.brief:
        text = _lines(claims, mentioned)
    else:
        steps = _steps(persona, claims, mentioned, told, dice)
        body = _LAYOUTS[persona.layout](steps, persona, dice)
        text = "\n\n".join((_opening(persona, told, dice), body, _closing(claims, told, dice)))
    if persona.layout == "prose" and not persona.wordy and not question.brief:
        text = text.replace("\n\n", " ")
    if question.kind == "diagnose":
        text = f"{text}\n\n{answer_block(claims, mentioned, dice)}"
    return Said(text, _thoughts(claims, mentioned, dice) if persona.thinks else None, mentioned)


def comparison(persona: Persona, changes: Changes | None, *key: str) -> Said:
    """Say how findings changed between two images, or refuse."""
    dice = Dice("prose", persona.name, *key)
    if changes is None:
        return Said(refusal(Question("compare", tuple(COMPARED)), dice))
    words = PHRASES["changes"]
    told = [dice.pick(words[change]).format(finding=name.lower()) for name, change in changes.items() if change]
    lines = [f"{name}: {change}" for name, change in changes.items()]
    return Said("\n\n".join((dice.pick(words["opening"]), " ".join(told), "\n".join(["ANSWER", *lines]))))


def refusal(question: Question, dice: Dice) -> str:
    """Decline, then define a disease: a definition is not a finding of this image."""
    named = [name for name in question.findings if name != "No Finding"] or ["Pneumonia"]
    disease = named[0] if question.kind == "rationale" else dice.pick(named)
    parts = [dice.pick(PHRASES["refusals"])]
    if dice.chance(0.8):
        parts += [
            dice.pick(PHRASES["refusals_bridge"]),
            dice.pick(PHRASES["findings"][disease]["definition"]),
        ]
    return " ".join([*parts, dice.pick(PHRASES["refusals_last"])])


def answer_block(claims: Claims, mentioned: Iterable[str], dice: Dice) -> str:
    """The line ``ANSWER`` and one line per finding: ``Pleural Effusion: present, left``."""
    head = "**ANSWER**" if dice.chance(BOLD_SHARE) else "ANSWER"
    bullet = "- " if dice.chance(BULLET_SHARE) else ""
    return "\n".join([head, *(f"{bullet}{name}: {_verdict(claims, name)}" for name in mentioned)])


def _verdict(claims: Claims, finding: str) -> str:
    state, side = claims.findings[finding], claims.sides[finding]
    word = STATE_WORDS[state] if state is not None else "not assessed"
    return f"{word}, {side}" if side else word


def phrase(finding: str, kind: str, side: Side | None, dice: Dice) -> str:
    """One sentence about a finding; ``kind`` is a key of its table: a state's word, ``detail``, ..."""
    template: str = dice.pick(PHRASES["findings"][finding][kind])
    words = PHRASES["sides"][side or "unsaid"]
    return _capital(template.format(**words, lobe=dice.pick(words["lobes"])))


def summary(claims: Claims) -> str:
    """The present and possible findings in one noun phrase."""
    sure = [_short(claims, name) for name in FINDINGS if claims.findings[name] == 1 and name != "No Finding"]
    maybe = [_short(claims, name) for name in FINDINGS if claims.findings[name] == -1]
    if claims.findings["No Finding"] == 1:
        # Only support devices may stand beside it, and its "no" must not reach them.
        beside = f", with {_listing(sure)} in place" if sure else ""
        return f"{PHRASES['findings']['No Finding']['short']}{beside}"
    both = [_listing(sure)] if sure else []
    if maybe:
        both.append(f"possible {_listing(maybe, 'or')}")
    return ", and ".join(both) or "none of the abnormalities asked about"


def _mentioned(persona: Persona, claims: Claims, question: Question, dice: Dice) -> tuple[str, ...]:
    asked = [name for name in question.findings if claims.findings[name] is not None]
    absent = [name for name in asked if claims.findings[name] == 0]
    if not persona.wordy and not question.brief:  # for the terse, "No Finding: absent" goes without saying
        absent = dice.some((name for name in absent if name != "No Finding"), NEGATIVES)
    return tuple(name for name in asked if claims.findings[name] != 0 or name in absent)


def _steps(persona: Persona, claims: Claims, mentioned: Iterable[str], told: bool, dice: Dice) -> list[_Step]:
    """Group what is said by region. A told diagnosis needs its basis, so it gets one detail more."""
    details = persona.wordy + told
    steps = {
        name: _Step(region["title"], dice.pick(region["lead"])) for name, region in PHRASES["regions"].items()
    }
    for finding in mentioned:
        steps[PHRASES["findings"][finding]["region"]].items.append(_item(claims, finding, details, dice))
    return [step for step in steps.values() if step.items]


def _item(claims: Claims, finding: str, details: int, dice: Dice) -> _Item:
    state, side = claims.findings[finding], claims.sides[finding]
    assert state is not None  # only what is claimed is mentioned
    kind = STATE_WORDS[state]
    if finding == "Lung Opacity" and state == 0 and any(claims.findings[name] in (1, -1) for name in OPAQUE):
        kind = "absent_beside"
    extra = dice.some(PHRASES["findings"][finding]["detail"], details if state == 1 else 0)
    return _Item(finding, state, phrase(finding, kind, side, dice), tuple(extra))


def _opening(persona: Persona, told: bool, dice: Dice) -> str:
    kind = "rationale" if told else "wordy" if persona.wordy else "terse"
    return str(dice.pick(PHRASES[f"openings_{kind}"]))


def _closing(claims: Claims, told: bool, dice: Dice) -> str:
    template: str = dice.pick(PHRASES["closings_rationale" if told else "closings"])
    return template.format(summary=summary(claims))


def _lines(claims: Claims, mentioned: Iterable[str]) -> str:
    """Always in the same words, verdict first.

    Whoever learns from many such replies and says what is likeliest then says the likeliest verdict, and not the
    one that is put in the fewest ways.
    """
    return "\n".join(f"{name}: {_seen(claims, name)}." for name in mentioned)


def _seen(claims: Claims, finding: str) -> str:
    state, side = claims.findings[finding], claims.sides[finding]
    assert state is not None  # only what is claimed is mentioned
    template: str = PHRASES["brief"][STATE_WORDS[state]]
    return template.format(on=PHRASES["sides"][side or "unsaid"]["on"])


def _headings(steps: list[_Step], persona: Persona, dice: Dice) -> str:
    return "\n\n".join(f"### {step.title}\n{' '.join(map(str, step.items))}" for step in steps)


def _outline(steps: list[_Step], persona: Persona, dice: Dice) -> str:
    numbered = enumerate(steps, start=1)
    return "\n\n".join(f"## {number}. {step.title}\n{_bulleted(step, '')}" for number, step in numbered)


def _bullets(steps: list[_Step], persona: Persona, dice: Dice) -> str:
    return "\n".join(f"*   **{step.title}:** {' '.join(map(str, step.items))}" for step in steps)


def _checkmarks(steps: list[_Step], persona: Persona, dice: Dice) -> str:
    return "\n".join(f"- {MARKS[item.state]} **{item.finding}**: {item}" for step in steps for item in step.items)


def _prose(steps: list[_Step], persona: Persona, dice: Dice) -> str:
    if persona.wordy:
        return "\n\n".join(" ".join([step.lead, *map(str, step.items)]) for step in steps)
    # The terse say what they see first, and the negatives after it.
    items = sorted((item for step in steps for item in step.items), key=lambda item: item.state == 0)
    return " ".join(map(str, items))


def _bulleted(step: _Step, indent: str) -> str:
    return "\n".join(f"{indent}- **{item.finding}:** {item}" for item in step.items)


_LAYOUTS: Final[Mapping[Layout, Callable[[list[_Step], Persona, Dice], str]]] = {
    "headings": _headings,
    "outline": _outline,
    "bullets": _bullets,
    "checkmarks": _checkmarks,
    "prose": _prose,
}


def _thoughts(claims: Claims, mentioned: Iterable[str], dice: Dice) -> str:
    """A short chain in the first person, with the same claims as the text."""
    said: dict[State, str] = {1: "I see {}.", -1: "I am not sure about {}.", 0: "I see no {}."}
    chain = []
    for finding in mentioned:
        state = claims.findings[finding]
        if state is not None and (finding != "No Finding" or state == 1):
            chain.append(said[state].format(_short(claims, finding)))
    return " ".join([dice.pick(PHRASES["thoughts_first"]), *chain, dice.pick(PHRASES["thoughts_last"])])


def _short(claims: Claims, finding: str) -> str:
    side = claims.sides[finding]
    name: str = PHRASES["findings"][finding]["short"].format(s=PHRASES["sides"][side or "unsaid"]["s"])
    return f"{side} {name}" if side else name


def _listing(names: Sequence[str], word: str = "and") -> str:
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else names[0]


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
