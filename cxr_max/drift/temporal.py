"""Drift of one teacher over time: changes of a score along its replies, and of the model that answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise
from math import isfinite
from typing import Any, Final, Literal, Protocol

from cxr_max.errors import RequestError

Detector = Literal["adwin", "page_hinkley"]
ADWIN_DELTA: Final = 0.002
"""Bound on the probability that two means of one window are taken for different (ADWIN's own default)."""
PAGE_HINKLEY_ALLOWANCE: Final = 0.1
"""In units of the score: smaller shifts of the mean are let pass."""
PAGE_HINKLEY_THRESHOLD: Final = 10.0
"""In units of the score times replies."""
PAGE_HINKLEY_FIRST: Final = 30
"""Replies before it may report."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One reply of the teacher."""

    created_at: datetime
    value: float | None
    """A score or an indicator, 0 to 1: the conflict with the consensus, say, or 1 where a finding is present.
    ``None`` where the reply has none; it is then passed over."""
    model_reported: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """The mean moved."""

    onset: datetime
    """The first reply of the new regime, as estimated."""
    detected: datetime
    """The reply at which the detector reported."""
    before: float
    """Mean from the previous onset to this one."""
    after: float
    """Mean from the onset to the next one, or to the end of the series."""
    magnitude: float
    """after - before, in units of the score."""


@dataclass(frozen=True, slots=True)
class ModelChange:
    """Another model answered than had answered before."""

    at: datetime
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class TemporalDrift:
    """What changed, in order of time."""

    changes: tuple[Change, ...]
    model_changes: tuple[ModelChange, ...]
    observations: int
    """Values that the detector saw."""


class _Watcher(Protocol):
    @property
    def drift_detected(self) -> bool: ...

    def update(self, x: float) -> object: ...


def temporal_drift(series: Iterable[Observation], detector: Detector = "adwin") -> TemporalDrift:
    """Change points of a teacher's score over time, and the changes of the model that answered.

    The values go through the detector in order of ``created_at`` (the order given, where equal):

    - ``adwin``: ADWIN (Bifet and Gavalda 2007), which reports when two parts of its window have different means;
      it looks every 32 values.
    - ``page_hinkley``: the two-sided Page-Hinkley test (Page 1954), which reports when the sum of the deviations
      from the running mean, less an allowance of 0.1 per reply, exceeds 10.

    At each report the onset is put where splitting the current segment in two leaves the least squared deviation
    from the two means, and the next segment begins there. The settings are meant for scores of 0 to 1.

    Args:
        series: replies of one teacher to one prompt.
        detector: which one.

    Raises:
        ValueError: a value is not within 0 to 1, or the detector has no such name.
        RequestError: ``river`` is not installed.
    """
    ordered = sorted(series, key=lambda observation: observation.created_at)
    seen = [(o.created_at, float(o.value)) for o in ordered if o.value is not None]
    for at, value in seen:
        if not (isfinite(value) and 0 <= value <= 1):
            raise ValueError(f"The value {value} at {at.isoformat()} is not within 0 to 1: scale the score")
    found = _change_points([value for _, value in seen], _watcher(detector))
    return TemporalDrift(tuple(_changes(seen, found)), tuple(_model_changes(ordered)), len(seen))


def _watcher(detector: Detector) -> _Watcher:
    try:
        from river import drift  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise RequestError("Temporal drift needs river, which is not installed: pip install river") from error
    detectors: Any = drift
    watcher: _Watcher
    if detector == "adwin":
        watcher = detectors.ADWIN(delta=ADWIN_DELTA)
    elif detector == "page_hinkley":
        watcher = detectors.PageHinkley(
            min_instances=PAGE_HINKLEY_FIRST, delta=PAGE_HINKLEY_ALLOWANCE, threshold=PAGE_HINKLEY_THRESHOLD
        )
    else:
        raise ValueError(f'{detector!r} is no detector: give "adwin" or "page_hinkley"')
    return watcher


def _change_points(values: Sequence[float], watcher: _Watcher) -> list[tuple[int, int]]:
    """Per report, the indices of the onset and of the detection."""
    found: list[tuple[int, int]] = []
    segment = 0
    for index, value in enumerate(values):
        watcher.update(value)
        if watcher.drift_detected and index > segment:
            segment += _split(values[segment : index + 1])
            found.append((segment, index))
    return found


def _split(values: Sequence[float]) -> int:
    """How many of two values or more come before the split with the least squared deviation from the two means."""
    total, count = sum(values), len(values)
    sums = list(accumulate(values))[:-1]
    gains = [(s - total * k / count) ** 2 / (k * (count - k)) for k, s in enumerate(sums, start=1)]
    return 1 + max(range(len(gains)), key=gains.__getitem__)


def _changes(seen: Sequence[tuple[datetime, float]], found: Sequence[tuple[int, int]]) -> Iterable[Change]:
    bounds = [0, *(onset for onset, _ in found), len(seen)]
    means = [sum(value for _, value in seen[a:b]) / (b - a) for a, b in pairwise(bounds) if b > a]
    for (onset, detected), (before, after) in zip(found, pairwise(means), strict=True):
        yield Change(seen[onset][0], seen[detected][0], before, after, after - before)


def _model_changes(ordered: Sequence[Observation]) -> Iterable[ModelChange]:
    """Replies that report no model are passed over."""
    named = [(o.created_at, o.model_reported) for o in ordered if o.model_reported is not None]
    for (_, before), (at, after) in pairwise(named):
        if before != after:
            yield ModelChange(at, before, after)
