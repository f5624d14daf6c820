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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from cxr_max.findings import LATERAL, Side

Array = npt.NDArray[np.floating[Any]]
Rng = np.random.Generator
Point = tuple[float, float]
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


def draw(
    findings: Mapping[str, Side | None],
    *,
    seed: int,
    size: int = 256,
    severity: float,
    view: Literal["PA", "AP"] = "PA",
    noise: float = 1.0,
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
        anatomy: seed of the person's build; ``seed`` when absent.
        sex: ``F`` adds breast shadows.

    Returns:
        (size, size) pixels, 0 (air) to 255 (bone, MONOCHROME2).

    Raises:
        ValueError: an argument is out of range, or a side is missing or out of place.
    """
    _check(findings, size, severity)
    person = _anatomy(_rng(seed if anatomy is None else anatomy, 0), view, sex)
    chest = _normal_chest(person, size, view, _rng(seed, 1))
    for number, name in enumerate(PAINTED, start=2):
        if name in MIDLINE and name in findings:
            MIDLINE[name](chest, severity, _rng(seed, number))
        elif name in findings:
            for lung in _lungs_of(chest, findings[name]):
                ONE_SIDED[name](lung, severity, _rng(seed, number, lung.side == "left"))
    return _expose(chest, noise, _rng(seed, len(PAINTED) + 2))


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


def _rng(*key: int) -> Rng:
    """A stream of its own for each purpose, so that one finding never moves another."""
    return np.random.default_rng(key)


def _lungs_of(chest: Chest, side: Side | None) -> list[Lung]:
    return [lung for lung in chest.lungs.values() if side in (lung.side, "bilateral")]


# Shapes


def _step(distance: Array, blur: Array | float) -> Array:
    """0 to 1 as ``distance`` goes from -blur to +blur."""
    ramp = np.clip(distance * (0.5 / blur) + 0.5, 0, 1)
    smooth: Array = ramp * ramp * (3 - 2 * ramp)
    return smooth


def _bump(distance: Array, width: float) -> Array:
    scaled = distance / width
    bump: Array = np.exp(-scaled * scaled)
    return bump


def _ball(across: Array, down: Array, centre: Point, radii: Point) -> Array:
    """The relative chord of a ray through an ellipsoid: 1 in the middle, 0 outside."""
    a, b = (across - centre[0]) / radii[0], (down - centre[1]) / radii[1]
    chord: Array = np.sqrt(np.maximum(1 - a * a - b * b, 0))
    return chord


def _blob(across: Array, down: Array, centre: Point, radii: Point) -> Array:
    """A Gaussian: an ellipsoid with no edge."""
    return _bump(across - centre[0], radii[0]) * _bump(down - centre[1], radii[1])


@lru_cache(maxsize=64)
def _weights(size: int, cells: int) -> Array:
    """(size, cells + 1): how much each lattice node counts at each pixel."""
    place = np.linspace(0, cells, size, endpoint=False)
    nearness = np.clip(1 - np.abs(place[:, None] - np.arange(cells + 1)), 0, 1)
    return np.asarray(nearness * nearness * (3 - 2 * nearness), dtype=np.float32)


def _clouds(lung: Lung, cells: int, rng: Rng) -> Array:
    """Smooth noise of unit variance at the nodes of a lattice, ``cells`` to the height of the field."""
    rows, columns = lung.air.shape
    nodes = rng.standard_normal((cells + 1, cells // 2 + 1), dtype=np.float32)
    return _weights(rows, cells) @ nodes @ _weights(columns, cells // 2).T


def _stroke(canvas: Array, across: Array, down: Array, points: list[Point], radius: float, depth: float) -> None:
    """Lay a round rod along a line, ``depth`` cm in its middle; the deeper one wins at a crossing."""
    pixel = float(down[1, 0] - down[0, 0])
    drawn = max(radius, 0.75 * pixel)  # a thinner rod would fall between pixels: widen it and keep its mass
    depth *= radius / drawn
    for (x0, y0), (x1, y1) in pairwise(points):
        columns = _span(x0, x1, drawn, float(across[0, 0]), pixel)
        rows = _span(y0, y1, drawn, float(down[0, 0]), pixel)
        ax, ay, dx, dy = across[:, columns] - x0, down[rows] - y0, x1 - x0, y1 - y0
        along = np.clip((ax * dx + ay * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
        away = ((ax - along * dx) ** 2 + (ay - along * dy) ** 2) / drawn**2
        part = canvas[rows, columns]
        np.maximum(part, depth * np.sqrt(np.maximum(1 - away, 0)), out=part)


def _span(a: float, b: float, margin: float, start: float, pixel: float) -> slice:
    first, last = (min(a, b) - margin - start) / pixel, (max(a, b) + margin - start) / pixel
    return slice(max(int(first), 0), max(int(last) + 2, 0))


# What is kept between images: the wall, the bones and the vessels


@lru_cache(maxsize=len(BUILDS))
def _frame(size: int, build: int) -> Frame:
    pixel = FIELD_CM / size
    x = ((np.arange(size, dtype=np.float32) + 0.5) * pixel - FIELD_CM / 2)[None, :]
    y = ((np.arange(size, dtype=np.float32) + 0.5) * pixel)[:, None]
    out, width = x[:, size // 2 :], BUILDS[build]
    reach = _reach(out, y, width)
    cavity = 13.5 * np.sqrt(np.maximum(1 - reach**2, 0))
    shell = _body(out, y, width) + _bones(out, y, width, reach, _rng(build))
    vessels: dict[OneSide, Array] = {
        side: _vessels(out, y, reach, HILUM_Y[side], _rng(build, number)) / np.maximum(cavity, 4)
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
    half = width + 2.8 + 9 * _step(11.5 - y, 4.0)
    trunk = (20.5 + 3.0 * _step(y - 28, 5.0)) * np.maximum(1 - (out / half) ** 2, 0) ** 0.38
    shoulder = 0.5 + 0.016 * np.maximum(out - 3, 0) ** 2 + 0.12 * np.maximum(out - 3, 0)
    trunk = trunk * np.clip((y - shoulder) / 11, 0, 1) ** 0.5
    neck = 12 * np.sqrt(np.maximum(1 - (out / 6.2) ** 2, 0)) * _step(8 - y, 5.0)
    body: Array = np.maximum(trunk, neck)
    return body


def _bones(out: Array, y: Array, width: float, reach: Array, rng: Rng) -> Array:
    bones = _ribs(out, y, width, reach, float(rng.uniform(-0.4, 0.4))) + _spine(out, y)
    along = out / 15
    clavicle = y - (8.0 - 3.4 * along - 0.5 * np.sin(6 * along))
    bones += 1.1 * _tube(clavicle, 0.6) * _step(out - 1.7, 0.3)
    edge = out - 12.2 - 0.17 * (y - 8)
    scapula = (0.45 * _step(edge, 0.2) + 0.4 * _bump(edge - 0.3, 0.3)) * _step(y - 6.5, 1.2) * _step(18.5 - y, 1.2)
    return bones + scapula


def _ribs(out: Array, y: Array, width: float, reach: Array, shift: float) -> Array:
    """Eleven pairs: the back arc runs out and down from the spine, the fainter front one in and down."""
    ribs = np.zeros_like(reach)
    along = np.clip(out / width, 0, 1.02)
    inside = _step(1.015 - reach, 0.02) * (1 - 0.5 * _step(y - 29, 2.0))
    for number in range(11):
        root, drop = 4.6 + shift + 2.25 * number, 1.8 + 0.32 * number
        back = root - 1.1 * np.sin(2.6 * along) + drop * along**2.4
        ribs += 0.9 * _tube(y - back, 0.46) * _step(out - 1.6, 0.4)
        end = root - 1.1 * np.sin(2.6) + drop
        front = end + 5.2 * np.maximum(1 - along, 0) ** 0.75
        cartilage = _step(out - 5.0 - 0.25 * number, 0.8)
        ribs += 0.42 * _tube(y - front, 0.5) * cartilage * (number < 8)
    return ribs * inside


def _tube(distance: Array, radius: float) -> Array:
    """A bone of round section, denser at its cortex than in its marrow."""
    q = (distance / radius) ** 2
    section: Array = np.sqrt(np.maximum(1 - q, 0)) * (0.65 + 0.7 * np.minimum(q, 1))
    return section


def _spine(out: Array, y: Array) -> Array:
    body = _step(1.9 - out, 0.35)
    disc = np.clip(1.6 * np.cos(y * (2 * np.pi / 2.3)) - 0.8, 0, 1)
    pedicle = _bump(out - 1.25, 0.3) * np.clip(np.cos(y * (2 * np.pi / 2.3) + 2.6), 0, 1)
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
        _stroke(canvas, out, y, [(x0, y0), (x1, y1)], radius, 2.6 * radius)
        turn, fork = float(rng.normal(0, 0.17)), float(rng.choice((-1, 1)) * rng.uniform(0.35, 0.8))
        growing.append(((x1, y1), angle + turn - 0.2 * fork, radius * float(rng.uniform(0.8, 0.9))))
        growing.append(((x1, y1), angle + fork, radius * float(rng.uniform(0.5, 0.72))))
    return canvas


# The normal chest


def _anatomy(rng: Rng, view: str, sex: str | None) -> Anatomy:
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


def _normal_chest(person: Anatomy, size: int, view: str, rng: Rng) -> Chest:
    chest = _solid(person, size, view, breath=float(rng.uniform(-0.3, 0.5)))
    for lung in chest.lungs.values():
        _below_diaphragm(lung, person.bubble)
    _displace(chest, _middle(chest))
    _airway(chest)
    for lung in chest.lungs.values():
        _hilum(lung)
        lung.tissue += lung.air * (person.vessels * lung.frame.vessels[lung.side])
        lung.tissue += lung.air * (0.018 * _clouds(lung, 24, rng) + 0.008)
        if person.breasts:
            lung.tissue += person.breasts * _ball(lung.frame.out, lung.frame.y, (7.6, 22.0), (5.6, 5.4))
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


def _fill(lung: Lung, fraction: Array) -> None:
    """Replace this fraction of the aerated lung by water."""
    moved = lung.air * fraction
    lung.air -= moved
    lung.tissue += moved


def _opacify(lung: Lung, fraction: Array) -> None:
    """Fill alveoli: as ``_fill``, but only where there is lung."""
    _fill(lung, np.clip(fraction, 0, 1) * lung.parenchyma)


def _displace(chest: Chest, depth: Array) -> None:
    """Put an organ of this depth where there was lung, as far as there is room."""
    moved = np.minimum(depth, chest.air)
    np.subtract(chest.air, moved, out=chest.air)
    np.add(chest.tissue, moved, out=chest.tissue)


def _below_diaphragm(lung: Lung, bubble: float) -> None:
    """Liver or stomach; some lung hangs behind it, less and less further down."""
    under = lung.frame.y - lung.dome
    _fill(lung, _step(under, 0.22) * np.clip(0.78 + 0.06 * under, 0, 1))
    if lung.side == "left":
        lung.tissue -= bubble * _ball(lung.frame.out, under, (5.4, 2.0), (2.6, 1.2))


def _mediastinum(chest: Chest) -> Array:
    """Great vessels: vena cava on the right; aortic arch and pulmonary trunk on the left."""
    y, x = chest.frame.y, chest.frame.x
    neck = 0.8 * _step(8 - y, 3.5)
    left = 2.0 + neck + chest.anatomy.knob * _bump(y - 11.3, 1.5) + 0.9 * _bump(y - 15.4, 1.6)
    left = left + 0.5 * np.clip(y - 15, 0, 6)
    right = 2.4 + neck - 1.2 * _step(y - 19.5, 2.5)
    blur = 0.3 + 1.9 * _step(y - 17.5, 2.5)  # within the heart it has no edge of its own
    return 11.8 * _step(np.where(x > 0, left, right) - np.abs(x), blur)


def _middle(chest: Chest) -> Array:
    """Depth of all that stands between the lungs of a healthy chest."""
    return np.maximum(_mediastinum(chest), _heart(chest, chest.anatomy.heart))


def _heart(chest: Chest, width: float) -> Array:
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
    trachea = np.sqrt(np.maximum(1 - ((x + 0.15) / 0.95) ** 2, 0)) * _step(13.4 - y, 0.8)
    away = np.abs(x) - 0.75 * (y - 12.6)
    bronchi = _bump(away, 0.75) * _step(y - 12.6, 0.6) * _step(16.2 - y, 1.0)
    chest.tissue[...] -= 2.0 * np.maximum(trachea, 0.6 * bronchi)


def _hilum(lung: Lung) -> None:
    centre = (3.3, HILUM_Y[lung.side])
    lung.tissue += 1.9 * _blob(lung.frame.out, lung.frame.y, centre, (1.4, 2.0))


# The findings


def _cardiomegaly(chest: Chest, severity: float, rng: Rng) -> None:
    """A heart of 0.52 to 0.72 of the chest's width (over 0.5 is enlarged, on a PA view)."""
    ratio = 0.505 + 0.2 * severity + float(rng.uniform(-0.01, 0.01))
    width = 2 * chest.frame.width * ratio
    if chest.view == "AP":
        width *= 1.08
    _displace(chest, np.maximum(_heart(chest, width) - _middle(chest), 0))


def _edema(chest: Chest, severity: float, rng: Rng) -> None:
    """Haze from the hila outwards on both sides, full vessels, and septal (Kerley B) lines at the bases."""
    for lung in chest.lungs.values():
        out, y = lung.frame.out, lung.frame.y
        wings = _blob(out, y, (4.5, HILUM_Y[lung.side] + 1.5), (4.8, 6.5))
        haze = (0.12 + 0.46 * wings) * (1 + 0.2 * _clouds(lung, 20, rng))
        lung.tissue += lung.air * lung.parenchyma * (0.5 * severity * lung.frame.vessels[lung.side])
        _opacify(lung, severity * haze)
        _septal_lines(lung, severity, float(rng.uniform(0, 0.9)))


def _septal_lines(lung: Lung, severity: float, shift: float) -> None:
    reach, y = lung.frame.reach, lung.frame.y
    rim = _step(reach - 0.84, 0.05) * _step(0.985 - reach, 0.015) * _step(y - 20, 1.5)
    lines = np.clip(np.cos((y + 0.15 * lung.frame.out + shift) * (2 * np.pi / 0.95)) - 0.5, 0, 1)
    lung.tissue += 0.9 * severity * rim * lines * np.minimum(lung.air, 1)


def _pneumothorax(lung: Lung, severity: float, rng: Rng) -> None:
    """Bare air along the ribs and above the apex, behind the thin line of the visceral pleura."""
    frame = lung.frame
    gap = 0.03 + 0.4 * severity + float(rng.uniform(-0.015, 0.015))
    higher = 0.55 + 0.45 * _step(20 - frame.y, 9.0)  # upright, air collects at the top
    edge = (1 - gap * higher) - frame.reach
    inside = _step(edge, 0.02)
    bare = lung.air * (1 - inside)
    lung.tissue -= bare * (LUNG_DENSITY + lung.frame.vessels[lung.side])
    lung.tissue += 0.8 * _bump(edge, 0.012) * np.minimum(lung.air, 1)
    _fill(lung, 0.2 * severity * inside)  # the lung has shrunk: the same blood in less air
    lung.parenchyma = inside


def _consolidation(lung: Lung, severity: float, rng: Rng) -> None:
    """One dense lobe, its bronchi still open (air bronchograms), with a straight edge at its fissure."""
    out, y = lung.frame.out, lung.frame.y
    if rng.random() < 0.5:
        fissure = _step(17.2 + 0.1 * (out - 6) - y, 0.35)
        lobe: Array = fissure * _step(y - (14.6 - 9.5 * severity), 2.5) * _step(out - 2.0, 1.5)
    else:
        ragged = 1 + 0.3 * _clouds(lung, 14, rng)
        lobe = _step(ragged - ((out - 5.5) / 5.6) ** 2 - ((y - 23.5) / (2.0 + 4.2 * severity)) ** 2, 0.7)
    dense = 0.3 + 0.6 * severity
    bronchi = np.minimum(3.0 * lung.frame.vessels[lung.side], 0.3)
    _opacify(lung, dense * lobe * (1 + 0.16 * _clouds(lung, 16, rng) - bronchi))


def _pneumonia(lung: Lung, severity: float, rng: Rng) -> None:
    """Several patches without edges, along the bronchi, more at the bases than at the top."""
    patches = np.zeros_like(lung.air)
    for number in range(6):
        centre = (float(rng.uniform(3.8, 10.5)), 12.5 + 2.1 * number + float(rng.uniform(-1.0, 1.0)))
        radius = float(rng.uniform(0.8, 1.4)) * (0.9 + 0.8 * severity)
        patches += float(rng.uniform(0.6, 1.1)) * _blob(lung.frame.out, lung.frame.y, centre, (radius, radius))
    mottle = np.maximum(0.85 + 0.3 * _clouds(lung, 26, rng), 0.2)
    _opacify(lung, (0.05 + 0.55 * severity) * np.minimum(patches, 1.2) * mottle)


def _lung_lesion(lung: Lung, severity: float, rng: Rng) -> None:
    """A round nodule of 1.2 to 4 cm across (over 3 cm is called a mass), clear of the heart."""
    radius = 0.3 + 1.7 * severity
    lowest = 21.5 if lung.side == "right" else 17.5
    centre = (float(rng.uniform(6.2, 9.8)), float(rng.uniform(10.5, lowest)))
    ball = _ball(lung.frame.out, lung.frame.y, centre, (radius, radius * float(rng.uniform(0.85, 1.15))))
    lung.tissue += (1.0 + 1.4 * radius) * ball**1.4 * np.minimum(lung.air, 1)


def _atelectasis(lung: Lung, severity: float, rng: Rng) -> None:
    """Plates of airless lung at the base, under which the diaphragm has been pulled up."""
    out, y = lung.frame.out, lung.frame.y
    rise = (0.3 + 2.9 * severity) * _step(12.5 - out, 5.0)
    floor = lung.dome - rise
    _opacify(lung, 0.92 * _step(y - floor, 0.3))
    plates = np.zeros_like(lung.air)
    for height in (1.3, 3.2):
        middle, tilt = float(rng.uniform(6.5, 9.0)), float(rng.uniform(-0.35, 0.25))
        away = y - (float(floor.min()) - height + float(rng.uniform(-0.5, 0.5))) - tilt * (out - middle)
        long = float(rng.uniform(1.8, 3.2))
        plates += _bump(away, 0.14 + 0.16 * severity) * _step(long - np.abs(out - middle), 0.9)
    crowding = 0.2 * severity * _bump(y - floor, 3.5)
    _opacify(lung, (0.12 + 0.36 * severity) * plates + crowding)


def _pleural_effusion(lung: Lung, severity: float, rng: Rng) -> None:
    """Fluid: first it blunts the costophrenic angle, then it rises, its meniscus climbing the ribs."""
    out, y = lung.frame.out, lung.frame.y
    rim = lung.dome[0, int(0.97 * lung.frame.width / FIELD_CM * y.shape[0])]
    level = float(rim) - 0.2 - 10.5 * severity**1.5 + float(rng.uniform(-0.3, 0.3))
    along = np.clip(out / lung.frame.width, 0, 1)
    surface = level - (1.0 + 2.4 * severity) * (along**4 - 0.25) - 0.8 * severity * _bump(out - 2.0, 2.0)
    _fill(lung, 0.95 * _step(y - surface, 0.5 + 0.5 * severity))


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
    _stroke(metal, x, y, line, 0.18, 1.5)
    if severity > 0.5:
        _stroke(metal, x, y, [(0.4, 0.0), (0.2, 4.0), (-0.1, 10.8 + sway)], 0.34, 1.2)
    if severity > 0.7:
        gastric = [
            (-0.6, 0.0),
            (0.7, 9.0),
            (1.0, 18.0),
            (1.4, floor),
            (3.4, floor + 3),
            (6.5 + sway, floor + 4.5),
        ]
        _stroke(metal, x, y, gastric, 0.22, 1.6)


def _pacemaker(chest: Chest, metal: Array, severity: float, sway: float) -> None:
    x, y, floor = chest.frame.x, chest.frame.y, chest.anatomy.dome_left
    radius = 1.2 + 0.9 * severity
    case = _step(1 - ((x - 10.6 - sway) / (1.15 * radius)) ** 4 - ((y - 10.2) / radius) ** 4, 0.15)
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
    _stroke(metal, x, y, vein + ventricle, 0.17, 1.5)
    if severity > 0.6:
        _stroke(metal, x, y, [(-2.3, 18.0), (-2.4, 20.2), (-1.4, 20.9), (-0.6, 19.6)], 0.17, 1.5)


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


# The exposure


def _expose(chest: Chest, noise: float, rng: Rng) -> npt.NDArray[np.uint8]:
    """Attenuate, count photons, take the logarithm, display."""
    thickness = np.maximum(chest.tissue + LUNG_DENSITY * chest.air, 0)
    middle = 12.8 * chest.anatomy.bulk + float(rng.uniform(-0.4, 0.4))  # exposure follows the patient's bulk
    if noise:
        dose = PHOTONS * (1.0 if chest.view == "PA" else 0.5)
        counts = dose * np.exp(-ATTENUATION_PER_CM * thickness)
        counts += noise * np.sqrt(counts) * rng.standard_normal(counts.shape, dtype=np.float32)
        thickness = np.log(np.maximum(counts, 1) / dose) / -ATTENUATION_PER_CM
    shown = 255 / (1 + np.exp((middle - thickness) * (4 / 12.0)))
    return shown.astype(np.uint8)
