"""A leaderboard's numbers as CSV and Markdown, and what every page asks of a board: who is best, which number
stands in a cell, and what must be said about it.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Final

from cxr_max.eval.board import Board, Column, Comparison, Entry
from cxr_max.eval.definitions import DEFINITIONS
from cxr_max.eval.drift_page import FEW, number
from cxr_max.eval.published import Published, about
from cxr_max.progression import COMPARED
from cxr_max.records import Score

SIMULATED: Final = "Simulated"
"""How the note of a simulated teacher begins."""
FLOOR: Final = "floor: "
"""How the condition of a number begins that a report gets without a look at the picture."""
LETTERS: Final = (
    "Letters: two models that share a letter in a column are not told apart there (paired over the same resampled"
    " patients, p adjusted by Holm over all pairs, at least 0.05), and two that have letters but share none"
    " differ."
)
OTHERS: Final = (
    "Lines published by others are as printed there: without intervals, not measured here, not on these very rows."
)
PUBLISHED_FINDINGS: Final = COMPARED
"""The findings that others' tables have columns of."""
ARROWS: Final = {"higher": "↑", "lower": "↓", "neither": ""}
_COMPARED: Final = tuple(field.name for field in fields(Comparison))
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKDOWN: Final = re.compile(r"([\\`*_\[\]<>|~&$#])")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def clean(text: str) -> str:
    """The text without what no page may carry: control characters, changes of direction, half characters."""
    return _UNPRINTABLE.sub("\ufffd", text)


def figure(value: float | None) -> str:
    """A number to three decimals, never minus zero; a dash where there is none."""
    return number(None if value is None else round(value, 3) + 0.0)


def interval(score: Score | Comparison) -> str:
    """``[0.780, 0.840]``; empty where there is none."""
    return "" if score.low is None or score.high is None else f"[{figure(score.low)}, {figure(score.high)}]"


def headline(scores: Sequence[Score], column: Column) -> Score | None:
    """The number of a column: of all findings together, and about everybody, but for the worst group's."""
    return _of_all(scores, column.task, column.metric, column.condition)


def ceiling(board: Board, column: Column) -> Score | None:
    """What the reference labels score in a column; ``None`` where there is no second reading of that metric."""
    score = _of_all(board.ceiling, None, column.metric, column.condition)
    return score if score and score.value is not None else None


def floors(board: Board) -> Mapping[str, tuple[Score | None, ...]]:
    """What can be had without looking at any picture: condition -> its number in every column, where there is one.

    It is the same for all models, and stands among the scores of each.
    """
    found: dict[str, tuple[Score | None, ...]] = {}
    for entry in board.entries:
        for name in dict.fromkeys(one.condition for one in entry.scores if one.condition):
            if name.startswith(FLOOR) and name not in found:
                shown = [_of_all(entry.scores, one.task, one.metric, name) for one in board.columns]
                found[name] = tuple(shown)
    return {name: cells for name, cells in found.items() if any(cells)}


def _of_all(scores: Sequence[Score], task: str | None, metric: str, condition: str | None) -> Score | None:
    """The first of all findings together; a ``task`` of ``None`` means any."""
    for one in scores:
        if one.metric != metric or one.condition != condition or one.finding is not None:
            continue
        if one.task == (task or one.task) and (one.group is None or metric == "worst_group"):
            return one
    return None


def yardsticks(board: Board) -> Mapping[str, tuple[Score | None, ...]]:
    """What the models' numbers are held against: the ceiling and the floors, a number for each column."""
    top = tuple(ceiling(board, column) for column in board.columns)
    return {
        **({"ceiling: a second reading of the reports": top} if any(top) else {}),
        **floors(board),
        **{row.words: tuple(_printed(row, column) for column in board.columns) for row in others(board)},
    }


def others(board: Board) -> tuple[Published, ...]:
    """What others have published about the board's data set, in the protocols of its columns and no other."""
    return about(board.dataset, frozenset(column.task for column in board.columns))


