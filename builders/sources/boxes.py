"""Boxes drawn on a frontal image -> the side of what is in them.

Frontal radiographs are hung with the patient's right on the image's left (DICOM PS3.3 C.7.6.1.1.1, Patient
Orientation ``L\\F``), and the midline is taken to be the middle column.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cxr_max.builders.sources.labels import LabelTable
from cxr_max.findings import LATERAL, Findings, Side, Sides, blank_sides

SHARE: Final = 1 / 3
"""A box is on a side where at least this share of its width lies there: a wide one in the middle is on both."""


@dataclass(frozen=True, slots=True)
class Box:
    """What is marked, and from which column to which."""

    label: str
    left: float
    right: float


def halves(box: Box, columns: int) -> frozenset[Side]:
    """The patient's sides that a box is on: ``left``, ``right`` or both; none where it has no width."""
    middle, width = columns / 2, box.right - box.left
    if width <= 0:
        return frozenset()
    in_left_half = min(max(middle - box.left, 0), width) / width
    sides: dict[Side, float] = {"right": in_left_half, "left": 1 - in_left_half}
    return frozenset(side for side, share in sides.items() if share >= SHARE)


def side_of(found: Iterable[Side]) -> Side | None:
    """Sides together: both of them are ``bilateral``, none is ``None``."""
    sides = set(found)
    return next(iter(sides)) if len(sides) == 1 else "bilateral" if sides else None


def sides_of(boxes: Iterable[Box], columns: int, table: LabelTable, findings: Findings) -> Sides:
    """The side of every finding that is present, may have one, and is marked; ``None`` for the others.

    Args:
        columns: of the image that the boxes were drawn on.
    """
    return blank_sides() | settled(marked_sides(boxes, columns, table), findings)


def marked_sides(boxes: Iterable[Box], columns: int, table: LabelTable) -> dict[str, set[Side]]:
    """On which sides each finding is marked."""
    marked: dict[str, set[Side]] = {}
    for box in boxes:
        meaning = table.meaning(box.label)
        for name in meaning.findings if meaning else ():
            marked.setdefault(name, set()).update(halves(box, columns))
    return marked


def settled(marked: Mapping[str, Iterable[Side]], findings: Findings) -> dict[str, Side | None]:
    """Sides by finding, for those that are present and may have one."""
    return {name: side_of(on) for name, on in marked.items() if name in LATERAL and findings[name] == 1}
