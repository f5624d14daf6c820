"""The rule of the claims, on numbers whose verdict is known."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")

from cxr_max.drift.states import ABSENT, PRESENT
from cxr_max.eval.answers import Answers, nothing
from cxr_max.eval.bootstrap import Draws, undefined
from cxr_max.eval.metrics.measured import Measured
from cxr_max.findings import FINDINGS
from cxr_max.lab import claims
from cxr_max.lab.claims import (
    AT_CHANCE,
    LEARNT,
    MARGIN,
    UNTAUGHT,
    Claim,
    Table,
    inheritance,
    over_seeds,
    verdict_of,
)
from cxr_max.lab.settings import FINDINGS_ASKED, POSITIVE


def drawn(value: float, spread: float = 0.01, seed: int = 0, patients: int = 100) -> Draws:
    values = np.random.default_rng(seed).normal(value, spread, 1000)
    return Draws(Measured(value), values, patients, "smooth", (0.0, 1.0))


def judge(table: Table, inherited: Draws | None) -> list[Claim]:
    """Where the students can learn."""
    return claims.judge({(POSITIVE, "test"): drawn(0.97), **table}, inherited)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.2, "reproduced"),
        (0.0, 0.2, "undecided"),
        (-0.1, 0.2, "undecided"),
        (-0.1, MARGIN, "not reproduced"),
        (-0.2, -0.1, "not reproduced"),
    ],
)
def test_the_interval_alone_decides(low: float, high: float, verdict: str) -> None:
    assert verdict_of(low, high) == verdict


def test_a_clear_gain_is_reproduced_and_a_clear_loss_is_not() -> None:
    table = {
        ("apo-anchor", "test"): drawn(0.8, seed=1),
        ("sft-all", "test"): drawn(0.6),
        ("dpo", "test"): drawn(0.9),
    }
    verdicts = {claim.sentence: claim.verdict for claim in judge(table, None)}
    assert verdicts["APO with an anchor beats SFT"] == "reproduced"
    assert verdicts["APO with an anchor beats DPO against one teacher"] == "not reproduced"
    assert "The anchor helps APO" not in verdicts


def test_a_control_fails_only_where_something_is_gained() -> None:
    for gain, verdict in ((0.2, "fails"), (-0.2, "holds"), (0.01, "undecided")):
        table = {("noise-apo", "test"): drawn(0.7 + gain, seed=1), ("noise-sft", "test"): drawn(0.7)}
        assert [claim.verdict for claim in judge(table, None)] == [verdict]


def test_noise_that_teaches_nothing_is_a_control_that_holds() -> None:
    table = {("noise-apo", "test"): drawn(0.5, 0.001, seed=1), ("noise-sft", "test"): drawn(0.5, 0.001)}
    assert [claim.verdict for claim in judge(table, None)] == ["holds"]


@pytest.mark.parametrize("control", [{}, {(POSITIVE, "test"): drawn(LEARNT)}, {(POSITIVE, "test"): drawn(0.5)}])
def test_nothing_is_told_by_students_that_cannot_learn(control: Table) -> None:
    table = {
        **control, ("apo-anchor", "test"): drawn(0.8, seed=1), ("sft-all", "test"): drawn(0.6),
        ("noise-apo", "test"): drawn(0.5, seed=2), ("noise-sft", "test"): drawn(0.5),
    }  # fmt: skip
    found = claims.judge(table, drawn(0.3))
    assert len(found) == 3
    assert {(claim.verdict, claim.note) for claim in found} == {("undecided", UNTAUGHT)}


def _inheriting(model: np.ndarray) -> tuple[float, float]:
    """The crude difference and the lab's, where the vote errs on most of the sick and few of the well."""
    chance = np.random.default_rng(0)
    truth, places = chance.random((400, 5)) < 0.15, [FINDINGS.index(name) for name in FINDINGS_ASKED]
    vote = np.where(truth, chance.random(truth.shape) < 0.4, chance.random(truth.shape) < 0.2)
    said = vote if model.shape == () else model

    def coded(present: np.ndarray) -> Any:
        states = np.full((400, 14), ABSENT, np.int8)
        states[:, places] = np.where(present, PRESENT, ABSENT)
        return SimpleNamespace(states=states, ok=np.ones(400, np.bool_))

    reference = SimpleNamespace(states=coded(truth).states, subjects=np.array([f"p{n // 2}" for n in range(400)]))
    peers = {name: answers_of(coded(vote)) for name in ("one", "two", "three")}
    data = SimpleNamespace(reference=reference, peers=peers, under=lambda _: coded(said))
    data.of_split = lambda _: data
    wrong, vote_wrong = said != truth, vote != truth
    crude = float(wrong[vote_wrong].mean() - wrong[~vote_wrong].mean())
    found = inheritance(data, 0, 200)  # type: ignore[arg-type]
    return crude, found.measured.value or 0.0


def answers_of(said: Any) -> Answers:
    return replace(nothing(len(said.ok)), status=np.zeros(len(said.ok), np.int8), states=said.states)


def test_a_model_that_never_looks_does_not_inherit() -> None:
    crude, found = _inheriting(np.zeros((400, 5), np.bool_))
    assert crude > 0.1 and found == pytest.approx(0.0, abs=1e-12)


def test_a_model_that_repeats_the_vote_inherits_everything() -> None:
    _, found = _inheriting(np.array(True))
    assert found == pytest.approx(1.0)


def test_inheritance_is_held_against_nothing() -> None:
    (claim,) = judge({}, Draws(Measured(0.3), drawn(0.3).values, 50, "smooth", (-1.0, 1.0)))
    assert claim.verdict == "reproduced"
    assert claim.value == pytest.approx(0.3)


def test_few_patients_decide_nothing() -> None:
    table = {("apo", "test"): drawn(0.9, seed=1, patients=5), ("sft-all", "test"): drawn(0.6, patients=5)}
    (claim,) = judge(table, None)
    assert claim.verdict == "undecided" and "patients" in claim.note


def test_two_that_are_at_chance_decide_nothing() -> None:
    table = {("apo", "test"): drawn(0.5, 0.001, seed=1), ("sft-all", "test"): drawn(0.5, 0.001)}
    assert [(claim.verdict, claim.note) for claim in judge(table, None)] == [("undecided", AT_CHANCE)]
    better = {**table, ("sft-all", "test"): drawn(0.6, 0.001)}
    assert [claim.verdict for claim in judge(better, None)] == ["not reproduced"]


def test_seeds_widen_the_interval_by_their_own_variance() -> None:
    apart = over_seeds([drawn(value, 1e-9) for value in (0.4, 0.5, 0.6)])
    assert apart.measured.value == pytest.approx(0.5)
    # The standard error of a mean of three: s / sqrt(3), with s = 0.1.
    assert apart.values.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.08)


def test_patients_that_count_alike_for_all_seeds_are_no_less_uncertain_for_many_seeds() -> None:
    one = drawn(0.5, 0.03)
    assert over_seeds([one, one, one]).values.std() == pytest.approx(one.values.std())
    assert over_seeds([one]) is one


def test_over_seeds_there_is_no_value_where_one_of_them_has_none() -> None:
    nothing = undefined("no patient has it", 1000)
    assert over_seeds([drawn(0.5), nothing, drawn(0.6)]) is nothing
