"""Who the simulated teachers are: their wire format, how often each is right, and how each writes.

Read from ``personas.toml``, which says where every number comes from. All rates are probabilities in [0, 1].
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from cxr_max.findings import FINDINGS

Wire = Literal["openai", "anthropic", "gemini"]
Behaviour = Literal["plain", "noise", "poisoned", "misled", "perfect"]
Layout = Literal["headings", "outline", "bullets", "checkmarks", "prose"]

WIRES: Final[tuple[Wire, ...]] = ("openai", "anthropic", "gemini")
LAYOUTS: Final[tuple[Layout, ...]] = ("headings", "outline", "bullets", "checkmarks", "prose")
SAMPLED: Final[tuple[str, ...]] = tuple(name for name in FINDINGS if name != "No Finding")
"""The findings a persona takes a stance on; No Finding follows from them."""


@dataclass(frozen=True, slots=True)
class Persona:
    """One simulated teacher."""

    name: str
    """The model's name on the wire."""
    wire: Wire
    accuracy: Mapping[str, float]
    """P(right stance) of each finding in ``SAMPLED``."""
    refusal_rate: float
    laterality_error: float
    """P(wrong side | correctly claimed present, and the reference has a side)."""
    hedge_rate: float
    """P(uncertain is claimed | the stance is wrong)."""
    layout: Layout
    wordy: bool
    """Speaks of every finding asked about, rather than of what is seen and a few negatives."""
    thinks: bool
    """Sends its reasoning beside the text."""
    behaviour: Behaviour = "plain"
    """``noise`` answers by lot, ``poisoned`` says the opposite of the truth, ``misled`` takes cues, ``perfect``
    knows the truth and never refuses."""
    shared: float = 0.4
    """The share of a stance's variance that all teachers have in common."""
    drift: float = 0.0
    """Standard deviations by which an update of the model makes each finding's accuracy better or worse, by lot.
    Hosted models change so behind one name (Chen, Zaharia and Zou 2023)."""
    lot: int = 0
    """Which draw of the updates: when each model gets its own, and what that makes better or worse."""


def load(path: Path) -> dict[str, Persona]:
    """Read a personas file.

    Raises:
        ValueError: a value is not what the file's own comment says it may be.
    """
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    floor = float(document["other_floor"])
    return {name: _persona(name, table, floor) for name, table in document["personas"].items()}


def _persona(name: str, table: Mapping[str, Any], floor: float) -> Persona:
    if table["wire"] not in WIRES or table["layout"] not in LAYOUTS:
        raise ValueError(f"{name}: wire must be one of {WIRES} and layout one of {LAYOUTS}")
    other = max(float(table["average"]), floor)
    accuracy = {finding: float(table["accuracy"].get(finding, other)) for finding in SAMPLED}
    rates = {key: float(table[key]) for key in ("refusal_rate", "laterality_error", "hedge_rate")}
    if unknown := set(table["accuracy"]) - set(SAMPLED):
        raise ValueError(f"{name}: accuracy names {sorted(unknown)}, which are not findings")
    if not all(0 < value < 1 for value in accuracy.values()):
        raise ValueError(f"{name}: an accuracy must lie strictly between 0 and 1")
    if not all(0 <= value <= 1 for value in rates.values()):
        raise ValueError(f"{name}: a rate must lie between 0 and 1")
    return Persona(
        name=name,
        wire=table["wire"],
        accuracy=accuracy,
        layout=table["layout"],
        wordy=bool(table["wordy"]),
        thinks=bool(table["thinks"]),
        refusal_rate=rates["refusal_rate"],
        laterality_error=rates["laterality_error"],
        hedge_rate=rates["hedge_rate"],
    )


PERSONAS: Final[Mapping[str, Persona]] = load(Path(__file__).with_name("personas.toml"))
"""By model name, in the file's order."""


def persona(model: str) -> Persona | None:
    """The persona that a model's name means: ``NAME``, or ``NAME@misled,shared=0.8`` for a variant of it.

    Variants are for experiments on what teachers' errors do: a behaviour, a correlation between teachers from 0 to
    1, a drift from 0 to below 10 and its lot (``drift=1,lot=3``), in any order. ``None`` where there is no such
    persona or variant.
    """
    name, _, variant = model.partition("@")
    found = PERSONAS.get(name)
    for part in filter(None, variant.split(",")):
        if found is None:
            return None
        if part in get_args(Behaviour):
            found = replace(found, behaviour=part)  # type: ignore[arg-type]
        elif (match := re.fullmatch(r"shared=([01](?:\.\d+)?)", part)) and float(match[1]) <= 1:
            found = replace(found, shared=float(match[1]))
        elif match := re.fullmatch(r"drift=(\d(?:\.\d+)?)", part):
            found = replace(found, drift=float(match[1]))
        elif match := re.fullmatch(r"lot=(\d{1,9})", part):
            found = replace(found, lot=int(match[1]))
        else:
            return None
    return found
