"""PadChest (BIMCV, Hospital San Juan): 160,000 images of 67,000 patients, labelled from Spanish reports.

What a label means: a physician (27 % of the reports) or a network trained on their work (the rest) read it in the
report as present. What is not listed is ``None`` (not mentioned), never 0, except that No Finding is 0 where a
disease is. Who labelled a study is kept as ``MethodLabel`` beside the labels that are none of the 14 findings.

The reports are not given away: they are in Spanish, and what reads and scores reports here reads English.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cxr_max.builders.sources.base import NO_SPLIT, Inventory, SourceInfo
from cxr_max.builders.sources.image_files import ImagePlaces
from cxr_max.builders.sources.labels import Labels, label_table
from cxr_max.builders.sources.tables import (
    count,
    existing_folder,
    needed_file,
    read_table,
    refuse,
    refuse_conflicts,
    rows_of,
    sex_of,
)
from cxr_max.builders.sources.views import frontal_first
from cxr_max.records import Radiograph, Study, View

if TYPE_CHECKING:
    import pandas as pd

HOME: Final = "https://bimcv.cipf.es/bimcv-projects/padchest/"
TABLE: Final = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
VIEWS: Final[Mapping[str, View]] = {
    "pa": "PA",
    "ap": "AP",
    "ap_horizontal": "AP",
    "l": "LATERAL",
    "costal": "other",
    "exclude": "other",
}
"""Of the column Projection, which a physician or a network filled in; ``AP_horizontal`` is of a lying patient."""


_BARE_NAN: Final = re.compile(r"(?<=[\[,\s])nan(?=[\],\s])")
"""Not in quotes: how an empty cell ended up in a list."""


class _Row(NamedTuple):
    ImageID: str
    ImageDir: str
    StudyDate_DICOM: str
    StudyID: str
    PatientID: str
    PatientBirth: str
    PatientSex_DICOM: str
    Projection: str
    PhotometricInterpretation_DICOM: str
    Rows_DICOM: str
    Columns_DICOM: str
    MethodLabel: str
    Labels: str


class PadChest:
    """A copy of PadChest. The set has no official split, so ``split`` is null.

    The images may lie in the numbered folders that the table names, or all in one. They are PNG files of up to 16
    bits. A PNG file cannot say that its lowest value is white, and nothing here turns one whose
    ``PhotometricInterpretation_DICOM`` is MONOCHROME1: the warnings count them.
    """

    info = SourceInfo(
        name="padchest",
        title="PadChest (BIMCV)",
        data_use="registration",
        licence="other",
        citation=(
            "Bustos A, Pertusa A, Salinas JM, de la Iglesia-Vaya M. PadChest: A large chest x-ray image dataset "
            "with multi-label annotated reports. Medical Image Analysis 66, 101797 (2020). "
            "https://doi.org/10.1016/j.media.2020.101797"
        ),
        home=HOME,
        download=(TABLE, "the image archives 0.zip to 54.zip (1 TB), unpacked"),
        expected={"images": 160_861},  # rows of the table; the paper counts 160,868
    )
    prerendered = False

    def __init__(self, root: Path) -> None:
        """
        Args:
            root: the folder with the table and the images.

        Raises:
            RequestError: the folder, the table or a column is missing, or the table contradicts itself.
        """
        self._folder = existing_folder(root, "PadChest")
        self._table = needed_file(self._folder, (TABLE,), HOME)
        self._rows = _read(self._table)
        self._labels = label_table(self.info.name)
        self._places = ImagePlaces(self._folder, "")
        self.total: int | None = int(self._rows["StudyID"].nunique())
        inverted = int((self._rows["PhotometricInterpretation_DICOM"] == "MONOCHROME1").sum())
        self.warnings: tuple[str, ...] = (NO_SPLIT,)
        if inverted:
            self.warnings += (
                f"{inverted} images are MONOCHROME1 in the table, and are sent as their files hold them.",
            )

    def studies(self) -> Iterator[Study]:
        """Every study, in the order of the table; its images frontal ones first."""
        for study, rows in groupby(map(_Row._make, rows_of(self._rows)), key=lambda row: row.StudyID):
            listed = list(rows)
            first = listed[0]
            stated: Labels = {label: 1 for row in listed for label in _stated(row.Labels)}
            yield Study(
                study_id=study,
                subject_id=first.PatientID,
                source=self.info.name,
                split=None,
                radiographs=tuple(sorted(map(self._image, listed), key=frontal_first)),
                reference_findings=self._labels.findings(stated) if stated else None,
                other_labels=self._labels.others(stated)
                | ({"MethodLabel": first.MethodLabel} if first.MethodLabel else {}),
                sex=sex_of(first.PatientSex_DICOM),
                age=_age(first),
            )

    def _image(self, row: _Row) -> Radiograph:
        return Radiograph(
            row.ImageID,
            self._folder / self._file(row.ImageID, row.ImageDir),
            _view(row),
            row.PhotometricInterpretation_DICOM or None,
            count(row.Rows_DICOM),
            count(row.Columns_DICOM),
        )

    def _file(self, image: str, folder: str) -> str:
        file = self._places.file(image)
        return file if "/" in file or not folder else f"{folder}/{image}"

    def inventory(self) -> Inventory:
        """See ``Shipped``. Labels are counted by image."""
        labels: Counter[str] = Counter()
        for cell, times in self._rows["Labels"].value_counts().items():
            labels.update(dict.fromkeys(_stated(str(cell)), int(times)))
        return Inventory(
            root=self._folder,
            tables=(self._table.name,),
            absent=(),
            rows=len(self._rows),
            counts={
                "images": len(self._rows),
                "studies": int(self._rows["StudyID"].nunique()),
                "subjects": int(self._rows["PatientID"].nunique()),
            },
            images=tuple(
                self._file(image, folder) for image, folder in rows_of(self._rows[["ImageID", "ImageDir"]])
            ),
            labels=labels,
            unmapped=self._labels.unmapped(labels),
            unknown=self._labels.unknown(labels),
        )


def _read(path: Path) -> "pd.DataFrame":
    """The columns of ``_Row``, the images of a study next to each other, in the order they first appear.

    An image without a study is one of its own, and a study without a patient is a patient of its own.
    """
    frame = read_table(path, _Row._fields, HOME).drop_duplicates(ignore_index=True)
    refuse_conflicts(frame, "ImageID", path, HOME)
    refuse(frame.loc[frame["ImageID"] == "", "ImageID"], path, "an empty ImageID", HOME)
    frame["StudyID"] = frame["StudyID"].where(frame["StudyID"] != "", frame["ImageID"])
    frame["PatientID"] = frame["PatientID"].where(frame["PatientID"] != "", frame["StudyID"])
    cells = frame["Labels"].drop_duplicates()
    refuse(cells[~cells.map(_is_list).astype(bool)], path, "Labels that are no list:", HOME)
    frame["ImageDir"] = frame["ImageDir"].str.removesuffix(".0")
    return frame.iloc[frame["StudyID"].factorize()[0].argsort(kind="stable")]


@lru_cache(maxsize=65536)
def _stated(cell: str) -> tuple[str, ...]:
    """``['pleural effusion', ' nodule', nan, '']``: no blanks around, nothing empty, nothing twice.

    An empty list, or ``nan`` in place of one, states nothing.

    Raises:
        SyntaxError, ValueError: the cell is no list.
    """
    if cell.casefold() in ("", "nan"):
        return ()
    listed = ast.literal_eval(_BARE_NAN.sub("None", cell))
    parts = [part.strip() for part in listed if isinstance(part, str)]
    return tuple(dict.fromkeys(part for part in parts if part and part.casefold() != "nan"))


def _is_list(cell: str) -> bool:
    try:
        _stated(cell)
    except (SyntaxError, TypeError, ValueError):
        return False
    return cell.startswith("[") or cell.casefold() in ("", "nan")


def _view(row: _Row) -> View:
    return VIEWS.get(row.Projection.casefold(), "unknown")


def _age(row: _Row) -> float | None:
    """Full years at most: the set has the day of the study, but only the year of birth."""
    born, taken = row.PatientBirth.partition(".")[0], row.StudyDate_DICOM[:4]
    if not (len(born) == 4 and born.isdecimal() and taken.isdecimal()):
        return None
    years = int(taken) - int(born)
    return float(years) if 0 <= years <= 120 else None
