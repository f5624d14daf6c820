"""A plain encoder of JPEG Lossless, for tests: no free one is at hand (ITU-T T.81 Annex H)."""

import struct
from typing import Any

import numpy as np


def jpeg_lossless(values: Any, bits: int, selection: int = 1) -> bytes:
    """One grey frame as Process 14 with this predictor: ``values`` uint16 (rows, columns) below 2**bits."""
    if selection != 1:
        raise ValueError("only the predictor of the left neighbour is written")
    rows, columns = values.shape
    pixels = values.astype(np.int64)
    predicted = np.empty_like(pixels)
    predicted[:, 1:] = pixels[:, :-1]
    predicted[1:, 0] = pixels[:-1, 0]
    predicted[0, 0] = 2 ** (bits - 1)
    # Differences are taken modulo 65536 (H.1.2.1), with 32768 as the one without extra bits.
    differences = (pixels - predicted + 32767) % 65536 - 32767
    frame = struct.pack(">BHHBBBB", bits, rows, columns, 1, 1, 0x11, 0)
    # All 17 categories with codes of five bits, in their order.
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    scan = struct.pack(">BBBBBB", 1, 1, 0, selection, 0, 0)
    head = b"\xff\xd8" + _segment(0xC3, frame) + _segment(0xC4, table) + _segment(0xDA, scan)
    return head + _coded(differences.ravel().tolist()) + b"\xff\xd9"


def _segment(code: int, body: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body


def _coded(differences: list[int]) -> bytes:
    text = []
    for difference in differences:
        category = abs(difference).bit_length()
        text.append(f"{category:05b}")
        if 0 < category < 16:
            extra = difference if difference > 0 else difference + 2**category - 1
            text.append(f"{extra:0{category}b}")
    bits = "".join(text)
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return data.replace(b"\xff", b"\xff\0")
