"""How the teachers of a release differ: every number of the drift report, apart from its page.

One prompt at a time. Only prompts that give nothing away are measured in full: a text that was told the findings
repeats them, and its agreement with others measures the prompt. Of the other prompts, statuses and laterality
are counted. Same release, same numbers: nothing depends on the clock, and every random draw is seeded.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from cxr_max.drift import (
    Change,
    ModelChange,
    Observation,
    StepTest,
    disagreement,
    divergence,
    multistream_test,
    streams,
    temporal_drift,
)
from cxr_max.errors import RequestError
from cxr_max.eval import drift_numbers as numbers
from cxr_max.eval.drift_examples import Example, examples, shown_rows, worst
from cxr_max.eval.drift_numbers import Compared, Estimate, Laterality, Pair, Rate, Statuses
from cxr_max.eval.drift_profile import TeacherProfile, profiles, read_reports
from cxr_max.eval.drift_rows import Ints, PromptInfo, Release, Rows, Watch, open_release, read_rows, read_texts
from cxr_max.findings import Findings
from cxr_max.labeler import label
from cxr_max.records import STATUSES

VERSION: Final = "drift-report-1"
SEED: Final = 0
MAX_STREAMS: Final = 2_000
"""Image sets read step by step."""
MIN_SHARE: Final = 0.5
"""Of the image sets that a teacher must have answered for the joint streams: each takes every teacher."""
PERMUTATIONS: Final = 999
MODEL_CHANGES: Final = 20
"""Changes of the answering model kept per teacher; where services balance load there may be thousands."""
_AT_ONCE: Final = 10
"""Image sets read between two notes of progress."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How the teachers' commitments differ along their texts; one value per relative position 1/J, ... 1."""

    teachers: tuple[str, ...]
    left_out: tuple[str, ...]
    """Teachers with an ok reply for fewer than half of the image sets."""
    complete: int
    """Image sets that all ``teachers`` answered."""
    image_sets: int
    """Of these, how many were read."""
    subjects: int
    divergence: tuple[float, ...]
    """Bits; see ``cxr_max.drift.divergence``."""
    opposed: tuple[float | None, ...]
    """Share, 0 to 1; see ``cxr_max.drift.disagreement``."""
    agreement_tests: tuple[StepTest, ...]
    increments_tests: tuple[StepTest, ...]


@dataclass(frozen=True, slots=True)
class TeacherTime:
    """One teacher along the time of its replies."""

    teacher: str
    first: datetime
    last: datetime
    observations: int
    """Replies with a conflict score."""
    changes: tuple[Change, ...]
    model_changes: tuple[ModelChange, ...]
    """The first ``MODEL_CHANGES``."""
    model_changes_total: int


@dataclass(frozen=True, slots=True)
class PromptDrift:
    """What is measured of a prompt that gives nothing away. Mappings go by teacher, then by finding."""

    image_sets: int
    quorum: int
    """Fewest other teachers of a verdict."""
    mean_conflict: Mapping[str, Estimate]
    conflict: Mapping[str, Mapping[str, Rate]]
    positive: Mapping[str, Mapping[str, Rate]]
    side_conflict: Mapping[str, Rate]
    pairs: tuple[Pair, ...]
    steps: Steps | str
    """Or why there are none."""
    time: tuple[TeacherTime, ...] | str
    profiles: tuple[TeacherProfile, ...] | None
    """``None`` where no reports were given."""
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class PromptReport:
    """One prompt."""

    prompt: PromptInfo
    rows: int
    statuses: tuple[Statuses, ...]
    laterality: tuple[Laterality, ...]
    drift: PromptDrift | None
    """``None`` where the prompt gave something away."""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """A release's report."""

    version: str
    source: str
    """The data set's title."""
    data_use: str
    """Terms of the data set: open, registration or credentialed; empty where the manifest does not say."""
    digest: str
    """Of the release's trajectories, as its manifest has it."""
    made_by: str
    """The version of cxr-max that sealed the release."""
    seed: int
    rows: int
    studies: int
    subjects: int
    image_sets: int
    teachers: tuple[str, ...]
    simulated: tuple[str, ...]
    """Teachers behind which no model answered."""
    labelers: tuple[str, ...]
    statuses: Mapping[str, int]
    """Status -> rows."""
    reports: str | None
    """The name of the source of the reports, without its path."""
    prompts: tuple[PromptReport, ...]


