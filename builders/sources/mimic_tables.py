"""What the two MIMIC chest radiograph sets share: their tables, and how these become studies.

Layout and coding: Johnson et al. 2019, MIMIC-CXR (Sci Data 6, 317) and MIMIC-CXR-JPG (arXiv:1901.07042).
Tables are held in memory, a few hundred bytes an image; images are never opened here.
"""

import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cxr_max.builders.sources.views import VIEW_ORDER, normalise_view
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, State, state_of
from cxr_max.records import Radiograph, Split, Study

if TYPE_CHECKING:
    import pandas as pd

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

SPLIT_WORDS: Final[Mapping[str, Split]] = {
    "train": "train",
    "validate": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
_COLUMN_NAMES: Final = {"no findings": "No Finding", "airspace opacity": "Lung Opacity"} | {
    name.casefold(): name for name in FINDINGS
}
_DAMAGED: Final = (EOFError, OSError, ValueError, Warning, zlib.error)
"""What pandas raises for a table that is cut short, not text or not rectangular."""


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


def finding_named(text: str) -> str | None:
    """The finding that a column or cell names, whatever its case; "Airspace Opacity" is Lung Opacity."""
    return _COLUMN_NAMES.get(text.replace("_", " ").strip().casefold())


def existing_folder(path: Path, what: str) -> Path:
    """The absolute form of a folder's path.

    Raises:
        RequestError: there is no such folder.
    """
    folder = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - keeps symbolic links as they were given
    if not folder.is_dir():
        raise RequestError(f"{folder} is not a folder: name the one that holds {what}.")
    return folder


def find_version(root: Path, table: str) -> Path:
    """The folder that holds ``table``: ``root``, or else its newest version folder (``2.1.0``) that does."""
    return next((folder for folder in (root, *_versions(root)) if find_table(folder, table)), root)


def version_folder(root: Path) -> Path:
    """The folder that holds ``files/``: ``root``, or else its newest version folder that does. Needs no table."""
    return next((folder for folder in (root, *_versions(root)) if (folder / "files").is_dir()), root)


def _versions(root: Path) -> list[Path]:
    versions = (path for path in root.iterdir() if re.fullmatch(r"\d+(\.\d+)+", path.name))
    return sorted(versions, key=lambda path: [int(part) for part in path.name.split(".")], reverse=True)


def find_table(folder: Path, table: str) -> Path | None:
    """A table, as shipped (``.csv.gz``) or unzipped; the compressed one where both are there."""
    candidates = (folder / f"{table}.csv.gz", folder / f"{table}.csv")
    return next((path for path in candidates if path.is_file()), None)


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


def read_table(path: Path, columns: Iterable[str] | None, home: str) -> "pd.DataFrame":
    """Read a CSV table as stripped text, by column name; a blank cell is ``""``.

    Args:
        columns: those that must be there, in the order wanted, and the only ones kept; ``None`` keeps all.
        home: where the table can be had from, for the messages.

    Raises:
        RequestError: the table is damaged or lacks a column.
    """
    import pandas as pd

    wanted = None if columns is None else tuple(columns)
    usecols = None if wanted is None else lambda name: name.strip() in wanted
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the header, cut
            frame = pd.read_csv(
                path, dtype=str, keep_default_na=False, encoding="utf-8-sig", usecols=usecols, index_col=False
            )
    except _DAMAGED as error:
        cause = " ".join(str(error).split())
        raise RequestError(f"{path} cannot be read as a table ({cause}): get it anew from {home}.") from error
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    for name in wanted or ():
        if name not in frame.columns:
            raise RequestError(f"{path} has no column {name}: get it anew from {home}.")
    for name in frame.columns:
        frame[name] = frame[name].fillna("").str.strip()
    return frame if wanted is None else frame[list(wanted)]


def read_images(path: Path, columns: Iterable[str], home: str) -> "pd.DataFrame":
    """A table of one row per image: subject and study as numbers, repeated rows dropped.

    Raises:
        RequestError: an id is no number, or an image has two rows that differ.
    """
    frame = read_table(path, columns, home).drop_duplicates()
    refuse_conflicts(frame, "dicom_id", path, home)
    for name in ("subject_id", "study_id"):
        _refuse(frame.loc[~frame[name].str.fullmatch(r"\d{1,18}"), name], path, f"an impossible {name}", home)
        frame[name] = frame[name].astype("int64")
    return frame


def refuse_conflicts(frame: "pd.DataFrame", key: str, path: Path, home: str) -> None:
    """
    Raises:
        RequestError: two rows that share ``key`` are left, so that they differ in something else.
    """
    repeated = frame.loc[frame.duplicated([key]), key]
    _refuse(repeated, path, f"rows that contradict each other for {key}", home)


def _refuse(values: "pd.Series[str]", path: Path, defect: str, home: str) -> None:
    if len(values):
        raise RequestError(f"{path} has {defect} {values.iloc[0]!r}: get it anew from {home}.")


def read_splits(path: Path) -> "pd.Series[str]":
    """The split of every image, indexed by ``dicom_id``; ``validate`` becomes ``validation``.

    Raises:
        RequestError: a split is none of MIMIC's three, or the images of a study have different ones.
    """
    frame = read_table(path, ("dicom_id", "study_id", "split"), JPG_HOME).drop_duplicates()
    refuse_conflicts(frame, "dicom_id", path, JPG_HOME)
    refuse_conflicts(frame[["study_id", "split"]].drop_duplicates(), "study_id", path, JPG_HOME)
    splits = frame.set_index("dicom_id")["split"]
    _refuse(splits[~splits.isin(list(SPLIT_WORDS))], path, "the unknown split", JPG_HOME)
    return splits.map(SPLIT_WORDS)


def read_labels(path: Path) -> dict[int, States]:
    """The labels of every study in a table of MIMIC's layout, columns in any order.

    Coded 1.0 present, 0.0 absent, -1.0 uncertain, blank not mentioned. "Airspace Opacity" and "No Findings",
    as the radiologists' table of the test split has them, are Lung Opacity and No Finding.

    Raises:
        RequestError: a column is missing, a cell is none of these, or a study has two rows that differ.
    """
    frame = read_table(path, None, JPG_HOME)
    frame = frame.rename(columns=lambda name: finding_named(name) or name)
    for name in ("study_id", *FINDINGS):
        if name not in frame.columns:
            raise RequestError(f"{path} has no column {name}: get it anew from {JPG_HOME}.")
    _refuse(
        frame.loc[~frame["study_id"].str.fullmatch(r"\d{1,18}"), "study_id"],
        path,
        "an impossible study_id",
        JPG_HOME,
    )
    studies = frame["study_id"].astype("int64").tolist()
    seen: dict[States, States] = {}
    labels: dict[int, States] = {}
    for study, row in zip(
        studies, zip(*(_states(frame[name], path) for name in FINDINGS), strict=True), strict=True
    ):
        states = seen.setdefault(row, row)
        if labels.setdefault(study, states) != states:
            _refuse_study(study, path)
    return labels


def _refuse_study(study: int, path: Path) -> None:
    raise RequestError(
        f"{path} has rows that contradict each other for study_id {study}: get it anew from {JPG_HOME}."
    )


def _states(column: "pd.Series[str]", path: Path) -> list[State | None]:
    import pandas as pd

    codes, cells = pd.factorize(column)
    states = [read_state(str(cell), f"{path}, column {column.name}") for cell in cells]
    return [states[code] for code in codes]


def read_state(cell: str, where: str) -> State | None:
    """One label cell: 1, 0, -1 or blank.

    Raises:
        RequestError: it holds anything else; ``where`` says which cell it is.
    """
    try:
        return state_of(cell)
    except ValueError:
        raise RequestError(f"{where}: {cell!r} is no finding's state; write 1, 0, -1 or nothing.") from None


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


def count(cell: str) -> int | None:
    """A number of pixels, or ``None`` where the cell holds none."""
    return int(cell) if cell.isdecimal() else None


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
        """Sort the images by subject and study, as numbers, and read what splits and labels were located."""
        images["split"] = ""
        if SPLIT in tables:
            images["split"] = images["dicom_id"].map(read_splits(tables[SPLIT])).fillna("")
        for name in set(ImageRow._fields) - set(images.columns):
            images[name] = ""
        ordered = images.sort_values(["subject_id", "study_id", "dicom_id"], ignore_index=True)
        labels, test_labels = (
            read_labels(tables[name]) if name in tables else {} for name in (CHEXPERT, TEST_LABELS)
        )
        return cls(ordered[list(ImageRow._fields)], labels, test_labels)

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
