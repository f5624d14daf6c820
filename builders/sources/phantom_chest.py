"""The normal chest of a phantom: wall, bones, vessels, heart and mediastinum as maps of thickness, in cm."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

import numpy as np

from cxr_max.builders.sources.phantom_shapes import Array, Rng, ball, blob, bump, step, stream, stroke

OneSide = Literal["left", "right"]

FIELD_CM: Final = 38.0
ATTENUATION_PER_CM: Final = 0.2
"""Of water, at the mean energy of a filtered 120 kV beam."""
LUNG_DENSITY: Final = 0.25
"""Of inflated lung relative to water."""
PHOTONS: Final = 1.5e4
"""Per pixel, unattenuated."""
BUILDS: Final = (12.2, 12.7, 13.1, 13.5, 13.9)
"""Half the inner width of the chest, in cm. A few fixed ones, so that their maps can be kept."""
HILUM_Y: Final[Mapping[OneSide, float]] = {"left": 15.2, "right": 16.0}
TRUNK_ANGLES: Final = (-1.35, -1.0, -0.6, -0.15, 0.3, 0.7, 1.05, 1.35)
"""Of the arteries leaving the hilum, in radians from outwards, down positive."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What depends on the image size and the build only. ``half`` maps start at the midline."""

    x: Array
    """(1, size)"""
    y: Array
    """(size, 1)"""
    out: Array
    """(1, size / 2): distance from the midline."""
    width: float
    """Half the inner width of the chest."""
    shell: Array
    """Half map: the body as if solid, with its bones."""
    cavity: Array
    """Half map: depth of the space inside the ribs."""
    reach: Array
    """Half map: 0 in the middle of the chest to 1 at the ribs."""
    vessels: Mapping[OneSide, Array]
    """Half maps: cm of blood per cm of lung depth."""


