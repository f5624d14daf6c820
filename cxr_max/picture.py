"""JPEG, PNG, TIFF and the like, read by Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxr_max.errors import CxrMaxError, ImageError
from cxr_max.image_file import (
    JPEG_SUFFIXES,
    MAX_PIXELS,
    Header,
    Stored,
    fitted,
    hush,
    reason,
    require_content,
    resized,
)
from cxr_max.jpeg import bare_jpeg

if TYPE_CHECKING:
    from PIL.Image import Image

    from cxr_max.image_file import Grey

_FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
"""Only these are tried: Pillow's other readers are of no use here, and one of them starts Ghostscript."""
_DEEP_MODES: Final = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_ORIENTATION: Final = 0x0112
_PHOTOMETRIC: Final = 0x0106


def is_deep(path: Path) -> bool:
    """Whether a picture holds more than 8 bits per pixel; looks at its header only.

    A file with the suffix of a JPEG is not even opened: a resumed build asks this of every image it has.

    Raises:
        ImageError: the file is missing, or no picture.
    """
    if path.suffix.lower() in JPEG_SUFFIXES:
        return False
    with _opened(path) as image:
        return image.mode in _DEEP_MODES


def read_picture_header(path: Path) -> Header:
    """Rows and columns of a picture once it is upright; pictures say no more.

    Raises:
        ImageError: the file is missing, or no picture.
    """
    with _opened(path) as image:
        columns, rows = image.size
        # Pillow swaps the sides of a turned TIFF by itself.
        if image.format != "TIFF" and _orientation(image) >= 5:
            columns, rows = rows, columns
    return Header(None, rows, columns, None, None, None, False)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open a picture with Pillow; whatever goes wrong until it is closed is an ``ImageError``."""
    from PIL import Image, UnidentifiedImageError

    require_content(path)
    hush()
    try:
        # From a stream, because Pillow maps a path into memory and then garbles an uncompressed turned TIFF.
        with path.open("rb") as stream, Image.open(stream, formats=_FORMATS) as image:
            _refuse(path, image)
            yield image
    except CxrMaxError:
        raise
    except UnidentifiedImageError as fault:
        raise ImageError(
            f"{path.name} cannot be read as an image: fetch it again, or give DICOM, JPEG, PNG or TIFF"
            " (a DICOM file without preamble needs the suffix .dcm)."
        ) from fault
    except Image.DecompressionBombError as fault:
        raise ImageError(f"{path.name} claims too many pixels for a radiograph: leave it out.") from fault
    except Exception as fault:  # Pillow raises OSError, SyntaxError, struct.error and more
        raise ImageError(
            f"{path.name} is truncated or damaged ({reason(fault)}): fetch it again, or leave it out."
        ) from fault


def _refuse(path: Path, image: Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{path.name} claims too many pixels for a radiograph: leave it out.")
    # The further frames of an MPO are a camera's previews.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"{path.name} holds several pictures: give each radiograph a file of its own.")
    if image.mode == "F":
        raise ImageError(f"{path.name} holds floating-point values: save it with 8 or 16 bits per pixel.")
    if image.mode in _DEEP_MODES and path.suffix.lower() in JPEG_SUFFIXES:
        raise ImageError(f"{path.name} is a {image.format} file: give it the suffix of its format.")


def read_grey_picture(path: Path, long_side: int | None) -> Grey:
    """A picture's own grey values, upright and fitted: uint8 (rows, columns).

    Raises:
        ImageError: the file is missing, damaged, or no picture.
    """
    import numpy as np

    with _opened(path) as image:
        size = fitted(image.width, image.height, long_side)
        _reduce(image, size)
        image.load()
        # After loading, because Pillow turns a TIFF itself and then forgets the tag.
        orientation = _orientation(image)
        pixels = np.array(_upright(_luma(image), orientation))
    return resized(pixels, size[::-1] if orientation >= 5 else size)


def _reduce(image: Image, size: tuple[int, int]) -> None:
    """Have libjpeg halve, quarter or eighth while it decodes, down to no less than ``size``.

    Only where nothing remains: libjpeg rounds the sides up, which would shift the picture by some pixels.
    """
    for factor in (8, 4, 2):
        exact = image.width % factor == 0 and image.height % factor == 0
        if image.format == "JPEG" and exact and size[0] * factor <= image.width:
            image.draft(image.mode, (image.width // factor, image.height // factor))
            return


def _luma(image: Image) -> Image:
    """As 8-bit grey; what is transparent turns black: a teacher must not see what a viewer does not."""
    from PIL import Image as pillow

    if image.has_transparency_data:
        black = pillow.new("RGBA", image.size, (0, 0, 0, 255))
        image = pillow.alpha_composite(black, image.convert("RGBA"))
    if image.mode not in {"L", "1", "RGB"}:
        image = image.convert("RGB")
    return image if image.mode == "L" else image.convert("L")


def _orientation(image: Image) -> int:
    """EXIF orientation 1 to 8; 1 where there is none that can be read."""
    try:
        value = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a damaged Exif block says nothing, and the pixels may be fine
        return 1
    return value if 1 <= value <= 8 else 1


def _upright(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose

    turns = (
        *(Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM, Transpose.TRANSPOSE),
        *(Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90),
    )
    return image if orientation == 1 else image.transpose(turns[orientation - 2])


def read_deep_picture(path: Path) -> Stored:
    """The values of a picture of more than 8 bits, upright.

    Raises:
        ImageError: the file is missing, damaged, or holds more than 16 bits.
    """
    import numpy as np

    with _opened(path) as image:
        image.load()
        # Pillow inverts such a TIFF for 8 bits only.
        tags = getattr(image, "tag_v2", {})
        white_is_zero = tags.get(_PHOTOMETRIC) == 0
        pixels = np.array(_upright(image, _orientation(image)))
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ImageError(f"{path.name} holds values outside 0 to 65535: save it with 8 or 16 bits per pixel.")
    return Stored(pixels.astype(np.uint16), white_is_zero, None, 16)


def kept_jpeg(path: Path, long_side: int | None) -> tuple[bytes, int, int] | None:
    """A grey JPEG's own compressed data without metadata, and its width and height.

    ``None`` where it cannot be sent as it is: not grey, to be turned, too large, or unusually coded.

    Raises:
        ImageError: the file is missing, damaged, or no picture.
    """
    with _opened(path) as image:
        fits = fitted(image.width, image.height, long_side) == image.size
        if not fits or image.format != "JPEG" or image.mode != "L" or _orientation(image) != 1:
            return None
        # Refuses a truncated file here, where it is still known by name.
        image.load()
        bare = bare_jpeg(path.read_bytes())
        return None if bare is None else (bare, image.width, image.height)