def no_watch(_what: str, _done: int, _total: int) -> None:
    """Follows nothing."""


def measure(
    release: Path, *, reports: str | None = None, seed: int = SEED, watch: Watch = no_watch
) -> DriftReport:
    """Measure a release.

    Args:
        release: a run's folder, its release folder, or any that holds such a release.
        reports: a source with reports of the same studies, as ``build --source`` takes it.
        seed: of the bootstrap and the permutation tests.
        watch: told about the progress.

    Raises:
        RequestError: there is no sealed release, its rows cannot be read, or ``reports`` has none of its studies.
    """
    opened = open_release(release)
    rows = read_rows(opened, watch)
    studies = {asked.study_id for asked in rows.image_sets}
    read = None if reports is None else read_reports(reports, studies, watch)
    source = _mapping(opened.manifest.get("source"))
    ended = np.bincount(rows.status, minlength=len(STATUSES)).tolist()
    return DriftReport(
        version=VERSION,
        source=str(source.get("title", "unnamed source")),
        data_use=str(source.get("data_use", "")),
        digest=str(opened.manifest.get("trajectories_digest", "")),
        made_by=str(opened.manifest.get("cxr_max_version", "")),
        seed=seed,
        rows=len(rows),
        studies=len(studies),
        subjects=len(rows.subjects),
        image_sets=len(rows.image_sets),
        teachers=rows.teachers,
        simulated=tuple(sorted(rows.simulated)),
        labelers=rows.labelers,
        statuses=dict(zip(STATUSES, ended, strict=True)),
        reports=None if reports is None else reports.partition(":")[0],
        prompts=tuple(_prompt(opened, rows, index, read, seed, watch) for index in _prompt_order(rows)),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _prompt_order(rows: Rows) -> list[int]:
    """Prompts that give nothing away first, then by name, version and hash."""
    prompts = rows.prompts
    return sorted(
        range(len(prompts)),
        key=lambda i: (prompts[i].given != "nothing", prompts[i].name, prompts[i].version, prompts[i].sha256),
    )


def _prompt(
    release: Release, rows: Rows, index: int, reports: Mapping[str, Findings] | None, seed: int, watch: Watch
) -> PromptReport:
    asked = rows.where(rows.prompt == index)
    prompt = rows.prompts[index]
    drift = _drift(release, asked, reports, seed, watch) if prompt.given == "nothing" else None
    return PromptReport(prompt, len(asked), numbers.statuses(asked), numbers.laterality(asked), drift)


def _drift(
    release: Release, rows: Rows, reports: Mapping[str, Findings] | None, seed: int, watch: Watch
) -> PromptDrift:
    compared = numbers.compare(rows, watch)
    joint = _joint_rows(rows)
    shown = shown_rows(rows, worst(rows, compared))
    wanted = {int(row) for line in (*joint.lines, *shown.values()) for row in line}
    texts = read_texts(release, {int(rows.position[row]) for row in wanted}, watch)
    return PromptDrift(
        image_sets=len(np.unique(rows.image_set)),
        quorum=numbers.quorum_of(rows),
        mean_conflict=numbers.mean_conflict(rows, compared, seed),
        conflict=numbers.conflict_rates(rows, compared),
        positive=numbers.positive_rates(rows),
        side_conflict=numbers.side_conflict(rows, compared),
        pairs=numbers.agreement(rows),
        steps=_steps(rows, joint, texts, seed, watch),
        time=_time(rows, compared),
        profiles=None if reports is None else profiles(rows, reports),
        examples=examples(rows, compared, texts),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Joint:
    """The rows behind the joint streams."""

    teachers: tuple[int, ...]
    left_out: tuple[int, ...]
    complete: int
    lines: Ints
    """(image sets, teachers): rows."""


def _joint_rows(rows: Rows) -> _Joint:
    """The image sets that every teacher answered; at most ``MAX_STREAMS``, by sha256 of their identifiers."""
    table = numbers.first_samples(rows, rows.status == STATUSES.index("ok"))
    asked = np.unique(rows.image_set)
    shares = (table[asked] >= 0).mean(axis=0)
    present = np.unique(rows.teacher).tolist()
    kept = tuple(teacher for teacher in present if shares[teacher] >= MIN_SHARE)
    full = [int(index) for index in asked if (table[index, list(kept)] >= 0).all()]

    def rank(index: int) -> tuple[str, tuple[str, ...]]:
        one = rows.image_sets[index]
        return hashlib.sha256(one.study_id.encode()).hexdigest(), one.image_ids

    chosen = sorted(full, key=rank)[:MAX_STREAMS] if len(kept) > 1 else []
    lines = table[np.array(chosen, dtype=np.int64)][:, list(kept)]
    return _Joint(kept, tuple(u for u in present if u not in kept), len(full), lines)


def _steps(rows: Rows, joint: _Joint, texts: Mapping[int, str], seed: int, watch: Watch) -> Steps | str:
    if len(joint.teachers) < 2:
        return "Fewer than two teachers answered at least half of the image sets, so there are no joint streams."
    if not len(joint.lines):
        return "No image set was answered by every teacher, so there are no joint streams."
    names = [rows.teachers[teacher] for teacher in joint.teachers]
    parts = []
    for start in range(0, len(joint.lines), _AT_ONCE):
        spoken = [
            {name: texts[int(rows.position[row])] for name, row in zip(names, line, strict=True)}
            for line in joint.lines[start : start + _AT_ONCE]
        ]
        parts.append(streams(spoken, label)[2])
        watch("Reading step by step", min(start + _AT_ONCE, len(joint.lines)), len(joint.lines))
    states = np.concatenate(parts)
    owners = rows.subject[joint.lines[:, 0]].tolist()
    tests = []
    for done, view in enumerate(("agreement", "increments")):
        watch("Testing steps", done, 2)
        tests.append(
            multistream_test(states, view=view, permutations=PERMUTATIONS, seed=seed, clusters=owners)  # type: ignore[arg-type]
        )
    watch("Testing steps", 2, 2)
    return Steps(
        teachers=tuple(names),
        left_out=tuple(rows.teachers[teacher] for teacher in joint.left_out),
        complete=joint.complete,
        image_sets=len(joint.lines),
        subjects=len(set(owners)),
        divergence=tuple(divergence(states).tolist()),
        opposed=disagreement(states),
        agreement_tests=tests[0],
        increments_tests=tests[1],
    )


def _time(rows: Rows, compared: Compared) -> tuple[TeacherTime, ...] | str:
    try:
        found = [_teacher_time(rows, compared, int(index)) for index in np.unique(rows.teacher)]
    except RequestError as error:
        return str(error)
    return tuple(one for one in found if one is not None)


def _teacher_time(rows: Rows, compared: Compared, teacher: int) -> TeacherTime | None:
    own = np.flatnonzero((rows.teacher == teacher) & (rows.created >= 0))
    if not len(own):
        return None
    own = own[np.argsort(rows.created[own], kind="stable")]
    series = [
        Observation(
            datetime.fromtimestamp(int(rows.created[row]) / 1e6, UTC),
            None if np.isnan(compared.score[row]) else float(compared.score[row]),
            rows.models[rows.model[row]] if rows.model[row] >= 0 else None,
        )
        for row in own
    ]
    found = temporal_drift(series)
    return TeacherTime(
        rows.teachers[teacher],
        series[0].created_at,
        series[-1].created_at,
        found.observations,
        found.changes,
        found.model_changes[:MODEL_CHANGES],
        len(found.model_changes),
    )
