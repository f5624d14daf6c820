"""The course of a training as a picture: what was logged, step by step."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr_max.shards import disk_refusals_named, write_text

METRICS: Final = "metrics.jsonl"
CURVES: Final = "curves.png"
PANELS: Final = {
    "loss": ("Loss", "nats"),
    "chosen_logp_shift": ("Preferred reply, policy - reference", "log-prob, nats"),
    "reward_margin": ("Reward margin", "preferred - other, nats"),
    "reward_accuracy": ("Preferred above other", "share of pairs"),
    "chosen_nll": ("Preferred reply", "-log-prob per token, nats"),
    "learning_rate": ("Learning rate", "per step"),
}
"""What is drawn, where it was logged: its title and what its axis counts. A log-prob is a reply's whole."""
_ZERO: Final = ("chosen_logp_shift", "reward_margin")
"""Below the line, the student unlearns what it should prefer."""
_SMOOTHED_FROM: Final = 40
"""Logged steps. Of so many, the single ones are drawn pale, and the mean of those around each of them dark."""
_AROUND: Final = 40
"""One part in so many is taken on either side."""
_PALE: Final = "#9db8d2"
_DARK: Final = "#1f4e79"

Entry = Mapping[str, float]


def write_course(history: Sequence[Entry], out: Path) -> None:
    """Write ``metrics.jsonl``, one line per logged step, and ``curves.png``.

    Raises:
        StorageError: the disk refused.
    """
    write_text(out / METRICS, "".join(f"{json.dumps(entry)}\n" for entry in history))
    partial = out / f"{CURVES}.partial"
    with disk_refusals_named(out / CURVES):
        figure(history).savefig(partial, format="png")
        partial.replace(out / CURVES)


def figure(history: Sequence[Entry]) -> Figure:
    """One small panel for each of ``PANELS`` that was logged."""
    names = [name for name in PANELS if any(name in entry for entry in history)]
    columns = min(3, max(1, len(names)))
    rows = -(-len(names) // columns) or 1
    drawn = Figure(figsize=(3.6 * columns, 2.5 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(drawn)
    for place, name in enumerate(names, 1):
        _panel(drawn.add_subplot(rows, columns, place), name, [e for e in history if name in e])
    return drawn


def _panel(axes: Axes, name: str, entries: Sequence[Entry]) -> None:
    title, unit = PANELS[name]
    steps, values = [entry["step"] for entry in entries], [entry[name] for entry in entries]
    if len(values) < _SMOOTHED_FROM or name == "learning_rate":
        axes.plot(steps, values, color=_DARK, linewidth=1.4)
    else:
        axes.plot(steps, values, color=_PALE, linewidth=0.8)
        axes.plot(steps, means_around(values, len(values) // _AROUND), color=_DARK, linewidth=1.4)
    if name in _ZERO:
        axes.axhline(0, color="#b03a2e", linewidth=0.9, linestyle="--")
    if name == "reward_accuracy":
        axes.set_ylim(-0.03, 1.03)
    if name == "learning_rate":
        axes.yaxis.set_major_formatter("{x:.1e}")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def means_around(values: Sequence[float], reach: int) -> list[float]:
    """The mean of each value with up to ``reach`` before and after it; fewer at the ends."""
    around = (values[max(0, place - reach) : place + reach + 1] for place in range(len(values)))
    return [sum(these) / len(these) for these in around]
