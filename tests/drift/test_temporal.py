"""Change points over time: planted, absent, and of the model that answers."""

import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from cxr_max.drift import Observation, temporal_drift
from cxr_max.drift.temporal import Detector
from cxr_max.errors import RequestError

START = datetime(2026, 1, 1, tzinfo=UTC)
DETECTORS: tuple[Detector, ...] = ("adwin", "page_hinkley")


def series(values: np.ndarray, models: list[str | None] | None = None) -> list[Observation]:
    """One reply a minute."""
    named = models or [None] * len(values)
    return [
        Observation(START + timedelta(minutes=index), float(value), model)
        for index, (value, model) in enumerate(zip(values, named, strict=True))
    ]


def coins(seed: int, *runs: tuple[int, float]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.random(length) < rate for length, rate in runs]).astype(float)


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_planted_shift_is_found_soon_and_measured(detector: Detector) -> None:
    pytest.importorskip("river")
    for seed in range(20):
        found = temporal_drift(series(coins(seed, (500, 0.2), (500, 0.6))), detector)
        assert len(found.changes) >= 1
        change = found.changes[0]
        assert START + timedelta(minutes=500) <= change.detected <= START + timedelta(minutes=660)
        assert abs(change.onset - (START + timedelta(minutes=500))) <= timedelta(minutes=60)
        assert change.magnitude == pytest.approx(0.4, abs=0.17)
        assert change.after - change.before == pytest.approx(change.magnitude)


@pytest.mark.parametrize("detector", DETECTORS)
def test_stationary_scores_seldom_alarm(detector: Detector) -> None:
    pytest.importorskip("river")
    alarmed = sum(bool(temporal_drift(series(coins(seed, (1000, 0.3))), detector).changes) for seed in range(60))
    assert alarmed <= 6


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_constant_never_alarms(detector: Detector) -> None:
    pytest.importorskip("river")
    assert temporal_drift(series(np.full(500, 0.5)), detector).changes == ()


@pytest.mark.parametrize("detector", DETECTORS)
def test_up_and_down_again(detector: Detector) -> None:
    pytest.importorskip("river")
    found = temporal_drift(series(coins(1, (400, 0.1), (400, 0.8), (400, 0.1))), detector)
    assert [change.magnitude > 0 for change in found.changes] == [True, False]


def test_order_of_arrival_and_unknown_values() -> None:
    pytest.importorskip("river")
    observations = series(coins(0, (500, 0.2), (500, 0.6)))
    shuffled = [observations[i] for i in np.random.default_rng(0).permutation(len(observations))]
    unknown = [Observation(o.created_at, None) for o in observations[::3]]
    assert temporal_drift([*shuffled, *unknown]) == temporal_drift(observations)


def test_another_model_is_marked() -> None:
    pytest.importorskip("river")
    models: list[str | None] = ["m-1"] * 3 + [None] + ["m-1", "m-2", "m-2", "m-1"]
    found = temporal_drift(series(np.zeros(8), models))
    marks = [(change.at - START, change.before, change.after) for change in found.model_changes]
    assert marks == [(timedelta(minutes=5), "m-1", "m-2"), (timedelta(minutes=7), "m-2", "m-1")]
    assert (found.changes, found.observations) == ((), 8)


def test_nothing_is_nothing() -> None:
    pytest.importorskip("river")
    found = temporal_drift([])
    assert (found.changes, found.model_changes, found.observations) == ((), (), 0)


def test_bad_input_is_refused() -> None:
    for value in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="within 0 to 1"):
            temporal_drift([Observation(START, value)])
    pytest.importorskip("river")
    with pytest.raises(ValueError, match="no detector"):
        temporal_drift([], "kswin")  # type: ignore[arg-type]


def test_without_river_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(RequestError, match="pip install river"):
        temporal_drift([])
