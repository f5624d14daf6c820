"""How near a model's reports come to the radiologists'.

Overlap of words means little without its convention and its floors: what real reports of other patients score, and
what one constant report scores. Both stand beside every number, as conditions.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np

from cxr_max.errors import RequestError
from cxr_max.eval.answers import Data
from cxr_max.eval.conditions import REPORT
from cxr_max.eval.metrics import text
from cxr_max.eval.metrics.measured import Metric
from cxr_max.eval.scored import Counted, Part, Ruler, Scored
from cxr_max.eval.suite import Suite
from cxr_max.findings import Findings
from cxr_max.labeler import label

SHUFFLED: Final = "floor: reports of other patients"
CONSTANT: Final = "floor: one constant report"
_Metrics = dict[str, Metric]


def report(everything: Data, suite: Suite) -> Iterator[Scored]:
    """All scores of the task: of image sets that have a reference report."""
    assert suite.report is not None
    data = everything.of_split(suite.split)
    data = data.take(np.flatnonzero([bool(row.report) for row in data.reference.rows]))
    if not len(data.reference):
        return
    data = data.first(suite.report.image_sets)
    answers = data.under(REPORT)
    said = data.reports or [None] * len(data.reference)
    written = np.flatnonzero(answers.ok & np.array([bool(words) for words in said])).tolist()
    references = [data.reference.rows[row].report or "" for row in range(len(data.reference))]
    ruler = Ruler.of(data.reference, suite)
    counted = Counted(len(written), int(answers.refused.sum()), int(answers.failed.sum()))
    texts = [said[row] or "" for row in written]
    yield from _scores(texts, [references[row] for row in written], written, ruler, None, counted)
    yield from _floors(references, data, ruler, suite)


def _floors(references: list[str], data: Data, ruler: Ruler, suite: Suite) -> Iterator[Scored]:
    everybody = list(range(len(references)))
    counted = Counted(len(references), 0, 0)
    constant = [text.CONSTANT_REPORT] * len(references)
    yield from _scores(constant, references, everybody, ruler, CONSTANT, counted)
    try:
        shuffled = text.shuffled(references, data.reference.subjects, suite.seed)
    except RequestError:
        return
    yield from _scores(shuffled, references, everybody, ruler, SHUFFLED, counted)


def _scores(
    reports: list[str],
    references: list[str],
    rows: list[int],
    ruler: Ruler,
    condition: str | None,
    counted: Counted,
) -> Iterator[Scored]:
    for name, metric in _metrics(reports, references).items():
        part = Part(metric, np.array(rows, dtype=np.int64), counted)
        yield Scored(name, None, condition, None, ruler.draw(part), counted)


def _metrics(reports: list[str], references: list[str]) -> _Metrics:
    bleu = text.bleu(reports, references)
    return {
        **{f"bleu_{order}": metric for order, metric in enumerate(bleu, start=1)},
        "rouge_l": text.rouge_l(reports, references),
        "cider": text.cider(reports, references),
        "finding_f1": text.finding_f1([_read(one) for one in references], [_read(one) for one in reports]),
    }


@lru_cache(maxsize=50_000)
def _read(words: str) -> Findings:
    return label(words).states
