"""The findings of a phantom: each moves air into tissue, or adds to it, in a normal chest (cm)."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from cxr_max.builders.sources.phantom_chest import (
    FIELD_CM,
    HILUM_Y,
    LUNG_DENSITY,
    Chest,
    Lung,
    clouds,
    displace,
    fill,
    heart,
    middle,
    opacify,
)
from cxr_max.builders.sources.phantom_shapes import Array, Rng, ball, blob, bump, step, stroke


def _cardiomegaly(chest: Chest, severity: float, rng: Rng) -> None:
    """A heart of 0.52 to 0.72 of the chest's width (over 0.5 is enlarged, on a PA view)."""
    ratio = 0.505 + 0.2 * severity + float(rng.uniform(-0.01, 0.01))
    width = 2 * chest.frame.width * ratio
    if chest.view == "AP":
        width *= 1.08
    displace(chest, np.maximum(heart(chest, width) - middle(chest), 0))


def _edema(chest: Chest, severity: float, rng: Rng) -> None:
    """Haze from the hila outwards on both sides, full vessels, and septal (Kerley B) lines at the bases."""
    for lung in chest.lungs.values():
        out, y = lung.frame.out, lung.frame.y
        wings = blob(out, y, (4.5, HILUM_Y[lung.side] + 1.5), (4.8, 6.5))
        haze = (0.12 + 0.46 * wings) * (1 + 0.2 * clouds(lung, 20, rng))
        lung.tissue += lung.air * lung.parenchyma * (0.5 * severity * lung.frame.vessels[lung.side])
        opacify(lung, severity * haze)
        _septal_lines(lung, severity, float(rng.uniform(0, 0.9)))


def _septal_lines(lung: Lung, severity: float, shift: float) -> None:
    reach, y = lung.frame.reach, lung.frame.y
    rim = step(reach - 0.84, 0.05) * step(0.985 - reach, 0.015) * step(y - 20, 1.5)
    lines = np.clip(np.cos((y + 0.15 * lung.frame.out + shift) * (2 * np.pi / 0.95)) - 0.5, 0, 1)
    lung.tissue += 0.9 * severity * rim * lines * np.minimum(lung.air, 1)


def _pneumothorax(lung: Lung, severity: float, rng: Rng) -> None:
    """Bare air along the ribs and above the apex, behind the thin line of the visceral pleura."""
    frame = lung.frame
    gap = 0.03 + 0.4 * severity + float(rng.uniform(-0.015, 0.015))
    higher = 0.55 + 0.45 * step(20 - frame.y, 9.0)  # upright, air collects at the top
    edge = (1 - gap * higher) - frame.reach
    inside = step(edge, 0.02)
    bare = lung.air * (1 - inside)
    lung.tissue -= bare * (LUNG_DENSITY + lung.frame.vessels[lung.side])
    lung.tissue += 0.8 * bump(edge, 0.012) * np.minimum(lung.air, 1)
    fill(lung, 0.2 * severity * inside)  # the lung has shrunk: the same blood in less air
    lung.parenchyma = inside


def _consolidation(lung: Lung, severity: float, rng: Rng) -> None:
    """One dense lobe, its bronchi still open (air bronchograms), with a straight edge at its fissure."""
    out, y = lung.frame.out, lung.frame.y
    if rng.random() < 0.5:
        fissure = step(17.2 + 0.1 * (out - 6) - y, 0.35)
        lobe: Array = fissure * step(y - (14.6 - 9.5 * severity), 2.5) * step(out - 2.0, 1.5)
    else:
        ragged = 1 + 0.3 * clouds(lung, 14, rng)
        lobe = step(ragged - ((out - 5.5) / 5.6) ** 2 - ((y - 23.5) / (2.0 + 4.2 * severity)) ** 2, 0.7)
    dense = 0.3 + 0.6 * severity
    bronchi = np.minimum(3.0 * lung.frame.vessels[lung.side], 0.3)
    opacify(lung, dense * lobe * (1 + 0.16 * clouds(lung, 16, rng) - bronchi))


def _pneumonia(lung: Lung, severity: float, rng: Rng) -> None:
    """Several patches without edges, along the bronchi, more at the bases than at the top."""
    patches = np.zeros_like(lung.air)
    for number in range(6):
        centre = (float(rng.uniform(3.8, 10.5)), 12.5 + 2.1 * number + float(rng.uniform(-1.0, 1.0)))
        radius = float(rng.uniform(0.8, 1.4)) * (0.9 + 0.8 * severity)
        patches += float(rng.uniform(0.6, 1.1)) * blob(lung.frame.out, lung.frame.y, centre, (radius, radius))
    mottle = np.maximum(0.85 + 0.3 * clouds(lung, 26, rng), 0.2)
    opacify(lung, (0.05 + 0.55 * severity) * np.minimum(patches, 1.2) * mottle)


def _lung_lesion(lung: Lung, severity: float, rng: Rng) -> None:
    """A round nodule of 1.2 to 4 cm across (over 3 cm is called a mass), clear of the heart."""
    radius = 0.3 + 1.7 * severity
    lowest = 21.5 if lung.side == "right" else 17.5
    centre = (float(rng.uniform(6.2, 9.8)), float(rng.uniform(10.5, lowest)))
    lesion = ball(lung.frame.out, lung.frame.y, centre, (radius, radius * float(rng.uniform(0.85, 1.15))))
    lung.tissue += (1.0 + 1.4 * radius) * lesion**1.4 * np.minimum(lung.air, 1)


