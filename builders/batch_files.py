"""The files that batches are sent from: one request per line."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cxr_max.ledger_batches import Member
from cxr_max.shards import disk_refusals_named
from cxr_max.teachers.batch.base import BatchLimits


@dataclass(slots=True)
class Draft:
    """A batch that is being filled: nothing of it is sent, and nothing of it needs to survive."""

    path: Path
    limits: BatchLimits
    members: list[Member] = field(default_factory=list)
    size: int = 0
    """Bytes."""
    _file: BinaryIO | None = None

    def has_room(self, line: bytes) -> bool:
        """Whether the batch stays within the service's limits; an empty one takes any line."""
        fits = len(self.members) < self.limits.requests and self.size + len(line) <= self.limits.bytes
        return fits or not self.members

    def add(self, line: bytes, member: Member) -> None:
        """Write one more request.

        Raises:
            StorageError: the disk refused.
        """
        with disk_refusals_named(self.path):
            if self._file is None:
                self.path.parent.mkdir(exist_ok=True)
                self._file = self.path.open("wb")
            self._file.write(line)
        self.members.append(member)
        self.size += len(line)

    def finish(self) -> None:
        """Close the file, so that it can be sent.

        Raises:
            StorageError: the disk refused.
        """
        if self._file is not None:
            with disk_refusals_named(self.path):
                self._file.close()

    def drop(self) -> None:
        """Remove the file."""
        if self._file is not None:
            # What could not be written need not be flushed to be removed.
            with suppress(OSError):
                self._file.close()
            self.path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove what an earlier process left: it is sent or fetched again."""
    if folder.is_dir():
        for path in folder.glob("*.jsonl"):
            path.unlink()
