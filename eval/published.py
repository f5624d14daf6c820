"""What others have published about a data set, as lines to look at beside the scores: ``published.toml``."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

MARK: Final = "published by others: "
"""How a line of others' numbers begins, wherever it is shown."""


@dataclass(frozen=True, slots=True)
class Published:
    """One row of somebody's table."""

    model: str
    """As it is called there."""
    dataset: str
    """The data set's title."""
    task: str
    metric: str
    values: Mapping[str | None, float]
    """Finding -> value; ``None`` is the mean, as printed."""
    source: str
    note: str
    """What is not known about these numbers, as a sentence."""

    @property
    def words(self) -> str:
        """How it is called wherever it is shown."""
        return f"{MARK}{self.model} ({self.source})"


@cache
def published() -> tuple[Published, ...]:
    """Every row that is known, in the file's order."""
    text = (files("cxr_max.eval") / "published.toml").read_text("utf-8")
    return tuple(row for table in tomllib.loads(text)["table"] for row in _rows(table))


def about(dataset: str, tasks: frozenset[str]) -> tuple[Published, ...]:
    """The rows about a data set, whose title may have something added behind a comma, and some tasks."""
    return tuple(row for row in published() if row.dataset == dataset.partition(",")[0] and row.task in tasks)


def _rows(table: Mapping[str, Any]) -> Iterator[Published]:
    shared = {name: str(table[name]) for name in ("dataset", "task", "metric", "source", "note")}
    for model, values in table["values"].items():
        named = zip(table["order"], values, strict=True)
        yield Published(model=model, values={name or None: float(value) for name, value in named}, **shared)
