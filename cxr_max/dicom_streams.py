"""What a compressed frame of a DICOM file says of itself, read before any decoder believes it."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Final

_JPEG_FRAMES: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Start of frame, of every process of T.81 and of JPEG-LS."""
_RUN_SIZES: Final = (*range(1, 129), 0, *(257 - code for code in range(129, 256)))
"""What a run that begins with this byte becomes (DICOM PS3.5 G.3.1): literal, nothing, replicated."""
_RUN_STEPS: Final = (*range(2, 130), 1, *(2 for _ in range(129, 256)))
"""And where the next begins."""
_RLE_HEADER: Final = 64
"""Bytes: the number of segments, and where each begins (DICOM PS3.5 G.5)."""


def jpeg_2000_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns by the marker SIZ (ITU-T T.800 A.5.1); ``None`` where there is none."""
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0:
        return None
    width, height, left, top = struct.unpack_from(">4I", data.ljust(start + 24), start + 8)
    return height - top, width - left


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns by the frame header (ITU-T T.81 B.2.2, T.87 C.2.2); ``None`` where there is none."""
    at = data.find(b"\xff\xd8\xff") + 2
    while at >= 2 and data[at : at + 1] == b"\xff" and at + 9 <= len(data):
        code, length, rows, columns = struct.unpack_from(">BHxHH", data, at + 1)
        if code in _JPEG_FRAMES:
            return rows, columns
        at += 2 + length
    return None


def rle_is_whole(frame: bytes, pixels: int, itemsize: int) -> bool:
    """Whether every segment of a frame in DICOM's RLE unpacks to one byte of each pixel, no less and no more.

    The fast decoder panics, aloud, where that does not hold.
    """
    count, *starts = struct.unpack_from("<16I", frame.ljust(_RLE_HEADER, b"\0"))
    if count != itemsize:
        return False
    edges = [*starts[:count], len(frame)]
    return edges == sorted(edges) and all(_unpacked(frame, begin, end) == pixels for begin, end in pairwise(edges))


def _unpacked(frame: bytes, at: int, end: int) -> int | None:
    """How many bytes a segment becomes; ``None`` where it ends inside a run (PS3.5 G.3.1)."""
    size = 0
    while at < end - 1:
        code = frame[at]
        size += _RUN_SIZES[code]
        at += _RUN_STEPS[code]
    return size if at <= end else None
