"""What predictions are held against: the image sets of a release that are scored, and what is known about them."""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from cxr_max.drift.states import PRESENT, UNCERTAIN, Codes, encode
from cxr_max.errors import RequestError
from cxr_max.eval.metrics.measured import Bools, Ints
from cxr_max.findings import FINDINGS, SIDES, Findings, Side, Sides
from cxr_max.progression import COMPARED, Changes
from cxr_max.shards import write_shard

if TYPE_CHECKING:
    import pyarrow as pa

COMMON_PATIENTS: Final = 15
"""More than an interval needs, so that a few refusals do not take a finding's interval away."""
SIDE_ORDER: Final[tuple[Side | None, ...]] = (None, *SIDES)
Key = tuple[str, tuple[str, ...]]
"""Study and images."""


@dataclass(frozen=True, slots=True)
class ReferenceRow:
    """One image set."""

    study_id: str
    image_ids: tuple[str, ...]
    subject_id: str
    source: str
    split: str
    """``test`` for data that is not divided."""
    source_sha256: tuple[str, ...]
    findings: Findings | None
    """``None`` where the source has no labels for the study."""
    sides: Sides | None
    sex: str | None
    age: float | None
    view: str
    """Of the first image."""
    report: str | None
    seen: bool
    """The training release has its patient, its picture, or one that looks the same."""
    progression: Changes | None = None
    """From the first image to the second; ``None`` where the source says nothing of it."""

    @property
    def key(self) -> Key:
        """What it is told by."""
        return self.study_id, self.image_ids


@dataclass(frozen=True, eq=False)
class Reference:
    """n image sets as arrays, in ascending order of a hash, so that the first N are always the same ones."""

    rows: tuple[ReferenceRow, ...]

    def __post_init__(self) -> None:
        if len({row.key for row in self.rows}) < len(self.rows):
            raise RequestError("An image set stands twice in the reference: take one of its rows out.")

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def position(self) -> dict[Key, int]:
        """Where each image set stands."""
        return {row.key: index for index, row in enumerate(self.rows)}

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """(n,) patients."""
        return tuple(row.subject_id for row in self.rows)

    @cached_property
    def labelled(self) -> Bools:
        """(n,): there are reference findings."""
        return np.array([row.findings is not None for row in self.rows], dtype=np.bool_)

    @cached_property
    def states(self) -> Codes:
        """(n, 14): index ``STATE_ORDER``; 0, not mentioned, where there are no labels."""
        return _stacked([encode(row.findings or {}) for row in self.rows])

    @cached_property
    def sides(self) -> Codes:
        """(n, 14): index ``SIDE_ORDER``."""
        return _stacked([side_codes(row.sides or {}) for row in self.rows])

    @cached_property
    def common(self) -> tuple[int, ...]:
        """Places of the findings over which means are taken: ``COMMON_PATIENTS`` have it, and as many do not.

        It depends on nothing that a model does.
        """
        _, patient = np.unique(np.asarray(self.subjects, dtype=str), return_inverse=True)
        places = []
        for place in range(len(FINDINGS)):
            state = self.states[:, place]
            present = self.labelled & (state == PRESENT)
            absent = self.labelled & (state != PRESENT) & (state != UNCERTAIN)
            if min(len(np.unique(patient[rows])) for rows in (present, absent)) >= COMMON_PATIENTS:
                places.append(place)
        return tuple(places)

    def marked(self, seen: Collection[tuple[str, str]]) -> "Reference":
        """The same, with (source, study) of what the training release has marked as seen."""
        return Reference(tuple(replace(row, seen=(row.source, row.study_id) in seen) for row in self.rows))

    def take(self, chosen: Sequence[int] | Ints) -> "Reference":
        """Some of the image sets, in the order given."""
        return Reference(tuple(self.rows[index] for index in chosen))


def ordered(rows: Iterable[ReferenceRow]) -> Reference:
    """Put image sets into the order of their hashes."""
    return Reference(tuple(sorted(rows, key=lambda row: hashlib.sha256(json.dumps(row.key).encode()).digest())))


def side_codes(sides: Sides) -> Codes:
    """(14,): indices of ``SIDE_ORDER``."""
    return np.array([SIDE_ORDER.index(sides.get(name)) for name in FINDINGS], dtype=np.int8)


def _stacked(rows: Sequence[NDArray[np.int8]]) -> Codes:
    return np.array(rows, dtype=np.int8).reshape(len(rows), len(FINDINGS))


_DESCRIBED: Final = {
    "study_id": "The study's identifier in its data set",
    "image_ids": "Its images that were asked about, in order",
    "subject_id": "The patient: resamples draw patients",
    "source": "The data set",
    "split": "train, validation or test; test where the data set is not divided",
    "source_sha256": "sha256 of each image's file",
    "findings": "1 present, 0 absent, -1 uncertain, null not mentioned; null as a whole without labels",
    "sides": "The patient's side of a present or uncertain finding",
    "sex": "M or F",
    "age": "Years",
    "view": "Of the first image",
    "report": "The radiologist's",
    "seen": "Whether the training release has its patient, its picture, or one that looks the same",
    "progression": "From the first image to the second: improving, stable, worsening, or null where nothing says",
}


def reference_schema() -> "pa.Schema":
    """The columns of ``reference.parquet``."""
    import pyarrow as pa

    types: dict[str, pa.DataType] = {
        **dict.fromkeys(("image_ids", "source_sha256"), pa.list_(pa.string())),
        "findings": pa.struct([(name, pa.int8()) for name in FINDINGS]),
        "sides": pa.struct([(name, pa.string()) for name in FINDINGS]),
        "progression": pa.struct([(name, pa.string()) for name in COMPARED]),
        "age": pa.float64(),
        "seen": pa.bool_(),
    }
    return pa.schema([
        pa.field(name, types.get(name, pa.string()), metadata={"description": text})
        for name, text in _DESCRIBED.items()
    ])  # fmt: skip


def write_reference(path: Path, reference: Reference) -> None:
    """Write ``reference.parquet``.

    Raises:
        StorageError: the disk refused.
    """
    names = [field.name for field in fields(ReferenceRow)]
    write_shard(path, ({name: getattr(row, name) for name in names} for row in reference.rows), reference_schema())


def read_reference(path: Path) -> Reference:
    """The inverse of ``write_reference``.

    Raises:
        RequestError: the file is missing, damaged, or of another form.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RequestError(f"{path} cannot be read as Parquet ({error}): run the evaluation again.") from error
    if not table.schema.equals(reference_schema()):
        raise RequestError(f"{path} has other columns than a reference has: run the evaluation again.")
    return Reference(tuple(_row(values) for values in table.to_pylist()))


def _row(values: dict[str, Any]) -> ReferenceRow:
    for name in ("image_ids", "source_sha256"):
        values[name] = tuple(values[name])
    return ReferenceRow(**values)
