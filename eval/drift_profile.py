"""Teachers against the reports of the same studies: precise and terse, or wordy with a high recall."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cxr_max.builders.sources.registry import open_source
from cxr_max.drift import profile
from cxr_max.errors import RequestError
from cxr_max.eval.drift_numbers import Rate
from cxr_max.eval.drift_rows import Rows, Watch, states_of
from cxr_max.findings import Findings
from cxr_max.labeler import label


@dataclass(frozen=True, slots=True)
class TeacherProfile:
    """Means over a teacher's usable replies about studies with a report; see ``cxr_max.drift.profile``."""

    teacher: str
    precision: Rate
    recall: Rate
    similarity: Rate
    """The Jaccard index."""


def read_reports(spec: str, studies: Collection[str], watch: Watch) -> dict[str, Findings]:
    """Study -> what the labeler reads in its report, for those of ``studies`` that have one.

    Args:
        spec: the source, as ``build --source`` takes it.

    Raises:
        RequestError: the source cannot be opened, or has no report of any of the studies.
    """
    found: dict[str, Findings] = {}
    seen = 0
    with TemporaryDirectory() as workspace:
        source = open_source(spec, workspace=Path(workspace), reports=True)
        # A source that generates its studies has no end, and no report either.
        for study in () if source.total is None else source.studies():
            if study.study_id not in studies:
                continue
            seen += 1
            if study.report:
                found[study.study_id] = dict(label(study.report))
            watch("Reading reports", seen, len(studies))
            if seen == len(studies):
                break
    if not found:
        raise RequestError(f"The source {spec} has no report of any study of this release: name the one it is of.")
    return found


def profiles(rows: Rows, reports: Mapping[str, Findings]) -> tuple[TeacherProfile, ...]:
    """Every teacher's profile. The mean of a share leaves out the replies for which it would be of nothing."""
    found = []
    for index in np.unique(rows.teacher):
        values: list[tuple[float | None, float | None, float | None]] = []
        for row in np.flatnonzero((rows.teacher == index) & rows.usable):
            report = reports.get(rows.image_sets[rows.image_set[row]].study_id)
            if report is not None:
                one = profile(states_of(rows.states[row]), report)
                values.append((one.precision, one.recall, one.similarity))
        columns = [_mean([value[part] for value in values]) for part in range(3)]
        found.append(TeacherProfile(rows.teachers[index], *columns))
    return tuple(found)


def _mean(values: list[float | None]) -> Rate:
    known = [value for value in values if value is not None]
    return Rate(sum(known) / len(known) if known else None, len(known))
