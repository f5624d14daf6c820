"""A radiograph's file -> its pixels -> what a teacher is sent.

Pixels are uint8, shape (rows, columns), 0 black. Which rendering made them changes what a teacher sees, so
its name, version and size go into every row. Everything wrong with a file is an ``ImageError``.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from cxr_max.dicom import read_dicom_header, read_dicom_pixels
from cxr_max.errors import ImageError, RequestError
from cxr_max.image_file import Header, Stored, fitted, is_dicom, reason, resized
from cxr_max.jpeg import bare_jpeg
from cxr_max.picture import is_deep, kept_jpeg, read_deep_picture, read_grey_picture, read_picture_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from cxr_max.image_file import Grey

__all__ = [
    "JPEG_QUALITY",
    "RENDERINGS",
    "VERSIONS",
    "EncodedImage",
    "Header",
    "Rendering",
    "encode",
    "is_dicom",
    "read_header",
    "render",
    "rendering_id",
]

Rendering = Literal["mimic_jpg", "voi", "percentile"]
RENDERINGS: Final[tuple[Rendering, ...]] = get_args(Rendering)
VERSIONS: Final[dict[str, int]] = {"as_is": 1, "mimic_jpg": 1, "voi": 1, "percentile": 1}
"""Raised when the pixels of a rendering change on purpose: replies to the old ones are then asked anew."""
JPEG_QUALITY: Final = 95


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """What a teacher is sent: a grey JPEG without metadata."""

    jpeg: bytes
    width: int
    height: int
    rendering: str
    """As ``rendering_id`` gives it."""
    sha256: str
    """Of ``jpeg``."""
    burned_in: bool = False
    """The file declares text burned into its pixels (DICOM Burned In Annotation), which may name a patient."""


def rendering_id(path: Path | str, rendering: Rendering = "mimic_jpg", long_side: int | None = 1024) -> str:
    """Name, version and size of what ``render`` does to this file, such as ``mimic_jpg-1@1024``.

    Decodes no pixels. A picture of 8 bits has been rendered already, so it is used ``as_is``.

    Raises:
        RequestError: the rendering is unknown, or needs what this kind of file does not hold.
        ImageError: a picture's header cannot be read.
    """
    used = _applicable(Path(path), rendering, long_side)
    return f"{used}-{VERSIONS[used]}@{'full' if long_side is None else long_side}"


def render(path: Path | str, rendering: Rendering = "mimic_jpg", long_side: int | None = 1024) -> Grey:
    """The image as uint8 (rows, columns), 0 black, its longer side at most ``long_side`` (None: full size).

    Grey values are mapped at full size, then averaged down (area interpolation); nothing is ever enlarged.

    - ``mimic_jpg``: as MIMIC-CXR-JPG was made (Johnson et al. 2019): minimum subtracted, divided by the
      maximum, times 255, truncated; MONOCHROME1 inverted; histogram equalised. Neither rescale nor window.
    - ``voi``: the file's modality LUT or rescale and first VOI LUT or window (DICOM PS3.3 C.11.1, C.11.2),
      their output range scaled to 0..255; MONOCHROME1 inverted. A file without VOI LUT and window is scaled
      from the minimum to the maximum of its values.
    - ``percentile``: the stored values' 0.5th to 99.5th percentile scaled to 0..255; MONOCHROME1 inverted.

    Pictures of 8 bits keep their grey values; their EXIF orientation is applied, colour becomes luma.

    Raises:
        ImageError: the file is missing, damaged, or no single grey image.
        RequestError: see ``rendering_id``.
    """
    path = Path(path)
    if _applicable(path, rendering, long_side) == "as_is":
        return read_grey_picture(path, long_side)
    stored = read_dicom_pixels(path) if is_dicom(path) else read_deep_picture(path)
    grey = _to_grey(path, stored, rendering)
    return resized(grey, fitted(grey.shape[1], grey.shape[0], long_side))


def encode(path: Path | str, rendering: Rendering = "mimic_jpg", long_side: int | None = 1024) -> EncodedImage:
    """The image as a grey JPEG without any metadata: the same file and options give the same bytes.

    A grey JPEG that is upright and fits keeps its compressed data; anything else is rendered and encoded at
    quality 95.

    Raises:
        ImageError, RequestError: as ``render``.
    """
    path = Path(path)
    name = rendering_id(path, rendering, long_side)
    kept = kept_jpeg(path, long_side) if name.startswith("as_is") else None
    jpeg, width, height = kept or _compressed(path, render(path, rendering, long_side))
    burned_in = is_dicom(path) and read_dicom_header(path).burned_in
    return EncodedImage(jpeg, width, height, name, sha256(jpeg).hexdigest(), burned_in)


def read_header(path: Path | str) -> Header:
    """Geometry, view and time without decoding pixels; of a picture only its rows and columns (as rendered).

    Raises:
        ImageError: the file is missing, or neither DICOM nor a picture.
    """
    path = Path(path)
    return read_dicom_header(path) if is_dicom(path) else read_picture_header(path)


def _applicable(path: Path, rendering: Rendering, long_side: int | None) -> str:
    """``as_is`` for a picture of 8 bits, else the rendering asked for; refuses what cannot be done."""
    if rendering not in RENDERINGS:
        raise RequestError(f"There is no rendering {rendering!r}: choose one of {', '.join(RENDERINGS)}.")
    if long_side is not None and long_side < 1:
        raise RequestError(f"A long side of {long_side} pixels is no size: give 1 or more.")
    if is_dicom(path):
        return rendering
    deep = is_deep(path)
    if rendering == "voi" or (rendering == "percentile" and not deep):
        kind = "a picture without a window" if deep else "an 8-bit picture that has been rendered already"
        remedy = "ask mimic_jpg or percentile of it" if deep else "ask mimic_jpg, which sends it as it is"
        raise RequestError(f"{path.name} is {kind}, so {rendering} means nothing for it: {remedy}.")
    return rendering if deep else "as_is"


def _to_grey(path: Path, stored: Stored, rendering: Rendering) -> Grey:
    """Map stored values to 0..255 through a table of all they can be: exact, and fast at any size."""
    import cv2
    import numpy as np

    unsigned = np.dtype(f"u{stored.pixels.dtype.itemsize}")
    every = np.arange(np.iinfo(unsigned).max + 1, dtype=unsigned).view(stored.pixels.dtype)
    if rendering == "mimic_jpg":
        table = _recipe_table(every, stored.pixels)
    elif rendering == "percentile":
        low, high = np.percentile(stored.pixels, [0.5, 99.5])
        table = _stretched(every.astype(np.float64), low, high)
    else:
        table = _voi_table(path, every, stored)
    table = 255 - table if stored.white_is_zero else table
    # No index is out of range: "clip" only spares the check, which takes as long as the look-up.
    grey: Grey = np.take(table, stored.pixels.view(unsigned), mode="clip")
    return cv2.equalizeHist(grey) if rendering == "mimic_jpg" else grey


def _recipe_table(every: NDArray[Any], pixels: NDArray[Any]) -> Grey:
    """MIMIC-CXR-JPG's normalisation, which truncates; a constant image becomes its lowest grey."""
    import numpy as np

    low, high = int(pixels.min()), int(pixels.max())
    scaled = (every.astype(np.float64) - low) / max(high - low, 1) * 255
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _stretched(values: NDArray[np.float64], low: float, high: float) -> Grey:
    """Scale low..high to 0..255, rounded and clipped; an empty range splits into black and white."""
    import numpy as np

    if not high > low:
        return np.where(values > low, 255, 0).astype(np.uint8)
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _voi_table(path: Path, every: NDArray[Any], stored: Stored) -> Grey:
    import numpy as np
    from pydicom.pixels import apply_modality_lut, apply_windowing

    dataset = stored.dataset
    if dataset is None:
        raise AssertionError("voi is refused for pictures before their pixels are read")
    try:
        values = np.asarray(apply_modality_lut(every, dataset), dtype=np.float64)
        if dataset.get("VOILUTSequence"):
            values, low, high = _voi_lut(values, dataset)
        elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
            # Beyond the window lie the two ends of its output range, whatever the bit depth and rescale.
            low, high = apply_windowing(np.array([-np.inf, np.inf]), dataset)
            values = (apply_windowing(values, dataset) - low) / (high - low)
            low, high = 0.0, 1.0
        else:
            seen = values[stored.pixels.view(f"u{stored.pixels.dtype.itemsize}")]
            low, high = seen.min(), seen.max()
        if not np.isfinite([*values, low, high]).all():
            raise ValueError("values that are not numbers")
    except Exception as fault:  # pydicom raises anything on LUTs and windows that make no sense
        raise ImageError(
            f"The window of {path.name} cannot be applied ({reason(fault)}): ask mimic_jpg or percentile of it."
        ) from fault
    return _stretched(values, low, high)


