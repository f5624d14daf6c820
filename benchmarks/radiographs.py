"""How fast radiographs become what a teacher is sent, beside the usual path, in one run on the same files.

Ratios are of processor time per image with one thread, so that a busy machine disturbs them little; only the gain
of a second core is measured by the clock.
"""

import io
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels import apply_voi_lut
from pydicom.uid import JPEG2000Lossless, RLELossless

from cxr_max.image_cache import ImageCache
from cxr_max.radiograph import RENDERINGS, Rendering, encode, render
from tests.radiograph_files import dicom

Grey = NDArray[np.uint8]

ROWS, COLUMNS, BITS = 3056, 2544, 12
LONG_SIDE: Final = 1024
RUNS: Final = 15
BATCH: Final = 24
"""Images of the run on two threads."""
MEMORY_LIMIT_MB: Final = 120
REAL: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "cxr" / "dicom" / "RG1_J2KI.dcm"


@dataclass(frozen=True)
class Case:
    """One kind of file, our way and the usual way to its JPEG."""

    name: str
    ours: Callable[[], object]
    usual: Callable[[], object]
    psnr_db: float | None = None
    """Of the grey values before JPEG, against LANCZOS of the same recipe."""


def section() -> str:
    """Images per second and core, ratio to the usual path, PSNR, memory of a fresh process."""
    cv2.setNumThreads(1)
    with TemporaryDirectory() as name:
        folder = Path(name)
        files = _files(folder)
        cases = _cases(folder, files)
        rows = [_row(case) for case in cases]
        two = {name: _two_cores(files["dicom"], name) for name in ("mimic_jpg", "voi")}
        memory = {name: _peak_mb(files["dicom"], name) for name in ("mimic_jpg", "voi", "percentile", "nothing")}
    cv2.setNumThreads(-1)
    table = "\n".join(rows)
    return (
        f"## Radiographs, {COLUMNS} x {ROWS}, {BITS} bits in 16, to JPEG with a long side of {LONG_SIDE}\n\n"
        "The usual path: `pixel_array`, `apply_voi_lut`, LANCZOS, JPEG; for a JPG, full decode, LANCZOS, JPEG."
        f" Medians of {RUNS} runs taken in turn, processor time of one thread. PSNR is of the grey values before"
        " JPEG, against LANCZOS of the same recipe.\n\n"
        "| what | images/s | usual path, images/s | ratio | PSNR, dB |\n| --- | --- | --- | --- | --- |\n"
        f"{table}\n\n"
        "Two threads by the clock against one: "
        + ", ".join(f"`{name}` {ratio:.2f}x" for name, ratio in two.items())
        + f". Peak memory (VmHWM) of a fresh process that renders the file, limit {MEMORY_LIMIT_MB} MB: "
        + ", ".join(f"{name} {megabytes:.0f} MB" for name, megabytes in memory.items())
        + " (`nothing` imports the same packages).\n"
    )


