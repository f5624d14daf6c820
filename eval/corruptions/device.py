"""Bright objects on or in the patient: marker, ECG electrodes with wires, pacemaker, buckle, defibrillator pad.

Drawn from distances to line segments, smooth at the edges, in mm on a field whose longer side is ``FIELD_MM``.
Frontal films as they are hung: the patient's left is on the image's right. Objects add attenuation, so they
brighten what is behind them and never darken it.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from cxr_max.eval.corruptions.physics import mm_per_pixel
from cxr_max.eval.corruptions.severities import DEVICE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxr_max.image_file import Grey

_Points = Sequence[tuple[float, float]]

LETTERS: Final[dict[str, tuple[_Points, ...]]] = {
    "L": (((0, 0), (0, 1), (0.6, 1)),),
    "R": (((0, 1), (0, 0), (0.4, 0), (0.6, 0.13), (0.6, 0.37), (0.4, 0.5), (0, 0.5)), ((0.25, 0.5), (0.62, 1))),
}
"""Strokes in a box one high, x to the right and y down."""


class Film:
    """How much each pixel is covered, 0 to 1; coordinates are fractions of the sides, lengths are mm."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.rows, self.columns = shape
        self.spacing = mm_per_pixel(shape)
        self.cover = np.zeros(shape, dtype=np.float32)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Fractions of the sides -> mm."""
        return x * self.columns * self.spacing, y * self.rows * self.spacing

    def line(self, points: _Points, width: float, opacity: float) -> None:
        """A stroke with round ends through points in mm; one point is a disc."""
        pairs = list(pairwise(points)) or [(points[0], points[0])]
        xs, ys = zip(*points, strict=True)
        columns, rows = self._within(min(xs), max(xs), width), self._within(min(ys), max(ys), width, down=True)
        y, x = np.mgrid[rows, columns].astype(np.float32) * self.spacing
        nearest = np.full(x.shape, np.inf, dtype=np.float32)
        for (x0, y0), (x1, y1) in pairs:
            dx, dy = x1 - x0, y1 - y0
            along = ((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-9)
            along = np.clip(along, 0, 1)
            np.minimum(nearest, np.hypot(x - x0 - along * dx, y - y0 - along * dy), out=nearest)
        self._stamp(rows, columns, nearest - width / 2, opacity)

    def box(self, middle: tuple[float, float], size: tuple[float, float], corner: float, opacity: float) -> None:
        """A rectangle with round corners, upright, in mm."""
        (x0, y0), (width, height) = middle, size
        columns = self._within(x0, x0, width)
        rows = self._within(y0, y0, height, down=True)
        y, x = np.mgrid[rows, columns].astype(np.float32) * self.spacing
        beyond_x = np.abs(x - x0) - width / 2 + corner
        beyond_y = np.abs(y - y0) - height / 2 + corner
        outside = np.hypot(np.maximum(beyond_x, 0), np.maximum(beyond_y, 0))
        self._stamp(rows, columns, outside + np.minimum(np.maximum(beyond_x, beyond_y), 0) - corner, opacity)

    def _within(self, low: float, high: float, margin: float, down: bool = False) -> slice:
        """The pixels between two coordinates in mm, with a margin, inside the film."""
        length = self.rows if down else self.columns
        first = int((low - margin) / self.spacing) - 2
        last = int((high + margin) / self.spacing) + 3
        return slice(min(max(first, 0), length), min(max(last, 0), length))

    def _stamp(self, rows: slice, columns: slice, distance: "NDArray[np.floating]", opacity: float) -> None:
        """Cover what lies at a negative distance; edges are one pixel wide. Objects one behind another add up."""
        inside = np.clip(0.5 - distance / self.spacing, 0, 1) * opacity
        free = 1 - self.cover[rows, columns]
        self.cover[rows, columns] = 1 - free * (1 - inside)


def device(image: "Grey", severity: int, rng: np.random.Generator) -> "Grey":
    """Objects drawn in, each a little elsewhere in every image; each brightens towards white (255)."""
    film = covered((image.shape[0], image.shape[1]), severity, rng)
    return np.rint(image + (255 - image.astype(np.float32)) * film.cover).astype(np.uint8)


def covered(shape: tuple[int, int], severity: int, rng: np.random.Generator) -> Film:
    """The objects alone. Each has a random stream of its own, so it is in the same place at every severity."""
    film, chosen = Film(shape), DEVICE[severity - 1]
    for name, stream in zip(DEVICE[-1].objects, rng.spawn(len(DEVICE[-1].objects)), strict=True):
        if name not in chosen.objects:
            continue
        if name == "electrodes":
            _electrodes(film, stream, chosen.electrodes)
        else:
            _OBJECTS[name](film, stream)
    return film


def _marker(film: Film, rng: np.random.Generator) -> None:
    """A lead letter of 18 mm in the upper corner of its own side."""
    letter = str(rng.choice(["L", "R"]))
    x, y = film.at(0.9 if letter == "L" else 0.06, float(rng.uniform(0.05, 0.12)))
    for stroke in LETTERS[letter]:
        film.line([(x + 18 * u, y + 18 * v) for u, v in stroke], 3.2, 0.95)


_PLACES: Final = ((0.24, 0.2), (0.76, 0.2), (0.8, 0.72), (0.22, 0.72), (0.55, 0.42), (0.83, 0.5))


def _electrodes(film: Film, rng: np.random.Generator, count: int) -> None:
    """A snap of 9 mm in a faint pad of 34 mm, and a wire of 1.6 mm that leaves the film below or above."""
    for x, y in _PLACES[:count]:
        x, y = x + float(rng.uniform(-0.04, 0.04)), y + float(rng.uniform(-0.04, 0.04))
        film.line([film.at(x, y)], 34, 0.1)
        film.line([film.at(x, y)], 9, 0.85)
        leaves = (x + float(rng.uniform(-0.15, 0.15)), 1.05 if y > 0.4 else -0.05)
        bend = ((x + leaves[0]) / 2 + float(rng.uniform(-0.12, 0.12)), (y + leaves[1]) / 2)
        film.line([film.at(*point) for point in _curve(((x, y), bend, leaves))], 1.6, 0.7)


def _pacemaker(film: Film, rng: np.random.Generator) -> None:
    """A can of 48 x 42 mm below the left clavicle, its denser battery, and a lead into the right ventricle."""
    x, y = 0.77 + float(rng.uniform(-0.03, 0.03)), 0.25 + float(rng.uniform(-0.03, 0.03))
    left, top = film.at(x, y)
    film.box((left, top), (48, 42), 16, 0.7)
    film.box((left - 6, top + 5), (26, 22), 5, 0.45)
    film.box((left, top - 15), (26, 8), 3, 0.5)
    lead = ((x - 0.02, y - 0.05), (0.66, 0.14), (0.5, 0.2), (0.44, 0.45), (0.46, 0.68), (0.6, 0.7))
    film.line([film.at(*point) for point in _curve(lead)], 2.2, 0.85)
    film.line([film.at(0.58, 0.7), film.at(0.6, 0.7)], 3.6, 0.95)


def _buckle(film: Film, rng: np.random.Generator) -> None:
    """A metal buckle of 60 mm on a strap, on the clothing."""
    x, y = film.at(float(rng.uniform(0.3, 0.4)), float(rng.uniform(0.52, 0.62)))
    corners = [(x, y), (x + 60, y + 6), (x + 57, y + 26), (x - 3, y + 20), (x, y)]
    film.line(corners, 5, 0.95)
    film.line([(x + 28, y + 2), (x + 26, y + 24)], 4, 0.95)


def _pad(film: Film, rng: np.random.Generator) -> None:
    """A defibrillator pad of 105 x 80 mm, half transparent, with its cable."""
    x, y = 0.28 + float(rng.uniform(-0.04, 0.04)), 0.34 + float(rng.uniform(-0.04, 0.04))
    film.box(film.at(x, y), (80, 105), 18, 0.4)
    film.box(film.at(x, y), (66, 91), 14, 0.25)
    cable = ((x, y - 0.1), (x - 0.1, y - 0.2), (x - 0.05, -0.05))
    film.line([film.at(*point) for point in _curve(cable)], 5, 0.8)


_OBJECTS: Final[dict[str, Callable[[Film, np.random.Generator], None]]] = {
    "marker": _marker,
    "pacemaker": _pacemaker,
    "buckle": _buckle,
    "pad": _pad,
}


def _curve(points: _Points, steps: int = 24) -> list[tuple[float, float]]:
    """The Bezier curve of these control points (de Casteljau)."""
    curve = []
    for step in range(steps + 1):
        level = np.array(points, dtype=np.float64)
        while len(level) > 1:
            level = level[:-1] + (level[1:] - level[:-1]) * (step / steps)
        curve.append((float(level[0, 0]), float(level[0, 1])))
    return curve
