"""Room on the disk that is kept free for the replies in flight, so that a full disk loses none of them."""

import errno
import os
from pathlib import Path
from typing import Final, Self

from cxr_max.errors import StorageError

SIZE: Final = 32 * 2**20
"""Bytes. A reply takes about 40 KB in SQLite's log, with its share of the index: room for 800 in flight."""

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


class Reserve:
    """A file of nothing beside the ledger, from ``with`` to its end; it is let go when the disk is full.

    Where the file system cannot set room aside, there is no reserve: what the disk refuses is then lost.
    """

    def __init__(self, ledger: Path, size: int = SIZE) -> None:
        self.path = ledger.with_name(f".{ledger.name}.reserve")
        self._size = size

    def __enter__(self) -> Self:
        """Set the room aside.

        Raises:
            StorageError: the disk is full already; nothing was sent.
        """
        try:
            with self.path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
        except OSError as error:
            self.let_go()
            if error.errno in _FULL:
                raise StorageError(
                    f"{self.path.parent} has no room for replies ({error.strerror}): make room for at least"
                    f" {self._size // 2**20} MB, or choose another --out, and run the same command again."
                    " Nothing was sent."
                ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> bool:
        """Give the room back; whether there was any."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True
