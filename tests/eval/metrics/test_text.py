"""Report scores against sacrebleu and rouge-score, CIDEr-D by hand, and the floors."""

import math
import random

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from cxr_max.errors import RequestError
from cxr_max.eval.metrics.measured import Additive
from cxr_max.eval.metrics.text import (
    CONSTANT_REPORT,
    bleu,
    cider,
    finding_f1,
    floors,
    rouge_l,
    shuffled,
    tokens,
)
from cxr_max.findings import blank

WORDS = [
    "the",
    "heart",
    "is",
    "normal",
    ".",
    "no",
    "effusion",
    ",",
    "3.5",
    "cm",
    "nodule's",
    "left-sided",
    "(New)",
]


def bleu_4(ours: list[str], truth: list[str]) -> Additive:
    return bleu(ours, truth)[3]


def reports(seed: int, n: int = 40) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(0, 30))) for _ in range(n)]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("short", [False, True])
def test_bleu_is_that_of_sacrebleu(order: int, short: bool) -> None:
    truth = reports(1)
    ours = [text[: len(text) // 2] for text in truth] if short else reports(2)
    expected = sacrebleu.BLEU(lowercase=True, max_ngram_order=order, smooth_method="none")
    assert bleu(ours, truth)[order - 1].measured().value == pytest.approx(
        expected.corpus_score(ours, [truth]).score / 100, abs=1e-9
    )


def test_rouge_l_is_that_of_rouge_score() -> None:
    truth, ours = reports(3), reports(4)
    scorer = RougeScorer(["rougeL"])
    expected = [scorer.score(a, b)["rougeL"].fmeasure for a, b in zip(truth, ours, strict=True)]
    assert rouge_l(ours, truth).columns[:, 0] == pytest.approx(expected, abs=1e-12)
    assert rouge_l(ours, truth).measured().value == pytest.approx(np.mean(expected), abs=1e-12)


def test_cider_by_hand() -> None:
    """Two references share ``the``, which therefore weighs nothing; every other n-gram weighs log 2.

    The first report has 2 of 2 weighing words in common but one of them twice written, one bigram of three and no
    longer one: orders 1 and 2 count, and it is one token longer.
    """
    found = cider(["the clear lungs lungs", "big heart"], ["the clear lungs", "the big heart"])
    first = 2 / math.sqrt(1 + 4) / math.sqrt(2)
    second = 2 / math.sqrt(3) / math.sqrt(2)
    third = 1 / math.sqrt(2)
    by_hand = 10 * math.exp(-1 / 72) * (first + second + third) / 4
    other = 10 * math.exp(-1 / 72) * (1 + 1 / math.sqrt(2)) / 4
    assert found.columns[:, 0] == pytest.approx([by_hand, other], abs=1e-12)


def test_a_report_that_is_its_reference_scores_full() -> None:
    texts = ["The heart is big today.", "No focal consolidation is seen.", "Left pleural effusion has grown."]
    assert [score.measured().value for score in bleu(texts, texts)] == pytest.approx([1] * 4)
    assert rouge_l(texts, texts).measured().value == 1
    assert cider(texts, texts).measured().value == pytest.approx(10)


@pytest.mark.parametrize("score", [bleu_4, rouge_l, cider])
def test_empty_reports_score_nothing_and_no_reports_have_no_value(score) -> None:  # type: ignore[no-untyped-def]
    assert score(["", ""], ["the heart", "no effusion"]).measured().value == 0
    assert score([], []).measured().value is None
    with pytest.raises(RequestError, match="cannot be paired"):
        score(["a"], [])


def test_bleu_without_reference_words_has_no_value() -> None:
    assert bleu_4(["text"], [""]).measured().reason == "the references are empty"


def test_finding_f1_by_hand() -> None:
    references = [{**blank(), "Edema": 1, "Pneumonia": -1, "Fracture": 0}, {**blank(), "Edema": 1}]
    predictions = [{**blank(), "Edema": 1, "Pneumonia": 1, "Fracture": 1}, None]
    assert finding_f1(references, predictions).measured().value == pytest.approx(2 / (2 + 1 + 1))
    assert finding_f1([blank()], [blank()]).measured().reason == "no reference is positive"
    assert finding_f1([], []).measured().value is None


SUBJECTS = st.lists(st.sampled_from("abcdef"), min_size=2, max_size=30)


@given(SUBJECTS, st.integers(0, 5))
def test_shuffled_reports_are_of_another_subject(subjects: list[str], seed: int) -> None:
    texts = [f"{subject}{index}" for index, subject in enumerate(subjects)]
    if 2 * max(map(subjects.count, subjects)) > len(subjects):
        with pytest.raises(RequestError, match="more than half"):
            shuffled(texts, subjects, seed)
        return
    given_texts = shuffled(texts, subjects, seed)
    assert sorted(given_texts) == sorted(texts)
    assert all(text[0] != subject for text, subject in zip(given_texts, subjects, strict=True))
    assert given_texts == shuffled(texts, subjects, seed)


def test_the_seed_shuffles() -> None:
    texts = [str(index) for index in range(50)]
    assert shuffled(texts, texts, 1) != shuffled(texts, texts, 2)
    assert shuffled([], [], 1) == []


def test_the_floors_are_the_scores_of_reports_that_nobody_looked_for() -> None:
    truth = reports(5)
    subjects = [str(index) for index in range(len(truth))]
    found = floors(rouge_l, truth, subjects, 3)
    assert found["shuffled"].measured() == rouge_l(shuffled(truth, subjects, 3), truth).measured()
    assert found["constant"].measured() == rouge_l([CONSTANT_REPORT] * len(truth), truth).measured()


@given(st.text(max_size=40), st.text(max_size=40))
def test_rouge_l_is_symmetric_and_bounded(first: str, second: str) -> None:
    value = rouge_l([first], [second]).measured().value
    assert value == rouge_l([second], [first]).measured().value
    assert value is not None
    assert 0 <= value <= 1
    assert value == pytest.approx(RougeScorer(["rougeL"]).score(first, second)["rougeL"].fmeasure, abs=1e-12)


def test_tokens_are_lower_case_letters_and_digits() -> None:
    assert tokens("T2-weighted; Ärzte, 3.5 cm.") == ["t2", "weighted", "rzte", "3", "5", "cm"]
