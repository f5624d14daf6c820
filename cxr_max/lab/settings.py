"""What a preset of the lab is: sizes, arms and ablations."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

RECIPE: Final = Path(__file__).with_name("recipe.toml")
"""Of the tiny base; a lab that was begun with another one is another lab."""
VERSION: Final = 1
"""Raise it whenever the same settings would give other numbers."""
FINDINGS_ASKED: Final = ("Consolidation", "Edema", "Pleural Effusion", "Pneumonia", "Pneumothorax")
"""Those of MS-CXR-T, for which the teachers' accuracies are published; the prompt ``diagnose_five`` names them."""
PROMPT: Final = "diagnose_five"
SINGLE: Final = "sim-gpt-5-nano"
"""The one teacher of ``sft-one``: the best published average."""
ARMS: Final = ("sft-one", "sft-all", "dpo", "apo", "apo-anchor")
CONTROLS: Final = ("apo-shuffled", "noise-sft", "noise-apo")
ABLATIONS: Final = ("anchor-1", "three", "poisoned", "uncorrelated", "correlated")
"""Each an APO with anchor, beside the SFT it starts from; ``anchor-1`` starts from ``sft-all``."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A lab, whatever machine it runs on."""

    preset: str
    seeds: int
    base: str = "tiny"
    """Or a model's name or folder: then no base is schooled, and the paper's recipe trains it."""
    school: int = 3000
    """Phantoms that the tiny base learns to see from."""
    train: int = 320
    tune: int = 100
    test: int = 200
    shifted: int = 120
    unlike: int = 24
    """Test studies that are asked about under other conditions too."""
    ablations: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For hashes and files."""
        return {**asdict(self), "ablations": list(self.ablations), "version": VERSION}


PRESETS: Final = {
    "quick": Settings("quick", seeds=1),
    "paper": Settings(
        "paper", seeds=5, school=4000, train=800, test=400, shifted=300, unlike=60, ablations=ABLATIONS
    ),
    "miniature": Settings("miniature", seeds=1, school=16, train=8, tune=6, test=6, shifted=6, unlike=2),
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
