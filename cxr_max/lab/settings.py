"""What a preset of the lab is: sizes, arms and ablations."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from cxr_max.builders.sources.phantom import ASKED

RECIPE: Final = Path(__file__).with_name("recipe.toml")
"""Of the tiny base; a lab that was begun with another one is another lab."""
VERSION: Final = 3
"""Raise it whenever the same settings would give other numbers."""
FINDINGS_ASKED: Final = ASKED
"""Those of MS-CXR-T, for which the teachers' accuracies are published; the prompt ``diagnose_five`` names them."""
PROMPT: Final = "diagnose_five"
SINGLE: Final = "sim-gpt-5-nano"
"""The one teacher of ``sft-one``: the best published average."""
ARMS: Final = ("sft-one", "sft-all", "dpo", "apo", "apo-anchor")
POSITIVE: Final = "truth-sft"
"""The positive control: SFT on one teacher that is always right. Unless it learns, no failure means a thing."""
CONTROLS: Final = (POSITIVE, "noise-sft", "noise-apo", "apo-shuffled")
SELF: Final = "self-trained"
ABLATIONS: Final = ("strong-anchor", SELF, "three", "poisoned", "uncorrelated", "correlated", "drifting")
"""Each an APO with anchor, beside the SFT it starts from; ``strong-anchor`` and ``self-trained`` start from
``sft-all``, and ``self-trained`` prefers what that says of the training pictures, in place of the vote."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A lab, whatever machine it runs on."""

    preset: str
    seeds: int
    base: str = "tiny"
    """Or a model's name or folder: then no base is schooled, and the paper's recipe trains it."""
    eyes: int = 16000
    """Phantoms that the tiny base's eyes learn from."""
    school: int = 6000
    """Phantoms that it learns to speak of."""
    train: int = 1500
    tune: int = 200
    test: int = 400
    shifted: int = 200
    unlike: int = 40
    """Test studies that are asked about under other conditions too."""
    ablations: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For hashes and files."""
        return {**asdict(self), "ablations": list(self.ablations), "version": VERSION}


PRESETS: Final = {
    "quick": Settings("quick", seeds=1),
    "paper": Settings("paper", seeds=5, test=800, shifted=400, unlike=80, ablations=ABLATIONS),
    "miniature": Settings("miniature", seeds=1, eyes=32, school=16, train=8, tune=6, test=6, shifted=6, unlike=2),
}
"""``miniature`` shows that the stages fit together, and nothing else."""


def settings(preset: str, seeds: int | None = None, base: str = "tiny") -> Settings:
    """A preset, changed."""
    chosen = replace(PRESETS[preset], base=base)
    return chosen if seeds is None else replace(chosen, seeds=seeds)


def read_settings(said: Mapping[str, Any]) -> Settings:
    """The inverse of ``as_json``."""
    values: dict[str, Any] = {n: value for n, value in said.items() if n not in ("version", "recipe_sha256")}
    return Settings(**{**values, "ablations": tuple(values["ablations"])})
