"""What the two MIMIC chest radiograph sets share: their tables, and how these become studies.

Layout and coding: Johnson et al. 2019, MIMIC-CXR (Sci Data 6, 317) and MIMIC-CXR-JPG (arXiv:1901.07042).
Tables are held in memory, a few hundred bytes an image; images are never opened here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cxr_max.builders.sources.tables import (
    SPLIT_WORDS,
    all_differ,
    count,
    find_table,
    find_version,
    finding_named,
    read_state,
    read_table,
    refuse,
    refuse_conflicts,
)
from cxr_max.builders.sources.views import VIEW_ORDER, normalise_view
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, State
from cxr_max.records import Radiograph, Split, Study

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

States = tuple[State | None, ...]
"""One study's labels, in the order of ``FINDINGS``."""
Dated = tuple[Radiograph, datetime | None]
"""An image and when it was acquired."""
ReadReport = Callable[[int, int], str | None]
"""From subject and study to the text of the report."""

METADATA: Final = "mimic-cxr-2.0.0-metadata"
SPLIT: Final = "mimic-cxr-2.0.0-split"
CHEXPERT: Final = "mimic-cxr-2.0.0-chexpert"
TEST_LABELS: Final = "mimic-cxr-2.1.0-test-set-labeled"
RECORDS: Final = "cxr-record-list"
JPG_HOME: Final = "https://physionet.org/content/mimic-cxr-jpg/2.1.0/"
DICOM_HOME: Final = "https://physionet.org/content/mimic-cxr/2.1.0/"


class ImageRow(NamedTuple):
    """One image as the tables know it; a blank string is a blank cell."""

    subject_id: int
    study_id: int
    dicom_id: str
    path: str
    """From the version folder, as the record list writes it; blank in the tables of MIMIC-CXR-JPG."""
    split: str
    ViewPosition: str
    ViewCodeSequence_CodeMeaning: str
    PerformedProcedureStepDescription: str
    Rows: str
    Columns: str
    StudyDate: str
    StudyTime: str
    described: bool
    """Whether the metadata table has a row for it."""


METADATA_COLUMNS: Final = (
    "dicom_id",
    "subject_id",
    "study_id",
    "PerformedProcedureStepDescription",
    "ViewPosition",
    "Rows",
    "Columns",
    "StudyDate",
    "StudyTime",
    "ViewCodeSequence_CodeMeaning",
)


def need_table(folders: Iterable[Path], table: str, home: str) -> Path:
    """The first of ``folders`` that has ``table``.

    Raises:
        RequestError: none has it.
    """
    searched = list(folders)
    for folder in searched:
        if path := find_table(folder, table):
            return path
    where = " or ".join(str(folder) for folder in searched)
    raise RequestError(f"{table}.csv.gz is missing from {where}: download it from {home}.")


_STATES: Final[tuple[State | None, ...]] = (None, 1, 0, -1)
_NUMEROUS: Final = frozenset({"dicom_id", "subject_id", "study_id", "path", "StudyTime"})
"""Columns with nearly as many texts as rows."""


def read_images(path: Path, columns: Iterable[str], home: str) -> "pd.DataFrame":
    """A table of one row per image, repeated rows dropped: subject and study as numbers, views as categories.

    Raises:
        RequestError: an id is no number, or an image has two rows that differ.
    """
    wanted = tuple(columns)
    frame = read_table(path, wanted, home, categories=set(wanted) - _NUMEROUS)
    if not all_differ(frame["dicom_id"]):
        frame = frame.drop_duplicates()
        refuse_conflicts(frame, "dicom_id", path, home)
    for name in ("subject_id", "study_id"):
        frame[name] = _numbers(frame[name], path, home)
    return frame


def _numbers(column: "pd.Series[str]", path: Path, home: str) -> "pd.Series[int]":
    refuse(column[~column.str.fullmatch(r"\d{1,18}")], path, f"an impossible {column.name}", home)
    return column.astype("int64")


