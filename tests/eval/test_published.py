"""The simulated teachers are as good as published, and the harness finds out: 5 findings x 7 teachers."""

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from cxr_max.drift.states import encode
from cxr_max.eval.answers import OK, Answers, Data, nothing
from cxr_max.eval.bootstrap import estimate
from cxr_max.eval.metrics.classification import accuracy
from cxr_max.eval.reference import ReferenceRow, ordered
from cxr_max.eval.scored import Ruler, claim_part
from cxr_max.findings import FINDINGS
from cxr_max.teachers.simulator.personas import PERSONAS, Persona
from cxr_max.teachers.simulator.world import Truth, claims
from tests.eval import results

PUBLISHED = ("Consolidation", "Pleural Effusion", "Pneumonia", "Pneumothorax", "Edema")
IMAGE_SETS = 300
SEEDS = 12


def reference(seed: int) -> list[ReferenceRow]:
    """Image sets of half as many patients; each finding in three of ten."""
    dice = Random(seed)
    rows = []
    for row in results.rows(IMAGE_SETS):
        findings: dict[str, Any] = {name: int(dice.random() < 0.3) for name in FINDINGS}
        rows.append(replace(row, findings=findings))
    return list(ordered(rows).rows)


def answered(persona: Persona, rows: list[ReferenceRow], seed: int) -> Answers:
    """Never hedging: an uncertain claim is no positive one, so that a wrong stance would now and then be right."""
    sure = replace(persona, hedge_rate=0.0)
    answers = nothing(len(rows))
    for place, row in enumerate(rows):
        said = claims(sure, f"{seed:032}{place:032}", Truth(row.findings), "once", seed)
        answers.status[place] = 1 if said.refused else OK
        answers.states[place] = encode(said.findings)
    return answers


def test_published_accuracies_lie_within_the_intervals_as_often_as_these_promise() -> None:
    """Of 420 intervals 95% should; errors are shared by the teachers, so that the share itself is uncertain by 1.5
    percentage points or so."""
    suite = results.suite(results.SUITE.replace("resamples = 200", "resamples = 500"))
    held = []
    for seed in range(SEEDS):
        rows = reference(seed)
        everything = ordered(rows)
        ruler = Ruler.of(everything, suite)
        for persona in PERSONAS.values():
            data = Data(everything, {"original": answered(persona, rows, seed)}, {})
            for finding in PUBLISHED:
                part = claim_part(accuracy, data, data.under("original"), FINDINGS.index(finding))
                found = estimate(ruler.draw(part))
                assert found.low is not None and found.high is not None
                held.append(found.low <= persona.accuracy[finding] <= found.high)
    assert len(held) == SEEDS * 7 * len(PUBLISHED)
    assert 0.91 <= np.mean(held) <= 0.99
