"""What happens before the image exists: too few quanta, an unsharp system, a moving patient."""

from typing import TYPE_CHECKING, Final

import numpy as np

from cxr_max.eval.corruptions.severities import BLUR, FIELD_MM, MOTION, NOISE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxr_max.image_file import Grey

QUANTA_PER_MM2: Final = 30_174 * 2.5 * 0.6
"""Detected quanta at mid-grey and full dose: 30,174 per mm2 and microgray (IEC 62220-1, beam RQA 5), 2.5 microgray
(speed class 400), and a detective quantum efficiency of 0.6."""
DECADES: Final = 1.5
"""Orders of magnitude of exposure between black (most) and white (least): the display is logarithmic."""


def mm_per_pixel(shape: tuple[int, ...]) -> float:
    """The longer side shows ``FIELD_MM``."""
    return FIELD_MM / max(shape)


def quanta(grey: "NDArray[np.float64]", dose: float, spacing: float) -> "NDArray[np.float64]":
    """Expected quanta in a pixel of this grey value (0 to 255) and side in mm."""
    expected: NDArray[np.float64] = (
        dose * QUANTA_PER_MM2 * spacing**2 * np.power(10.0, DECADES * (0.5 - grey / 255))
    )
    return expected


def noise(image: "Grey", severity: int, rng: np.random.Generator) -> "Grey":
    """Quantum noise as if taken at a fraction of the dose.

    Grey values are turned into expected quanta, quanta are drawn (Poisson: the variance is the mean), and their
    logarithm is displayed again. So dense tissue is noisier than lung, as in life. In grey levels the standard
    deviation is 255 / (DECADES ln 10 sqrt(quanta)). The image itself is taken to be free of noise.
    """
    spacing = mm_per_pixel(image.shape)
    expected = quanta(np.arange(256.0), NOISE[severity - 1].dose, spacing)
    drawn = rng.poisson(expected[image])
    # With half a quantum added, the mean of the logarithm is right to second order, and zero has one.
    ratio = np.log10((drawn + 0.5) / expected[0])
    return _grey(-ratio * (255 / DECADES))


def blur(image: "Grey", severity: int, rng: np.random.Generator) -> "Grey":
    """Gaussian point spread function; beyond the border the image is mirrored."""
    import cv2

    sigma = BLUR[severity - 1].sigma_mm / mm_per_pixel(image.shape)
    size = 2 * int(np.ceil(4 * sigma)) + 1
    blurred = cv2.GaussianBlur(image.astype(np.float32), (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)
    return _grey(blurred)


def motion(image: "Grey", severity: int, rng: np.random.Generator) -> "Grey":
    """Even motion along a straight line in any direction."""
    import cv2

    length = MOTION[severity - 1].length * max(image.shape)
    kernel = motion_kernel(length, float(rng.uniform(0, np.pi)))
    moved = cv2.filter2D(image.astype(np.float32), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return _grey(moved)


def motion_kernel(length: float, angle: float) -> "NDArray[np.float32]":
    """The line as a sum of points, each shared among its four pixels; it sums to 1.

    Args:
        length: of the way, in pixels.
        angle: from the x axis, in radians.
    """
    reach = int(np.ceil(length / 2)) + 1
    count = 64 * (2 * reach + 1)
    along = ((np.arange(count) + 0.5) / count - 0.5) * length
    x, y = reach + along * np.cos(angle), reach + along * np.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = np.abs(1 - column - (x - left)) * np.abs(1 - row - (y - top))
        np.add.at(kernel, (top + row, left + column), share)
    line: NDArray[np.float32] = (kernel / kernel.sum()).astype(np.float32)
    return line


def _grey(values: "NDArray[np.floating]") -> "Grey":
    grey: Grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return grey