def read_splits(path: Path) -> "pd.Series[str]":
    """The split of every study, indexed by ``study_id``; ``validate`` becomes ``validation``.

    Raises:
        RequestError: a split is none of MIMIC's three, or the images of a study have different ones.
    """
    frame = read_table(path, ("study_id", "split"), JPG_HOME, categories=("split",)).drop_duplicates()
    refuse_conflicts(frame, "study_id", path, JPG_HOME)
    refuse(frame["split"][~frame["split"].isin(list(SPLIT_WORDS))], path, "the unknown split", JPG_HOME)
    return frame.set_index(_numbers(frame["study_id"], path, JPG_HOME))["split"].map(SPLIT_WORDS)


def read_labels(path: Path) -> dict[int, States]:
    """The labels of every study in a table of MIMIC's layout, columns in any order.

    Coded 1.0 present, 0.0 absent, -1.0 uncertain, blank not mentioned. "Airspace Opacity" and "No Findings",
    as the radiologists' table of the test split has them, are Lung Opacity and No Finding.

    Raises:
        RequestError: a column is missing, a cell is none of these, or a study has two rows that differ.
    """
    frame = read_table(path, None, JPG_HOME, categories=FINDINGS)
    frame = frame.rename(columns=lambda name: finding_named(name) or name)
    for name in ("study_id", *FINDINGS):
        if name not in frame.columns:
            raise RequestError(f"{path} has no column {name}: get it anew from {JPG_HOME}.")
    frame = frame[["study_id", *FINDINGS]]
    if not all_differ(frame["study_id"]):
        frame = frame.drop_duplicates()
        refuse_conflicts(frame, "study_id", path, JPG_HOME)
    studies = _numbers(frame["study_id"], path, JPG_HOME).tolist()
    rows, kinds = _kinds(_states(frame[name], path) for name in FINDINGS)
    return {study: kinds[row] for study, row in zip(studies, rows, strict=True)}


def _states(column: "pd.Series[str]", path: Path) -> "NDArray[np.int64]":
    """(n,): each cell's place in ``_STATES``."""
    import numpy as np
    import pandas as pd

    codes, cells = pd.factorize(column)
    states = [read_state(str(cell), f"{path}, column {column.name}") for cell in cells]
    return np.array([_STATES.index(state) for state in states], dtype=np.int64)[codes]


