"""Eight ways in which a radiograph gets worse, in five severities each.

Images are uint8, shape (rows, columns), 0 black, and stay that. Every draw is seeded by the image's sha256 and the
corruption, so an image always gets the same corruption, whatever came before it. Its five severities share their
draws: the same direction, the same place, only more of it, so each is worse than the one before. Severities are a
frozen table (``severities``), tied to figures of image quality. 1 is what a reader would hardly mention,
5 what would be taken again, and is readable still.

Sizes are physical where physics decides: the longer side is taken to show ``FIELD_MM``, so a blur is the same
blur in a large and in a small rendering. Down-sampling is relative to the image's own pixels.

Medians over 76 public radiographs (longer side 373 to 1024 pixels) of PSNR in dB and SSIM against the image
before. A rotated picture lies elsewhere, so its figures say little; of the device, the share of the image that is
covered says more.

=============  =================================  ========================================
corruption     PSNR, severity 1 to 5              SSIM, severity 1 to 5
=============  =================================  ========================================
noise          42.8, 38.1, 33.9, 29.9, 25.9       0.976, 0.934, 0.849, 0.701, 0.498
blur           34.9, 33.0, 31.3, 30.2, 29.2       0.963, 0.938, 0.902, 0.882, 0.862
motion         36.0, 34.1, 33.0, 31.0, 30.1       0.975, 0.948, 0.916, 0.896, 0.877
contrast       24.7, 17.6, 13.6, 11.3, 9.2        0.985, 0.940, 0.873, 0.791, 0.624
jpeg           39.6, 37.5, 35.3, 33.6, 30.9       0.936, 0.929, 0.880, 0.857, 0.797
downsampling   35.7, 33.9, 32.7, 31.7, 30.2       0.964, 0.938, 0.920, 0.887, 0.871
rotation_crop  20.7, 18.0, 16.5, 15.7, 15.1       0.719, 0.658, 0.629, 0.608, 0.589
device         37.3, 30.7, 24.8, 23.6, 19.7       0.998, 0.987, 0.969, 0.952, 0.922
covered        0.1%, 2%, 3%, 5%, 11%
=============  =================================  ========================================

In every one of them PSNR falls with each severity, but for one image in the middle of down-sampling.
"""

from hashlib import sha256
from typing import TYPE_CHECKING, Final

import numpy as np

from cxr_max.errors import RequestError
from cxr_max.eval.corruptions.device import device
from cxr_max.eval.corruptions.handling import contrast, downsampling, jpeg, rotation_crop
from cxr_max.eval.corruptions.physics import blur, motion, noise
from cxr_max.eval.corruptions.severities import CORRUPTIONS, FIELD_MM, SEVERITIES, VERSION, describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxr_max.image_file import Grey

__all__ = [
    "CHANGES_REFERENCE",
    "CORRUPTIONS",
    "FIELD_MM",
    "SEVERITIES",
    "VERSION",
    "blank",
    "corrupt",
    "describe",
    "mirror",
]

CHANGES_REFERENCE: Final[dict[str, frozenset[str]]] = {"device": frozenset({"Support Devices"})}
"""Findings that a corruption paints into the image: their reference no longer holds, so they are not scored."""

_APPLY: Final[dict[str, "Callable[[Grey, int, np.random.Generator], Grey]"]] = {
    "noise": noise,
    "blur": blur,
    "motion": motion,
    "contrast": contrast,
    "jpeg": jpeg,
    "downsampling": downsampling,
    "rotation_crop": rotation_crop,
    "device": device,
}


def corrupt(image: "Grey", name: str, severity: int, seed_key: str) -> "Grey":
    """The image made worse; same shape, the original is left alone.

    Args:
        image: uint8 (rows, columns), 0 black, both sides at least 16.
        name: one of ``CORRUPTIONS``.
        severity: 1 (mild) to 5 (severe).
        seed_key: the image's sha256.

    Raises:
        RequestError: the corruption or the severity is unknown.
        ValueError: the image is of another type or shape.
    """
    if name not in CORRUPTIONS:
        raise RequestError(f"There is no corruption {name!r}: choose one of {', '.join(CORRUPTIONS)}.")
    if severity not in SEVERITIES:
        raise RequestError(f"Severity {severity} does not exist: choose one of 1 to {SEVERITIES[-1]}.")
    if image.dtype != np.uint8 or image.ndim != 2 or min(image.shape) < 16:
        raise ValueError(f"an image is uint8 (rows, columns) of at least 16 x 16, not {image.dtype} {image.shape}")
    digest = sha256(f"{name}/{seed_key}".encode()).digest()
    return _APPLY[name](image, severity, np.random.default_rng(int.from_bytes(digest[:16])))


def mirror(image: "Grey") -> "Grey":
    """Left and right exchanged: whoever names a side must now name the other."""
    return np.ascontiguousarray(image[:, ::-1])


def blank(shape: tuple[int, int]) -> "Grey":
    """Nothing to see, in mid-grey (128): an answer to it owes nothing to the image."""
    return np.full(shape, 128, dtype=np.uint8)