def printed(board: Board, column: Column) -> tuple[tuple[str, float], ...]:
    """Others' means in a column, each with who it is about."""
    shown = ((row.words, _printed(row, column)) for row in others(board))
    return tuple((words, one.value) for words, one in shown if one is not None and one.value is not None)


def _printed(row: Published, column: Column) -> Score | None:
    if (row.task, row.metric, None) != (column.task, column.metric, column.condition) or None not in row.values:
        return None
    return Score(
        model=row.model, dataset=row.dataset, task=row.task, metric=row.metric, finding=None, condition=None,
        group=None, value=row.values[None], low=None, high=None, reason=None, trusted=False,
        distrust="others print it without an interval", patients=0, n_scored=0, n_refused=0, n_failed=0,
        suite_sha256="",
    )  # fmt: skip


def ranked(board: Board, column: Column | None) -> tuple[Entry, ...]:
    """The models, best first in a column, those without a value last; by name where they are equal.

    Where neither way is better, and without a column, by value from high to low, and by name.
    """

    def place(entry: Entry) -> tuple[bool, float, str]:
        score = headline(entry.scores, column) if column else None
        if column is None or score is None or score.value is None:
            return True, 0.0, entry.name
        lower = DEFINITIONS[column.metric].better == "lower"
        return False, score.value if lower else -score.value, entry.name

    return tuple(sorted(board.entries, key=place))


def letters(board: Board, column: Column) -> Mapping[str, str]:
    """Model -> letters in a column; empty where the models were not compared."""
    return next((one.clusters for one in board.compared if one.column == column), {})


def remarks(score: Score | None) -> tuple[str, ...]:
    """What must be said beside a number, one sentence each; empty for a number that speaks for itself."""
    if score is None:
        return ("Not measured: the result has no such number.",)
    if score.value is None:
        return (f"No value: {score.reason or 'no reason was given'}.",)
    said = []
    if not score.trusted:
        said.append(f"Interval not to be trusted: {score.distrust or 'no reason was given'}.")
    elif score.low is None or score.high is None:
        said.append("No interval.")
    if score.n_scored < FEW:
        said.append(f"Few rows: fewer than {FEW} were scored.")
    elif score.patients < FEW:
        said.append(f"Few patients: fewer than {FEW} decide it.")
    return tuple(said)


def notes(board: Board) -> Mapping[str, int]:
    """All that must be said about models and headline numbers -> its number, in the order of reading."""
    numbered: dict[str, int] = {}
    for entry in ranked(board, board.columns[0] if board.columns else None):
        cells = (remarks(headline(entry.scores, column)) for column in board.columns)
        for text in (*entry.notes, *(remark for cell in cells for remark in cell)):
            numbered.setdefault(text, len(numbered) + 1)
    return numbered


def simulated(board: Board) -> tuple[str, ...]:
    """The models that are none."""
    return tuple(one.name for one in board.entries if any(note.startswith(SIMULATED) for note in one.notes))


def flag_names(board: Board) -> tuple[str, ...]:
    """The flags of all models, each once."""
    return tuple(dict.fromkeys(flag.name for entry in board.entries for flag in entry.flags))