def _kinds(columns: "Iterable[NDArray[np.int64]]") -> tuple[list[int], list[States]]:
    """Each row's place among those that differ, and these: a few thousand tuples for all studies."""
    import numpy as np

    numbers = sum(column * len(_STATES) ** place for place, column in enumerate(columns))
    different, places = np.unique(numbers, return_inverse=True)
    digits = (different[:, None] // len(_STATES) ** np.arange(len(FINDINGS))) % len(_STATES)
    return places.tolist(), [tuple(_STATES[digit] for digit in row) for row in digits.tolist()]


def timestamp(date: str, time: str) -> datetime | None:
    """When an image was acquired, to the second: MIMIC's (shifted) StudyDate ``21800506``, StudyTime ``91500.0``.

    The table lost the hour's leading zeros, and seconds may have a fraction. ``None`` where a part is
    blank or bad.
    """
    clock = time.partition(".")[0]
    try:
        return datetime.strptime(f"{date} {clock:0>6}", "%Y%m%d %H%M%S") if clock else None
    except ValueError:
        return None


def from_tables(row: ImageRow, path: Path) -> Dated:
    """An image as the metadata table describes it."""
    view = normalise_view(
        row.ViewPosition, row.ViewCodeSequence_CodeMeaning, row.PerformedProcedureStepDescription
    )
    image = Radiograph(row.dicom_id, path, view, rows=count(row.Rows), columns=count(row.Columns))
    return image, timestamp(row.StudyDate, row.StudyTime)


def locate(folders: Iterable[Path], labels: Path | None) -> dict[str, Path]:
    """Where each table is that was found, by name: first in ``labels``, then in ``folders``.

    Args:
        labels: a folder of tables, or one table of labels to be used for MIMIC-CXR-JPG's own.

    Raises:
        RequestError: ``labels`` is not there, or is a folder with neither labels nor splits.
    """
    searched, found = list(folders), {}
    if labels is not None:
        labels = labels.expanduser()
        if labels.is_dir():
            searched.insert(0, labels)
            if not find_table(labels, SPLIT):
                need_table([labels], CHEXPERT, JPG_HOME)
        elif not labels.is_file():
            raise RequestError(f"{labels} is neither a table of labels nor a folder of tables: name one.")
    for table in (METADATA, SPLIT, CHEXPERT, TEST_LABELS):
        if path := next(filter(None, (find_table(folder, table) for folder in searched)), None):
            found[table] = path
    return found if labels is None or labels.is_dir() else found | {CHEXPERT: labels}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The images and labels of one copy, opened."""

    images: "pd.DataFrame"
    """The columns of ``ImageRow``, one row per image, the images of a study next to each other."""
    labels: Mapping[int, States]
    test_labels: Mapping[int, States]
    """A radiologist's, which count for the test split wherever there are any."""

    @classmethod
    def join(cls, images: "pd.DataFrame", tables: Mapping[str, Path]) -> "Catalogue":
        """Read what splits and labels were located.

        Args:
            images: will be sorted by subject and study, as numbers. Whoever keeps a reference pays for a copy.
        """
        images["split"] = ""
        if SPLIT in tables:
            images["split"] = images["study_id"].map(read_splits(tables[SPLIT])).astype("str").fillna("")
        for name in set(ImageRow._fields) - set(images.columns):
            images[name] = ""
        images = images.sort_values(["subject_id", "study_id"], kind="stable", ignore_index=True)
        labels, test_labels = (
            read_labels(tables[name]) if name in tables else {} for name in (CHEXPERT, TEST_LABELS)
        )
        return cls(images[list(ImageRow._fields)], labels, test_labels)

    def count_studies(self) -> int:
        """How many studies ``studies`` yields."""
        keys = self.images[["subject_id", "study_id"]]
        return int((keys != keys.shift()).any(axis=1).sum())

    def warnings(self) -> tuple[str, ...]:
        """Says so where the test split has no radiologist's labels."""
        if self.test_labels or not self.labels or not (self.images["split"] == "test").any():
            return ()
        return (
            f"{TEST_LABELS}.csv is missing, so the test split has the labels of CheXpert instead of those of "
            f"a radiologist: download it from {JPG_HOME}.",
        )

    def studies(self, source: str, image: Callable[[ImageRow], Dated], report: ReadReport) -> Iterator[Study]:
        """Every study, by subject and study; its images by time, then view, then ``dicom_id``."""
        for (subject, study), rows in groupby(self._rows(), key=lambda row: row[:2]):
            listed = list(rows)
            dated = sorted(map(image, listed), key=_place_in_study)
            split = next((SPLIT_WORDS[row.split] for row in listed if row.split), None)
            states = self._states(study, split)
            yield Study(
                study_id=str(study),
                subject_id=str(subject),
                source=source,
                split=split,
                radiographs=tuple(radiograph for radiograph, _ in dated),
                acquired_at=dated[0][1],
                reference_findings=None if states is None else dict(zip(FINDINGS, states, strict=True)),
                report=report(subject, study),
            )

    def _rows(self, block: int = 8192) -> Iterator[ImageRow]:
        for start in range(0, len(self.images), block):
            rows = self.images.iloc[start : start + block]
            yield from map(ImageRow._make, rows.itertuples(index=False, name=None))

    def _states(self, study: int, split: Split | None) -> States | None:
        if split == "test" and study in self.test_labels:
            return self.test_labels[study]
        return self.labels.get(study)


def _place_in_study(dated: Dated) -> tuple[datetime, int, str]:
    image, acquired_at = dated
    return acquired_at or datetime.max, VIEW_ORDER[image.view], image.image_id


def study_folder(subject: int, study: int) -> str:
    """Where a study's images are, from the version folder; its report has the same name and ``.txt``."""
    return f"files/p{str(subject)[:2]}/p{subject}/s{study}"


def sibling(version: Path, name: str, table: str) -> Path | None:
    """The other set beside this one: ``../../<name>/<same version>``, or the version that has ``table``."""
    other = version.parent.parent / name
    candidates = (other / version.name, other, version.parent / name)
    return next((find_version(path, table) for path in candidates if path.is_dir()), None)
