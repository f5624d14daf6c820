"""ChestX-Det10 and ChestX-Det (Deepwise): some 3,500 images of ChestX-ray14, read anew by three radiologists.

They drew a box around every instance of 10 (or 13) categories, so an image without one has it absent: 0. Where a
category is only a part of a finding (Pleural Thickening of Pleural Other) its absence says nothing. No category
means normal: No Finding is 0 where anything is marked, and else not known.

The images are NIH's. ChestX-Det10 calls them as ChestX-ray14 does, so the patient is known from the name;
ChestX-Det has numbered them anew.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from cxr_max.builders.sources.base import Inventory, SourceInfo
from cxr_max.builders.sources.boxes import Box, sides_of
from cxr_max.builders.sources.chestxray14 import TABLES, Entry, read_entries
from cxr_max.builders.sources.image_files import ImagePlaces
from cxr_max.builders.sources.labels import Labels, label_table
from cxr_max.builders.sources.tables import age_of, existing_folder, optional_file, rows_of, sex_of
from cxr_max.builders.sources.views import normalise_view
from cxr_max.errors import RequestError
from cxr_max.records import Radiograph, Split, Study

IMAGE_COLUMNS: Final = 1024
"""As all images that NIH offers; the boxes were drawn on these."""
CATEGORIES: Final = (
    *("Atelectasis", "Calcification", "Consolidation", "Effusion", "Emphysema", "Fibrosis", "Fracture"),
    *("Mass", "Nodule", "Pneumothorax"),
)
"""Of ChestX-Det10."""
ADDED: Final = ("Cardiomegaly", "Diffuse Nodule", "Pleural Thickening")
"""By ChestX-Det."""
_NIH_NAME: Final = re.compile(r"(\d{8})_\d{3}\.png")


class _Entry(NamedTuple):
    image: str
    split: Split
    boxes: tuple[Box, ...]


class ChestXDet10:
    """A copy of ChestX-Det10: every image is a study of its own. Sides come from the boxes.

    Views, sex and age are known where ChestX-ray14's table (``Data_Entry_2017_v2020.csv``) lies in the folder too.
    """

    info = SourceInfo(
        name="chestx-det10",
        title="ChestX-Det10 (Deepwise, on images of the NIH Clinical Center)",
        data_use="open",
        licence="other",
        citation=(
            "Liu J, Lian J, Yu Y. ChestX-Det10: Chest X-ray Dataset on Detection of Thoracic Abnormalities. "
            "arXiv:2006.10550 (2020)."
        ),
        home="https://github.com/Deepwise-AILab/ChestX-Det10-Dataset",
        download=("train.json", "test.json", "train_data.zip", "test_data.zip"),
        expected={"images": 3_543, "studies": 3_543, "train": 3_001, "test": 542},
        overlaps=("chestxray14", "chestx-det"),
    )
    prerendered = True
    _files: ClassVar[Mapping[str, Split]] = {"train.json": "train", "test.json": "test"}
    _categories: ClassVar[tuple[str, ...]] = CATEGORIES

    def __init__(self, root: Path) -> None:
        """
        Args:
            root: the folder with the JSON files and the images, in any folders below it.

        Raises:
            RequestError: the folder or both JSON files are missing, or one is not as its owners ship it.
        """
        self._folder = existing_folder(root, self.info.title)
        self._found = [name for name in self._files if (self._folder / name).is_file()]
        if not self._found:
            raise RequestError(
                f"{' and '.join(self._files)} are missing from {self._folder}: download them from"
                f" {self.info.home}."
            )
        self._entries = list(self._read())
        self._table = next(filter(None, (optional_file(self._folder, name) for name in TABLES)), None)
        wanted = {entry.image for entry in self._entries}
        self._known = {} if self._table is None else _entries_of(self._table, wanted)
        self._labels = label_table("chestx-det")
        self._places = ImagePlaces(self._folder, "")
        self.total: int | None = len(self._entries)
        self.warnings = tuple(self._warn())

    def _read(self) -> Iterator[_Entry]:
        seen: dict[str, _Entry] = {}
        for name in self._found:
            path = self._folder / name
            for entry in _read_entries(path, self._files[name], self._categories, self.info.home):
                if seen.setdefault(entry.image, entry) is entry:
                    yield entry
                elif seen[entry.image] != entry:
                    raise RequestError(
                        f"{path} contradicts itself, or the other split, about {entry.image}: get it anew from "
                        f"{self.info.home}."
                    )

    def _warn(self) -> Iterator[str]:
        for name in self._files:
            if name not in self._found:
                yield f"{name} is missing, so its images are left out: download it from {self.info.home}."
        if not all(_NIH_NAME.fullmatch(entry.image) for entry in self._entries):
            yield (
                "The images are not called as NIH calls them, so their patients are not known and each counts as"
                " a patient of its own: intervals by patient are too narrow where one has several."
            )

    def studies(self) -> Iterator[Study]:
        """Every image, in the order of the JSON files, training images first."""
        for entry in self._entries:
            stated = self._stated(entry)
            findings = self._labels.findings(stated)
            named = _NIH_NAME.fullmatch(entry.image)
            known = self._known.get(entry.image)
            view = normalise_view(known.view if known else None, None, None)
            yield Study(
                study_id=entry.image.rpartition(".")[0],
                subject_id=named[1] if named else entry.image.rpartition(".")[0],
                source=self.info.name,
                split=entry.split,
                radiographs=(Radiograph(entry.image, self._folder / self._file(entry), view),),
                reference_findings=findings,
                reference_sides=sides_of(entry.boxes, IMAGE_COLUMNS, self._labels, findings),
                other_labels=self._labels.others(stated),
                sex=sex_of(known.sex) if known else None,
                age=age_of(known.age) if known else None,
            )

    def _stated(self, entry: _Entry) -> Labels:
        return {**dict.fromkeys(self._categories, 0), **{box.label: 1 for box in entry.boxes}}

    def _file(self, entry: _Entry) -> str:
        return self._places.file(entry.image)

    def inventory(self) -> Inventory:
        """See ``Shipped``."""
        labels = Counter(label for entry in self._entries for label in {box.label for box in entry.boxes})
        return Inventory(
            root=self._folder,
            tables=(*self._found, *([self._table.name] if self._table else [])),
            absent=tuple(f"{name} (its images)" for name in self._files if name not in self._found),
            rows=len(self._entries),
            counts={
                "images": len(self._entries),
                "studies": len(self._entries),
                **Counter(entry.split for entry in self._entries),
            },
            images=tuple(map(self._file, self._entries)),
            labels=labels,
            unmapped=self._labels.unmapped(labels),
        )


class ChestXDet(ChestXDet10):
    """A copy of ChestX-Det: 13 categories, and 35 images more than ChestX-Det10. Its outlines are not read."""

    info = SourceInfo(
        name="chestx-det",
        title="ChestX-Det (Deepwise, on images of the NIH Clinical Center)",
        data_use="open",
        licence="other",
        citation=(
            "Lian J, Liu J, Zhang S, Gao K, Liu X, Zhang D, Yu Y. A Structure-Aware Relation Network for Thoracic "
            "Diseases Detection and Segmentation. IEEE Transactions on Medical Imaging 40, 2042-2052 (2021)."
        ),
        home="https://github.com/Deepwise-AILab/ChestX-Det-Dataset",
        download=("ChestX_Det_train.json", "ChestX_Det_test.json", "train_data.zip", "test_data.zip"),
        expected={"images": 3_578, "studies": 3_578, "train": 3_025, "test": 553},
        overlaps=("chestxray14", "chestx-det10"),
    )
    _files: ClassVar[Mapping[str, Split]] = {"ChestX_Det_train.json": "train", "ChestX_Det_test.json": "test"}
    _categories = (*CATEGORIES, *ADDED)


def _entries_of(table: Path, images: Collection[str]) -> dict[str, Entry]:
    frame = read_entries(table)
    rows = map(Entry._make, rows_of(frame[frame["image"].isin(list(images))]))
    return {row.image: row for row in rows}


def _read_entries(path: Path, split: Split, categories: tuple[str, ...], home: str) -> Iterator[_Entry]:
    try:
        listed = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read as JSON ({error}): get it anew from {home}.") from error
    if not isinstance(listed, list):
        raise RequestError(f"{path} is no list of images: get it anew from {home}.")
    for entry in listed:
        try:
            yield _entry(entry, split, categories)
        except (KeyError, TypeError, ValueError) as error:
            name = entry.get("file_name", "an image") if isinstance(entry, dict) else "an image"
            raise RequestError(
                f"{path} is wrong about {name} ({type(error).__name__}: {error}): get it anew from {home}."
            ) from error


def _entry(entry: Mapping[str, Any], split: Split, categories: tuple[str, ...]) -> _Entry:
    """
    Raises:
        KeyError, TypeError, ValueError: a field is missing, of another kind, or has more or less than it should.
    """
    labels = [str(label).strip() for label in entry["syms"]]
    if strange := set(labels) - set(categories):
        raise ValueError(f"{min(strange)} is none of its categories")
    drawn = zip(labels, entry["boxes"], strict=True)
    boxes = tuple(Box(label, *sorted((float(box[0]), float(box[2])))) for label, box in drawn)
    return _Entry(str(entry["file_name"]), split, boxes)
