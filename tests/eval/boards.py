"""Boards to look at: models with numbers for every metric that is defined, drawn by seed."""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Final

from cxr_max.eval.board import Board, Column, Compared, Comparison, Entry, Example, Flag
from cxr_max.eval.conditions import corruption
from cxr_max.eval.corruptions.severities import CORRUPTIONS, SEVERITIES
from cxr_max.eval.definitions import DEFINITIONS
from cxr_max.findings import FINDINGS, LATERAL
from cxr_max.records import Score

SUITE: Final = "5b" * 32
DATASET: Final = "MIMIC-CXR-JPG 2.1.0, test split"
NAMES: Final = (
    "gpt-5-nano",
    "gemini-2.5-flash-lite",
    "claude-sonnet-4",
    "grok-4",
    "qwen-vl-max",
    "glm-4.5v",
    "moonshot-v1-128k-vision-preview",
    "student (APO, Qwen2.5-VL-7B)",
)
COLUMNS: Final = (
    Column("generalization", "auroc", None, "AUROC"),
    Column("generalization", "f1", None, "F1"),
    Column("generalization", "balanced_accuracy", None, "Balanced accuracy"),
    Column("generalization", "calibration_error", None, "Calibration error"),
    Column("consistency", "alpha", None, "Agreement"),
    Column("consistency", "flip_rate", None, "Flips"),
    Column("consistency", "image_gain", None, "Image gain"),
    Column("robustness", "mean_loss", "severity 3", "Loss at severity 3"),
    Column("robustness", "worst_group", None, "Worst group"),
)
PER_FINDING: Final = {
    "generalization": (
        "accuracy", "accuracy_refusals_wrong", "balanced_accuracy", "sensitivity", "specificity", "precision",
        "f1", "auroc", "average_precision", "sensitivity_at_specificity", "f1_at_threshold", "brier",
        "calibration_error",
    ),
    "consistency": (
        "alpha", "consensus_agreement", "self_consistency", "flip_rate", "reasoning_agreement", "image_gain",
        "blank_accuracy",
    ),
}  # fmt: skip
GROUPS: Final = ("view AP", "view PA", "sex F", "sex M", "age 0 to 39", "age 40 to 64", "age 65 and over")
FLOORS: Final = ("floor: one constant report", "floor: reports of other patients")


def scored(task: str, metric: str, value: float | None, **fields: object) -> Score:
    """One score: with an interval about its value, or without a value."""
    low, high = DEFINITIONS[metric].bounds
    half = float(str(fields.pop("half", 0.03)))
    given: dict[str, object] = {
        "model": "m", "dataset": "mimic-cxr-jpg", "finding": None, "condition": None, "group": None,
        "low": None if value is None else max(low, value - half),
        "high": None if value is None else min(high, value + half),
        "reason": "no reference is positive" if value is None else None,
        "trusted": value is not None, "distrust": "there is no value" if value is None else None,
        "patients": 412, "n_scored": 1680, "n_refused": 12, "n_failed": 3, "suite_sha256": SUITE,
    }  # fmt: skip
    return Score(task=task, metric=metric, value=value, **{**given, **fields})  # type: ignore[arg-type]


def board(
    names: Sequence[str] = NAMES, *, seed: int = 0, dataset: str = DATASET, simulated: Sequence[str] = ()
) -> Board:
    """Models with all kinds of numbers: some without a value, some not to be trusted, some from few rows."""
    entries = tuple(_entry(name, number, seed, names, name in simulated) for number, name in enumerate(names))
    return Board(
        suite="consistency+robustness+generalization 1",
        suite_sha256=SUITE,
        dataset=dataset,
        dataset_notes=(
            "Credentialed data: identifiers and texts are private, and the terms of PhysioNet hold for them.",
            "The test split is public: a model may have been trained on it.",
            "1,680 image sets of 412 patients.",
        ),
        columns=COLUMNS,
        entries=entries,
        compared=tuple(_compared(column, entries) for column in COLUMNS[:3]),
        per_finding=(),
        ceiling=(
            scored("generalization", "f1", 0.86, half=0.02),
            scored("generalization", "balanced_accuracy", 0.91, half=0.02),
        ),
    )


