"""The drift report as one self-contained page: no script, no font, no picture from elsewhere.

Texts of models are hostile input: the template escapes everything.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from cxr_max.eval.drift_numbers import Pair
from cxr_max.eval.drift_report import DriftReport
from cxr_max.eval.html import environment
from cxr_max.findings import FINDINGS

FEW: Final = 20
"""A share of fewer replies is marked."""
PLOT_WIDTH: Final = 640
PLOT_HEIGHT: Final = 220
_MARGIN: Final = 36
"""Pixels around the plot, for its axes."""


def page(report: DriftReport) -> str:
    """The whole HTML document. Same report, same bytes.

    Raises:
        RequestError: Jinja2 is not installed.
    """
    templates = environment("The page")
    templates.filters |= {"share": share, "number": number, "shade": shade}
    template = templates.get_template("drift.html")
    return template.render(report=report, findings=FINDINGS, few=FEW, pair_table=pair_table, plot=plot, zip=zip)


def share(value: float | None) -> str:
    """A share for a cell: two decimals without the leading zero, a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else "1"


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def shade(value: float | None) -> str:
    """The style of a heat map's cell: one hue, darker for more, readable with any colour vision."""
    if value is None:
        return "color: var(--faint)"
    strength = min(max(value, 0.0), 1.0)
    ink = "; color: #fff" if strength > 0.82 else ""
    return f"background: rgba(27, 94, 168, {0.06 + 0.9 * strength:.2f}){ink}"


def pair_table(pairs: Sequence[Pair]) -> tuple[list[str], Mapping[tuple[str, str], Pair]]:
    """The teachers of the agreement matrix, and the pair of every cell off its diagonal."""
    teachers = sorted({name for pair in pairs for name in (pair.first, pair.second)})
    cells = {(pair.first, pair.second): pair for pair in pairs}
    return teachers, {**cells, **{(second, first): pair for (first, second), pair in cells.items()}}


def plot(values: Sequence[float | None], top: float) -> dict[str, object]:
    """Points of a line over the relative position in the text, in pixels of the plot.

    Args:
        values: one per relative position 1/J ... 1; the line passes over ``None``.
        top: the value at the upper edge.
    """
    points = []
    for index, value in enumerate(values):
        if value is not None:
            across = _MARGIN + (PLOT_WIDTH - 2 * _MARGIN) * (index + 1) / len(values)
            down = PLOT_HEIGHT - _MARGIN - (PLOT_HEIGHT - 2 * _MARGIN) * min(value / top, 1)
            points.append((round(across, 1), round(down, 1), value))
    return {
        "points": points,
        "line": " ".join(f"{across},{down}" for across, down, _ in points),
        "width": PLOT_WIDTH,
        "height": PLOT_HEIGHT,
        "margin": _MARGIN,
        "top": top,
    }