def _files(folder: Path) -> dict[str, Path]:
    """The same picture in every kind of file."""
    values = _picture()
    dataset = dicom(values, BITS, WindowCenter=1900, WindowWidth=2900)
    files = {"dicom": folder / "plain.dcm"}
    dataset.save_as(files["dicom"], enforce_file_format=True)
    for name, syntax in (("rle", RLELossless), ("j2k", JPEG2000Lossless)):
        packed = pydicom.dcmread(files["dicom"])
        packed.compress(syntax)
        files[name] = folder / f"{name}.dcm"
        packed.save_as(files[name], enforce_file_format=True)
    for name, shape in (("jpg", (COLUMNS, ROWS)), ("odd jpg", (COLUMNS - 5, ROWS - 7))):
        files[name] = folder / f"{name}.jpg"
        grey = (values[: shape[1], : shape[0]] // 16).astype(np.uint8)
        Image.fromarray(grey).save(files[name], quality=95)
    return files


def _picture() -> NDArray[np.int64]:
    """A real chest, where one is at hand, enlarged to a detector's size, with a detector's noise."""
    if REAL.is_file():
        # Stored as MONOCHROME1.
        small = -pydicom.dcmread(REAL).pixel_array.astype(np.float32)
    else:
        y, x = np.mgrid[0:600, 0:500]
        small = (np.sin(x / 60) * np.cos(y / 80) + 0.3 * np.sin(x / 7) + 1.5).astype(np.float32)
    large = cv2.resize(small, (COLUMNS, ROWS), interpolation=cv2.INTER_CUBIC)
    unit = (large - large.min()) / (large.max() - large.min())
    noise = np.random.default_rng(3).normal(0, 12, large.shape)
    full = np.clip(unit * 3900 + 90 + noise, 0, 2**BITS - 1)
    return np.rint(full).astype(np.int64)


def _cases(folder: Path, files: dict[str, Path]) -> list[Case]:
    plain = files["dicom"]
    usual = partial(_usual, plain)
    cases = [
        Case(f"DICOM, uncompressed, `{name}`", partial(encode, plain, name), usual, _psnr(plain, name))
        for name in RENDERINGS
    ]
    for name, title in (("rle", "RLE"), ("j2k", "JPEG 2000 lossless")):
        path = files[name]
        cases.append(Case(f"DICOM, {title}, `voi`", partial(encode, path, "voi"), partial(_usual, path)))
    for name, title in (("jpg", "JPG"), ("odd jpg", "JPG, odd sides")):
        path = files[name]
        cases.append(Case(title, partial(encode, path), partial(_decode_all, path), _psnr(path, "mimic_jpg")))
    cache = ImageCache(folder / "cache", 10**9)
    cache.encoded(plain)
    return [*cases, Case("DICOM, from the cache", partial(cache.encoded, plain), usual)]


def _psnr(path: Path, rendering: Rendering) -> float:
    """Of the grey values before JPEG, in dB, against a LANCZOS picture of the same recipe."""
    reference = _shrunk(path) if path.suffix == ".jpg" else _lanczos(path, rendering)
    error = render(path, rendering, LONG_SIDE).astype(float) - reference
    return float(10 * np.log10(255**2 / np.mean(error**2)))


def _usual(path: Path) -> bytes:
    dataset = pydicom.dcmread(path)
    shown = apply_voi_lut(dataset.pixel_array, dataset).astype(np.float64)
    grey = ((shown - shown.min()) / (shown.max() - shown.min()) * 255).astype(np.uint8)
    return _jpeg(Image.fromarray(grey).resize(_size(COLUMNS, ROWS), Image.Resampling.LANCZOS))


def _decode_all(path: Path) -> bytes:
    with Image.open(path) as image:
        return _jpeg(image.convert("L").resize(_size(*image.size), Image.Resampling.LANCZOS))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _size(columns: int, rows: int) -> tuple[int, int]:
    return round(columns * LONG_SIDE / max(rows, columns)), round(rows * LONG_SIDE / max(rows, columns))


def _lanczos(path: Path, rendering: str) -> Grey:
    """The grey values of the recipe at full size in float64, then LANCZOS."""
    dataset = pydicom.dcmread(path)
    values = dataset.pixel_array.astype(np.float64)
    if rendering == "voi":
        centre, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
        unit = (values - (centre - 0.5)) / (width - 1) + 0.5
    elif rendering == "percentile":
        low, high = np.percentile(values, [0.5, 99.5])
        unit = (values - low) / (high - low)
    else:
        coarse = ((values - values.min()) / (values.max() - values.min()) * 255).astype(np.uint8)
        unit = cv2.equalizeHist(coarse) / 255
    grey = np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(grey).resize(_size(COLUMNS, ROWS), Image.Resampling.LANCZOS))


def _shrunk(path: Path) -> Grey:
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize(_size(*image.size), Image.Resampling.LANCZOS))


def _row(case: Case) -> str:
    ours, usual = _seconds([case.ours, case.usual])
    psnr = "" if case.psnr_db is None else f"{case.psnr_db:.1f}"
    return f"| {case.name} | {1 / ours:.0f} | {1 / usual:.1f} | {usual / ours:.1f} | {psnr} |"


def _seconds(works: Sequence[Callable[[], object]]) -> list[float]:
    """Medians of processor time, taken in turn so that whatever else runs disturbs all alike."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(RUNS):
        for work, times in zip(works, taken, strict=True):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
    return [median(times) for times in taken]


def _two_cores(path: Path, rendering: Rendering) -> float:
    """How many times as fast two threads are, by the clock: the best of some tries of each."""

    def clock(threads: int) -> float:
        with ThreadPoolExecutor(threads) as pool:
            start = time.perf_counter()
            list(pool.map(lambda _: encode(path, rendering), range(BATCH)))
            return time.perf_counter() - start

    return min(clock(1) for _ in range(5)) / min(clock(2) for _ in range(5))


def _peak_mb(path: Path, rendering: str) -> float:
    """VmHWM in MB of a fresh interpreter that renders the file three times."""
    work = "import cv2, numpy, pydicom, pydicom.pixels" if rendering == "nothing" else (
        f"from cxr_max.radiograph import encode\nfor _ in range(3): encode({str(path)!r}, {rendering!r})"
    )  # fmt: skip
    code = f"{work}\nprint(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(ran.stdout) * 1024 / 1e6
