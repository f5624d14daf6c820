"""What the leaderboard's charts show, as positions that a template draws. Pure functions of a board.

Charts that are rows of a table have positions in percent of their width, so that their words keep their size on a
narrow screen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Final

from cxr_max.errors import RequestError
from cxr_max.eval.board import Board, Column, Entry
from cxr_max.eval.conditions import corruption, parse
from cxr_max.eval.corruptions.severities import CORRUPTIONS
from cxr_max.eval.definitions import DEFINITIONS
from cxr_max.eval.drift_page import shade
from cxr_max.eval.site_tables import ceiling, figure, headline, printed, ranked
from cxr_max.findings import FINDINGS
from cxr_max.records import Score

HEAT_FLOORS: Final[Mapping[str, float]] = {
    "auroc": 0.5, "f1": 0.0, "balanced_accuracy": 0.5, "progression_macro_accuracy": 1 / 3, "top1_accuracy": 0.5,
}  # fmt: skip
"""The metrics that have a heat map, and the value at which its hue begins: what guessing gives."""
QUADRANTS: Final = tuple(name for name in DEFINITIONS if name.startswith("quadrant_"))
LINES: Final = 8
"""As many lines as a reader can tell apart."""
PANEL_WIDTH: Final = 260
PANEL_HEIGHT: Final = 180
LEFT: Final = 40
RIGHT: Final = 30
TOP: Final = 10
BOTTOM: Final = 26
_APART: Final = 11.0
"""Pixels between two labels at the ends of lines."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale and its ticks."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    """Values and their labels."""

    def at(self, value: float) -> float:
        """Position of a value, 0 to 100; what lies outside stands at the edge."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)


@dataclass(frozen=True, slots=True)
class Dot:
    """One model in an interval plot."""

    entry: Entry
    score: Score | None


@dataclass(frozen=True, slots=True)
class Intervals:
    """One column: a dot and its whisker for every model, best first."""

    column: Column
    axis: Axis | None
    """``None`` where no model has a value."""
    dots: tuple[Dot, ...]
    ceiling: Score | None
    others: tuple[tuple[str, float], ...]
    """Numbers that others have published, each with who it is about."""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """One metric of one task, model by finding."""

    task: str
    metric: str
    floor: float
    findings: tuple[str, ...]
    rows: tuple[tuple[Entry, tuple[Score | None, ...]], ...]
    """Models in the order of the board's table, and a cell for each of ``findings``."""

    def style(self, value: float | None) -> str:
        """Of a cell: the hue begins at the floor."""
        return shade(None if value is None else (value - self.floor) / (1 - self.floor))

    @property
    def legend(self) -> tuple[float, ...]:
        """Values that the legend shows."""
        return tuple(self.floor + (1 - self.floor) * step / 4 for step in range(5))


@dataclass(frozen=True, slots=True)
class Point:
    """One loss."""

    across: float
    down: float
    severity: int
    score: Score
    whisker: tuple[float, float] | None
    """Where its interval begins and ends, from above."""


@dataclass(frozen=True, slots=True)
class Line:
    """One model in a panel."""

    number: int
    """In the key, from 1."""
    entry: Entry
    points: tuple[Point, ...]
    stretches: tuple[str, ...]
    """Polylines; a missing severity breaks the line."""
    label: tuple[float, float]
    """Where its number stands."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One corruption."""

    corruption: str
    lines: tuple[Line, ...]
    words: str
    """What it shows, for those who do not see it."""


@dataclass(frozen=True, slots=True)
class Robustness:
    """Loss over severity: one panel per corruption, all on one scale."""

    panels: tuple[Panel, ...]
    drawn: tuple[Entry, ...]
    """The models of the key."""
    left_out: int
    severities: tuple[int, ...]
    rows: tuple[tuple[Entry, Mapping[str, Score]], ...]
    """All models: condition -> loss."""
    ticks: tuple[tuple[float, str], ...]
    """Positions from above, and labels."""
    across: tuple[tuple[float, int], ...]
    """Positions of the severities."""


@dataclass(frozen=True, slots=True)
class Part:
    """One quadrant of a bar."""

    letter: str
    metric: str
    score: Score
    start: float
    """Percent of the bar."""
    width: float


@dataclass(frozen=True, slots=True)
class Bar:
    """What one model's answers rest on: four shares that make up a whole."""

    entry: Entry
    parts: tuple[Part, ...]
    """Empty where there is a reason."""
    reason: str | None


