"""Who is evaluated: a teacher that is asked, a student, the release's own rows, or a file of predictions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_max.data_use import Gate
from cxr_max.errors import RequestError
from cxr_max.eval import stored
from cxr_max.eval.reference import Reference
from cxr_max.records import Asked
from cxr_max.teachers import roster
from cxr_max.teachers.base import TeacherSpec

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Given:
    """What a user says about the model. One of ``model``, ``teacher`` and ``predictions``."""

    model: Path | None = None
    """A student's folder."""
    teacher: str | None = None
    stored: bool = False
    """Its rows in the release are scored instead of asking it."""
    predictions: Path | None = None
    name: str | None = None
    """On a leaderboard; by default the teacher's, the folder's or the file's."""
    roster: Path | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """The model, found."""

    name: str
    provider: str
    """Whose interface answers or answered: ``simulated`` where no model did; ``unknown`` of a file."""
    teacher: str | None
    """Its name among the release's teachers, if it is one."""
    spec: TeacherSpec | None
    """``None`` where nobody is asked."""
    table: "pa.Table | None"
    """Its predictions; ``None`` where somebody is asked."""
    keys: Mapping[str, str]


def find(given: Given, release: Path, prompt: str, teachers: Sequence[str], gate: Gate) -> Subject:
    """Find the model that a user means; nothing is sent.

    Args:
        prompt: sha256 of the prompt that the suites ask.
        teachers: those of the release.

    Raises:
        RequestError: none or several are named, or the one that is does not exist.
        DataUseError: the images may not be sent to it.
    """
    said = [value for value in (given.model, given.teacher, given.predictions) if value is not None]
    if len(said) != 1 or (given.stored and given.teacher is None):
        raise RequestError(
            "Say who is evaluated: --model DIR for a student, --teacher NAME for one of the roster (with --stored"
            " for its rows in the release), or --predictions FILE; one of them."
        )
    if given.predictions is not None:
        from cxr_max.eval.predictions import read_predictions

        table = read_predictions(given.predictions)
        return Subject(given.name or given.predictions.stem, "unknown", None, None, table, {})
    if given.stored:
        return _stored(given, release, prompt, teachers)
    spec = _spec(given)
    gate.check(spec.name, spec.endpoint, spec.place)
    teacher = spec.name if given.teacher is not None and spec.name in teachers else None
    return Subject(given.name or spec.name, spec.provider, teacher, spec, None, roster.keys_of((spec,)))


def _spec(given: Given) -> TeacherSpec:
    if given.model is not None:
        return roster.student_spec(given.model, given.name)
    chosen = roster.choose(roster.load(given.roster), given.teacher or "")
    if len(chosen) != 1:
        raise RequestError(f"--teacher {given.teacher} means {len(chosen)} teachers: name one.")
    return chosen[0]


def _stored(given: Given, release: Path, prompt: str, teachers: Sequence[str]) -> Subject:
    name = given.teacher or ""
    if name == stored.CONSENSUS:
        table = stored.consensus_answers(release, prompt)
        return Subject(given.name or name, "vote", None, None, table, {})
    if name not in teachers:
        raise RequestError(
            f"The release has no rows of {name!r}: name one of {', '.join((*teachers, stored.CONSENSUS))}."
        )
    table = stored.stored_answers(release, prompt, texts=True)[name]
    return Subject(given.name or name, stored.provider_of(release, name), name, None, table, {})


def refuse_incomplete(
    path: Path, table: "pa.Table", reference: Reference, split: str, known: Iterable[Asked]
) -> None:
    """A submission has a row for every image set that is scored, and none about others than the release's.

    Args:
        known: all image sets of the release.

    Raises:
        RequestError: it has not.
    """
    everything = {(one.study_id, one.image_ids) for one in known}
    about = zip(table["study_id"].to_pylist(), table["image_ids"].to_pylist(), strict=True)
    stranger = next((key for key in ((s, tuple(i)) for s, i in about) if key not in everything), None)
    if stranger is not None:
        study, images = stranger
        raise RequestError(
            f"{path} has a row about study {study}, {' '.join(images)}, which is not in the release: give the"
            " identifiers as the release has them."
        )
    original = stored.original(table)
    keys = zip(original["study_id"].to_pylist(), original["image_ids"].to_pylist(), strict=True)
    there = {(study, tuple(images)) for study, images in keys}
    missing = [row.key for row in reference.rows if row.split == split and row.key not in there]
    if missing:
        study, images = missing[0]
        raise RequestError(
            f"{path} has no row of the condition original for {len(missing)} of the image sets that are scored,"
            f" such as study {study}, {' '.join(images)}: give each a row, with status failed where there is no"
            " reply."
        )
