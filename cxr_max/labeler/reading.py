"""What one sentence says: the mentions of findings in it, and what it says besides."""

from dataclasses import dataclass, field

from cxr_max.findings import Side, State
from cxr_max.labeler.lexicon import Match


@dataclass(slots=True)
class Mention:
    """A finding spoken of: the words ``first`` to ``last - 1`` of its sentence."""

    finding: str
    state: State
    first: int
    last: int
    part: int = 0
    """Which of the sentence's parts, as its conjunctions divide it."""
    sign: bool = False
    hint: bool = False
    """Named by a word that leaves it uncertain."""
    derived: bool = False
    """From a structure and its quality rather than from a name."""
    void: bool = False
    """Spoken of, but nothing is said of this picture."""
    side: Side | None = None
    start: int = 0
    end: int = 0
    """The place in the text."""


@dataclass(slots=True)
class Reading:
    """What one sentence says."""

    mentions: list[Mention] = field(default_factory=list)
    normal: bool = False
    """It calls the study normal, or denies any acute abnormality."""
    other: bool = False
    """It names an abnormality outside the 14."""
    leading: bool = False
    """A negation opens it."""
    calm: bool = False
    """It calls a structure normal."""
    doubtful: bool = False
    generic: bool = False
    """It defines a disease, or supposes."""
    cuts: list[int] = field(default_factory=list)
    """The words at which a new part begins."""
    structures: list[Match] = field(default_factory=list)
    refuses: bool = False
    """It declines to read the image."""
    willing: bool = False
    """It says that it will describe the image all the same."""