def intervals(board: Board, column: Column) -> Intervals:
    """The interval plot of a column."""
    dots = tuple(Dot(entry, headline(entry.scores, column)) for entry in ranked(board, column))
    top = ceiling(board, column)
    scores = [one for one in (*(dot.score for dot in dots), top) if one is not None]
    others = printed(board, column)
    ends = [end for one in scores for end in (one.value, one.low, one.high) if end is not None]
    ends += [value for _, value in others]
    shown = any(dot.score is not None and dot.score.value is not None for dot in dots)
    axis = axis_of(ends, DEFINITIONS[column.metric].bounds) if shown else None
    return Intervals(column, axis, dots, top, others)


def axis_of(values: Sequence[float], bounds: tuple[float, float]) -> Axis:
    """A scale that holds the values, some room at each end, and nothing beyond the bounds of the metric.

    Args:
        values: one or more.
        bounds: the smallest and the largest value there can be.
    """
    low, high = min(values), max(values)
    room = max(0.04 * (high - low), 0.01)
    low, high = min(max(low - room, bounds[0]), low), max(min(high + room, bounds[1]), high)
    return Axis(low, high, tuple(_ticks(low, high)))


def _ticks(low: float, high: float, most: int = 5) -> Iterator[tuple[float, str]]:
    """Round values 1, 2 or 5 times a power of ten apart."""
    power = 10.0 ** floor(log10((high - low) / most))
    step = next(m * power for m in (1, 2, 5, 10, 20) if (high - low) / (m * power) <= most)
    digits = max(0, -floor(log10(step) + 1e-9))
    for index in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1):
        yield index * step, f"{index * step:.{digits}f}"


def heat_maps(board: Board) -> tuple[HeatMap, ...]:
    """Every task's metrics that have a heat map, in the order of ``HEAT_FLOORS``."""
    order = ranked(board, board.columns[0] if board.columns else None)
    found: dict[tuple[str, str], dict[tuple[str, str], Score]] = {}
    for entry in order:
        for score in entry.scores:
            if score.metric in HEAT_FLOORS and score.finding and score.condition is None and score.group is None:
                cells = found.setdefault((score.task, score.metric), {})
                cells.setdefault((entry.name, score.finding), score)
    return tuple(
        _heat_map(task, metric, found[task, metric], order)
        for task, metric in sorted(found, key=lambda key: (list(HEAT_FLOORS).index(key[1]), key[0]))
    )


def _heat_map(task: str, metric: str, cells: Mapping[tuple[str, str], Score], order: Sequence[Entry]) -> HeatMap:
    present = {finding for _, finding in cells}
    findings = tuple(name for name in FINDINGS if name in present)
    rows = ((entry, tuple(cells.get((entry.name, finding)) for finding in findings)) for entry in order)
    return HeatMap(task, metric, HEAT_FLOORS[metric], findings, tuple(rows))


def losses(entry: Entry) -> dict[str, Score]:
    """Condition -> loss of all findings together, of the corruptions."""
    found: dict[str, Score] = {}
    for score in entry.scores:
        of_all = score.metric == "loss" and score.finding is None and score.group is None
        if of_all and score.condition and corrupted(score.condition):
            found.setdefault(score.condition, score)
    return found


def corrupted(condition: str) -> tuple[str, int] | None:
    """Name and severity of a corruption; ``None`` for anything else."""
    try:
        parsed = parse(condition)
    except RequestError:
        return None
    return (parsed.name, parsed.number) if parsed.kind == "corruption" else None


