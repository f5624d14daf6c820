"""The frozen table of severities. Changing any number is a new ``VERSION``, and a new suite."""

from dataclasses import dataclass
from math import log, pi, sqrt
from typing import Final

from cxr_max.errors import RequestError

VERSION: Final = "1"
SEVERITIES: Final = (1, 2, 3, 4, 5)
FIELD_MM: Final = 430.0
"""What the longer side of an image is taken to show: the long side of a 35 x 43 cm detector. Pixel spacing is
known for few images, and lost in JPEG."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Fewer quanta."""

    dose: float
    """Fraction of the normal detector exposure."""


@dataclass(frozen=True, slots=True)
class Blur:
    """A Gaussian point spread function (focal spot, detector, thick patient)."""

    sigma_mm: float

    @property
    def mtf50(self) -> float:
        """Line pairs per mm at which the modulation transfer is one half: sqrt(2 ln 2) / (2 pi sigma)."""
        return sqrt(2 * log(2)) / (2 * pi * self.sigma_mm)


@dataclass(frozen=True, slots=True)
class Motion:
    """The patient moves evenly along a line during the exposure."""

    length: float
    """Of the way, as a fraction of the longer side."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """The window is too wide and off centre."""

    contrast: float
    """The slope of the grey scale about its middle; the window is 1 / slope as wide."""
    shift: float
    """How much brighter or darker, in grey levels of 255."""


@dataclass(frozen=True, slots=True)
class Jpeg:
    """Lossy compression."""

    quality: int
    """As the Independent JPEG Group scales it, 1 to 100."""


@dataclass(frozen=True, slots=True)
class Downsampling:
    """Fewer pixels, enlarged again."""

    factor: float
    """Of each side."""


@dataclass(frozen=True, slots=True)
class RotationCrop:
    """The patient is turned in the image plane, and the field is tight."""

    degrees: float
    lost: float
    """Fraction of each side that is cut off."""


@dataclass(frozen=True, slots=True)
class Device:
    """Bright objects on or in the patient; each severity adds to the one before."""

    objects: tuple[str, ...]
    electrodes: int


NOISE: Final = tuple(map(Noise, (1 / 8, 1 / 24, 1 / 64, 1 / 160, 1 / 400)))
BLUR: Final = tuple(map(Blur, (0.7, 1.1, 1.6, 2.3, 3.2)))
MOTION: Final = tuple(map(Motion, (0.005, 0.009, 0.014, 0.021, 0.030)))
CONTRAST: Final = (
    Contrast(0.85, 12),
    Contrast(0.70, 28),
    Contrast(0.58, 46),
    Contrast(0.50, 62),
    Contrast(0.42, 80),
)
JPEG: Final = tuple(map(Jpeg, (40, 25, 15, 10, 6)))
DOWNSAMPLING: Final = tuple(map(Downsampling, (2, 3, 4, 6, 8)))
ROTATION_CROP: Final = (
    RotationCrop(3, 0.02),
    RotationCrop(6, 0.03),
    RotationCrop(9, 0.04),
    RotationCrop(12, 0.06),
    RotationCrop(15, 0.08),
)
DEVICE: Final = (
    Device(("marker",), 0),
    Device(("marker", "electrodes"), 3),
    Device(("marker", "electrodes", "pacemaker"), 3),
    Device(("marker", "electrodes", "pacemaker", "buckle"), 5),
    Device(("marker", "electrodes", "pacemaker", "buckle", "pad"), 6),
)

_TABLE: Final[
    dict[str, tuple[Noise | Blur | Motion | Contrast | Jpeg | Downsampling | RotationCrop | Device, ...]]
] = {
    "noise": NOISE,
    "blur": BLUR,
    "motion": MOTION,
    "contrast": CONTRAST,
    "jpeg": JPEG,
    "downsampling": DOWNSAMPLING,
    "rotation_crop": ROTATION_CROP,
    "device": DEVICE,
}
CORRUPTIONS: Final = tuple(_TABLE)


def describe(name: str, severity: int) -> str:
    """What a corruption of this severity does, in words for a page.

    Raises:
        RequestError: there is no such corruption or severity.
    """
    if name not in _TABLE or severity not in SEVERITIES:
        raise RequestError(f"There is no corruption {name!r} of severity {severity}: see CORRUPTIONS, 1 to 5.")
    match _TABLE[name][severity - 1]:
        case Noise(dose):
            return f"quantum noise at 1/{round(1 / dose)} of the normal detector dose"
        case Blur(sigma) as one:
            return f"Gaussian blur of sigma {sigma} mm (MTF50 {one.mtf50:.2f} line pairs per mm)"
        case Motion(length):
            return f"motion over {length:.1%} of the longer side ({length * FIELD_MM:.1f} mm)"
        case Contrast(slope, shift):
            return f"contrast times {slope:.2f}, {shift:.0f} of 255 grey levels too bright or too dark"
        case Jpeg(quality):
            return f"JPEG of quality {quality}"
        case Downsampling(factor):
            return f"down-sampling by {factor:g}, enlarged again"
        case RotationCrop(degrees, lost):
            return f"rotation by {degrees:g} degrees, {lost:.0%} of each side cut off"
        case Device(objects, electrodes):
            words = [f"{electrodes} electrodes" if one == "electrodes" else f"a {one}" for one in objects]
            return "drawn in: " + ", ".join(words)
