"""What a data set calls things -> the 14 findings: one TOML table per set, and how it is read.

A table has one row per label of the set: ``"Effusion" = { findings = ["Pleural Effusion"] }``. ``state`` is what
the label's presence says of these findings, 1 where it is left out; -1 for "borderline" and the like. With
``part = true`` a label names only a part of its findings (a rib fracture is a fracture, but who has none may have
broken something else), so that its absence says nothing. Every row whose findings are not just the label's own
name gives a ``reason``.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

from cxr_max.findings import FINDINGS, State, blank

Labels = Mapping[str, State]
"""A set's own labels, as far as it states them: 1 present, 0 absent, -1 uncertain."""

_DISEASES: Final = frozenset(FINDINGS) - {"No Finding", "Support Devices"}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one label of a set says of the 14 findings."""

    findings: tuple[str, ...]
    state: State = 1
    part: bool = False
    reason: str = ""

    def says(self, label: State) -> State | None:
        """What the label, in this state, says of each of its findings."""
        if label == 1:
            return self.state
        return None if label == 0 and self.part else label


@dataclass(frozen=True, slots=True)
class LabelTable:
    """The table of one set."""

    name: str
    abnormal: Literal["any", "mapped"]
    """Which labels rule out No Finding: any but the normal one, or only those that are a disease here."""
    meanings: Mapping[str, Meaning] = field(repr=False)
    """By label, in lower case."""

    def meaning(self, label: str) -> Meaning | None:
        """The row of a label in any case; ``None`` where the table has none."""
        return self.meanings.get(label.casefold())

    def maps(self, label: str) -> bool:
        """Whether a label says anything of the 14 findings."""
        meaning = self.meaning(label)
        return meaning is not None and bool(meaning.findings)

    def findings(self, labels: Labels) -> dict[str, State | None]:
        """All 14 findings as these labels tell them; what none of them speaks of is ``None``.

        Where several speak of one finding, present outweighs uncertain, and uncertain outweighs absent.
        """
        found = blank()
        for label, state in labels.items():
            meaning = self.meaning(label)
            for name in meaning.findings if meaning else ():
                found[name] = weightier(found[name], meaning.says(state) if meaning else None)
        return self.completed(found, listed=1 in labels.values())

    def completed(self, found: Mapping[str, State | None], *, listed: bool = False) -> dict[str, State | None]:
        """The findings, with No Finding 0 where nothing says so but something else is there.

        Args:
            listed: whether any label of the set is present.
        """
        disease = any(found[name] == 1 for name in _DISEASES) or (listed and self.abnormal == "any")
        return {**found, **({"No Finding": 0} if disease and found["No Finding"] is None else {})}

    def others(self, labels: Labels) -> dict[str, str]:
        """The labels that are present or uncertain and say nothing of the 14 findings: 1 or -1 by name."""
        return {label: str(state) for label, state in labels.items() if state and not self.maps(label)}

    def unmapped(self, labels: Iterable[str]) -> frozenset[str]:
        """Those that say nothing of the 14 findings."""
        return frozenset(label for label in labels if not self.maps(label))

    def unknown(self, labels: Iterable[str]) -> frozenset[str]:
        """Those that the table lacks."""
        return frozenset(label for label in labels if self.meaning(label) is None)


def weightier(one: State | None, other: State | None) -> State | None:
    """Of two statements about one finding the one that counts: present, else uncertain, else absent, else none."""
    return next((state for state in (1, -1, 0) if state in (one, other)), None)


@cache
def label_table(name: str) -> LabelTable:
    """The shipped table of a set.

    Raises:
        ValueError: a row names an unknown finding or state, or lacks the reason that it needs.
    """
    read = tomllib.loads((files(__package__) / f"{name}.toml").read_text("utf-8"))
    rows = {label: _meaning(name, label, row) for label, row in read["labels"].items()}
    return LabelTable(name, read["abnormal"], {label.casefold(): meaning for label, meaning in rows.items()})


def _meaning(table: str, label: str, row: Mapping[str, Any]) -> Meaning:
    meaning = Meaning(**{**row, "findings": tuple(row["findings"])})
    if not set(meaning.findings) <= set(FINDINGS) or meaning.state not in (1, 0, -1):
        raise ValueError(f"{table}.toml maps {label!r} to something that is no finding or no state")
    same = [name.casefold() for name in meaning.findings] == [label.casefold().replace("_", " ")]
    if not meaning.reason and not (same and meaning.state == 1):
        raise ValueError(f"{table}.toml maps {label!r} without a reason")
    return meaning
