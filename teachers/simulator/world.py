"""What a simulated teacher claims about an image. Pure functions of their arguments.

The model is a Gaussian latent per (persona, image, finding, request)::

    z = sqrt(r) * g + sqrt(1 - r) * e        the stance is right iff  z <= Phi^-1(accuracy)

g is shared by all teachers, half of it the image's difficulty and half a misconception about this finding in
this image; e is the teacher's own, half of it lasting and half sampling noise. All have unit variance, so z
has it too, and a persona's marginal accuracy is exactly the table's, whatever the prevalence, while errors
are correlated between teachers and with the image. Independent errors would make every vote perfect and leave
nothing to align. A drifting persona is the table's until its model is updated.

Randomness is drawn from sha256, never from ``hash()`` or a global generator: it is the same on every machine.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import sqrt
from statistics import NormalDist
from typing import Final, Literal

from cxr_max import progression
from cxr_max.findings import FINDINGS, LATERAL, Findings, Side, Sides, State, blank, blank_sides
from cxr_max.progression import CHANGES, COMPARED, Change, Changes, changes_of
from cxr_max.records import Study
from cxr_max.teachers.simulator.personas import SAMPLED, Persona

CUES: Final[Mapping[str, str]] = {
    "Pneumothorax": "Support Devices",
    "Edema": "Cardiomegaly",
    "Pleural Effusion": "Atelectasis",
    "Consolidation": "Pneumonia",
}
"""What a misled teacher takes for a finding: a shortcut that all of them have learnt, as networks take drains for
a pneumothorax (Oakden-Rayner et al. 2020)."""
CUE_SHARE: Final = 0.15
"""How often a cue is there: where it is not, the stance moves the other way, so that its mean stays."""
MISLED: Final = 1.5
"""Standard deviations by which a cue moves the part of a stance that teachers share: away from the truth where the
finding is absent, towards it where it is present."""
PATHOLOGIES: Final[tuple[str, ...]] = tuple(name for name in SAMPLED if name != "Support Devices")
"""CheXpert's No Finding is claimed when none of these is present or uncertain (Irvin et al. 2019)."""
GUESSED_SIDES: Final[tuple[Side | None, ...]] = ("left", "left", "right", "right", "bilateral", None)
"""What a persona draws from where the reference has no side to be right or wrong about."""

_STANDARD: Final = NormalDist()


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of one image: 1 present, 0 absent, -1 uncertain, ``None`` not mentioned, as if absent."""

    findings: Findings | None
    """``None``: no reference at all; the personas then behave as if every finding were absent."""
    sides: Sides | None = None
    difficulty: float | None = None
    """0 (plain) to 1 (barely visible), uniform over a population; ``None``: drawn from the image's sha256."""
    changes: Changes | None = None
    """Of two images: how findings changed from first to second; ``None`` where nothing says, as if stable."""

    @staticmethod
    def of(study: Study) -> "Truth":
        """All that a data set knows about a study."""
        return Truth(
            study.reference_findings, study.reference_sides, study.difficulty, changes_of(study.other_labels)
        )


@dataclass(frozen=True, slots=True)
class Claims:
    """What one reply commits to. ``None`` is not asked about; all are ``None`` in a refusal."""

    findings: Findings
    sides: Sides
    refused: bool


@dataclass(frozen=True, slots=True)
class Question:
    """What a prompt asks for."""

    kind: Literal["diagnose", "rationale", "describe", "compare"]
    findings: tuple[str, ...]
    """Asked about (diagnose, describe, compare), or told (rationale)."""
    brief: bool = False
    """A line for each finding, its name and one sentence, and nothing around them."""


def uniform(*parts: str) -> float:
    """A number in the open interval (0, 1) that depends on the parts alone."""
    digest = sha256("\x1f".join(parts).encode()).digest()
    return ((int.from_bytes(digest[:8], "big") >> 12) + 0.5) / (1 << 52)


def normal(*parts: str) -> float:
    """A standard normal deviate that depends on the parts alone."""
    return _STANDARD.inv_cdf(uniform(*parts))


def mix(share: float, one: float, other: float) -> float:
    """Add two unit-variance deviates into one of unit variance, ``share`` of it from the first."""
    return sqrt(share) * one + sqrt(1 - share) * other


