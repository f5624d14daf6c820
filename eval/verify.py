"""Is a result what it says it is? Everything is computed again from its predictions; the first lie refuses it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxr_max import prompts
from cxr_max.errors import RequestError
from cxr_max.eval.answers import Data
from cxr_max.eval.bootstrap import Draws
from cxr_max.eval.conditions import ORIGINAL, REPORT
from cxr_max.eval.predictions import read_predictions
from cxr_max.eval.reference import Reference, read_reference
from cxr_max.eval.result import (
    HASHED,
    PEERS,
    PREDICTIONS,
    REFERENCE,
    RESULT,
    SCORES,
    Result,
    data_of,
    read_peers,
    read_result,
    read_scores,
)
from cxr_max.eval.scoring import score_all
from cxr_max.eval.suite import Suite
from cxr_max.findings import FINDINGS
from cxr_max.labeler import label
from cxr_max.records import Score
from cxr_max.shards import sha256_of

if TYPE_CHECKING:
    import pyarrow as pa

PER_FINDING: Final = ("auroc", "balanced_accuracy", "f1")
"""The metrics in which models are compared finding by finding."""
_CLOSE: Final = 1e-9
Which = tuple[str, str, str | None, str | None, str | None]
"""Task, metric, finding, condition and group."""


@dataclass(frozen=True, slots=True, eq=False)
class Verified:
    """A result that holds."""

    folder: Path
    result: Result
    data: Data
    scores: Mapping[str, tuple[Score, ...]]
    """By the suite's hash."""
    drawn: Mapping[str, Mapping[Which, Draws]]
    """The same numbers over the resamples: means over findings, and each finding's of ``PER_FINDING``."""
    unlike_text: int
    """Rows that claim other findings than their text does, as the labeler reads it."""
    reference_sha256: str
    """Of what the model was held against, apart from what its training has seen."""


def verify(folder: Path) -> Verified:
    """Read a result and compute it again.

    Raises:
        RequestError: it is unfinished, was changed, lacks studies, or its scores are not those of its predictions.
    """
    result = read_result(folder)
    _same_files(folder, result)
    _same_suites(folder, result)
    reference = read_reference(folder / REFERENCE)
    table = read_predictions(folder / PREDICTIONS)
    data = data_of(table, reference, read_peers(folder / PEERS, reference), result.member)
    _every_study(folder, data, result.suites[0].split)
    said = read_scores(folder / SCORES)
    scores: dict[str, tuple[Score, ...]] = {}
    drawn: dict[str, dict[Which, Draws]] = {}
    for suite in result.suites:
        found = [(task, scored) for task, scored in score_all(data, suite)]
        again = tuple(scored.score(result.model, result.dataset, task, suite) for task, scored in found)
        _same_scores(folder, suite, [one for one in said if one.suite_sha256 == suite.sha256], again)
        scores[suite.sha256] = again
        drawn[suite.sha256] = {
            (task, scored.metric, None, scored.condition, None): scored.drawn
            for task, scored in found
            if scored.finding is None and scored.group is None
        } | {
            (task, scored.metric, scored.finding, None, None): scored.drawn
            for task, scored in found
            if scored.metric in PER_FINDING and scored.condition is None and scored.group is None
        }
    stray = {one.suite_sha256 for one in said} - scores.keys()
    if stray:
        raise RequestError(f"{folder} has scores of a suite that it does not name ({min(stray)[:12]}): refused.")
    return Verified(
        folder, result, data, scores, drawn, _unlike_text(table, result.suites), reference_digest(reference)
    )


def reference_digest(reference: Reference) -> str:
    """The same for every result of the same image sets and labels."""
    rows = [
        (
            *(row.key, row.subject_id, row.split, dict(row.findings or {}), dict(row.sides or {})),
            *([dict(row.progression)] if row.progression else []),
        )
        for row in reference.rows
    ]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _unlike_text(table: "pa.Table", suites: Sequence[Suite]) -> int:
    """Replies in free text are read otherwise than answers, and claim nothing that is scored."""
    return unlike_text(table) if all(prompts.load(suite.prompt).structured_answer for suite in suites) else 0


