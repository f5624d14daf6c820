"""Verified results -> boards: who may stand in one table, how they differ, and what must be said about each."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Final

from cxr_max.drift.multistream import holm
from cxr_max.errors import RequestError
from cxr_max.eval.answers import Answers, Data
from cxr_max.eval.board import Board, Column, Compared, Comparison, Entry, Example, PerFinding
from cxr_max.eval.bootstrap import Difference, Draws, difference
from cxr_max.eval.conditions import ORIGINAL
from cxr_max.eval.definitions import DEFINITIONS
from cxr_max.eval.flags import flags
from cxr_max.eval.reference import side_codes
from cxr_max.eval.result import result_in
from cxr_max.eval.scoring import score_all
from cxr_max.eval.suite import Suite
from cxr_max.eval.verify import PER_FINDING, Verified, verify
from cxr_max.findings import FINDINGS, Findings, Sides
from cxr_max.labeler import label
from cxr_max.records import PREDICTION_STATUSES, Score

Watch = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""
ALPHA: Final = 0.05
_EXAMPLES: Final = 4
_COLUMNS: Final[dict[str, tuple[tuple[str, str | None], ...]]] = {
    "generalization": (
        ("balanced_accuracy", None), ("auroc", None), ("average_precision", None), ("f1", None),
        ("accuracy", None), ("accuracy_refusals_wrong", None), ("refusal_rate", None), ("brier", None),
    ),
    "consistency": (
        ("image_gain", None), ("quadrant_consistent_uses", None), ("alpha", None), ("consensus_agreement", None),
        ("self_consistency", None), ("flip_rate", None), ("mirror_consistency", None),
        ("reasoning_agreement", None), ("blank_accuracy", None),
    ),
    "robustness": (
        ("balanced_accuracy", ORIGINAL), ("mean_loss", "severity 1"), ("mean_loss", "severity 3"),
        ("mean_loss", "severity 5"), ("worst_group", None),
    ),
    "report": (
        ("finding_f1", None), ("bleu_1", None), ("bleu_4", None), ("rouge_l", None), ("cider", None),
    ),
    "progression": (
        ("progression_macro_accuracy", None), ("progression_accuracy", None),
        ("progression_accuracy_refusals_wrong", None), ("refusal_rate", None),
    ),
    "presence_top1": (("top1_accuracy", None), ("refusal_rate", None)),
}  # fmt: skip


def read_all(folders: Sequence[Path], watch: Watch) -> tuple[list[Verified], list[str]]:
    """Verify every result; those that do not hold are named with the reason."""
    verified, refused = [], []
    for number, folder in enumerate(folders):
        watch("verifying", number, len(folders))
        try:
            verified.append(verify(result_in(folder)))
        except RequestError as error:
            refused.append(str(error))
    watch("verifying", len(folders), len(folders))
    return verified, refused


def boards(verified: Sequence[Verified]) -> list[Board]:
    """One board per suite and reference, the models in alphabetical order.

    Raises:
        RequestError: two results on one board have one name.
    """
    grouped: dict[tuple[str, str, str], list[tuple[Verified, Suite]]] = {}
    for one in verified:
        for suite in one.result.suites:
            key = (suite.title, suite.sha256, one.reference_sha256)
            grouped.setdefault(key, []).append((one, suite))
    made = [_board(members) for _, members in sorted(grouped.items(), key=lambda item: item[0])]
    titles = Counter((board.suite_sha256, board.dataset) for board in made)
    return [_told_apart(board) if titles[board.suite_sha256, board.dataset] > 1 else board for board in made]


def _told_apart(board: Board) -> Board:
    """One data set with several references: other image sets, or other labels."""
    return replace(board, dataset=f"{board.dataset}, {board.dataset_notes[-1].rstrip('.').lower()}")


def _board(members: Sequence[tuple[Verified, Suite]]) -> Board:
    members = sorted(members, key=lambda member: member[0].result.model)
    first, suite = members[0]
    names = [one.result.model for one, _ in members]
    for name in names:
        if names.count(name) > 1:
            twice = " and ".join(str(one.folder) for one, _ in members if one.result.model == name)
            raise RequestError(f"Two results are called {name} ({twice}): evaluate one again with another --name.")
    columns = _columns([one.scores[suite.sha256] for one, _ in members])
    return Board(
        suite=suite.title,
        suite_sha256=suite.sha256,
        dataset=first.result.dataset,
        dataset_notes=(*first.result.dataset_notes, f"Reference {first.reference_sha256[:12]}."),
        columns=columns,
        entries=tuple(_entry(one, suite) for one, _ in members),
        compared=tuple(_compared(column, [one for one, _ in members], suite) for column in columns),
        per_finding=tuple(_per_finding([one for one, _ in members], suite)),
        ceiling=ceiling(first.data, suite, first.result.dataset),
    )


def _columns(scores: Iterable[Sequence[Score]]) -> tuple[Column, ...]:
    there = {
        (one.task, one.metric, one.condition)
        for several in scores
        for one in several
        if one.value is not None and one.finding is None
    }
    return tuple(
        Column(task, metric, condition, DEFINITIONS[metric].title + (f", {condition}" if condition else ""))
        for task, wanted in _COLUMNS.items()
        for metric, condition in wanted
        if (task, metric, condition) in there
    )


def _entry(one: Verified, suite: Suite) -> Entry:
    scores = one.scores[suite.sha256]
    return Entry(
        name=one.result.model,
        settings={
            **one.result.settings,
            "release": one.result.release_digest[:16],
            "leaks looked for in": (one.result.trained_on or "nothing")[:16],
        },
        notes=(*one.result.notes, *_notes(one)),
        flags=flags(scores, suite, one.result.leaks),
        scores=scores,
        examples=_examples(one, suite),
    )


def _notes(one: Verified) -> list[str]:
    notes = []
    failed = int(one.data.under(ORIGINAL).failed.sum())
    if failed:
        notes.append(f"{failed} image sets have no reply, and count for nothing.")
    if one.unlike_text:
        notes.append(f"In {one.unlike_text} predictions the text claims other findings than the row.")
    if one.result.leaks.get("leaked"):
        notes.append(f"{one.result.leaks['leaked']} of the scored studies are in the training release.")
    return notes


# How models differ.


def _compared(column: Column, several: Sequence[Verified], suite: Suite) -> Compared:
    which = (column.task, column.metric, None, column.condition, None)
    drawn = {one.result.model: one.drawn[suite.sha256].get(which) for one in several}
    pairs = list(combinations(drawn, 2))
    found = [_difference(drawn[a], drawn[b]) for a, b in pairs]
    p_values = _adjusted(found)
    comparisons = tuple(_comparison(*made) for made in zip(pairs, found, p_values, strict=True))
    return Compared(column, comparisons, clusters(_best_first(column, drawn), comparisons))


def _per_finding(several: Sequence[Verified], suite: Suite) -> Iterator[PerFinding]:
    for first, second in combinations(several, 2):
        ours, theirs = first.drawn[suite.sha256], second.drawn[suite.sha256]
        for metric in PER_FINDING:
            shared = [which for which in ours if which[1] == metric and which[2] is not None and which in theirs]
            found = {which[2] or "": _difference(ours[which], theirs[which]) for which in shared}
            pair = (first.result.model, second.result.model)
            p_values = dict(zip(found, _adjusted(list(found.values())), strict=True))
            compared = {name: _comparison(pair, one, p_values[name]) for name, one in found.items()}
            if compared:
                yield PerFinding(metric, compared)


def _adjusted(found: Sequence[Difference | None]) -> list[float | None]:
    return holm([one.p_value if one is not None and one.trusted else None for one in found])


def _comparison(pair: tuple[str, str], one: Difference | None, p_value: float | None) -> Comparison:
    if one is None:
        return Comparison(*pair, None, None, None, None, "one of them has no value")
    return Comparison(*pair, one.value, one.low, one.high, p_value, one.reason or one.distrust)


def _difference(one: Draws | None, other: Draws | None) -> Difference | None:
    """``None`` where one was not measured, or has no value and so another scale."""
    if one is None or other is None or one.bounds != other.bounds:
        return None
    return difference(one, other)


def _best_first(column: Column, drawn: Mapping[str, Draws | None]) -> list[str]:
    measured = {name: one.measured.value for name, one in drawn.items() if one is not None}
    values = {name: value for name, value in measured.items() if value is not None}
    return sorted(values, key=values.__getitem__, reverse=DEFINITIONS[column.metric].better != "lower")


def clusters(order: Sequence[str], comparisons: Iterable[Comparison]) -> dict[str, str]:
    """Letters: two models share one where no difference between them is shown (Piepho 2004, insert and absorb).

    Args:
        order: the models, best first; the first letters go to the best.
    """
    groups: list[frozenset[str]] = [frozenset(order)] if order else []
    for pair in comparisons:
        if pair.p_value is None or pair.p_value >= ALPHA:
            continue
        split = []
        for group in groups:
            both = {pair.first, pair.second} <= group
            split += [group - {pair.first}, group - {pair.second}] if both else [group]
        groups = [one for one in dict.fromkeys(split) if not any(one < other for other in split)]
    groups.sort(key=lambda group: sorted(order.index(name) for name in group))
    return {
        name: "".join(_letter(number) for number, group in enumerate(groups) if name in group) for name in order
    }


def _letter(number: int) -> str:
    """a to z, then aa' and so on."""
    return chr(ord("a") + number % 26) + "'" * (number // 26)


# How good a perfect model could look.


def ceiling(data: Data, suite: Suite, dataset: str) -> tuple[Score, ...]:
    """The scores of a second reading of the reports, against the reference; empty where there are no reports."""
    if suite.generalization is None or not any(row.report for row in data.reference.rows):
        return ()
    read = _second_reading(data)
    only = suite.model_copy(update={"consistency": None, "robustness": None, "report": None})
    again = replace(data, answers={ORIGINAL: read}, peers={}, member=False)
    return tuple(
        replace(scored.score("second reading", dataset, task, only), suite_sha256=suite.sha256)
        for task, scored in score_all(again, only)
    )


def _second_reading(data: Data) -> Answers:
    from cxr_max.drift.states import encode
    from cxr_max.eval.answers import FAILED, OK, nothing

    read = nothing(len(data.reference))
    for place, row in enumerate(data.reference.rows):
        if row.report:
            found = label(row.report)
            read.status[place] = OK
            read.states[place] = encode(found.states)
            read.sides[place] = side_codes(found.sides)
        else:
            read.status[place] = FAILED
    return read


# What replies look like.


def _examples(one: Verified, suite: Suite) -> tuple[Example, ...]:
    test = one.data.of_split(suite.split).first(_EXAMPLES)
    answers, private = test.under(ORIGINAL), one.result.data_use != "open"
    texts = {} if private else _texts(one.folder, test)
    return tuple(
        Example(
            study=f"study {number + 1}" if private else row.study_id,
            condition=ORIGINAL,
            status=PREDICTION_STATUSES[int(answers.status[number])],
            reference=_present(row.findings or {}, row.sides or {}),
            claimed=_claimed(answers, number),
            text=texts.get(row.key),
        )
        for number, row in enumerate(test.reference.rows)
    )


def _texts(folder: Path, test: Data) -> dict[tuple[str, tuple[str, ...]], str | None]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from cxr_max.eval.result import PREDICTIONS

    columns = ["study_id", "image_ids", "condition", "text"]
    studies = [row.study_id for row in test.reference.rows]
    table = pq.read_table(folder / PREDICTIONS, columns=columns, filters=pc.field("study_id").isin(studies))
    rows = table.filter(pc.equal(table["condition"], ORIGINAL)).to_pylist()
    return {(row["study_id"], tuple(row["image_ids"])): row["text"] for row in rows}


def _present(findings: Findings, sides: Sides) -> tuple[str, ...]:
    return tuple(
        f"{name}, {side}" if (side := sides.get(name)) else name for name in FINDINGS if findings.get(name) == 1
    )


def _claimed(answers: Answers, row: int) -> tuple[str, ...]:
    from cxr_max.eval.drift_rows import sides_of, states_of

    return _present(states_of(answers.states[row]), sides_of(answers.sides[row]))
