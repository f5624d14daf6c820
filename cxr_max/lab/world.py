"""Which phantoms and which teachers the lab has.

Every set of phantoms has a seed of its own, so that no study or subject is in two of them: the base learns to see
from one, each seed's teachers answer about another, settings are tuned on a third, and the tests are two more.
"""

import json
from pathlib import Path
from typing import Final

from cxr_max.builders.sources.phantom import Population
from cxr_max.lab.settings import SELF, SINGLE
from cxr_max.teachers.simulator.personas import PERSONAS

SIZE: Final = 112
"""Pixels: 8 x 8 patches, 16 tokens of the student."""
PERCENT: Final = 25
"""Of the studies, that have each of the five findings."""
PERCENT_SHIFTED: Final = 12
SEEDS: Final = {"school": 1, "tune": 2, "test": 5, "shifted": 6, "seen": 4}
_TRAIN: Final = 100
"""And on: one for each seed of the lab."""
VARIANTS: Final = {
    "train": "misled", "truth": "perfect", "three": "misled", "poisoned": "misled", "tune": "misled",
    "test": "misled", "shifted": "misled", "noise": "noise", "uncorrelated": "misled,shared=0",
    "correlated": "misled,shared=0.8", "drifting": "misled,drift=1,lot={seed}",
}  # fmt: skip
"""Of the personas, by what is asked about. What is by lot is drawn anew for each seed of the lab."""
_POISONED: Final = "sim-glm-4.5v"
_THREE: Final = ("sim-gpt-5-nano", "sim-claude-sonnet-4", "sim-qwen-vl-max")


def population(which: str) -> Population:
    """Whose phantoms these are."""
    return Population(percent=PERCENT) if which != "shifted" else Population(shifted=True, percent=PERCENT_SHIFTED)


def source(which: str, seed: int = 0) -> str:
    """The source spec of a set of phantoms. Training sets of one seed are the same phantoms, whoever is asked."""
    people = population(which)
    options = f"{SIZE}px,{people.percent}%{',shifted' if people.shifted else ''}"
    if which in SEEDS:
        return f"phantom:{SEEDS[which]},{options},{'validation' if which == 'tune' else 'test'}"
    return f"phantom:{_TRAIN + seed},{options},train"


def teachers(which: str) -> str:
    """Who is asked, as ``--teachers`` takes it."""
    return {"truth": SINGLE, SELF: SELF, "three": ",".join(_THREE)}.get(which, ",".join(PERSONAS))


def write_roster(path: Path, which: str, seed: int = 0) -> None:
    """The personas as they are in this world, under their own names."""
    lines = []
    for name, persona in PERSONAS.items():
        variant = "poisoned" if which == "poisoned" and name == _POISONED else VARIANTS[which]
        lines += [f"[{json.dumps(name)}]", 'provider = "simulated"', f'wire = "{persona.wire}"']
        lines += [f'model = "{name}@{variant.format(seed=seed)}"', "concurrency = 4", ""]
    path.write_text("\n".join(lines), "utf-8")
