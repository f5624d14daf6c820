"""Small worlds whose every answer is known: rows as plain Python for the hand, arrays for the code under test."""

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from cxr_max.eval.answers import Answers, Data
from cxr_max.eval.bootstrap import estimate
from cxr_max.eval.reference import SIDE_ORDER, Reference, ReferenceRow
from cxr_max.eval.run import EvalRequest, Prepared, prepare
from cxr_max.eval.scored import Scored
from cxr_max.eval.subject import Given
from cxr_max.eval.suite import Suite
from cxr_max.findings import FINDINGS, LATERAL, SIDES, Side, State
from cxr_max.records import PREDICTION_STATUSES, PredictionStatus, Score

STATES: tuple[State | None, ...] = (None, 0, -1, 1)
Key = tuple[str, str | None, str | None, str | None]
"""Metric, finding, condition, group."""
Valued = tuple[float | None, set[str]]
"""What a hand computation comes to, and the patients that decide it."""


@dataclass(frozen=True)
class Said:
    """What somebody says about one image set."""

    findings: Mapping[str, State | None] = field(default_factory=dict)
    status: PredictionStatus = "ok"
    sides: Mapping[str, Side | None] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    contradictions: tuple[str, ...] | None = ()

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def state(self, name: str) -> State | None:
        return self.findings.get(name) if self.ok else None

    def side(self, name: str) -> Side | None:
        return self.sides.get(name) if self.ok else None


REFUSED, FAILED = Said(status="refused"), Said(status="failed")


@dataclass(frozen=True)
class World:
    """n image sets, and what everybody says about each of them, in their order."""

    rows: Sequence[ReferenceRow]
    said: Mapping[str, Sequence[Said]]
    """By condition."""
    peers: Mapping[str, Sequence[Said]] = field(default_factory=dict)
    member: bool = False

    @property
    def data(self) -> Data:
        """The same as arrays."""
        return Data(
            Reference(tuple(self.rows)),
            {name: answers(rows) for name, rows in self.said.items()},
            {name: answers(rows) for name, rows in self.peers.items()},
            member=self.member,
        )

    def of_split(self, split: str) -> "World":
        kept = [index for index, row in enumerate(self.rows) if row.split == split]
        return self.take(kept)

    def take(self, kept: Sequence[int]) -> "World":
        return World(
            [self.rows[index] for index in kept],
            {name: [rows[index] for index in kept] for name, rows in self.said.items()},
            {name: [rows[index] for index in kept] for name, rows in self.peers.items()},
            self.member,
        )

    def saying(self, **said: Sequence[Said]) -> "World":
        """The same image sets and teachers with another model; underscores stand for hyphens."""
        return replace(self, said={name.replace("_", "-"): rows for name, rows in said.items()})


def answers(rows: Sequence[Said]) -> Answers:
    """In their order."""
    nothing = float("nan")
    return Answers(
        status=np.array([PREDICTION_STATUSES.index(one.status) for one in rows], dtype=np.int8),
        states=_table([[STATES.index(one.state(name)) for name in FINDINGS] for one in rows], np.int8),
        sides=_table([[SIDE_ORDER.index(one.side(name)) for name in FINDINGS] for one in rows], np.int8),
        scores=_table(
            [[one.scores.get(name, nothing) if one.ok else nothing for name in FINDINGS] for one in rows], float
        ),
        contradicted=_table([[name in (one.contradictions or ()) for name in FINDINGS] for one in rows], bool),
        compared=np.array([one.ok and one.contradictions is not None for one in rows], dtype=bool),
    )


def _table(rows: list[list[Any]], kind: Any) -> Any:
    return np.array(rows, dtype=kind).reshape(len(rows), len(FINDINGS))


def row(
    number: int,
    patient: int,
    findings: Mapping[str, State | None] | None = None,
    *,
    labelled: bool = True,
    **changes: Any,
) -> ReferenceRow:
    """One image set; without labels where ``labelled`` is false."""
    values: dict[str, Any] = {
        "study_id": f"s{number:04d}", "image_ids": (f"i{number:04d}",), "subject_id": f"p{patient:03d}",
        "source": "test", "split": "test", "source_sha256": (f"{number:064x}",),
        "findings": dict.fromkeys(FINDINGS) | dict(findings or {}) if labelled else None,
        "sides": None, "sex": None, "age": None, "view": "PA", "report": None, "seen": False,
    }  # fmt: skip
    return ReferenceRow(**{**values, **changes})


