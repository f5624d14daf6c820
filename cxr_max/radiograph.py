"""A radiograph's file -> its pixels -> what a teacher is sent.

Pixels are uint8, shape (rows, columns), 0 black. Which rendering made them changes what a teacher sees, so
its name, version and size go into every row. Everything wrong with a file is an ``ImageError``.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from cxr_max.dicom import read_dicom_header, read_dicom_pixels
from cxr_max.errors import ImageError, RequestError
from cxr_max.image_file import Header, fitted, is_dicom, reason
from cxr_max.jpeg import bare_jpeg
from cxr_max.picture import is_deep, kept_jpeg, read_deep_picture, read_grey_picture, read_picture_header
from cxr_max.rendering import Rendering, averaged_down, to_grey

if TYPE_CHECKING:
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

RENDERINGS: Final[tuple[Rendering, ...]] = get_args(Rendering)
VERSIONS: Final[dict[str, int]] = {"as_is": 1, "mimic_jpg": 2, "voi": 2, "percentile": 2}
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

    Grey values are mapped at full size, then averaged down; nothing is ever enlarged.

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
    return _rendered(Path(path), rendering, long_side)[0]


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
    if kept is not None:
        jpeg, width, height = kept
        burned_in = False
    else:
        grey, burned_in = _rendered(path, rendering, long_side)
        jpeg, width, height = _compressed(path, grey)
    return EncodedImage(jpeg, width, height, name, sha256(jpeg).hexdigest(), burned_in)


def read_header(path: Path | str) -> Header:
    """Geometry, view and time without decoding pixels; of a picture only its rows and columns (as rendered).

    Raises:
        ImageError: the file is missing, or neither DICOM nor a picture.
    """
    path = Path(path)
    return read_dicom_header(path) if is_dicom(path) else read_picture_header(path)


def _rendered(path: Path, rendering: Rendering, long_side: int | None) -> tuple[Grey, bool]:
    """The image as ``render`` gives it, and whether its file declares burned-in annotation."""
    if _applicable(path, rendering, long_side) == "as_is":
        return read_grey_picture(path, long_side), False
    stored = read_dicom_pixels(path) if is_dicom(path) else read_deep_picture(path)
    rows, columns = stored.pixels.shape
    size = fitted(columns, rows, long_side)
    try:
        grey = to_grey(path, stored, rendering)
    except OSError as fault:
        raise ImageError(
            f"{path.name} cannot be read ({reason(fault)}): check the disk, or fetch it again."
        ) from fault
    return averaged_down(grey, size), stored.burned_in


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
