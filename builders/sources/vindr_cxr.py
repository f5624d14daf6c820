"""VinDr-CXR (Vingroup): 18,000 frontal DICOM images from two hospitals, read by radiologists.

Every reader stated each of 28 labels as present or absent, so 0 is absent. A training image has three readers of
their own, and no verdict of the owners': a finding that more than half of them saw is present, one that none saw
is absent, and one that fewer saw is uncertain (-1). A test image has the consensus of five.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxr_max.builders.sources.base import Inventory, SourceInfo
from cxr_max.builders.sources.boxes import Box, marked_sides, settled
from cxr_max.builders.sources.image_files import ImagePlaces
from cxr_max.builders.sources.labels import Labels, LabelTable, label_table
from cxr_max.builders.sources.tables import (
    age_of,
    existing_folder,
    find_version,
    optional_file,
    read_number,
    read_state,
    read_table,
    refuse_conflicts,
    rows_of,
    sex_of,
)
from cxr_max.builders.sources.views import described, header_of
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, Side, Sides, State, blank_sides
from cxr_max.records import Radiograph, Split, Study

if TYPE_CHECKING:
    import pandas as pd

HOME: Final = "https://physionet.org/content/vindr-cxr/1.0.0/"
TABLES: Final[Mapping[Split, str]] = {
    "train": "annotations/image_labels_train",
    "test": "annotations/image_labels_test",
}
BOXES: Final[Mapping[Split, str]] = {
    "train": "annotations/annotations_train",
    "test": "annotations/annotations_test",
}
_CONSENSUS: Final = "consensus"
_NAMES: Final = {"rad_id": "reader", "image_id": "image"}

Readings = Mapping[str, Labels]
"""What each reader of one image stated."""


class VinDrCxr:
    """A copy of VinDr-CXR: every image is a study of its own.

    The set names no patients; sex and age come from the header, where 0 years mean that the age is not known,
    since all were adults. All images are postero-anterior, as its authors chose them; where a header says
    otherwise, the header counts. Sides come from the boxes and the width in the header: a side counts where more
    than half of the readers who marked the finding marked it there.
    """

    info = SourceInfo(
        name="vindr-cxr",
        title="VinDr-CXR v1.0.0",
        data_use="credentialed",
        licence="other",
        citation=(
            "Nguyen HQ, Lam K, Le LT, Pham HH, Tran DQ, Nguyen DB, et al. VinDr-CXR: An open dataset of chest "
            "X-rays with radiologist's annotations. Scientific Data 9, 429 (2022). "
            "https://doi.org/10.1038/s41597-022-01498-w"
        ),
        home=HOME,
        download=("train/ and test/ (DICOM)", "annotations/ (four tables; without annotations_*.csv no sides)"),
        expected={"images": 18_000, "studies": 18_000, "train": 15_000, "test": 3_000},
    )
    prerendered = False

    def __init__(self, root: Path) -> None:
        """
        Args:
            root: the version folder (``.../vindr-cxr/1.0.0``) or the one above it.

        Raises:
            RequestError: the folder or both tables of labels are missing, or a table contradicts itself.
        """
        self._folder = find_version(existing_folder(root, "VinDr-CXR"), TABLES["test"])
        self._tables = _found(self._folder, TABLES)
        if not self._tables:
            raise RequestError(f"{TABLES['test']}.csv is missing from {self._folder}: download it from {HOME}.")
        self._box_tables = _found(self._folder, BOXES)
        self._labels = label_table(self.info.name)
        self._frames = {split: _read_labels(path) for split, path in self._tables.items()}
        self._boxes = {split: _read_boxes(path) for split, path in self._box_tables.items()}
        self._places = {split: ImagePlaces(self._folder, split) for split in self._tables}
        self.total: int | None = sum(frame["image"].nunique() for frame in self._frames.values())
        self.warnings = tuple(self._warn())

    def _warn(self) -> Iterator[str]:
        for split, name in TABLES.items():
            if split not in self._tables:
                yield f"{name}.csv is missing, so its images are left out: download it from {HOME}."
        yield (
            "The set names no patients, so each image counts as a patient of its own: intervals by patient are too"
            " narrow where one has several."
        )

    def studies(self) -> Iterator[Study]:
        """Every image, in the order of the tables, training images first. Headers are read one by one."""
        for split, frame in self._frames.items():
            names = list(frame.columns[2:])
            for image, rows in groupby(rows_of(frame), key=lambda row: row[0]):
                readings = {row[1]: dict(zip(names, row[2:], strict=True)) for row in rows}
                yield self._study(split, str(image), readings)

    def _study(self, split: Split, image: str, readings: Readings) -> Study:
        found = [self._labels.findings(labels) for labels in readings.values()]
        findings = {name: verdict(one[name] for one in found) for name in FINDINGS}
        stated = {
            label: verdict(one[label] for one in readings.values()) for label in next(iter(readings.values()))
        }
        radiograph = Radiograph(image, self._folder / self._file(split, image))
        header = header_of(radiograph.path)
        if header is not None:
            radiograph = described(radiograph, header)
        if radiograph.view == "unknown":
            radiograph = replace(radiograph, view="PA")
        boxes = self._boxes.get(split, {}).get(image, {})
        return Study(
            study_id=image,
            subject_id=image,
            source=self.info.name,
            split=split,
            radiographs=(radiograph,),
            reference_findings=findings,
            reference_sides=_sides(boxes, radiograph.columns, self._labels, findings),
            sex=sex_of(header.sex or "") if header else None,
            age=(age_of(header.age or "") or None) if header else None,
            other_labels=self._labels.others(
                {label: state for label, state in stated.items() if state is not None}
            ),
        )

    def _file(self, split: Split, image: str) -> str:
        return self._places[split].file(f"{image}.dicom", f"{image}.dcm")

    def inventory(self) -> Inventory:
        """See ``Shipped``. Labels are counted by image, where a reader stated them."""
        labels: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        files = []
        for split, frame in self._frames.items():
            images = frame["image"].drop_duplicates().tolist()
            files += [self._file(split, image) for image in images]
            counts[split] = len(images)
            for name in frame.columns[2:]:
                labels[str(name)] += int(frame.loc[frame[name] == 1, "image"].nunique())
        found = [*self._tables.values(), *self._box_tables.values()]
        lost = [f"{name}.csv (its images)" for split, name in TABLES.items() if split not in self._tables]
        lost += [f"{name}.csv (its sides)" for split, name in BOXES.items() if split not in self._box_tables]
        return Inventory(
            root=self._folder,
            tables=tuple(path.relative_to(self._folder).as_posix() for path in found),
            absent=tuple(lost),
            rows=sum(map(len, self._frames.values())),
            counts={"images": counts.total(), "studies": counts.total(), **counts},
            images=tuple(files),
            labels=+labels,
            unmapped=self._labels.unmapped(labels),
            unknown=self._labels.unknown(labels),
        )


def _found(folder: Path, tables: Mapping[Split, str]) -> dict[Split, Path]:
    return {split: path for split, name in tables.items() if (path := optional_file(folder, f"{name}.csv"))}


def verdict(states: Iterable[State | None]) -> State | None:
    """What several readers say of one finding together: present by a majority, absent where all who speak say so,
    uncertain between the two, ``None`` where nobody speaks of it."""
    said = list(states)
    present = said.count(1)
    if 2 * present > len(said):
        return 1
    return -1 if present else next((state for state in said if state is not None), None)


def _read_labels(path: Path) -> "pd.DataFrame":
    """Columns ``image``, ``reader`` and the labels as 1 or 0; an image's readers next to each other."""
    frame = read_table(path, None, HOME)
    frame = frame.rename(columns=lambda name: _NAMES.get(str(name).casefold(), str(name)))
    if "image" not in frame.columns:
        raise RequestError(f"{path} has no column image_id: get it anew from {HOME}.")
    if "reader" not in frame.columns:
        frame["reader"] = _CONSENSUS
    labels = [name for name in frame.columns if name not in ("image", "reader")]
    if not labels:
        raise RequestError(f"{path} has no column of labels: get it anew from {HOME}.")
    frame = frame[["image", "reader", *labels]].drop_duplicates(ignore_index=True)
    refuse_conflicts(frame.assign(key=frame["image"] + " by " + frame["reader"]), "key", path, HOME)
    for name in labels:
        states = {str(cell): read_state(str(cell), f"{path}, column {name}") for cell in frame[name].unique()}
        if None in states.values():
            raise RequestError(f"{path} has an empty cell in the column {name}: get it anew from {HOME}.")
        frame[name] = frame[name].map(states).astype("int8")
    return frame.iloc[frame["image"].factorize()[0].argsort(kind="stable")]


