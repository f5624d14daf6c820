"""Damaged files against the renderer, in a process of its own with little memory.

``python -m tests.radiograph_fuzz COUNT SEED FOLDER`` prints one JSON object: how many files rendered, how many
were refused, and what should never have happened. A crash, a hang or an exhausted machine ends the process.
"""

import faulthandler
import gzip
import io
import json
import random
import resource
import struct
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr_max.errors import ImageError
from cxr_max.radiograph import RENDERINGS, encode, read_header
from tests.radiograph_files import jpeg_bytes, lut, phantom
from tests.test_radiograph_syntaxes import written

SPARE_BYTES = 2**30
"""What one file may take beyond the loaded libraries."""
SECONDS = 60
"""For one file, on a machine that does other things too."""
HEADER = 1200
"""Bytes at a file's start that damage prefers."""
NUMBERS = (0, 1, 2, 7, 8, 15, 16, 17, 32, 255, 256, 4095, 32767, 32768, 65535)
SYNTAXES = (
    *(ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian),
    *(RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1),
)


def seeds(folder: Path) -> list[tuple[str, bytes]]:
    """Whole files of every kind that can be read here, by their suffix."""
    values = phantom(40, 36)
    rich: dict[str, Any] = {"WindowCenter": 2000, "WindowWidth": 1000, "RescaleSlope": 1, "RescaleIntercept": 0}
    files = []
    for syntax in SYNTAXES:
        if UID(syntax).is_encapsulated and not get_decoder(syntax).available_plugins:
            continue
        for extra in (
            rich,
            {"VOILUTSequence": [lut(0, 8, np.arange(64))]},
            {"PhotometricInterpretation": "MONOCHROME1"},
        ):
            files.append((".dcm", written(folder / "seed.dcm", values, 12, False, syntax, **extra).read_bytes()))
    files.append((".dcm.gz", gzip.compress(files[0][1])))
    files.append((".dcm", files[0][1][132:]))
    grey = phantom(40, 36, high=255).astype(np.uint8)
    files += [
        (".jpg", jpeg_bytes(grey, comment=b"Jane", progressive=progressive)) for progressive in (False, True)
    ]
    for picture, kind in ((Image.fromarray(grey), "PNG"), (Image.fromarray(values.astype(np.uint16)), "TIFF")):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        files.append((f".{kind.lower()}", buffer.getvalue()))
    return files


def flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 12)):
        data[place(data, draw)] = draw.randrange(256)


def cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randint(1, len(data)) :]


def lie(data: bytearray, draw: random.Random) -> None:
    """A number where one may stand, small, large or off by one."""
    at = place(data, draw) & ~1
    if at + 4 <= len(data):
        number = draw.choice(NUMBERS) if draw.random() < 0.7 else draw.getrandbits(32)
        fmt = draw.choice(["<H", ">H", "<I", ">I"])
        struct.pack_into(fmt, data, at, number % 256 ** struct.calcsize(fmt))


def lie_by_name(data: bytearray, draw: random.Random) -> None:
    """Another number of rows, columns or bits: elements of group 0028, little endian, explicit or implicit."""
    element = draw.choice([0x0002, 0x0008, 0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103])
    at = bytes(data).find(struct.pack("<HH", 0x0028, element))
    if at >= 0 and at + 10 <= len(data):
        struct.pack_into("<H", data, at + 8, draw.choice(NUMBERS))


def move(data: bytearray, draw: random.Random) -> None:
    at, size = place(data, draw), draw.randint(1, 40)
    if draw.random() < 0.5:
        del data[at : at + size]
    else:
        data[at:at] = bytes(draw.randrange(256) for _ in range(size))


def rename(data: bytearray, draw: random.Random) -> None:
    """Another transfer syntax than the data are in."""
    at = bytes(data).find(b"1.2.840.10008.1.2")
    names = [
        b"1.2.840.10008.1.2." + tail for tail in (b"1", b"2", b"5", b"4.50", b"4.51", b"4.70", b"4.80", b"4.90")
    ]
    if at >= 0:
        name = draw.choice(names)
        data[at : at + len(name)] = name


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, cut, lie, lie_by_name, move, rename)


def place(data: bytearray, draw: random.Random) -> int:
    """Somewhere, most often in the header or near its end, where sizes stand."""
    if draw.random() < 0.6:
        return draw.randrange(max(1, min(HEADER, len(data))))
    return draw.randrange(max(1, len(data)))


def damaged(files: list[tuple[str, bytes]], draw: random.Random) -> tuple[str, bytes]:
    suffix, whole = draw.choice(files)
    packed = suffix == ".dcm.gz" and draw.random() < 0.5
    data = bytearray(gzip.decompress(whole) if packed else whole)
    for _ in range(draw.randint(1, 3)):
        draw.choice(MUTATIONS)(data, draw)
    return suffix, gzip.compress(bytes(data)) if packed else bytes(data)


def outcome(path: Path, draw: random.Random) -> str:
    """``rendered`` or ``refused``; anything else is a fault and says which."""
    with suppress(ImageError):
        read_header(path)
    try:
        rendering = "mimic_jpg" if path.suffix in {".jpg", ".png", ".tiff"} else draw.choice(RENDERINGS)
        sent = encode(path, rendering, 20)
    except ImageError as fault:
        message = str(fault)
        return "refused" if path.name in message and "\n" not in message else f"unclear: {message}"
    with Image.open(io.BytesIO(sent.jpeg)) as image:
        image.load()
        return "rendered" if image.mode == "L" and max(image.size) <= 20 else f"odd: {image}"


def cap_memory(spare: int) -> None:
    with Path("/proc/self/statm").open() as status:
        used = int(status.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, used + spare))


def main() -> None:
    count, seed, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    warnings.simplefilter("error")
    files = seeds(folder)
    for number, (suffix, whole) in enumerate(files):
        path = folder / f"whole{number}{suffix}"
        path.write_bytes(whole)
        encode(path, "mimic_jpg", 20)
    cap_memory(SPARE_BYTES)
    counts = {"rendered": 0, "refused": 0}
    faults, slowest = [], 0.0
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        suffix, data = damaged(files, draw)
        path = folder / f"a{suffix}"
        path.write_bytes(data)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        started = time.monotonic()
        try:
            result = outcome(path, draw)
        except BaseException as fault:  # noqa: BLE001 - that is what is looked for
            result = f"{type(fault).__name__}: {fault}"
        slowest = max(slowest, time.monotonic() - started)
        faulthandler.cancel_dump_traceback_later()
        if result in counts:
            counts[result] += 1
        else:
            faults.append(f"{seed}/{number}{suffix}: {result[:200]}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({**counts, "faults": faults, "slowest_s": round(slowest, 2), "peak_mib": peak}))


if __name__ == "__main__":
    main()
