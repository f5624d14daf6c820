"""The pixels of an ordinary uncompressed DICOM file, read straight from where they lie.

Holds exactly where ``Layout`` can say everything; whatever is unusual is left to pydicom.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxr_max.scratch import scratch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PIXEL_DATA: Final = b"\xe0\x7f\x10\x00"
_TRAILING_PADDING: Final = b"\xfc\xff\xfc\xff"
"""Data Set Trailing Padding (DICOM PS3.10 7.2), the only element that may follow."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where and how one grey frame of little endian values lies in a file."""

    rows: int
    columns: int
    bits_allocated: int
    """8 or 16."""
    bits_stored: int
    signed: bool
    implicit: bool
    """Implicit VR: no value representation before the length."""

    @property
    def dtype(self) -> np.dtype[np.integer[Any]]:
        """Of one value in the file."""
        import numpy as np

        return np.dtype(f"<{'i' if self.signed else 'u'}{self.bits_allocated // 8}")


@dataclass(frozen=True, slots=True)
class PlainFile:
    """Values (rows, columns) that stay in their file: read band by band, so that memory stays small.

    Read, not mapped: where a disk fails under a mapping the process is killed, where a read fails it raises.
    """

    path: Path
    offset: int
    shape: tuple[int, int]
    dtype: np.dtype[np.integer[Any]]

    def bands(self, height: int) -> Iterator[NDArray[np.integer[Any]]]:
        """All rows in order, ``height`` at a time; a band's memory is used again for this thread's next one.

        Raises:
            OSError: the disk cannot be read, or the file was cut short meanwhile.
        """
        rows, columns = self.shape
        buffer = scratch("band", (min(height, rows), columns * self.dtype.itemsize)).view(self.dtype)
        with self.path.open("rb", buffering=0) as stream:
            stream.seek(self.offset)
            for start in range(0, rows, height):
                band = buffer[: rows - start]
                if stream.readinto(band.data.cast("B")) != band.nbytes:
                    raise OSError(f"{self.path.name} was cut short while it was read")
                yield band


def find_plain_pixels(path: Path, stream: io.BufferedIOBase, layout: Layout) -> PlainFile | NDArray[Any] | None:
    """The values (rows, columns) as they are stored, unused bits included.

    Args:
        stream: at the start of the element Pixel Data; of ``path``, or its unpacked content.

    Returns ``None`` where the element is another, of another length, cut short, or not the last one: rescale
    or window might stand behind it.
    """
    import numpy as np

    shape, dtype = (layout.rows, layout.columns), layout.dtype
    size = dtype.itemsize * layout.rows * layout.columns
    if _value_length(stream, layout.implicit) not in {size, size + size % 2}:
        return None
    offset = stream.tell()
    if stream.seek(0, io.SEEK_END) < offset + size:
        return None
    stream.seek(offset + size + size % 2)
    if stream.read(len(_TRAILING_PADDING)) not in {b"", _TRAILING_PADDING}:
        return None
    if isinstance(stream, io.BytesIO):
        return np.frombuffer(stream.getvalue(), dtype, layout.rows * layout.columns, offset).reshape(shape)
    return PlainFile(path, offset, shape, dtype)


def _value_length(stream: io.BufferedIOBase, implicit: bool) -> int | None:
    """Bytes of Pixel Data's value, where the stream stands at such an element of defined length."""
    head = stream.read(8 if implicit else 12)
    if len(head) < (8 if implicit else 12) or head[:4] != _PIXEL_DATA:
        return None
    if not implicit and head[4:8] not in {b"OB\0\0", b"OW\0\0"}:
        return None
    return int(struct.unpack("<I", head[-4:])[0])
