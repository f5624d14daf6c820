"""The 14 CheXpert findings, their states, their sides, and the coding MIMIC-CXR-JPG uses for them.

Value coding everywhere in this project (Irvin et al. 2019, CheXpert; Johnson et al. 2019, MIMIC-CXR-JPG):
1 present, 0 absent, -1 uncertain, ``None`` not mentioned. Not mentioned is not absent.
"""

from collections.abc import Mapping
from typing import Final, Literal

State = Literal[1, 0, -1]
Side = Literal["left", "right", "bilateral"]
Findings = Mapping[str, State | None]
Sides = Mapping[str, Side | None]

FINDINGS: Final[tuple[str, ...]] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
"""In the column order of MIMIC-CXR-JPG's ``mimic-cxr-2.0.0-chexpert.csv``."""

STATES: Final[Mapping[str, State]] = {"present": 1, "absent": 0, "uncertain": -1}
SIDES: Final[tuple[Side, ...]] = ("left", "right", "bilateral")

LATERAL: Final[frozenset[str]] = frozenset(
    {
        "Atelectasis",
        "Consolidation",
        "Fracture",
        "Lung Lesion",
        "Lung Opacity",
        "Pleural Effusion",
        "Pleural Other",
        "Pneumonia",
        "Pneumothorax",
    }
)
"""Findings for which a side means something."""


def blank() -> dict[str, State | None]:
    """All 14 findings, none mentioned."""
    return dict.fromkeys(FINDINGS)


def blank_sides() -> dict[str, Side | None]:
    """All 14 findings, no side said."""
    return dict.fromkeys(FINDINGS)


def state_of(value: object) -> State | None:
    """Read one label cell: ``"1.0"``, ``0``, ``"-1"``, blank or NaN.

    Raises:
        ValueError: the cell holds anything else.
    """
    text = "" if value is None else str(value).strip()
    if text.lower() in {"", "nan", "none", "<na>"}:
        return None
    number = float(text)
    for state in STATES.values():
        if number == state:
            return state
    raise ValueError(f"{text!r} is not a finding's state: 1, 0, -1 or blank")


def positives(findings: Findings) -> tuple[str, ...]:
    """The findings that are present, in the order of ``FINDINGS``."""
    return tuple(name for name in FINDINGS if findings.get(name) == 1)
