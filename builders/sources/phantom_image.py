"""The pixels of the phantom data set: a frontal chest radiograph from maps of thickness.

The chest is two maps, in cm along the ray: aerated lung, and everything else as cm of water of the same
attenuation. A finding moves some of one into the other, or adds to the second. Rays are parallel, and each
keeps exp(-mu t) of its photons (Beer-Lambert law), counts are noisy as the square root of their number
(quantum noise), and the display is the logarithm through a sigmoid (DICOM PS3.3 C.11.2.1.3.1), bone white.

The image's left is the patient's right, as radiographs are hung (DICOM PS3.3 C.7.6.1.1.1, Patient
Orientation ``L\\F``). All lengths are in cm, on a square field of ``FIELD_CM``; x grows towards the patient's
left from the midline, y downwards from the upper edge. A lung's maps are views that start at the midline and
run outwards, so what is painted on one side fits the other and cannot cross over.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from cxr_max.builders.sources.phantom_chest import (
    ATTENUATION_PER_CM,
    LUNG_DENSITY,
    PHOTONS,
    Chest,
    Lung,
    normal_chest,
    person_of,
)
from cxr_max.builders.sources.phantom_findings import MIDLINE, ONE_SIDED, PAINTED
from cxr_max.builders.sources.phantom_shapes import Rng, stream
from cxr_max.findings import LATERAL, Side


def draw(
    findings: Mapping[str, Side | None],
    *,
    seed: int,
    size: int = 256,
    severity: float,
    view: Literal["PA", "AP"] = "PA",
    noise: float = 1.0,
    latitude: float = 12.0,
    anatomy: int | None = None,
    sex: str | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw one radiograph with these findings.

    Args:
        findings: what is present, with its side where ``LATERAL`` has it and ``None`` elsewhere.
        seed: of the findings' shapes and the noise; the same seed with other findings is the same chest.
        size: rows and columns, even, at least 64.
        severity: over 0, up to 1; scales the extent and density of every finding.
        view: AP magnifies the heart, raises the diaphragm, and is noisier (a portable film).
        noise: standard deviation of the quantum noise relative to the physical one; 0 for none.
        latitude: cm of water between dark and bright; more is a flatter display.
        anatomy: seed of the person's build; ``seed`` when absent.
        sex: ``F`` adds breast shadows.

    Returns:
        (size, size) pixels, 0 (air) to 255 (bone, MONOCHROME2).

    Raises:
        ValueError: an argument is out of range, or a side is missing or out of place.
    """
    _check(findings, size, severity)
    person = person_of(stream(seed if anatomy is None else anatomy, 0), view, sex)
    chest = normal_chest(person, size, view, stream(seed, 1))
    for number, name in enumerate(PAINTED, start=2):
        if name in MIDLINE and name in findings:
            MIDLINE[name](chest, severity, stream(seed, number))
        elif name in findings:
            for lung in _lungs_of(chest, findings[name]):
                ONE_SIDED[name](lung, severity, stream(seed, number, lung.side == "left"))
    return _expose(chest, noise, latitude, stream(seed, len(PAINTED) + 2))


def _check(findings: Mapping[str, Side | None], size: int, severity: float) -> None:
    if size < 64 or size % 2:
        raise ValueError(f"size must be even and at least 64, not {size}")
    if not 0 < severity <= 1:
        raise ValueError(f"severity must be over 0 and up to 1, not {severity}")
    for name, side in findings.items():
        if name not in PAINTED and name != "No Finding":
            raise ValueError(f"{name!r} is not drawn; choose among {', '.join(PAINTED)}")
        if (name in LATERAL) != (side is not None):
            raise ValueError(f"{name} {'needs a' if name in LATERAL else 'has no'} side, not {side!r}")


def _lungs_of(chest: Chest, side: Side | None) -> list[Lung]:
    return [lung for lung in chest.lungs.values() if side in (lung.side, "bilateral")]


def _expose(chest: Chest, noise: float, latitude: float, rng: Rng) -> npt.NDArray[np.uint8]:
    """Attenuate, count photons, take the logarithm, display."""
    thickness = np.maximum(chest.tissue + LUNG_DENSITY * chest.air, 0)
    middle = 12.8 * chest.anatomy.bulk + float(rng.uniform(-0.4, 0.4))  # exposure follows the patient's bulk
    if noise:
        dose = PHOTONS * (1.0 if chest.view == "PA" else 0.5)
        counts = dose * np.exp(-ATTENUATION_PER_CM * thickness)
        counts += noise * np.sqrt(counts) * rng.standard_normal(counts.shape, dtype=np.float32)
        thickness = np.log(np.maximum(counts, 1) / dose) / -ATTENUATION_PER_CM
    shown = 255 / (1 + np.exp((middle - thickness) * (4 / latitude)))
    return shown.astype(np.uint8)
