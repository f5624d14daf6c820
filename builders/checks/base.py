"""What a check finds, and how it reads a release: some row groups at a time."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

KEPT: Final = 10
"""Defects that are told of each kind; all are counted."""
GROUPS_AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong."""

    check: str
    """Its kind."""
    file: str
    """Path in the release."""
    row: int | None
    """0-based place in the file; ``None`` where the file as a whole is meant."""
    message: str
    """One sentence."""


@dataclass(slots=True)
class Defects:
    """All that was found."""

    told: list[Defect] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, check: str, file: str, message: str, row: int | None = None) -> None:
        """Count a defect, and keep it if it is among the first of its kind."""
        self.counts[check] += 1
        if self.counts[check] <= KEPT:
            self.told.append(Defect(check, file, row, message))

    def flag(self, check: str, part: "Part", mask: Any, message: Callable[[int], str] | str) -> None:
        """One defect per row where ``mask`` is true.

        Args:
            message: or what makes it from a row's place in the table.
        """
        import pyarrow.compute as pc

        rows = pc.indices_nonzero(mask)
        if not len(rows):
            return
        told = max(0, KEPT - self.counts[check])
        for row in rows[:told].to_pylist():
            said = message if isinstance(message, str) else message(row)
            self.add(check, part.file, said, part.first + row)
        self.counts[check] += len(rows) - min(told, len(rows))


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a shard."""

    file: str
    """Path in the release."""
    split: str
    """As the file's name says."""
    first: int
    """Place of the first row in the file."""
    table: "pa.Table"


def parts(release: Path, shard: Path, split: str) -> Iterator[Part]:
    """A shard's rows, some thousands at a time."""
    import pyarrow.parquet as pq

    first = 0
    with pq.ParquetFile(shard) as file:
        for start in range(0, file.num_row_groups, GROUPS_AT_ONCE):
            groups = list(range(start, min(start + GROUPS_AT_ONCE, file.num_row_groups)))
            table = file.read_row_groups(groups).combine_chunks()
            yield Part(shard.relative_to(release).as_posix(), split, first, table)
            first += len(table)