def question(prompt: str) -> Question:
    """Tell from a prompt's text what it asks for.

    ``ANSWER`` in capitals asks for a diagnosis, or for a comparison where changes are asked for; a line
    ``Diagnoses: A, B`` for the basis of those; anything else for a description. A line ``Findings: A, B`` limits
    what is asked about; without one it is all 14.
    """
    asked = _listed(prompt, "Findings") or FINDINGS
    if re.search(r"\bANSWER\b", prompt):
        if progression.asked_in(prompt):
            return Question("compare", COMPARED)
        return Question("diagnose", asked, brief="one short sentence" in prompt)
    if told := _listed(prompt, "Diagnoses"):
        return Question("rationale", told)
    return Question("describe", asked)


def _listed(prompt: str, label: str) -> tuple[str, ...]:
    """The findings named on the line that starts with ``label:``, in the order of ``FINDINGS``."""
    match = re.search(rf"^\W*{label}:(.*)$", prompt, re.MULTILINE)
    named = {part.strip(" .;*").lower() for part in match[1].split(",")} if match else set()
    return tuple(name for name in FINDINGS if name.lower() in named)


def claims(
    persona: Persona,
    image_sha256: str,
    truth: Truth,
    noise_key: str,
    seed: int = 0,
    asked: Iterable[str] = FINDINGS,
) -> Claims:
    """What the persona claims when it is given the image and nothing else.

    Args:
        noise_key: Names the sampling noise: the same key is the same reply.
        asked: The findings the prompt asks about.
    """
    draw = _Draw(str(seed), persona, image_sha256, noise_key)
    if draw.refuses():
        return _refusal()
    asked = frozenset(asked)
    sampled = SAMPLED if "No Finding" in asked else tuple(name for name in SAMPLED if name in asked)
    shared = _difficulty(truth, image_sha256)
    stances: dict[str, State] = {name: _state(draw, name, truth, shared) for name in sampled}
    if "No Finding" in asked:
        stances["No Finding"] = 1 if all(stances[name] == 0 for name in PATHOLOGIES) else 0
    return _claims(draw, truth, {name: state for name, state in stances.items() if name in asked})


def rationale(
    persona: Persona,
    image_sha256: str,
    truth: Truth,
    noise_key: str,
    seed: int = 0,
    told: Iterable[str] = (),
) -> Claims:
    """What the persona claims when it is told the diagnoses: all of them, with sides of its own."""
    draw = _Draw(str(seed), persona, image_sha256, noise_key)
    return _refusal() if draw.refuses() else _claims(draw, truth, dict.fromkeys(told, 1))


def changes(
    persona: Persona, images_sha256: str, truth: Truth, noise_key: str, seed: int = 0
) -> dict[str, Change] | None:
    """How the persona says that findings changed between two images; ``None`` if it refuses.

    It is right about a finding as often as about its presence, which is an assumption; a wrong change is either
    of the other two.
    """
    draw = _Draw(str(seed), persona, images_sha256, noise_key)
    if draw.refuses():
        return None
    hard = _difficulty(truth, images_sha256)
    return {name: _change(draw, name, (truth.changes or {}).get(name) or "stable", hard) for name in COMPARED}


def _change(draw: "_Draw", finding: str, actual: Change, difficulty: float) -> Change:
    if _right(draw, finding, difficulty):
        return actual
    others = [change for change in CHANGES if change != actual]
    return others[int(draw.chance("change", finding) * len(others))]


@dataclass(frozen=True, slots=True)
class _Draw:
    """The random draws of one reply, each named by what it decides."""

    seed: str
    persona: Persona
    image: str
    noise: str

    def shared(self, what: str, finding: str) -> float:
        """The same for every teacher."""
        return normal(self.seed, what, self.image, finding)

    def own(self, what: str, finding: str) -> float:
        """The teacher's own: half lasting, half new with every request."""
        lasting = normal(self.seed, what, self.image, finding, self.persona.name)
        return mix(0.5, lasting, normal(self.seed, what, self.image, finding, self.persona.name, self.noise))

    def chance(self, what: str, finding: str = "") -> float:
        """A uniform draw of this reply alone."""
        return uniform(self.seed, what, self.image, finding, self.persona.name, self.noise)

    def drifted(self, finding: str) -> float:
        """What the update of the teacher's model adds to the threshold of a right stance, if it came before.

        Images are asked about at moments that are uniform over the collection, in an order that depends on the
        image alone; each teacher is updated once, at a moment of its own.
        """
        drawn = (self.seed, str(self.persona.lot), self.persona.name)
        if not self.persona.drift or uniform(self.seed, "asked", self.image) < uniform("update", *drawn):
            return 0.0
        return self.persona.drift * normal("drift", *drawn, finding)

    def refuses(self) -> bool:
        if self.persona.behaviour == "perfect":
            return False
        return self.chance("refusal") < self.persona.refusal_rate