def _entry(name: str, number: int, seed: int, teachers: Sequence[str], simulated: bool) -> Entry:
    rng = random.Random(f"{seed} {number}")
    skill = rng.uniform(0.35, 0.9)
    notes = ["Simulated: its replies are drawn from a persona, no model was asked."] if simulated else []
    if number == 3:
        notes.append("Retired by its provider on 1 May 2026: its numbers cannot be had again.")
    return Entry(
        name=name,
        settings={
            "model": name,
            "model reported": f"{name}-2026-01",
            "prompt": "diagnose 3 (sha256 41f0c2…)",
            "sampling": "temperature 0, 1024 tokens",
            "labeler": "cxr-max labeler 5",
            "cost": f"{rng.uniform(0.2, 9):.2f} USD",
        },
        notes=tuple(notes),
        flags=_flags(number),
        scores=tuple(_scores(rng, skill, number, teachers)),
        examples=_examples(number),
    )


def _flags(number: int) -> tuple[Flag, ...]:
    uses = Flag("uses the image", "yes", "Image gain is 0.21, [0.18, 0.24]: above 0.")
    robust = (
        Flag("robust", "yes", "At severity 3 it loses at most 0.04 of balanced accuracy."),
        Flag("robust", "no", "At severity 3 it loses 0.11, [0.08, 0.14], of balanced accuracy: more than 0.05."),
        Flag("robust", "not shown", "At severity 3 it may lose 0.03, [0.01, 0.06]: the interval holds 0.05."),
    )
    return uses, robust[number % 3]


def _scores(rng: random.Random, skill: float, number: int, teachers: Sequence[str]) -> Iterator[Score]:
    def about(metric: str, spread: float = 0.05) -> float:
        lower = DEFINITIONS[metric].better == "lower"
        return min(max(rng.gauss((1 - skill) / 2 if lower else 0.45 + skill / 2, spread), 0.01), 0.99)

    for task, metrics in PER_FINDING.items():
        for metric in metrics:
            yield from _of_findings(rng, task, metric, about, number)
    for metric in ("mirror_consistency", "side_agreement"):
        for finding in sorted(LATERAL):
            yield scored("consistency", metric, about(metric, 0.1), finding=finding, half=0.09)
        yield scored("consistency", metric, about(metric))
    yield scored("generalization", "refusal_rate", rng.uniform(0, 0.05), half=0.01)
    for group in ("seen in training", "unseen"):
        yield scored("generalization", "balanced_accuracy", about("balanced_accuracy"), group=group)
    for teacher in teachers:
        yield scored("consistency", "peer_agreement", about("peer_agreement"), condition=teacher)
    yield from _quadrants(rng, skill, number)
    yield from _robustness(rng, skill, number, about, teachers)
    yield from _report(rng, about)


def _of_findings(
    rng: random.Random, task: str, metric: str, about: Callable[[str, float], float], number: int
) -> Iterator[Score]:
    for index, finding in enumerate(FINDINGS):
        if finding == "Pleural Other" and number % 4 == 1:
            yield scored(task, metric, None, finding=finding, patients=0, n_scored=0)
        elif finding == "Fracture":
            few = "7 patients decide it, and fewer than 10 do not carry an interval"
            value = about(metric, 0.1)
            yield scored(task, metric, value, finding=finding, half=0.2, trusted=False, distrust=few, patients=7)
        elif finding == "Lung Lesion":
            yield scored(task, metric, about(metric, 0.1), finding=finding, half=0.15, patients=14)
        else:
            yield scored(task, metric, about(metric, 0.07), finding=finding, half=0.04 + index / 300)
    if number == 5 and metric == "calibration_error":
        yield scored(task, metric, None, reason="the model gives no probabilities")
    elif number == 2 and metric == "flip_rate":
        few = "9 patients decide it, and fewer than 10 do not carry an interval"
        yield scored(task, metric, about(metric, 0.05), half=0.12, trusted=False, distrust=few, patients=9)
    elif number == 6 and metric == "alpha":
        yield scored(task, metric, about(metric, 0.05), half=0.12, n_scored=17, patients=15)
    elif metric == "image_gain":
        yield scored(task, metric, rng.uniform(-0.01, 0.3), half=0.03)
    elif not (number == 4 and metric == "alpha"):
        yield scored(task, metric, about(metric, 0.05))