def _read_boxes(path: Path) -> dict[str, dict[str, list[Box]]]:
    """Boxes by image and reader; "No finding" rows have none."""
    frame = read_table(path, None, HOME)
    frame = frame.rename(columns=lambda name: _NAMES.get(str(name).casefold(), str(name)))
    if "reader" not in frame.columns:
        frame["reader"] = _CONSENSUS
    for name in ("image", "class_name", "x_min", "x_max"):
        if name not in frame.columns:
            raise RequestError(f"{path} has no column {name}: get it anew from {HOME}.")
    boxes: dict[str, dict[str, list[Box]]] = {}
    for image, reader, label, x_min, x_max in rows_of(frame[["image", "reader", "class_name", "x_min", "x_max"]]):
        if x_min.casefold() in ("", "nan"):
            continue
        where = f"{path}, a box of {image}"
        box = Box(label, read_number(x_min, where, HOME), read_number(x_max, where, HOME))
        boxes.setdefault(image, {}).setdefault(reader, []).append(box)
    return boxes


def _sides(
    boxes: Mapping[str, Iterable[Box]],
    columns: int | None,
    table: LabelTable,
    findings: Mapping[str, State | None],
) -> Sides | None:
    """``None`` where nothing is marked, or the width of the image is not known."""
    if not boxes or columns is None:
        return None
    marked: dict[str, Counter[Side]] = {}
    readers: Counter[str] = Counter()
    for drawn in boxes.values():
        for name, sides in marked_sides(drawn, columns, table).items():
            readers[name] += 1
            marked.setdefault(name, Counter()).update(sides)
    agreed = {
        name: [side for side, times in sides.items() if 2 * times > readers[name]]
        for name, sides in marked.items()
    }
    return blank_sides() | settled(agreed, findings)
