"""The report task against sacrebleu, rouge-score and a plain loop, with its two floors beside it."""

from collections.abc import Sequence
from functools import cache
from random import Random

import numpy as np
import pytest
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU

from cxr_max.eval.answers import Data
from cxr_max.eval.metrics.text import CONSTANT_REPORT
from cxr_max.eval.reference import Reference, ReferenceRow
from cxr_max.eval.scored import Scored
from cxr_max.eval.tasks.report import CONSTANT, SHUFFLED, report
from cxr_max.findings import FINDINGS
from cxr_max.labeler import label
from tests.eval.data import (
    FAILED,
    REFUSED,
    Key,
    Said,
    answers,
    by_key,
    check_score,
    close,
    counts,
    row,
    suite,
    value_of,
)

SENTENCES = (
    "There is a small left pleural effusion.", "The heart is enlarged.", "No pneumothorax.",
    "The lungs are clear.",
    "There is mild pulmonary edema.", "A right lower lobe consolidation is seen.", "No acute fracture.",
    "The heart size is normal.", "An endotracheal tube is in place.", "Possible left basilar atelectasis.",
)  # fmt: skip
SUITE = suite(report={"image_sets": 40})


def text(chance: Random) -> str:
    return " ".join(chance.sample(SENTENCES, chance.randint(1, 5)))


def found(rows: Sequence[ReferenceRow], said: Sequence[Said], texts: Sequence[str | None]) -> dict[Key, Scored]:
    data = Data(Reference(tuple(rows)), {"report": answers(said)}, {}, list(texts))
    return by_key(report(data, SUITE))


@cache
def world() -> tuple[list[ReferenceRow], list[Said], list[str | None]]:
    """Sixty image sets, some without a reference report; replies that were refused, failed, or blank."""
    chance = Random(31)
    rows = [
        row(k, chance.randrange(25), report=text(chance) if chance.random() < 0.9 else None) for k in range(60)
    ]
    said = [chance.choices((Said(), REFUSED, FAILED), (10, 1, 1))[0] for _ in range(60)]
    texts = [text(chance) if one.ok and chance.random() < 0.95 else None for one in said]
    texts = [
        "I cannot read images." if one.status == "refused" else words
        for one, words in zip(said, texts, strict=True)
    ]
    return rows, said, texts


@cache
def scores() -> dict[Key, Scored]:
    return found(*world())


def pairs() -> list[tuple[str, str]]:
    """What was written, and the radiologist's: of the first 40 image sets with a report."""
    rows, said, texts = world()
    few = [index for index, one in enumerate(rows) if one.report][:40]
    return [(texts[k] or "", rows[k].report or "") for k in few if said[k].ok and texts[k]]


def references() -> list[tuple[str, str]]:
    """Patient and report."""
    return [(one.subject_id, one.report) for one in world()[0] if one.report][:40]


def bleu(order: int, known: list[tuple[str, str]]) -> float:
    metric = BLEU(lowercase=True, tokenize="13a", max_ngram_order=order, smooth_method="none")
    return float(metric.corpus_score([ours for ours, _ in known], [[theirs for _, theirs in known]]).score) / 100


def rouge(known: list[tuple[str, str]]) -> float:
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    return float(np.mean([scorer.score(theirs, ours)["rougeL"].fmeasure for ours, theirs in known]))


def finding_f1(known: list[tuple[str, str]]) -> float:
    """Counts of all findings together, by a loop."""
    hits = claims = there = 0
    for ours, theirs in known:
        said, truth = label(ours).states, label(theirs).states
        for name in FINDINGS:
            if truth[name] == -1:
                continue
            hits += said[name] == 1 and truth[name] == 1
            claims += said[name] == 1
            there += truth[name] == 1
    return 2 * hits / (claims + there)


def test_reports_score_what_the_libraries_say() -> None:
    known = pairs()
    assert 25 < len(known) < 40
    for order in (1, 2, 3, 4):
        assert close(value_of(scores()[f"bleu_{order}", None, None, None]), bleu(order, known))
    assert close(value_of(scores()["rouge_l", None, None, None]), rouge(known))
    assert close(value_of(scores()["finding_f1", None, None, None]), finding_f1(known))
    rows, said, _ = world()
    few = [index for index, one in enumerate(rows) if one.report][:40]
    status = [said[index].status for index in few]
    assert {counts(one) for key, one in scores().items() if key[2] is None} == {
        (len(known), status.count("refused"), status.count("failed"))
    }


