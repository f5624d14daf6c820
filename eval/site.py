"""The leaderboard as a static site: pages that need no network, no font and no server.

Names and texts of models are hostile input: the templates escape everything, unprintable characters are replaced,
and the only script that may run is the one whose hash the page carries. Every page is complete without it.
"""

import base64
import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxr_max.errors import RequestError
from cxr_max.eval import site_charts as charts
from cxr_max.eval import site_tables as tables
from cxr_max.eval.board import Board, Column, Compared, Comparison, Entry
from cxr_max.eval.corruptions.severities import describe
from cxr_max.eval.definitions import DEFINITIONS, MEANS, RULES
from cxr_max.eval.drift_page import FEW, share
from cxr_max.eval.html import environment
from cxr_max.records import Score
from cxr_max.shards import disk_refusals_named, write_text

if TYPE_CHECKING:
    from jinja2 import Environment

TITLE: Final = "cxr-max leaderboard"
ICONS: Final = {"yes": "✓", "no": "✗", "not shown": "?"}
"""Of a flag's verdict; the word always stands beside it."""
GENERATOR: Final = '<meta name="generator" content="cxr-max leaderboard">'
"""By this an earlier run's page is known."""
SORTING: Final = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const said = document.getElementById(table.dataset.said);
  for (const head of heads) {
    const button = head.querySelector("button");
    if (!button) continue;
    button.addEventListener("click", () => {
      const other = { ascending: "descending", descending: "ascending" };
      const order = other[head.getAttribute("aria-sort")] || head.dataset.first;
      const sign = order === "ascending" ? 1 : -1, at = head.cellIndex;
      const key = (row) => row.cells[at].dataset.sort || "";
      const compare = head.dataset.kind === "text"
        ? (a, b) => (a < b ? -1 : a > b ? 1 : 0)
        : (a, b) => Number(a) - Number(b);
      const rows = [...body.rows].sort((first, second) => {
        const a = key(first), b = key(second);
        return a === "" || b === "" ? (a === "") - (b === "") : sign * compare(a, b);
      });
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      body.append(...rows);
      said.textContent = "Sorted by " + button.textContent.trim() + ", " + order + ".";
    });
  }
}
"""
"""Sorts a table by the column whose button is pressed; cells without a value stay last."""
_SLUG: Final = 60


@dataclass(frozen=True, slots=True)
class Against:
    """One model against the others in one column."""

    column: Column
    letters: str
    others: tuple[Comparison, ...]
    """The model is ``first`` in each."""


@dataclass(frozen=True, slots=True)
class Matched:
    """A finding of an example, and how it compares with the other side."""

    finding: str
    mark: str
    """In words: ``agrees``, ``side differs``, ``missed``, ``not in the reference``."""


def write_site(boards: Sequence[Board], out: Path, *, title: str = TITLE) -> None:
    """Write ``index.html``, ``models/``, ``leaderboard.csv``, ``differences.csv`` and ``leaderboard.md``.

    Same boards, same bytes. The index is written last. Pages of an earlier run that no board has are removed.

    Raises:
        RequestError: there is no board, two are of one suite and data set, two models of a board have one name, a
            metric has no definition, or jinja2 is not installed.
        StorageError: the disk refused.
    """
    _check(boards)
    templates = _templates()
    pages = {f"{page_name(board, entry)}.html": (board, entry) for board in boards for entry in board.entries}
    folder = out / "models"
    with disk_refusals_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _remove_others(folder, set(pages))
    template = templates.get_template("model.html")
    for name, (board, entry) in pages.items():
        write_text(folder / name, template.render(title=title, board=board, entry=entry))
    write_text(out / "leaderboard.csv", tables.csv_text(boards))
    write_text(out / "differences.csv", tables.differences_text(boards))
    write_text(out / "leaderboard.md", tables.markdown_text(boards, title))
    index = templates.get_template("leaderboard.html")
    write_text(out / "index.html", index.render(title=title, boards=boards, script=SORTING))


def page_name(board: Board, entry: Entry) -> str:
    """Of a model's page, without its suffix: safe on every file system, the same whatever else is on the site."""
    return slug(entry.name, board.suite_sha256, board.dataset, entry.name)


def board_name(board: Board) -> str:
    """The anchor of a board."""
    return slug(f"{board.dataset} {board.suite}", board.suite_sha256, board.dataset)


