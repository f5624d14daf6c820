"""Do label-free weights beat the plain vote? Seven simulated teachers, independent and correlated errors.

A Markdown table: accuracy of the plain vote, of the vote weighted by ``consensus.reliability``, and of the
Dawid-Skene posterior at 1/2, each with its paired difference from the plain vote and a 95% bootstrap interval that
resamples seeds, and studies within them. The truth scores the votes and never enters the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cxr_max.consensus import Weights, reliability, vote
from cxr_max.findings import State, blank
from cxr_max.records import Sampling, Trajectory

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

FINDINGS: Final = ("Consolidation", "Pleural Effusion", "Pneumonia", "Pneumothorax", "Edema")
ACCURACY: Final[dict[str, tuple[float, ...]]] = {
    "GPT-5": (0.75, 0.68, 0.89, 0.90, 0.52),
    "Gemini-2.5": (0.28, 0.61, 0.40, 0.94, 0.42),
    "Sonnet-4": (0.89, 0.69, 0.48, 0.15, 0.15),
    "Qwen-VL-Max": (0.54, 0.65, 0.40, 0.95, 0.64),
    "Grok-4": (0.43, 0.41, 0.36, 0.97, 0.61),
    "GLM-4.5V": (0.59, 0.67, 0.52, 0.96, 0.72),
    "Moonshot": (0.13, 0.46, 0.77, 0.88, 0.19),
}
"""Top-1 accuracy on MS-CXR-T as arXiv 2510.04142 prints it, in the order of ``FINDINGS``; taken here for
sensitivity and specificity alike. Thirteen of the 35 are below 1/2, which no label-free method can know."""
PREVALENCE: Final = 0.4
ABOVE_CHANCE: Final = 0.55


@dataclass(frozen=True)
class World:
    """How the teachers err."""

    name: str
    accuracy: Floats
    """(teachers, findings)."""
    shared: float
    """r: the share of an error's cause that all teachers have in common."""


def errors(world: World, studies: int, rng: np.random.Generator) -> Bools:
    """(studies, teachers, findings): z = sqrt(r) g + sqrt(1 - r) e exceeds the accuracy's normal quantile.

    g is one standard normal per study and finding, e one per teacher too: each teacher keeps its accuracy,
    whatever r is, and any two err together more often as r grows.
    """
    teachers, findings = world.accuracy.shape
    common = rng.standard_normal((studies, 1, findings))
    own = rng.standard_normal((studies, teachers, findings))
    quantile = np.vectorize(NormalDist().inv_cdf)(world.accuracy)
    wrong: Bools = np.sqrt(world.shared) * common + np.sqrt(1 - world.shared) * own > quantile
    return wrong


def correct(world: World, studies: int, seed: int) -> Bools:
    """(methods, studies, findings): which verdicts are right in one simulated release."""
    rng = np.random.default_rng(seed)
    truth = rng.random((studies, len(FINDINGS))) < PREVALENCE
    calls = truth[:, None, :] ^ errors(world, studies, rng)
    groups = [_group(str(study), rows) for study, rows in enumerate(calls)]
    trust = reliability(groups)
    plain = _verdicts(groups, None)
    weighted = _verdicts(groups, trust.weights)
    posterior = np.stack(
        [
            (trust.estimates[name].posterior > 0.5) if name in trust.estimates else plain[:, index] == 1
            for index, name in enumerate(FINDINGS)
        ],
        axis=1,
    )
    wanted = truth.astype(np.int8)
    return np.stack([plain == wanted, weighted == wanted, posterior == truth])


def interval(difference: Floats, rng: np.random.Generator, draws: int = 2000) -> tuple[float, float]:
    """The 95% percentile interval of the mean of (seeds, studies), both resampled."""
    seeds, studies = difference.shape
    means = np.empty(draws)
    for draw in range(draws):
        picked = rng.integers(0, seeds, (seeds, 1))
        means[draw] = difference[picked, rng.integers(0, studies, (seeds, studies))].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def worlds() -> list[World]:
    """The printed accuracies, and the same with nobody below ``ABOVE_CHANCE``."""
    printed = np.array(list(ACCURACY.values()))
    cases = [("as printed", printed), (f"at least {ABOVE_CHANCE}", np.maximum(printed, ABOVE_CHANCE))]
    return [World(name, accuracy, shared) for name, accuracy in cases for shared in (0.0, 0.3, 0.6)]


def table(studies: int, seeds: int) -> str:
    """The Markdown table."""
    lines = [
        f"{seeds} seeds of {studies} studies, {len(ACCURACY)} teachers, {len(FINDINGS)} findings, prevalence"
        f" {PREVALENCE}; difference from the plain vote in accuracy, with its 95% interval.",
        "",
        "| accuracies | shared r | plain vote | weighted vote | difference | posterior | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    rng = np.random.default_rng(0)
    for world in worlds():
        right = np.stack([correct(world, studies, seed) for seed in range(seeds)]).mean(axis=-1)
        plain, weighted, posterior = right[:, 0], right[:, 1], right[:, 2]
        cells = [world.name, f"{world.shared:.1f}", f"{plain.mean():.3f}"]
        for other in (weighted, posterior):
            low, high = interval(other - plain, rng)
            cells += [f"{other.mean():.3f}", f"{(other - plain).mean():+.3f} ({low:+.3f} to {high:+.3f})"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _verdicts(groups: Sequence[Sequence[Trajectory]], weights: Weights | None) -> NDArray[np.int8]:
    voted = [vote(group, weights=weights).findings for group in groups]
    return np.array([[findings[name] for name in FINDINGS] for findings in voted], dtype=np.int8)


def _group(study: str, calls: Bools) -> list[Trajectory]:
    return [_trajectory(study, teacher, row) for teacher, row in zip(ACCURACY, calls, strict=True)]


def _trajectory(study: str, teacher: str, calls: Bools) -> Trajectory:
    findings = blank()
    for name, call in zip(FINDINGS, calls.tolist(), strict=True):
        state: State = 1 if call else 0
        findings[name] = state
    return Trajectory(
        trajectory_id=f"{study}/{teacher}",
        study_id=study,
        subject_id=study,
        source="drawn",
        split=None,
        image_ids=(study,),
        source_sha256=(study,),
        image_sha256=(study,),
        rendering="none",
        teacher=teacher,
        provider="simulated",
        model=teacher,
        model_reported=None,
        prompt_name="none",
        prompt_version="1",
        prompt_sha256="none",
        prompt_given="nothing",
        sampling=Sampling(),
        sample_index=0,
        status="ok",
        finish_reason=None,
        text="",
        reasoning=None,
        findings=findings,
        sides=None,
        labeler=None,
        contradictions=(),
        input_tokens=None,
        output_tokens=None,
        cost_usd=None,
        latency_s=0.0,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        request_sha256=f"{study}/{teacher}",
    )


def section() -> str:
    """The section that goes into the benchmarks' page."""
    return f"## Label-free weights beside the plain vote\n\n{table(studies=500, seeds=20)}\n"