def _refusal() -> Claims:
    return Claims(blank(), blank_sides(), refused=True)


def _difficulty(truth: Truth, image_sha256: str) -> float:
    """The image's difficulty as a standard normal deviate."""
    if truth.difficulty is None:
        return normal("difficulty", image_sha256)
    # The ends of the scale have no finite deviate.
    return _STANDARD.inv_cdf(min(max(truth.difficulty, 1e-6), 1 - 1e-6))


def _right(draw: _Draw, finding: str, difficulty: float, cue: float = 0.0) -> bool:
    """Whether a stance is true; ``cue`` moves the part of it that teachers share, in standard deviations."""
    common = mix(0.5, difficulty, draw.shared("misconception", finding)) + cue
    z = mix(draw.persona.shared, common, draw.own("stance", finding))
    return z <= _STANDARD.inv_cdf(draw.persona.accuracy[finding]) + draw.drifted(finding)


def _state(draw: _Draw, finding: str, truth: Truth, difficulty: float) -> State:
    """The claimed state of one finding, hedging included."""
    actual = (truth.findings or {}).get(finding) or 0
    persona = draw.persona
    right = _right(
        draw, finding, difficulty, _cue(truth, finding, actual) if persona.behaviour == "misled" else 0.0
    )
    if persona.behaviour == "noise":
        return 1 if draw.chance("lot", finding) < 0.5 else 0
    if persona.behaviour == "poisoned":
        return 0 if actual == 1 else 1
    if right or persona.behaviour == "perfect":
        return actual
    if actual == -1:  # the opposite of uncertain is either certainty
        return 1 if draw.chance("certainty", finding) < 0.5 else 0
    if draw.chance("hedge", finding) < draw.persona.hedge_rate:
        return -1
    return 0 if actual == 1 else 1


def _cue(truth: Truth, finding: str, actual: State) -> float:
    findings = truth.findings or {}
    cue = CUES.get(finding)
    if cue is None:
        return 0.0
    towards = MISLED if findings.get(cue) == 1 else -MISLED * CUE_SHARE / (1 - CUE_SHARE)
    return -towards if actual == 1 else towards


def _claims(draw: _Draw, truth: Truth, stances: Mapping[str, State]) -> Claims:
    sides = blank_sides()
    for finding, state in stances.items():
        if state != 0 and finding in LATERAL:
            sides[finding] = _side(draw, finding, truth)
    return Claims({**blank(), **stances}, sides, refused=False)


def _side(draw: _Draw, finding: str, truth: Truth) -> Side | None:
    """The claimed side. Its error shares nothing with the stance's, or being right would make it rarer."""
    actual = (truth.sides or {}).get(finding)
    chance = draw.chance("side", finding)
    if actual is None or (truth.findings or {}).get(finding) not in (1, -1):
        return GUESSED_SIDES[int(chance * len(GUESSED_SIDES))]
    z = mix(draw.persona.shared, draw.shared("confused side", finding), draw.own("confused side", finding))
    if draw.persona.behaviour == "perfect" or _STANDARD.cdf(z) >= draw.persona.laterality_error:
        return actual
    # Mirroring is the usual mistake; overcalling one side as both is the rarer one.
    mirrored: dict[Side, tuple[Side, Side]] = {
        "left": ("right", "bilateral"),
        "right": ("left", "bilateral"),
        "bilateral": ("left", "right"),
    }
    likely, rarer = mirrored[actual]
    return likely if chance < (0.5 if actual == "bilateral" else 0.8) else rarer