def slug(words: str, *identity: str) -> str:
    """Lower-case ASCII letters, digits and hyphens: what can be read of the words, and a hash of the identity."""
    ascii_ = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", ascii_)[:_SLUG].strip("-") or "model"
    digest = hashlib.sha256("\0".join(identity).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{readable}-{digest[:10]}"


def against(board: Board, entry: Entry) -> tuple[Against, ...]:
    """The model's comparisons, column by column, turned so that it comes first."""
    return tuple(_against(compared, entry.name) for compared in board.compared)


def by_task(entry: Entry) -> Mapping[str, Mapping[str, Sequence[Score]]]:
    """Task -> metric -> scores, in the order of the scores; the number of all findings together comes first."""
    grouped: dict[str, dict[str, list[Score]]] = {}
    for score in entry.scores:
        grouped.setdefault(score.task, {}).setdefault(score.metric, []).append(score)
    for metrics in grouped.values():
        for scores in metrics.values():
            scores.sort(
                key=lambda one: (one.group is not None, one.condition is not None, one.finding is not None)
            )
    return grouped


def matched(shown: Sequence[str], others: Sequence[str], alone: str) -> tuple[Matched, ...]:
    """Each finding shown with what the other column says: the same, another side, or nothing.

    Args:
        shown: findings with their sides, as ``Pleural Effusion, left``.
        others: those of the other column.
        alone: the word for a finding that the other column has not.
    """
    names = {_finding(one) for one in others}
    marks = (("agrees" if one in others else "side differs" if _finding(one) in names else alone) for one in shown)
    return tuple(Matched(one, mark) for one, mark in zip(shown, marks, strict=True))


def policy(script: str) -> str:
    """The content security policy: nothing is loaded, and no script runs but this one."""
    rule = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    if not script:
        return rule
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"{rule}; script-src 'sha256-{digest}'"


def _finding(words: str) -> str:
    return words.partition(", ")[0]


def _against(compared: Compared, name: str) -> Against:
    turned = (_turned(one, name) for one in compared.comparisons if name in (one.first, one.second))
    others = tuple(sorted(turned, key=lambda one: one.second))
    return Against(compared.column, compared.clusters.get(name, ""), others)


def _turned(one: Comparison, name: str) -> Comparison:
    if one.first == name:
        return one
    value, low, high = (None if number is None else -number for number in (one.value, one.high, one.low))
    return Comparison(name, one.first, value, low, high, one.p_value, one.reason)


def _check(boards: Sequence[Board]) -> None:
    if not boards:
        raise RequestError("There is no board to show: give the results of at least one model.")
    seen: set[tuple[str, str]] = set()
    for board in boards:
        if (board.suite_sha256, board.dataset) in seen:
            raise RequestError(
                f"Two boards are of the suite {board.suite} and the data set {board.dataset}: put the models of"
                " both on one."
            )
        seen.add((board.suite_sha256, board.dataset))
        names = [entry.name for entry in board.entries]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise RequestError(f"Two models are called {twice!r} on one board: give each a name of its own.")
        for metric in _metrics(board):
            if metric not in DEFINITIONS:
                raise RequestError(f"The metric {metric!r} has no definition: add it to eval/definitions.py.")


def _metrics(board: Board) -> Iterator[str]:
    yield from (column.metric for column in board.columns)
    yield from (score.metric for entry in board.entries for score in entry.scores)
    yield from (score.metric for score in board.ceiling)


def defined(boards: Sequence[Board], entry: Entry | None = None) -> tuple[str, ...]:
    """The metrics that a page shows, in the order of their definitions: of a model, or of whole boards."""
    whole = {metric for board in boards for metric in _metrics(board)}
    columns = {column.metric for board in boards for column in board.columns}
    used = columns | {score.metric for score in entry.scores} if entry else whole
    return tuple(name for name in DEFINITIONS if name in used)


def _remove_others(folder: Path, kept: set[str]) -> None:
    for path in sorted(folder.glob("*.html")):
        if path.name not in kept:
            with disk_refusals_named(path):
                if GENERATOR in path.read_text("utf-8", errors="replace")[:2000]:
                    path.unlink()


def _templates() -> "Environment":
    made = environment("The leaderboard", _printable)
    made.filters |= {"figure": tables.figure, "interval": tables.interval, "share": share}
    made.globals |= {
        "charts": charts, "tables": tables, "definitions": DEFINITIONS, "rules": RULES, "means": MEANS,
        "icons": ICONS, "few": FEW,
        "page_name": page_name, "board_name": board_name, "against": against, "by_task": by_task, "zip": zip,
        "matched": matched, "policy": policy, "defined": defined, "describe": describe, "generator": GENERATOR,
    }  # fmt: skip
    return made


def _printable(value: Any) -> Any:
    """Whatever a template writes; markup is its own and stays."""
    return tables.clean(value) if type(value) is str else value
