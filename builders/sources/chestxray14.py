"""ChestX-ray14 (NIH): 112,120 frontal images of 30,805 patients, with labels mined from the reports.

What a label means: the owners' text miner found it stated as present in the report. A label that is not listed was
denied or never spoken of, and the table does not tell which, so it is ``None`` (not mentioned), never 0. The one
exception is No Finding: the set gives it exactly where it gives no disease, so it is 0 wherever one is listed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cxr_max.builders.sources.base import Inventory, SourceInfo
from cxr_max.builders.sources.boxes import Box, sides_of
from cxr_max.builders.sources.image_files import ImagePlaces
from cxr_max.builders.sources.labels import Labels, label_table
from cxr_max.builders.sources.tables import (
    age_of,
    existing_folder,
    needed_file,
    optional_file,
    read_lines,
    read_number,
    read_table,
    refuse,
    refuse_conflicts,
    rows_of,
    sex_of,
)
from cxr_max.builders.sources.views import normalise_view
from cxr_max.errors import RequestError
from cxr_max.records import Radiograph, Split, Study

if TYPE_CHECKING:
    import pandas as pd

HOME: Final = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
TABLES: Final = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
LISTS: Final[Mapping[str, Split]] = {"train_val_list": "train", "test_list": "test"}
BOXES: Final = "BBox_List_2017.csv"
BOX_COLUMNS: Final = 1024
"""The images that NIH offers are all 1024 x 1024, and the boxes were drawn on these."""


class Entry(NamedTuple):
    """One image as the table knows it; a blank string is a blank cell."""

    image: str
    labels: str
    patient: str
    age: str
    sex: str
    view: str


class ChestXray14:
    """A copy of ChestX-ray14: every image is a study of its own.

    The images may lie in one folder or in several (``images/``, ``images_001/images/``). Sides come from the
    boxes that a radiologist drew on about 900 of the images.
    """

    info = SourceInfo(
        name="chestxray14",
        title="ChestX-ray14 (NIH Clinical Center)",
        data_use="open",
        licence="other",
        citation=(
            "Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM. ChestX-ray8: Hospital-scale Chest X-ray Database "
            "and Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. "
            "IEEE CVPR (2017). Images provided by the NIH Clinical Center."
        ),
        home=HOME,
        download=(
            "images/ (12 archives, 45 GB)",
            "Data_Entry_2017_v2020.csv",
            "train_val_list.txt and test_list.txt (without them there are no splits)",
            "BBox_List_2017.csv (without it there are no sides)",
        ),
        expected={"images": 112_120, "studies": 112_120, "subjects": 30_805, "train": 86_524, "test": 25_596},
        overlaps=("chestx-det10", "chestx-det"),
    )
    prerendered = True

    def __init__(self, root: Path) -> None:
        """
        Args:
            root: the folder with the tables and the images.

        Raises:
            RequestError: the folder, the table or a column is missing, or a table contradicts itself.
        """
        self._folder = existing_folder(root, "ChestX-ray14")
        self._table = needed_file(self._folder, TABLES, HOME)
        self._rows = read_entries(self._table)
        self._lists = [path for name in LISTS if (path := _list_file(self._folder, name))]
        self._splits = _read_splits(self._folder)
        self._box_file = optional_file(self._folder, BOXES)
        self._boxes = {} if self._box_file is None else _read_boxes(self._box_file)
        self._places = ImagePlaces(self._folder, "images")
        self._labels = label_table(self.info.name)
        self.total: int | None = len(self._rows)
        self.warnings = tuple(self._warn())

    def _warn(self) -> Iterator[str]:
        if not self._splits:
            yield f"train_val_list.txt and test_list.txt are missing, so splits are null: get them from {HOME}."
        elif left := len(set(self._rows["image"]) - set(self._splits)):
            yield f"{left} images are on neither list of the official split, so their split is null."

    def studies(self) -> Iterator[Study]:
        """Every image, in the order of the table."""
        for row in map(Entry._make, rows_of(self._rows)):
            stated = _stated(row.labels)
            findings = self._labels.findings(stated)
            boxes = self._boxes.get(row.image)
            yield Study(
                study_id=row.image.rpartition(".")[0],
                subject_id=row.patient,
                source=self.info.name,
                split=self._splits.get(row.image),
                radiographs=(
                    Radiograph(row.image, self._places.path(row.image), normalise_view(row.view, None, None)),
                ),
                reference_findings=findings if stated else None,
                reference_sides=sides_of(boxes, BOX_COLUMNS, self._labels, findings) if boxes else None,
                other_labels=self._labels.others(stated),
                sex=sex_of(row.sex),
                age=age_of(row.age),
            )

    def inventory(self) -> Inventory:
        """See ``Shipped``."""
        images = self._rows["image"].tolist()
        labels = Counter(label for cell in self._rows["labels"] for label in _stated(cell))
        splits: Counter[str] = Counter(split for image in images if (split := self._splits.get(image)))
        found = [self._table, *self._lists, *([self._box_file] if self._box_file else [])]
        return Inventory(
            root=self._folder,
            tables=tuple(path.name for path in found),
            absent=tuple(
                name
                for name, there in (
                    ("train_val_list.txt, test_list.txt (splits)", len(self._lists) == len(LISTS)),
                    (f"{BOXES} (sides)", self._box_file is not None),
                )
                if not there
            ),
            rows=len(images),
            counts={
                "images": len(images),
                "studies": len(images),
                "subjects": int(self._rows["patient"].nunique()),
                **splits,
            },
            images=tuple(map(self._places.file, images)),
            labels=labels,
            unmapped=self._labels.unmapped(labels),
            unknown=self._labels.unknown(labels),
        )


def read_entries(path: Path) -> "pd.DataFrame":
    """The columns of ``Entry``; the older table calls Patient Sex Patient Gender."""
    frame = read_table(path, None, HOME)
    names = ["Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Sex", "View Position"]
    if "Patient Sex" not in frame.columns:
        names[4] = "Patient Gender"
    for name in names:
        if name not in frame.columns:
            raise RequestError(f"{path} has no column {name}: get it anew from {HOME}.")
    frame = frame[names].set_axis(list(Entry._fields), axis=1).drop_duplicates(ignore_index=True)
    refuse_conflicts(frame, "image", path, HOME)
    refuse(
        frame.loc[~frame["patient"].str.fullmatch(r"\d{1,8}"), "patient"], path, "an impossible Patient ID", HOME
    )
    # As in the images' names, and so as in ChestX-Det10, which has nothing but names.
    frame["patient"] = frame["patient"].str.zfill(8)
    return frame


def _stated(cell: str) -> Labels:
    """``Cardiomegaly|Effusion``; a cell without a label, blank or ``nan``, states nothing."""
    parts = (part.strip() for part in cell.split("|"))
    return {part: 1 for part in parts if part and part.casefold() != "nan"}


def _list_file(folder: Path, name: str) -> Path | None:
    """A list of the official split; copies from elsewhere call it ``..._NIH.txt``."""
    files = (folder / f"{name}.txt", folder / f"{name}_NIH.txt")
    return next((path for path in files if path.is_file()), None)


def _read_splits(folder: Path) -> dict[str, Split]:
    """The split of each image. The owners divide into train and validation together, and test."""
    splits: dict[str, Split] = {}
    for name, split in LISTS.items():
        path = _list_file(folder, name)
        for image in () if path is None else read_lines(path, HOME):
            if splits.setdefault(image, split) != split:
                raise RequestError(f"{folder} has {image} on both lists of the split: get them anew from {HOME}.")
    return splits


def _read_boxes(path: Path) -> dict[str, list[Box]]:
    """Boxes by image. The header says ``Bbox [x,y,w,h],,,``, which falls apart into columns at its commas."""
    frame = read_table(path, None, HOME)
    if list(frame.columns[:6]) != ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"]:
        raise RequestError(f"{path} does not begin with the columns of the owners' file: get it anew from {HOME}.")
    boxes: dict[str, list[Box]] = {}
    for image, label, x, _, width, _ in rows_of(frame.iloc[:, :6]):
        left = read_number(x, f"{path}, x of {image}", HOME)
        boxes.setdefault(image, []).append(
            Box(label, left, left + read_number(width, f"{path}, w of {image}", HOME))
        )
    return boxes