def test_the_constant_floor_is_one_report_for_everybody() -> None:
    known = [(CONSTANT_REPORT, theirs) for _, theirs in references()]
    for order in (1, 4):
        assert close(value_of(scores()[f"bleu_{order}", None, CONSTANT, None]), bleu(order, known))
    assert close(value_of(scores()["rouge_l", None, CONSTANT, None]), rouge(known))
    assert close(value_of(scores()["finding_f1", None, CONSTANT, None]), finding_f1(known))
    assert counts(scores()["cider", None, CONSTANT, None]) == (40, 0, 0)


def test_the_shuffled_floor_is_made_of_other_patients_reports() -> None:
    """Each report is used once, so that word counts stay; only who is compared with whom changes."""
    from cxr_max.eval.metrics.text import shuffled

    patients, theirs = zip(*references(), strict=True)
    given = shuffled(theirs, patients, SUITE.seed)
    assert sorted(given) == sorted(theirs)
    known = list(zip(given, theirs, strict=True))
    assert close(value_of(scores()["bleu_1", None, SHUFFLED, None]), bleu(1, known))
    assert close(value_of(scores()["rouge_l", None, SHUFFLED, None]), rouge(known))


def test_a_perfect_writer_has_the_highest_score() -> None:
    """Unlike the cosine of texts with themselves, which is 10 only where every n-gram tells something."""
    rows = [one for one in world()[0] if one.report]
    known = found(rows, [Said()] * len(rows), [one.report for one in rows])
    for metric in ("bleu_1", "bleu_4", "rouge_l", "finding_f1"):
        assert close(value_of(known[metric, None, None, None]), 1)
        floors = [value_of(known[metric, None, floor, None]) or 0 for floor in (SHUFFLED, CONSTANT)]
        assert max(floors) < 1
    assert (value_of(known["cider", None, None, None]) or 0) > (
        value_of(known["cider", None, SHUFFLED, None]) or 0
    )


def test_failures_lower_no_score() -> None:
    rows, said, texts = world()
    first = [index for index, one in enumerate(rows) if one.report][:40]
    kept = [index for index in first if said[index].ok and texts[index]]
    known = found([rows[k] for k in kept], [said[k] for k in kept], [texts[k] for k in kept])
    for metric in ("bleu_2", "rouge_l", "cider", "finding_f1"):
        assert close(value_of(known[metric, None, None, None]), value_of(scores()[metric, None, None, None]))


def test_what_is_scored_is_what_was_asked() -> None:
    """Every second image set has a reference report, and the first of these were asked for theirs."""
    few = suite(report={"image_sets": 10})
    rows = [row(k, k % 9, report=SENTENCES[k % 10] if k % 2 else None) for k in range(30)]
    limit = few.wanted()["report"] or 0
    asked = [k for k in range(30) if rows[k].report][:limit]
    said = [Said() if k in asked else FAILED for k in range(30)]
    data = Data(Reference(tuple(rows)), {"report": answers(said)}, {}, [SENTENCES[0]] * 30)
    assert counts(by_key(report(data, few))["rouge_l", None, None, None])[2] == 0


def test_a_world_without_reports_has_no_numbers() -> None:
    rows = [row(k, k) for k in range(5)]
    assert not found(rows, [Said()] * 5, ["The lungs are clear."] * 5)


@pytest.mark.parametrize(
    ("said", "texts"),
    [([REFUSED] * 12, [None] * 12), ([FAILED] * 12, []), ([Said()] * 12, [""] * 12), ([Said()] * 12, ["-"] * 12)],
    ids=["all refused", "all failed", "blank", "no word"],
)
def test_whoever_writes_nothing_has_reasons_and_no_nan(said: list[Said], texts: list[str | None]) -> None:
    rows = [row(k, k % 4, report=SENTENCES[k % 10]) for k in range(12)]
    known = found(rows, said, texts)
    for scored in known.values():
        check_score(scored.score("m", "d", "report", SUITE))
    assert value_of(known["rouge_l", None, CONSTANT, None]) is not None


def test_one_patient_has_no_other_patients_reports() -> None:
    rows = [row(k, 0, report=SENTENCES[k]) for k in range(6)]
    known = found(rows, [Said()] * 6, list(SENTENCES[:6]))
    assert {key[2] for key in known} == {None, CONSTANT}
    for scored in known.values():
        check_score(scored.score("m", "d", "report", SUITE))


def test_intervals_hold_their_values() -> None:
    for scored in scores().values():
        check_score(scored.score("m", "d", "report", SUITE))
