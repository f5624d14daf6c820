"""A JPEG without its metadata, bit for bit the same picture (ITU-T T.81 Annex B, the syntax of markers)."""

import re
from typing import Final

_SOI: Final = b"\xff\xd8"
_EOI: Final = b"\xff\xd9"
_TABLES: Final = frozenset({0xC4, 0xDB, 0xDD})
"""Huffman tables, quantisation tables, restart interval."""
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive Huffman coding: what every decoder reads."""
_SCAN: Final = 0xDA
_METADATA: Final = frozenset({*range(0xE0, 0xF0), 0xFE})
"""APP0 to APP15 and COM: thumbnails, Exif, ICC, free text. A grey picture decodes the same without them."""
_SCAN_ENDS: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""A marker that is neither a stuffed 0xFF nor a restart (T.81 B.1.1.2 and B.1.1.5). A plain 0xFF first makes the
search many times faster than any number of them."""


def bare_jpeg(data: bytes) -> bytes | None:
    """Keep only what decoding a grey JPEG needs; every other segment and what follows the end is dropped.

    The compressed data stay as they are, so the decoded pixels do too. ``None`` where the file is not a
    plain Huffman-coded JPEG that is whole from start to end marker, which calls for re-encoding.
    """
    if not data.startswith(_SOI):
        return None
    kept, at = [_SOI], len(_SOI)
    while (marker := _marker_at(data, at)) is not None:
        code, at = marker
        if code == _EOI[1]:
            return b"".join([*kept, _EOI])
        length = int.from_bytes(data[at : at + 2], "big")
        end = at + length
        if length < 2 or end > len(data) or code not in _TABLES | _FRAMES | _METADATA | {_SCAN}:
            return None
        if code == _SCAN:
            scan = _SCAN_ENDS.search(data, end)
            if scan is None:
                return None
            end = scan.start()
            while data[end - 1] == 0xFF:
                end -= 1
        if code not in _METADATA:
            kept.append(b"\xff" + bytes([code]) + data[at:end])
        at = end
    return None


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height by the frame header (T.81 B.2.2); ``None`` where none is found."""
    at = len(_SOI)
    while (marker := _marker_at(data, at)) is not None:
        code, at = marker
        if code in _FRAMES and at + 7 <= len(data):
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 3 : at + 5], "big")
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return None


def _marker_at(data: bytes, at: int) -> tuple[int, int] | None:
    """The code of the marker at this offset and the offset after it; any number of fill bytes may precede."""
    start = at
    while at < len(data) and data[at] == 0xFF:
        at += 1
    return (data[at], at + 1) if start < at < len(data) else None
