"""Soft-edged shapes from which a phantom is painted: signed distances in cm, weights from 0 to 1."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Rng = np.random.Generator
Point = tuple[float, float]


def stream(*key: int) -> Rng:
    """A stream of its own for each purpose, so that one finding never moves another."""
    return np.random.default_rng(key)


def step(distance: Array, blur: Array | float) -> Array:
    """0 to 1 as ``distance`` goes from -blur to +blur."""
    ramp = np.clip(distance * (0.5 / blur) + 0.5, 0, 1)
    smooth: Array = ramp * ramp * (3 - 2 * ramp)
    return smooth


def bump(distance: Array, width: float) -> Array:
    scaled = distance / width
    bump: Array = np.exp(-scaled * scaled)
    return bump


def ball(across: Array, down: Array, centre: Point, radii: Point) -> Array:
    """The relative chord of a ray through an ellipsoid: 1 in the middle, 0 outside."""
    a, b = (across - centre[0]) / radii[0], (down - centre[1]) / radii[1]
    chord: Array = np.sqrt(np.maximum(1 - a * a - b * b, 0))
    return chord


def blob(across: Array, down: Array, centre: Point, radii: Point) -> Array:
    """A Gaussian: an ellipsoid with no edge."""
    return bump(across - centre[0], radii[0]) * bump(down - centre[1], radii[1])


def stroke(canvas: Array, across: Array, down: Array, points: list[Point], radius: float, depth: float) -> None:
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