def csv_text(boards: Sequence[Board]) -> str:
    """One row per score: the board's suite and data set, the model as it is shown (blank for the ceiling), and
    the score's fields. Blank is ``None``.

    A text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    names = [field.name for field in fields(Score)]
    writer.writerow(["suite", "dataset_title", "shown_as", *names])
    for board in boards:
        for shown_as, score in _scores(board):
            cells = [board.suite, board.dataset, shown_as, *(getattr(score, name) for name in names)]
            writer.writerow([_cell(cell) for cell in cells])
    return written.getvalue()


def differences_text(boards: Sequence[Board]) -> str:
    """CSV with a row for every two models, metric and finding, and for every column's means (a blank finding).

    ``p_value`` is adjusted by Holm: of a finding over the findings, of a mean over the column's pairs of models.
    """
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(["suite", "dataset_title", "metric", "condition", "finding", *_COMPARED])
    for board in boards:
        for metric, condition, finding, one in _differences(board):
            cells = [board.suite, board.dataset, metric, condition, finding, *(getattr(one, f) for f in _COMPARED)]
            writer.writerow([_cell(cell) for cell in cells])
    return written.getvalue()


def _differences(board: Board) -> Iterator[tuple[str, str | None, str | None, Comparison]]:
    for compared in board.compared:
        for one in compared.comparisons:
            yield compared.column.metric, compared.column.condition, None, one
    for pair in board.per_finding:
        for finding, one in pair.findings.items():
            yield pair.metric, None, finding, one


def markdown_text(boards: Sequence[Board], title: str) -> str:
    """The headline table of every board, with the notes that its numbers need."""
    parts = [f"# {_escaped(title)}", *(block for board in boards for block in _blocks(board))]
    return "\n\n".join(parts) + "\n"


def _scores(board: Board) -> Iterator[tuple[str, Score]]:
    for entry in board.entries:
        yield from ((entry.name, score) for score in entry.scores)
    yield from (("", score) for score in board.ceiling)


def _cell(value: str | float | bool | None) -> str:
    if isinstance(value, str):
        return clean(f"'{value}" if value.startswith(_FORMULA) else value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else repr(value)


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(clean(text).split()))


def _blocks(board: Board) -> Iterator[str]:
    yield f"## {_escaped(board.dataset)}, suite {_escaped(board.suite)}"
    if board.dataset_notes:
        yield "\n".join(f"- {_escaped(note)}" for note in board.dataset_notes)
    if names := simulated(board):
        yield f"**Simulated: no model answered for {', '.join(map(_escaped, names))}.**"
    numbered = notes(board)
    yield "\n".join(_rows(board, numbered))
    yield f"Values with 95% intervals, from resamples of whole patients. {LETTERS}"
    if rows := others(board):
        yield f"{OTHERS} {' '.join(dict.fromkeys(row.note for row in rows))}"
    if numbered:
        yield "\n".join(f"{index}. {_escaped(text)}" for text, index in numbered.items())


def _rows(board: Board, numbered: Mapping[str, int]) -> Iterator[str]:
    flags = flag_names(board)
    heads = [f"{_escaped(one.title)} {ARROWS[DEFINITIONS[one.metric].better]}".rstrip() for one in board.columns]
    heads = ["model", *heads, *map(_escaped, flags), "scored", "refused", "failed"]
    yield _line(heads)
    yield _line(["---"] * len(heads))
    for entry in ranked(board, board.columns[0] if board.columns else None):
        verdicts = {flag.name: flag.verdict for flag in entry.flags}
        name = _escaped(entry.name) + _noted(entry.notes, numbered)
        cells = [_value(board, entry, column, numbered) for column in board.columns]
        yield _line([name, *cells, *(verdicts.get(flag, "–") for flag in flags), *map(str, counts(board, entry))])
    for words, shown in yardsticks(board).items():
        cells = [f"{figure(one.value)} {interval(one)}".strip() if one else "–" for one in shown]
        yield _line([f"*{_escaped(words)}*", *cells, *["–"] * (len(flags) + 3)])


def counts(board: Board, entry: Entry) -> tuple[int, int, int]:
    """Rows scored, refused and failed, of the first column that the model has a number in."""
    found = (headline(entry.scores, column) for column in board.columns)
    score = next((one for one in (*found, *entry.scores) if one is not None), None)
    return (score.n_scored, score.n_refused, score.n_failed) if score else (0, 0, 0)


def _value(board: Board, entry: Entry, column: Column, numbered: Mapping[str, int]) -> str:
    score = headline(entry.scores, column)
    shown = "–" if score is None else f"{figure(score.value)} {interval(score)} "
    marks = letters(board, column).get(entry.name, "")
    return f"{shown}{_escaped(marks)}".strip() + _noted(remarks(score), numbered)


def _noted(texts: Sequence[str], numbered: Mapping[str, int]) -> str:
    return f" ({', '.join(f'note {numbered[text]}' for text in texts)})" if texts else ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
