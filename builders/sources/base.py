"""What every data set offers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from cxr_max.records import DataUse, Study


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a data set is and what its owners allow; the same for every copy of it."""

    name: str
    """As in ``--source NAME[:PATH]`` and in the rows' ``source``."""
    title: str
    data_use: DataUse
    licence: str
    """A licence identifier of the Hugging Face Hub."""
    citation: str
    home: str = ""
    """Where its owners offer it."""
    download: tuple[str, ...] = ()
    """What to fetch from there; parentheses say what is lost without a file."""
    expected: Mapping[str, int] = field(default_factory=dict)
    """Counts that its owners publish of a whole copy: ``images``, ``studies``, ``subjects``, and the images of
    each split under its name."""
    overlaps: tuple[str, ...] = ()
    """Names of sources that have images or patients in common with it."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the tables of a copy list, told without a look at any image."""

    root: Path
    tables: tuple[str, ...]
    """Those that were read, from ``root``."""
    absent: tuple[str, ...]
    """Those that are optional and not there; parentheses say what is lost."""
    rows: int
    """Of the tables that list images."""
    counts: Mapping[str, int]
    """Under the names of ``SourceInfo.expected``."""
    images: tuple[str, ...]
    """Relative POSIX paths from ``root``, one for each image that is listed."""
    labels: Mapping[str, int]
    """The set's own labels, each with how many images (or studies) it is stated of."""
    unmapped: frozenset[str]
    """Those among them that say nothing of the 14 findings and are kept under their own names."""
    unknown: frozenset[str] = frozenset()
    """Those among them that this version's table of the set's labels does not have."""
    borrowed: bool = False
    """Whether the images lie among those of another data set, which are no extras of this one."""


NO_SPLIT: Final = "Its owners divide the set into no splits, so every split is null: leave --split out."
"""A warning of such sources."""


class Source(Protocol):
    """A copy of a data set, opened. Opening reads tables at most, never an image."""

    info: SourceInfo
    total: int | None
    """Studies that ``studies()`` will yield; ``None`` where only reading on would tell, or where it never ends."""
    prerendered: bool
    """True where some file is an 8-bit picture already, so that no rendering can be chosen for it."""
    warnings: tuple[str, ...]
    """What the user should know before anything is asked: one sentence each."""

    def studies(self) -> Iterator[Study]:
        """Every study, in an order that never changes, memory independent of their number.

        An image that a table names but the disk lacks is yielded all the same: opening it fails,
        and its study becomes a named gap.
        """
        ...


class Shipped(Source, Protocol):
    """A source that is read from files of its owners, so that a copy can be compared with what they list."""

    def inventory(self) -> Inventory:
        """What this copy should hold."""
        ...
