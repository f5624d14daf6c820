"""What every data set offers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

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