def _atelectasis(lung: Lung, severity: float, rng: Rng) -> None:
    """Plates of airless lung at the base, under which the diaphragm has been pulled up."""
    out, y = lung.frame.out, lung.frame.y
    rise = (0.3 + 2.9 * severity) * step(12.5 - out, 5.0)
    floor = lung.dome - rise
    opacify(lung, 0.92 * step(y - floor, 0.3))
    plates = np.zeros_like(lung.air)
    for height in (1.3, 3.2):
        middle, tilt = float(rng.uniform(6.5, 9.0)), float(rng.uniform(-0.35, 0.25))
        away = y - (float(floor.min()) - height + float(rng.uniform(-0.5, 0.5))) - tilt * (out - middle)
        long = float(rng.uniform(1.8, 3.2))
        plates += bump(away, 0.14 + 0.16 * severity) * step(long - np.abs(out - middle), 0.9)
    crowding = 0.2 * severity * bump(y - floor, 3.5)
    opacify(lung, (0.12 + 0.36 * severity) * plates + crowding)


def _pleural_effusion(lung: Lung, severity: float, rng: Rng) -> None:
    """Fluid: first it blunts the costophrenic angle, then it rises, its meniscus climbing the ribs."""
    out, y = lung.frame.out, lung.frame.y
    rim = lung.dome[0, int(0.97 * lung.frame.width / FIELD_CM * y.shape[0])]
    level = float(rim) - 0.2 - 10.5 * severity**1.5 + float(rng.uniform(-0.3, 0.3))
    along = np.clip(out / lung.frame.width, 0, 1)
    surface = level - (1.0 + 2.4 * severity) * (along**4 - 0.25) - 0.8 * severity * bump(out - 2.0, 2.0)
    fill(lung, 0.95 * step(y - surface, 0.5 + 0.5 * severity))


def _support_devices(chest: Chest, severity: float, rng: Rng) -> None:
    """AP: central line, then a tracheal tube, then a gastric tube. PA: a pacemaker and its leads."""
    metal = np.zeros_like(chest.tissue)
    strength = 0.7 + 1.1 * severity
    sway = float(rng.uniform(-0.3, 0.3))
    if chest.view == "AP":
        _tubes(chest, metal, severity, sway)
    else:
        _pacemaker(chest, metal, severity, sway)
    np.add(chest.tissue, strength * metal, out=chest.tissue)


def _tubes(chest: Chest, metal: Array, severity: float, sway: float) -> None:
    x, y, floor = chest.frame.x, chest.frame.y, chest.anatomy.dome_left
    line = [(-4.6, 0.0), (-4.2 + sway, 3.5), (-3.2, 7.0), (-2.3, 10.5), (-2.0 + sway, 15.5)]
    stroke(metal, x, y, line, 0.18, 1.5)
    if severity > 0.5:
        stroke(metal, x, y, [(0.4, 0.0), (0.2, 4.0), (-0.1, 10.8 + sway)], 0.34, 1.2)
    if severity > 0.7:
        gastric = [
            (-0.6, 0.0),
            (0.7, 9.0),
            (1.0, 18.0),
            (1.4, floor),
            (3.4, floor + 3),
            (6.5 + sway, floor + 4.5),
        ]
        stroke(metal, x, y, gastric, 0.22, 1.6)


def _pacemaker(chest: Chest, metal: Array, severity: float, sway: float) -> None:
    x, y, floor = chest.frame.x, chest.frame.y, chest.anatomy.dome_left
    radius = 1.2 + 0.9 * severity
    case = step(1 - ((x - 10.6 - sway) / (1.15 * radius)) ** 4 - ((y - 10.2) / radius) ** 4, 0.15)
    np.maximum(metal, 3.0 * case, out=metal)
    vein = [
        (10.0, 8.6),
        (8.5, 7.2),
        (6.0, 7.4),
        (3.0, 8.8),
        (0.0, 9.6),
        (-1.6, 11.0),
        (-2.2, 14.0),
        (-2.3, 18.0),
    ]
    ventricle = [(-1.6, floor - 5.2), (0.6, floor - 2.6), (3.4 + sway, floor - 1.8), (5.6, floor - 2.4)]
    stroke(metal, x, y, vein + ventricle, 0.17, 1.5)
    if severity > 0.6:
        stroke(metal, x, y, [(-2.3, 18.0), (-2.4, 20.2), (-1.4, 20.9), (-0.6, 19.6)], 0.17, 1.5)


MIDLINE: Final[Mapping[str, Callable[[Chest, float, Rng], None]]] = {
    "Cardiomegaly": _cardiomegaly,
    "Edema": _edema,
    "Support Devices": _support_devices,
}
ONE_SIDED: Final[Mapping[str, Callable[[Lung, float, Rng], None]]] = {
    "Pneumothorax": _pneumothorax,
    "Consolidation": _consolidation,
    "Pneumonia": _pneumonia,
    "Lung Lesion": _lung_lesion,
    "Atelectasis": _atelectasis,
    "Pleural Effusion": _pleural_effusion,
}
PAINTED: Final = (
    "Cardiomegaly",
    "Pneumothorax",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Lung Lesion",
    "Atelectasis",
    "Pleural Effusion",
    "Support Devices",
)
"""In the order of painting: what moves lung aside before what fills it, fluid over both, devices on top."""
