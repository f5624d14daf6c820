"""What the readers of DICOM and of pictures share: telling them apart, stored values, the plainest faults."""

from __future__ import annotations

import gzip
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxr_max.dicom_fast import PlainFile
from cxr_max.errors import ImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    Grey = NDArray[np.uint8]

MAX_PIXELS: Final = 400_000_000
"""Some twenty times the largest detector; a header that claims more is damaged or hostile."""
JPEG_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".jpe"})
PICTURE_SUFFIXES: Final = JPEG_SUFFIXES | frozenset(
    {".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm", ".jp2"}
)


@dataclass(frozen=True, slots=True)
class Header:
    """What is read of a file without decoding its pixels; nothing that names a patient."""

    photometric_interpretation: str | None
    rows: int
    columns: int
    pixel_spacing_mm: tuple[float, float] | None
    """Row and column spacing: Imager Pixel Spacing, else Pixel Spacing (DICOM PS3.3 10.7.1.3)."""
    view_position: str | None
    """As the file words it."""
    acquired_at: datetime | None
    """Study Date and Study Time, to the second."""
    burned_in: bool
    """The file declares burned-in annotation (Burned In Annotation is YES)."""
    sex: str | None = None
    """As the file words it (Patient's Sex)."""
    age: str | None = None
    """As the file words it, ``058Y`` (Patient's Age, DICOM PS3.5 6.2)."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Grey values as a file stores them, before any rendering."""

    pixels: NDArray[np.integer[Any]] | PlainFile
    """(rows, columns); 8 or 16 bits, signed or not, little endian."""
    white_is_zero: bool
    """MONOCHROME1: the lowest value is white (DICOM PS3.3 C.7.6.3.1.2)."""
    dataset: Dataset | None
    """Rescale and window, for a DICOM file."""
    bits: int
    """So many low bits of each pixel are its value (DICOM Bits Stored); those above mean nothing."""
    burned_in: bool = False
    """As in ``Header``."""

    def bands(self, height: int) -> Iterator[NDArray[np.unsignedinteger[Any]]]:
        """The pixels' bits as unsigned numbers, ``height`` rows at a time; a band is valid until the next.

        Raises:
            OSError: the file cannot be read.
        """
        pixels = self.pixels
        if isinstance(pixels, PlainFile):
            bands = pixels.bands(height)
        else:
            bands = (pixels[start : start + height] for start in range(0, pixels.shape[0], height))
        return (band.view(f"u{band.dtype.itemsize}") for band in bands)


def is_dicom(path: Path | str) -> bool:
    """Whether to read a file as DICOM: by suffix, or by the magic at byte 128 where that says nothing."""
    path = Path(path)
    name = path.name.lower()
    if name.endswith((".dcm", ".dcm.gz")):
        return True
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return False
    try:
        with gzip.open(path) if name.endswith(".gz") else path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except (OSError, EOFError):
        return False


def fitted(width: int, height: int, long_side: int | None) -> tuple[int, int]:
    """Width and height with the longer side at most ``long_side``, the ratio kept to the nearest pixel."""
    if long_side is None or max(width, height) <= long_side:
        return width, height
    scale = long_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def resized(grey: Grey, size: tuple[int, int]) -> Grey:
    """Average down to this width and height."""
    import cv2

    if grey.shape == size[::-1]:
        return grey
    smaller: Grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return smaller


def require_content(path: Path) -> None:
    """Refuse what is missing, empty or no file."""
    try:
        empty = path.stat().st_size == 0
    except OSError as fault:
        raise ImageError(f"{path.name} cannot be found or opened: check the path, or fetch it again.") from fault
    if empty or not path.is_file():
        raise ImageError(f"{path.name} is empty or no file: fetch it again.")


def hush() -> None:
    """Silence the readers about what becomes an ``ImageError`` here or is harmless.

    For the whole process, because ``warnings.catch_warnings`` is not safe where several threads render.
    """
    warnings.filterwarnings("ignore", module=r"(pydicom|PIL|pylibjpeg|openjpeg|rle)\b")
    logger = logging.getLogger("pydicom")
    # Setting a level empties the caches of every logger.
    if logger.level != logging.CRITICAL:
        logger.setLevel(logging.CRITICAL)


def reason(fault: BaseException) -> str:
    """One line of a reader's own words."""
    return " ".join(str(fault).split())[:160].rstrip(".") or type(fault).__name__
