"""What happens to a finished image: a wrong window, compression, fewer pixels, a turned and tight field."""

from typing import TYPE_CHECKING

import numpy as np

from cxr_max.eval.corruptions.severities import CONTRAST, DOWNSAMPLING, JPEG, ROTATION_CROP

if TYPE_CHECKING:
    from cxr_max.image_file import Grey


def contrast(image: "Grey", severity: int, rng: np.random.Generator) -> "Grey":
    """grey -> 127.5 + contrast (grey - 127.5) + or - shift, clipped; one direction for the image."""
    chosen = CONTRAST[severity - 1]
    shift = chosen.shift * rng.choice([-1, 1])
    table = 127.5 + chosen.contrast * (np.arange(256) - 127.5) + shift
    changed: Grey = np.clip(np.rint(table), 0, 255).astype(np.uint8)[image]
    return changed


def jpeg(image: "Grey", severity: int, rng: np.random.Generator) -> "Grey":
    """Compressed and decompressed (baseline JPEG, ITU-T T.81, with the example tables of its Annex K)."""
    import cv2

    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG[severity - 1].quality])
    decoded: Grey = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
    return decoded


def downsampling(image: "Grey", severity: int, rng: np.random.Generator) -> "Grey":
    """Averaged down by area, and enlarged by linear interpolation as a viewer does."""
    import cv2

    rows, columns = image.shape
    factor = DOWNSAMPLING[severity - 1].factor
    small = cv2.resize(
        image, (max(round(columns / factor), 1), max(round(rows / factor), 1)), interpolation=cv2.INTER_AREA
    )
    large: Grey = cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return large


def rotation_crop(image: "Grey", severity: int, rng: np.random.Generator) -> "Grey":
    """Turned about its centre either way, cut to a smaller field somewhere within, enlarged to the old shape.

    Both in one interpolation. What was outside the image is black, as behind a collimator.
    """
    import cv2

    chosen = ROTATION_CROP[severity - 1]
    degrees = chosen.degrees * rng.choice([-1, 1])
    down, right = rng.random(2)
    matrix = turned(image.shape, degrees, chosen.lost, (down, right))
    made: Grey = cv2.warpAffine(image, matrix, image.shape[::-1], flags=cv2.INTER_LINEAR, borderValue=0)
    return made


def turned(
    shape: tuple[int, ...], degrees: float, lost: float, place: tuple[float, float]
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """The 2 x 3 matrix from the image's pixels (x, y, 1) to the new one's; positive angles counter-clockwise.

    Args:
        lost: fraction of each side that is cut off.
        place: where the kept field lies: 0 all of the loss at the far end, 1 at the near end; rows, columns.
    """
    rows, columns = shape
    centre = np.array([(columns - 1) / 2, (rows - 1) / 2])
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cos, sin], [-sin, cos]]) / (1 - lost)
    corner = np.array([place[1] * columns, place[0] * rows]) * lost
    # Pixel centres: the kept field's edge at corner - 1/2 becomes the new image's edge at -1/2.
    offset = (centre - corner + 0.5) / (1 - lost) - 0.5 - turn @ centre
    return np.column_stack([turn, offset])