def _quadrants(rng: random.Random, skill: float, number: int) -> Iterator[Score]:
    names = [name for name in DEFINITIONS if name.startswith("quadrant_")]
    weights = [skill, rng.uniform(0.1, 0.6), rng.uniform(0.05, 0.3), rng.uniform(0.01, 0.2)]
    for name, weight in zip(names, weights, strict=True):
        value = None if number == 7 else weight / sum(weights)
        yield scored("consistency", name, value, reason="nothing was asked twice" if number == 7 else None)


def _robustness(
    rng: random.Random, skill: float, number: int, about: Callable[[str], float], teachers: Sequence[str]
) -> Iterator[Score]:
    for name in CORRUPTIONS:
        steep = rng.uniform(0.005, 0.05)
        for severity in SEVERITIES:
            condition = corruption(name, severity)
            loss = steep * severity**1.2 + rng.gauss(0, 0.008)
            if number == 6 and condition == "blur-3":
                yield scored("robustness", "loss", None, condition=condition, reason="nothing was answered")
            else:
                yield scored("robustness", "loss", loss, condition=condition, half=0.02)
            yield scored("robustness", "relative_degradation", loss / skill, condition=condition, half=0.05)
            for metric in ("accuracy", "f1", "balanced_accuracy", "auroc"):
                yield scored("robustness", metric, max(about(metric) - loss, 0.01), condition=condition)
    for severity in SEVERITIES:
        condition = f"severity {severity}"
        yield scored("robustness", "mean_loss", 0.02 * severity * rng.uniform(0.5, 1.5), condition=condition)
    for group in GROUPS:
        yield scored("robustness", "balanced_accuracy", about("balanced_accuracy"), group=group)
    worst = "the lowest of several, so that chance alone makes it low"
    yield scored(
        "robustness", "worst_group", 0.4 + skill / 2, group=rng.choice(GROUPS), trusted=False, distrust=worst
    )
    yield scored("robustness", "vote_accuracy", 0.81, condition="all teachers")
    for teacher in teachers:
        for change in ("without {}", "{} answers about other patients", "{} claims the opposite of the truth"):
            condition = change.format(teacher)
            yield scored("robustness", "vote_accuracy", about("vote_accuracy"), condition=condition)
            yield scored("robustness", "verdicts_moved", rng.uniform(0, 0.2), condition=condition)


def _report(rng: random.Random, about: Callable[[str], float]) -> Iterator[Score]:
    metrics = (*(name for name in DEFINITIONS if name.startswith("bleu_")), "rouge_l", "cider", "finding_f1")
    for metric in metrics:
        yield scored("report", metric, about(metric) / 2)
        for place, floor in enumerate(FLOORS):
            yield scored("report", metric, 0.2 + 0.05 * place, condition=floor, half=0.01)


def _compared(column: Column, entries: Sequence[Entry]) -> Compared:
    values = {
        entry.name: next(
            one.value
            for one in entry.scores
            if (one.task, one.metric, one.condition, one.finding, one.group)
            == (column.task, column.metric, column.condition, None, None)
        )
        for entry in entries
    }
    pairs = []
    for first, second in combinations(values, 2):
        value = (values[first] or 0.0) - (values[second] or 0.0)
        p_value = 0.0004 if abs(value) > 0.1 else 0.3
        pairs.append(Comparison(first, second, value, value - 0.05, value + 0.05, p_value, None))
    order = sorted(values, key=lambda name: -(values[name] or 0.0))
    clusters = {name: "abcdefghijklmnopqrstuvwxyz"[min(place // 2, 25)] for place, name in enumerate(order)}
    return Compared(column, tuple(pairs), clusters)


def _examples(number: int) -> tuple[Example, ...]:
    reference = ("Cardiomegaly", "Pleural Effusion, left")
    return (
        Example(
            "1",
            "original",
            "ok",
            reference,
            ("Edema", "Pleural Effusion, left" if number % 2 else "Pleural Effusion, right"),
            "The left costophrenic angle is blunted: a small pleural effusion. Mild interstitial edema.\n\n"
            "The heart is not enlarged.",
        ),
        Example("2", "blank", "ok", reference, (), None),
        Example("3", "noise-5", "refused", (), (), "I am not able to interpret medical images."),
    )