@dataclass(slots=True)
class Lung:
    """One side of a chest being painted; ``air`` and ``tissue`` write through to it."""

    side: OneSide
    frame: Frame
    air: Array
    tissue: Array
    dome: Array
    """(1, size / 2): y of the diaphragm."""
    parenchyma: Array
    """1 where there is lung, 0 where a pneumothorax has pushed it away."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """How one person's chest differs from the next one's (cm unless said otherwise)."""

    build: int
    bulk: float
    """Thickness of the body relative to the average."""
    heart: float
    """Width."""
    dome_right: float
    """y of the top of the right diaphragm."""
    dome_left: float
    knob: float
    """How far the aortic arch stands out."""
    vessels: float
    """Prominence of the vessels relative to the average."""
    breasts: float
    bubble: float
    """Air in the stomach."""


@dataclass(frozen=True, slots=True)
class Chest:
    """A chest being painted."""

    frame: Frame
    anatomy: Anatomy
    view: str
    air: Array
    tissue: Array
    lungs: Mapping[OneSide, Lung]


@lru_cache(maxsize=64)
def _weights(size: int, cells: int) -> Array:
    """(size, cells + 1): how much each lattice node counts at each pixel."""
    place = np.linspace(0, cells, size, endpoint=False)
    nearness = np.clip(1 - np.abs(place[:, None] - np.arange(cells + 1)), 0, 1)
    return np.asarray(nearness * nearness * (3 - 2 * nearness), dtype=np.float32)


def clouds(lung: Lung, cells: int, rng: Rng) -> Array:
    """Smooth noise of unit variance at the nodes of a lattice, ``cells`` to the height of the field."""
    rows, columns = lung.air.shape
    nodes = rng.standard_normal((cells + 1, cells // 2 + 1), dtype=np.float32)
    return _weights(rows, cells) @ nodes @ _weights(columns, cells // 2).T


@lru_cache(maxsize=len(BUILDS))
def _frame(size: int, build: int) -> Frame:
    pixel = FIELD_CM / size
    x = ((np.arange(size, dtype=np.float32) + 0.5) * pixel - FIELD_CM / 2)[None, :]
    y = ((np.arange(size, dtype=np.float32) + 0.5) * pixel)[:, None]
    out, width = x[:, size // 2 :], BUILDS[build]
    reach = _reach(out, y, width)
    cavity = 13.5 * np.sqrt(np.maximum(1 - reach**2, 0))
    shell = _body(out, y, width) + _bones(out, y, width, reach, stream(build))
    vessels: dict[OneSide, Array] = {
        side: _vessels(out, y, reach, HILUM_Y[side], stream(build, number)) / np.maximum(cavity, 4)
        for number, side in enumerate(HILUM_Y)
    }
    return Frame(x, y, out, width, shell, cavity, reach, vessels)


def _reach(out: Array, y: Array, width: float) -> Array:
    """A superellipse per lung: its axis leans outwards to the apex, its side is straight at the base."""
    up = np.maximum(26 - y, 0) / 21.2
    axis = 5.4 * np.clip(1.8 * up - 0.8, 0, 1)
    aside = np.where(out > axis, (out - axis) / (width - axis), (axis - out) / 3.4)
    return np.asarray((aside**2.3 + up**2.3) ** (1 / 2.3), dtype=np.float32)


def _body(out: Array, y: Array, width: float) -> Array:
    """Depth of the body: an elliptic trunk that widens to the arms, below sloping shoulders, and the neck."""
    half = width + 2.8 + 9 * step(11.5 - y, 4.0)
    trunk = (20.5 + 3.0 * step(y - 28, 5.0)) * np.maximum(1 - (out / half) ** 2, 0) ** 0.38
    shoulder = 0.5 + 0.016 * np.maximum(out - 3, 0) ** 2 + 0.12 * np.maximum(out - 3, 0)
    trunk = trunk * np.clip((y - shoulder) / 11, 0, 1) ** 0.5
    neck = 12 * np.sqrt(np.maximum(1 - (out / 6.2) ** 2, 0)) * step(8 - y, 5.0)
    body: Array = np.maximum(trunk, neck)
    return body


def _bones(out: Array, y: Array, width: float, reach: Array, rng: Rng) -> Array:
    bones = _ribs(out, y, width, reach, float(rng.uniform(-0.4, 0.4))) + _spine(out, y)
    along = out / 15
    clavicle = y - (8.0 - 3.4 * along - 0.5 * np.sin(6 * along))
    bones += 1.1 * _tube(clavicle, 0.6) * step(out - 1.7, 0.3)
    edge = out - 12.2 - 0.17 * (y - 8)
    scapula = (0.45 * step(edge, 0.2) + 0.4 * bump(edge - 0.3, 0.3)) * step(y - 6.5, 1.2) * step(18.5 - y, 1.2)
    return bones + scapula


def _ribs(out: Array, y: Array, width: float, reach: Array, shift: float) -> Array:
    """Eleven pairs: the back arc runs out and down from the spine, the fainter front one in and down."""
    ribs = np.zeros_like(reach)
    along = np.clip(out / width, 0, 1.02)
    inside = step(1.015 - reach, 0.02) * (1 - 0.5 * step(y - 29, 2.0))
    for number in range(11):
        root, drop = 4.6 + shift + 2.25 * number, 1.8 + 0.32 * number
        back = root - 1.1 * np.sin(2.6 * along) + drop * along**2.4
        ribs += 0.9 * _tube(y - back, 0.46) * step(out - 1.6, 0.4)
        end = root - 1.1 * np.sin(2.6) + drop
        front = end + 5.2 * np.maximum(1 - along, 0) ** 0.75
        cartilage = step(out - 5.0 - 0.25 * number, 0.8)
        ribs += 0.42 * _tube(y - front, 0.5) * cartilage * (number < 8)
    return ribs * inside


def _tube(distance: Array, radius: float) -> Array:
    """A bone of round section, denser at its cortex than in its marrow."""
    q = (distance / radius) ** 2
    section: Array = np.sqrt(np.maximum(1 - q, 0)) * (0.65 + 0.7 * np.minimum(q, 1))
    return section


def _spine(out: Array, y: Array) -> Array:
    body = step(1.9 - out, 0.35)
    disc = np.clip(1.6 * np.cos(y * (2 * np.pi / 2.3)) - 0.8, 0, 1)
    pedicle = bump(out - 1.25, 0.3) * np.clip(np.cos(y * (2 * np.pi / 2.3) + 2.6), 0, 1)
    spine: Array = body * (1.7 - 0.5 * disc) + 0.5 * pedicle
    return spine


def _vessels(out: Array, y: Array, reach: Array, hilum: float, rng: Rng) -> Array:
    """A tree of arteries, each fork thinner than its parent, until it is invisible or at the ribs."""
    canvas = np.zeros_like(reach)
    pixel = float(y[1, 0] - y[0, 0])
    growing = [((2.9, hilum), angle, 0.4 + 0.08 * angle) for angle in TRUNK_ANGLES]  # upright: more flow below
    while growing:
        (x0, y0), angle, radius = growing.pop()
        length = float(rng.uniform(0.7, 1.3)) * (0.6 + 3.0 * radius)
        x1, y1 = x0 + length * np.cos(angle), y0 + length * np.sin(angle)
        row, column = min(int(y1 / pixel), len(y) - 1), min(int(abs(x1) / pixel), out.shape[1] - 1)
        if radius < 0.055 or x1 < 1 or y1 < 4 or reach[row, column] > 0.97:
            continue
        stroke(canvas, out, y, [(x0, y0), (x1, y1)], radius, 2.6 * radius)
        turn, fork = float(rng.normal(0, 0.17)), float(rng.choice((-1, 1)) * rng.uniform(0.35, 0.8))
        growing.append(((x1, y1), angle + turn - 0.2 * fork, radius * float(rng.uniform(0.8, 0.9))))
        growing.append(((x1, y1), angle + fork, radius * float(rng.uniform(0.5, 0.72))))
    return canvas


def person_of(rng: Rng, view: str, sex: str | None) -> Anatomy:
    build = int(rng.integers(len(BUILDS)))
    dome = rng.uniform(25.4, 27.2)
    person = Anatomy(
        build=build,
        bulk=rng.uniform(0.94, 1.1),
        heart=rng.uniform(0.41, 0.465) * 2 * BUILDS[build],
        dome_right=dome,
        dome_left=dome + rng.uniform(0.5, 1.4),
        knob=rng.uniform(0.7, 1.6),
        vessels=rng.uniform(0.85, 1.2),
        breasts=rng.uniform(1.2, 3.2) if sex == "F" else 0.0,
        bubble=max(0.0, rng.uniform(-1.5, 3.0)),
    )
    return person if view == "PA" else _antero_posterior(person)


def _antero_posterior(person: Anatomy) -> Anatomy:
    """The heart is further from the detector, and the patient sits or lies and breathes in less."""
    return replace(
        person,
        heart=person.heart * 1.17,
        dome_right=person.dome_right - 2.2,
        dome_left=person.dome_left - 2.2,
    )


def normal_chest(person: Anatomy, size: int, view: str, rng: Rng) -> Chest:
    chest = _solid(person, size, view, breath=float(rng.uniform(-0.3, 0.5)))
    for lung in chest.lungs.values():
        _below_diaphragm(lung, person.bubble)
    displace(chest, middle(chest))
    _airway(chest)
    for lung in chest.lungs.values():
        _hilum(lung)
        lung.tissue += lung.air * (person.vessels * lung.frame.vessels[lung.side])
        lung.tissue += lung.air * (0.018 * clouds(lung, 24, rng) + 0.008)
        if person.breasts:
            lung.tissue += person.breasts * ball(lung.frame.out, lung.frame.y, (7.6, 22.0), (5.6, 5.4))
    return chest


def _solid(person: Anatomy, size: int, view: str, breath: float) -> Chest:
    """The body wall around a space that is all lung; ``breath`` lowers the diaphragm, in cm."""
    frame = _frame(size, person.build)
    air = np.concatenate((frame.cavity[:, ::-1], frame.cavity), axis=1)
    wall = person.bulk * frame.shell - frame.cavity
    tissue = np.concatenate((wall[:, ::-1], wall), axis=1)
    half, one = size // 2, np.ones((1, 1), dtype=np.float32)
    domes = {"right": person.dome_right + breath, "left": person.dome_left + breath}
    views: dict[OneSide, slice] = {"right": slice(half - 1, None, -1), "left": slice(half, None)}
    lungs = {
        side: Lung(side, frame, air[:, part], tissue[:, part], _dome(frame, domes[side]), one)
        for side, part in views.items()
    }
    return Chest(frame, person, view, air, tissue, lungs)


def _dome(frame: Frame, top: float) -> Array:
    """Highest 6.5 cm from the midline; falls to the costophrenic angle."""
    along = (frame.out - 6.5) / (frame.width - 6.5)
    return np.where(along > 0, top + 3.6 * np.abs(along) ** 2.3, top + 1.5 * along**2).astype(np.float32)


def fill(lung: Lung, fraction: Array) -> None:
    """Replace this fraction of the aerated lung by water."""
    moved = lung.air * fraction
    lung.air -= moved
    lung.tissue += moved


def opacify(lung: Lung, fraction: Array) -> None:
    """Fill alveoli: as ``fill``, but only where there is lung."""
    fill(lung, np.clip(fraction, 0, 1) * lung.parenchyma)


def displace(chest: Chest, depth: Array) -> None:
    """Put an organ of this depth where there was lung, as far as there is room."""
    moved = np.minimum(depth, chest.air)
    np.subtract(chest.air, moved, out=chest.air)
    np.add(chest.tissue, moved, out=chest.tissue)


def _below_diaphragm(lung: Lung, bubble: float) -> None:
    """Liver or stomach; some lung hangs behind it, less and less further down."""
    under = lung.frame.y - lung.dome
    fill(lung, step(under, 0.22) * np.clip(0.78 + 0.06 * under, 0, 1))
    if lung.side == "left":
        lung.tissue -= bubble * ball(lung.frame.out, under, (5.4, 2.0), (2.6, 1.2))


def _mediastinum(chest: Chest) -> Array:
    """Great vessels: vena cava on the right; aortic arch and pulmonary trunk on the left."""
    y, x = chest.frame.y, chest.frame.x
    neck = 0.8 * step(8 - y, 3.5)
    left = 2.0 + neck + chest.anatomy.knob * bump(y - 11.3, 1.5) + 0.9 * bump(y - 15.4, 1.6)
    left = left + 0.5 * np.clip(y - 15, 0, 6)
    right = 2.4 + neck - 1.2 * step(y - 19.5, 2.5)
    blur = 0.3 + 1.9 * step(y - 17.5, 2.5)  # within the heart it has no edge of its own
    return 11.8 * step(np.where(x > 0, left, right) - np.abs(x), blur)


def middle(chest: Chest) -> Array:
    """Depth of all that stands between the lungs of a healthy chest."""
    return np.maximum(_mediastinum(chest), heart(chest, chest.anatomy.heart))


def heart(chest: Chest, width: float) -> Array:
    """Depth of a heart of this width: an ellipsoid tilted to the patient's left, and the right atrium."""
    scale, floor = width / 12.3, chest.anatomy.dome_left
    taller = scale**0.5  # it widens more than it rises
    x, y = chest.frame.x - 2.0 * scale, (chest.frame.y - (floor - 4.5 * taller)) * (scale / taller)
    long, short = x * 0.82 + y * 0.57, y * 0.82 - x * 0.57
    ventricles = np.maximum(1 - (long / (6.6 * scale)) ** 2 - (short / (5.1 * scale)) ** 2, 0)
    atrium = np.maximum(1 - ((x + 2.6 * scale) / (3.3 * scale)) ** 2 - ((y - 0.2) / (4.6 * scale)) ** 2, 0)
    depth: Array = 11.8 * np.sqrt(np.sqrt(np.maximum(ventricles, atrium)))  # steep: its border is sharp
    return depth


def _airway(chest: Chest) -> None:
    """Trachea down to the carina, and the main bronchi."""
    x, y = chest.frame.x, chest.frame.y
    trachea = np.sqrt(np.maximum(1 - ((x + 0.15) / 0.95) ** 2, 0)) * step(13.4 - y, 0.8)
    away = np.abs(x) - 0.75 * (y - 12.6)
    bronchi = bump(away, 0.75) * step(y - 12.6, 0.6) * step(16.2 - y, 1.0)
    chest.tissue[...] -= 2.0 * np.maximum(trachea, 0.6 * bronchi)


def _hilum(lung: Lung) -> None:
    centre = (3.3, HILUM_Y[lung.side])
    lung.tissue += 1.9 * blob(lung.frame.out, lung.frame.y, centre, (1.4, 2.0))