def random_rows(
    chance: Random, n: int, patients: int, *, split: str = "test", first: int = 0
) -> list[ReferenceRow]:
    """Every state and attribute there can be; the patients' image sets lie scattered."""
    return [
        row(
            first + index,
            first + chance.randrange(patients),
            {name: chance.choices(STATES, (3, 3, 1, 3))[0] for name in FINDINGS},
            labelled=chance.random() > 0.08,
            split=split,
            sex=chance.choice(("F", "M", None)),
            age=chance.choice((None, 12.0, 39.5, 40.0, 64.9, 65.0, 90.0)),
            view=chance.choice(("PA", "AP", "unknown")),
            seen=chance.random() < 0.3,
        )
        for index in range(n)
    ]


def random_said(chance: Random, rows: Sequence[ReferenceRow], *, right: float = 0.6) -> list[Said]:
    """Somebody who copies each state of the reference with this probability, and now and then says nothing."""
    return [_random_said(chance, one, right) for one in rows]


def _random_said(chance: Random, one: ReferenceRow, right: float) -> Said:
    status = chance.choices(PREDICTION_STATUSES, (20, 1, 0.3, 0.3, 0.3, 2))[0]
    if status != "ok":
        return Said(status=status, contradictions=None)
    truth = one.findings or {}
    states = {
        name: truth.get(name) if chance.random() < right else chance.choices(STATES, (2, 3, 1, 3))[0]
        for name in FINDINGS
    }
    claimed = [name for name in FINDINGS if name in LATERAL and states[name] in (1, -1)]
    return Said(
        states,
        sides={name: chance.choice((*SIDES, None)) for name in claimed},
        contradictions=tuple(name for name in FINDINGS if states[name] is not None and chance.random() < 0.1)
        if chance.random() < 0.9
        else None,
    )


def with_scores(chance: Random, said: Iterable[Said], names: Iterable[str]) -> list[Said]:
    """Probabilities for some of the findings, in steps so that ties occur; a few are missing."""
    wanted = list(names)
    return [
        replace(one, scores={name: chance.randrange(21) / 20 for name in wanted if chance.random() < 0.95})
        for one in said
    ]


def random_world(seed: int, n: int = 240, patients: int = 90, *, teachers: int = 4, member: bool = False) -> World:
    """A model under many conditions, and peers."""
    chance = Random(seed)
    rows = random_rows(chance, n, patients)
    conditions = (
        "original", "sample-1", "sample-2", "paraphrase-brief", "paraphrase-list", "mirror", "blank", "noise-3",
        "noise-5", "device-3", "blur-3",
    )  # fmt: skip
    said = {name: random_said(chance, rows) for name in conditions}
    return World(rows, said, {f"t{k}": random_said(chance, rows, right=0.7) for k in range(teachers)}, member)


def suite(resamples: int = 100, **tasks: Any) -> Suite:
    """A suite of the tasks named."""
    return Suite.model_validate({"name": "test", "version": 1, "resamples": resamples, **tasks})


# What a task yielded.


def by_key(found: Iterable[Scored]) -> dict[Key, Scored]:
    """Every number is there once."""
    known: dict[Key, Scored] = {}
    for one in found:
        key = (one.metric, one.finding, one.condition, one.group)
        assert key not in known, key
        known[key] = one
    return known


def value_of(scored: Scored) -> float | None:
    return estimate(scored.drawn).value


def close(found: float | None, expected: float | None) -> bool:
    """Equal to 1e-9, or both none."""
    if found is None or expected is None:
        return found is expected
    return abs(found - expected) < 1e-9


def counts(scored: Scored) -> tuple[int, int, int]:
    """Scored, refused, failed."""
    return scored.counted.scored, scored.counted.refused, scored.counted.failed


def scores_of(found: Iterable[tuple[str, Scored]], using: Suite) -> list[Score]:
    """As ``cxr-max eval`` writes them."""
    return [scored.score("m", "d", task, using) for task, scored in found]


def check_score(score: Score) -> None:
    """What every score must keep, whatever the data."""
    numbers = [score.value, score.low, score.high]
    assert not any(number is not None and isnan(number) for number in numbers), score
    assert (score.value is None) == (score.reason is not None), score
    assert score.reason != "", score
    assert (score.low is None) == (score.high is None), score
    assert score.trusted == (score.distrust is None), score
    assert min(score.patients, score.n_scored, score.n_refused, score.n_failed) >= 0, score
    if score.value is None:
        assert score.low is None and not score.trusted, score
    elif score.low is not None and score.high is not None:
        assert score.low - 1e-12 <= score.value <= score.high + 1e-12, score


# By hand.


def decided(rows: Sequence[ReferenceRow], name: str) -> list[bool]:
    """Of each image set: has labels, and the finding is not uncertain."""
    return [one.findings is not None and one.findings[name] != -1 for one in rows]


def positive(one: ReferenceRow, name: str) -> bool:
    return one.findings is not None and one.findings[name] == 1