def unlike_text(table: "pa.Table") -> int:
    """Rows with status ok, findings and text, of which the labeler reads other claims in the text."""
    odd = 0
    columns = (table[name].to_pylist() for name in ("condition", "status", "findings", "text"))
    for condition, status, findings, text in zip(*columns, strict=True):
        if status == "ok" and findings is not None and text:
            states = label(text, structured=condition != REPORT).states
            odd += any(_claimed(states[name]) != _claimed(findings[name]) for name in FINDINGS)
    return odd


def _claimed(state: int | None) -> int:
    """Present and uncertain are claims; absent and not mentioned are none."""
    return state or 0


def _same_files(folder: Path, result: Result) -> None:
    for name in HASHED:
        path = folder / name
        if not path.is_file():
            raise RequestError(f"{folder} lacks {name}: give the whole folder of a finished cxr-max eval.")
        if sha256_of(path) != result.files.get(name):
            raise RequestError(
                f"{path} is not the file that {RESULT} speaks of (its sha256 differs): the result was changed, and"
                " is refused."
            )


def _same_suites(folder: Path, result: Result) -> None:
    said = json.loads((folder / RESULT).read_text("utf-8"))["suites"]
    for suite, entry in zip(result.suites, said, strict=True):
        if suite.sha256 != entry.get("sha256"):
            raise RequestError(
                f"{folder} names the suite {suite.title} with a hash that its settings do not have under this"
                " version of cxr-max: evaluate again with this version, or verify with the one that made it."
            )
    if not result.suites:
        raise RequestError(f"{folder} names no suite: it is refused.")


def _every_study(folder: Path, data: Data, split: str) -> None:
    test = data.of_split(split)
    missing = int(test.under(ORIGINAL).failed.sum()) if ORIGINAL in test.answers else len(test.reference)
    declared = _declared_failures(folder, test)
    if missing > declared:
        raise RequestError(
            f"{folder} has no prediction for {missing - declared} of {len(test.reference)} image sets that are"
            " scored: studies may fail, but not be left out."
        )


def _declared_failures(folder: Path, test: Data) -> int:
    table = read_predictions(folder / PREDICTIONS)
    position = test.reference.position
    columns = (table[name].to_pylist() for name in ("study_id", "image_ids", "condition", "status"))
    return sum(
        condition == ORIGINAL and status == "failed" and (study, tuple(images)) in position
        for study, images, condition, status in zip(*columns, strict=True)
    )


def _same_scores(folder: Path, suite: Suite, said: list[Score], again: tuple[Score, ...]) -> None:
    ours, theirs = {_which(score): score for score in again}, {_which(score): score for score in said}
    if len(theirs) < len(said):
        raise RequestError(f"{folder} gives a score of {suite.title} twice: it is refused.")
    for which in sorted(ours.keys() ^ theirs.keys(), key=str):
        verb = "lacks" if which in ours else "invents"
        raise RequestError(f"{folder} {verb} the score {_words(which)} of {suite.title}: it is refused.")
    for which, score in ours.items():
        field = _differs(score, theirs[which])
        if field is not None:
            given, computed = getattr(theirs[which], field), getattr(score, field)
            raise RequestError(
                f"{folder} says {field} {given} of {_words(which)} ({suite.title}), and its predictions give"
                f" {computed}: it is refused."
            )


def _which(score: Score) -> Which:
    return score.task, score.metric, score.finding, score.condition, score.group


def _words(which: Which) -> str:
    return ", ".join(part for part in which if part)


def _differs(one: Score, other: Score) -> str | None:
    """The first field that differs."""
    for name in Score.__dataclass_fields__:
        ours: Any = getattr(one, name)
        theirs: Any = getattr(other, name)
        if isinstance(ours, float) and isinstance(theirs, float):
            if abs(ours - theirs) > _CLOSE:
                return name
        elif ours != theirs:
            return name
    return None