def robustness(entries: Sequence[Entry]) -> Robustness | None:
    """The panels, or ``None`` where nobody was asked about worse pictures. The first ``LINES`` models are drawn.

    Whiskers are for a single model only: those of several would hide one another.
    """
    rows = tuple((entry, found) for entry in entries if (found := losses(entry)))
    if not rows:
        return None
    places = {place for _, found in rows for name in found if (place := corrupted(name))}
    severities = tuple(sorted({severity for _, severity in places}))
    valued = [row for row in rows if any(score.value is not None for score in row[1].values())]
    drawn = valued[:LINES]
    scores = [score for _, found in drawn for score in found.values()]
    ends = [one.value for one in scores if one.value is not None]
    if len(drawn) == 1:
        ends += [end for one in scores for end in (one.low, one.high) if end is not None]
    frame = _Frame(axis_of([*ends, 0.0, 0.1], DEFINITIONS["loss"].bounds), severities, len(drawn) == 1)
    names = [name for name in CORRUPTIONS if name in {name for name, _ in places}]
    return Robustness(
        panels=tuple(_panel(name, drawn, frame) for name in names),
        drawn=tuple(entry for entry, _ in drawn),
        left_out=len(rows) - len(drawn),
        severities=severities,
        rows=rows,
        ticks=tuple((frame.down(value), label) for value, label in frame.axis.ticks),
        across=tuple((frame.across(severity), severity) for severity in severities),
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where things stand in a panel."""

    axis: Axis
    severities: tuple[int, ...]
    whiskers: bool

    def across(self, severity: int) -> float:
        width = PANEL_WIDTH - LEFT - RIGHT
        steps = max(len(self.severities) - 1, 1)
        return round(LEFT + width * self.severities.index(severity) / steps, 1)

    def down(self, value: float) -> float:
        height = PANEL_HEIGHT - TOP - BOTTOM
        return round(TOP + height * (1 - self.axis.at(value) / 100), 1)


def _panel(name: str, drawn: Sequence[tuple[Entry, Mapping[str, Score]]], frame: _Frame) -> Panel:
    runs = [_runs(name, found, frame) for _, found in drawn]
    ends = [run[-1][-1] if run else None for run in runs]
    labels = iter(_spread([end.down for end in ends if end is not None]))
    lines = []
    for index, ((entry, _), run, end) in enumerate(zip(drawn, runs, ends, strict=True)):
        if end is not None:
            points = tuple(point for stretch in run for point in stretch)
            stretches = tuple(" ".join(f"{one.across},{one.down}" for one in stretch) for stretch in run)
            lines.append(Line(index + 1, entry, points, stretches, (end.across + 7, next(labels))))
    return Panel(name, tuple(lines), _words(name, lines))


def _runs(name: str, found: Mapping[str, Score], frame: _Frame) -> list[list[Point]]:
    """Points of one model, in stretches of neighbouring severities."""
    runs: list[list[Point]] = [[]]
    for severity in frame.severities:
        score = found.get(corruption(name, severity))
        if score is None or score.value is None:
            runs.append([])
            continue
        whisker = None
        if frame.whiskers and score.low is not None and score.high is not None:
            whisker = frame.down(score.high), frame.down(score.low)
        runs[-1].append(Point(frame.across(severity), frame.down(score.value), severity, score, whisker))
    return [run for run in runs if run]


def _spread(places: Sequence[float]) -> list[float]:
    """The same places, moved apart so that labels do not cover one another, and inside the panel."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for before, index in zip([None, *order], order, strict=False):
        if before is not None:
            moved[index] = max(moved[index], moved[before] + _APART)
    for after, index in zip([None, *reversed(order)], reversed(order), strict=False):
        moved[index] = min(moved[index], PANEL_HEIGHT - BOTTOM if after is None else moved[after] - _APART)
    return [round(place, 1) for place in moved]


def _words(name: str, lines: Sequence[Line]) -> str:
    if not lines:
        return f"{name}: no model has a value."
    last = sorted((line.points[-1] for line in lines), key=lambda point: point.score.value or 0.0)
    said = [f"{figure(one.score.value)} at severity {one.severity}" for one in (last[0], last[-1])]
    if len(lines) == 1:
        return f"{name}: the loss is {said[0]}."
    return f"{name}: of {len(lines)} models, the smallest loss is {said[0]}, the largest {said[1]}."


def quadrants(entries: Sequence[Entry]) -> tuple[Bar, ...]:
    """A bar per model that has the four shares, or the reason why it cannot be drawn."""
    return tuple(_bar(entry) for entry in entries if any(score.metric in QUADRANTS for score in entry.scores))


def _bar(entry: Entry) -> Bar:
    whole = {one.metric: one for one in reversed(entry.scores) if one.metric in QUADRANTS and _of_all(one)}
    parts, start = [], 0.0
    for letter, metric in zip("ABCD", QUADRANTS, strict=True):
        score = whole.get(metric)
        if score is None or score.value is None:
            reason = score.reason if score else None
            return Bar(entry, (), reason or f"{DEFINITIONS[metric].title} was not measured")
        width = round(100 * score.value, 2)
        parts.append(Part(letter, metric, score, round(start, 2), width))
        start += width
    return Bar(entry, tuple(parts), None)


def _of_all(score: Score) -> bool:
    return score.finding is None and score.group is None and score.condition is None