def count_by_hand(said: Sequence[Said], among: Sequence[bool]) -> tuple[int, int, int]:
    """Answered, refused, failed."""
    chosen = [one.status for one, kept in zip(said, among, strict=True) if kept]
    failed, ok = chosen.count("failed"), chosen.count("ok")
    return ok, len(chosen) - ok - failed, failed


def balanced_by_hand(
    rows: Sequence[ReferenceRow], said: Sequence[Said], name: str, among: Sequence[bool]
) -> Valued:
    """Balanced accuracy over the answered rows of ``among``; the patients of the rarer class."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    who: dict[bool, set[str]] = {True: set(), False: set()}
    for one, reply, kept in zip(rows, said, among, strict=True):
        if not kept or not reply.ok or one.findings is None or one.findings[name] == -1:
            continue
        truth = one.findings[name] == 1
        hits[truth].append((reply.findings.get(name) == 1) == truth)
        who[truth].add(one.subject_id)
    if not hits[True] or not hits[False]:
        return None, min(who.values(), key=len)
    return sum(sum(h) / len(h) for h in hits.values()) / 2, min(who.values(), key=len)


def common_by_hand(rows: Sequence[ReferenceRow]) -> list[str]:
    """Findings that 15 patients have and 15 have not."""
    names = []
    for name in FINDINGS:
        labelled = [one for one in rows if one.findings is not None]
        have = {one.subject_id for one in labelled if one.findings and one.findings[name] == 1}
        lack = {one.subject_id for one in labelled if one.findings and one.findings[name] in (0, None)}
        if len(have) >= 15 and len(lack) >= 15:
            names.append(name)
    return names or list(FINDINGS)


def mean_of(values: Mapping[str, float | None], names: Iterable[str]) -> float | None:
    """Over the findings that have a value."""
    known = [values[name] for name in names if values.get(name) is not None]
    return sum(v for v in known if v is not None) / len(known) if known else None


def mean_of_decided(values: Mapping[str, Valued]) -> float | None:
    """Over those that 10 patients decide; over all where there are none."""
    names = [name for name, (_, who) in values.items() if len(who) >= 10] or list(values)
    return mean_of({name: value for name, (value, _) in values.items()}, names)


def next_patient(rows: Sequence[ReferenceRow]) -> list[int]:
    """For each image set the next one of another patient, going round; itself where there is none."""
    n = len(rows)
    found = []
    for index in range(n):
        ring = [(index + step) % n for step in range(1, n)]
        others = [other for other in ring if rows[other].subject_id != rows[index].subject_id]
        found.append(others[0] if others else index)
    return found


# A release of phantoms.

TINY = """name = "tiny"
version = 1
resamples = 100
[consistency]
image_sets = 2
samples = 1
paraphrases = ["brief"]
[robustness]
image_sets = 3
corruptions = ["noise"]
severities = [3]
[generalization]
"""
"""A suite that asks 4 test and 4 validation image sets of a release of 40 phantoms: see ``QUESTIONS``."""
TEACHERS = ("sim-glm-4.5v", "sim-gpt-5-nano", "sim-grok-4")
ORIGINALS, QUESTIONS = 8, 8 + 2 * 3 + 2 * 3


def release(factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: 40 phantoms and three personas. Made once a session, and never written to."""
    from tests.builders.test_build import built

    out = factory.getbasetemp() / "phantoms"
    if not out.exists():
        result, _ = built("phantom", out, ",".join(TEACHERS), studies=40)
        assert result.complete and result.trajectories == 120
    return out


class Watch:
    """Follows the asking: who answered, who failed, and why."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.statuses: list[str] = []
        self.failures: list[str] = []
        self.warnings: list[str] = []
        self._stop_after = stop_after

    @property
    def sent(self) -> int:
        return len(self.statuses) + len(self.failures)

    def answered(self, _teacher: str, status: str, _cost: float | None) -> None:
        self.statuses.append(status)
        if len(self.statuses) == self._stop_after:
            signal.raise_signal(signal.SIGINT)

    def failed(self, _teacher: str, message: str) -> None:
        self.failures.append(message)

    def warned(self, message: str) -> None:
        self.warnings.append(message)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@contextmanager
def evaluated(request: EvalRequest) -> Iterator[Prepared]:
    """Prepared as ``cxr-max eval`` does it, up to the asking."""
    prepared = prepare(request)
    with prepared.opened():
        prepared.look_for_leaks(lambda *_: None)
        yield prepared


def request_of(run: Path, out: Path, suites: object, **said: Any) -> EvalRequest:
    """The options of ``cxr-max eval`` as a request; ``release`` may be another than the run's."""
    who = {name: said.pop(name) for name in tuple(said) if name in Given.__dataclass_fields__}
    values = {"release": run, "suites": str(suites), **said}
    return EvalRequest(out=out, who=Given(**who), **values)