def _voi_lut(values: NDArray[np.float64], dataset: Dataset) -> tuple[NDArray[np.float64], float, float]:
    """The first VOI LUT's output for each value, and its output range (DICOM PS3.3 C.11.2.1.1).

    Done here because pydicom's own look-up wraps around for tables of 8 bits. The range is of the bits that
    the entries need: a file that declares 16 bits for entries of 12 would come out black.
    """
    import numpy as np

    item = dataset.VOILUTSequence[0]
    count, first = int(item.LUTDescriptor[0]) or 65536, int(item.LUTDescriptor[1])
    if isinstance(item.LUTData, bytes):
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        entries = np.frombuffer(item.LUTData, f"{order}u2", count)
    else:
        entries = np.atleast_1d(np.asarray(item.LUTData))[:count]
    index = np.clip(values - first, 0, len(entries) - 1).astype(np.intp)
    return entries[index].astype(np.float64), 0.0, float(2 ** int(entries.max()).bit_length() - 1)


def _compressed(path: Path, grey: Grey) -> tuple[bytes, int, int]:
    import cv2

    height, width = grey.shape
    if max(width, height) > 65500:
        raise ImageError(
            f"{path.name} has a side of {max(width, height)} pixels, too long for JPEG: set a long side."
        )
    _, buffer = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    jpeg = bare_jpeg(buffer.tobytes())
    if jpeg is None:
        raise ImageError(f"{path.name} could not be encoded as JPEG: leave it out.")
    return jpeg, width, height
