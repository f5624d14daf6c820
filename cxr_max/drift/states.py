"""What a teacher has committed to after each step of its text, as arrays of state codes.

State codes: 0 not mentioned, 1 absent, 2 uncertain, 3 present: indices of ``STATE_ORDER``. Findings are in the
order of ``FINDINGS``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cxr_max.drift.steps import steps
from cxr_max.findings import FINDINGS, Findings, State

Codes = NDArray[np.int8]
Label = Callable[[str], Findings]
"""What reads a text for findings, such as ``cxr_max.labeler.label``."""

STATE_ORDER: Final[tuple[State | None, ...]] = (None, 0, -1, 1)
"""By how much is claimed: the order in which CheXpert's labeler lets one mention of a finding override another."""
ABSENT: Final = STATE_ORDER.index(0)
UNCERTAIN: Final = STATE_ORDER.index(-1)
PRESENT: Final = STATE_ORDER.index(1)
BINS: Final = 10


def encode(findings: Findings) -> Codes:
    """(14,): the state codes of one reading.

    Raises:
        ValueError: a state is none of 1, 0, -1 and ``None``.
    """
    return np.array([STATE_ORDER.index(findings.get(name)) for name in FINDINGS], dtype=np.int8)


def decode(codes: Codes) -> dict[str, State | None]:
    """All 14 findings of one row of codes."""
    return {name: STATE_ORDER[code] for name, code in zip(FINDINGS, codes.tolist(), strict=True)}


def commit_states(text: str, label: Label) -> Codes:
    """(steps, 14): the state of every finding after each step of the text.

    Each step is read alone, once, and folded into what came before: present over uncertain over absent over not
    mentioned. So a state never falls, and the last row is what CheXpert's rule for several mentions (Irvin et
    al. 2019) makes of the whole text. A later "no effusion on the left" therefore does not take back an effusion
    on the right; nor, and this is the rule's price, does an outright revision downwards show.

    Raises:
        ValueError: ``label`` gave a state that is none of 1, 0, -1 and ``None``.
    """
    rows = [encode(label(text[start:end])) for start, end in steps(text)]
    stacked = np.array(rows, dtype=np.int8).reshape(len(rows), len(FINDINGS))
    folded: Codes = np.maximum.accumulate(stacked, axis=0)
    return folded


def align(states: Codes, bins: int = BINS) -> Codes:
    """(bins, findings): the states at the relative positions 1/bins, 2/bins, ... 1 of a text of any length.

    At position j/J of n steps, floor(j n / J) steps are complete: row j is the state after them, and not mentioned
    where there are none. The last row is the text's last; a text without steps has mentioned nothing.

    Args:
        states: (steps, findings).
        bins: J, at least 1.

    Raises:
        ValueError: ``bins`` is below 1, or ``states`` not two-dimensional.
    """
    if bins < 1 or states.ndim != 2:
        raise ValueError(f"{bins} bins over shape {states.shape}: give at least 1 and (steps, findings)")
    complete = np.arange(1, bins + 1) * len(states) // bins
    before = np.zeros((1, states.shape[1]), dtype=states.dtype)
    aligned: Codes = np.concatenate([before, states])[complete]
    return aligned


def streams(
    texts: Sequence[Mapping[str, str]], label: Label, bins: int = BINS
) -> tuple[tuple[int, ...], tuple[str, ...], Codes]:
    """The joint streams of several teachers over several studies.

    A joint state needs every teacher: a study that one of them did not answer is left out.

    Args:
        texts: per study, teacher -> the text of its one reply with status ok.
        label: reads one step for findings.
        bins: relative positions per text.

    Returns:
        The indices of the studies kept, the teachers in alphabetical order, and (studies, teachers, bins, 14)
        codes.
    """
    teachers = tuple(sorted({teacher for study in texts for teacher in study}))
    kept = tuple(index for index, study in enumerate(texts) if len(study) == len(teachers))
    rows = [[align(commit_states(texts[index][u], label), bins) for u in teachers] for index in kept]
    joint = np.array(rows, dtype=np.int8).reshape(len(kept), len(teachers), bins, len(FINDINGS))
    return kept, teachers, joint
