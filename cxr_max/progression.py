"""How a finding changed between two radiographs: the three classes, and the answer that the prompt asks for.

The block reads ``ANSWER``, then ``Edema: worsening`` line by line, decorated as models decorate (see ``answers``).
The five findings and the three classes are those of MS-CXR-T (Bannur et al. 2023, BioViL-T).
"""

import re
from collections.abc import Mapping
from typing import Final, Literal, get_args

from cxr_max.answers import answer_lines

Change = Literal["improving", "stable", "worsening"]
Changes = Mapping[str, Change | None]
"""Finding -> how it changed; ``None`` where nothing says."""

CHANGES: Final[tuple[Change, ...]] = get_args(Change)
COMPARED: Final = ("Consolidation", "Edema", "Pleural Effusion", "Pneumonia", "Pneumothorax")
"""In the order of the set's columns."""
_BY_LOWER_NAME: Final = {name.lower(): name for name in COMPARED}


def asked_in(prompt: str) -> bool:
    """Whether a prompt asks for changes, and not for findings."""
    return "improving, stable or worsening" in prompt


def column_of(finding: str) -> str:
    """What MS-CXR-T calls the progression of a finding: ``pleural_effusion_progression``."""
    return f"{finding.lower().replace(' ', '_')}_progression"


def changes_of(labels: Mapping[str, str]) -> dict[str, Change | None]:
    """The progression of all five findings, from a study's labels under MS-CXR-T's names."""
    return {name: _change(labels.get(column_of(name), "")) for name in COMPARED}


def read(text: str) -> dict[str, Change | None] | None:
    """The last answer block of ``text``, all five findings; ``None`` where there is no block or it says of none.

    A finding said twice keeps the last word.
    """
    said: dict[str, Change | None] = dict.fromkeys(COMPARED)
    for name, value in answer_lines(text):
        finding = _BY_LOWER_NAME.get(name.lower())
        # The first word or nothing: "not worsening" must not be read as worsening.
        words = re.findall(r"[a-z]+", value.lower())
        change = _change(words[0]) if words else None
        if finding is not None and change is not None:
            said[finding] = change
    return said if any(said.values()) else None


def _change(word: str) -> Change | None:
    return next((change for change in CHANGES if change == word), None)
