"""CheXpert (Stanford): 224,316 images of 65,240 patients, with the 14 findings that this project uses.

Training labels were read from the reports by a labeler: 1 present, 0 absent, -1 uncertain, blank not mentioned.
The labels of the validation and test splits are the majority vote of three and five radiologists, 1 or 0 for
every finding, so there 0 is absent.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cxr_max.builders.sources.base import Inventory, SourceInfo
from cxr_max.builders.sources.labels import weightier
from cxr_max.builders.sources.tables import (
    age_of,
    existing_folder,
    optional_file,
    read_state,
    read_table,
    refuse,
    refuse_conflicts,
    rows_of,
    sex_of,
)
from cxr_max.builders.sources.views import frontal_first
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, State, blank
from cxr_max.records import Radiograph, Split, Study, View

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

HOME: Final = "https://stanfordaimi.azurewebsites.net/datasets/8cbd9ed4-2eb9-4565-affc-111cf4f7ebe2"
TABLES: Final[Mapping[Split, tuple[str, ...]]] = {
    "train": ("train.csv",),
    "validation": ("valid.csv",),
    "test": ("test_labels.csv", "test.csv", "groundtruth.csv"),
}
"""The test split came later and from elsewhere, under several names."""
LOST: Final[Mapping[Split, str]] = {
    "train": "train.csv (training images)",
    "validation": "valid.csv (validation images)",
    "test": "test_labels.csv (test images)",
}
_PATH: Final = re.compile(r"(?:.*/)?((?:train|valid|val|test)/(patient\d+)/(study\d+)/[^/]+)")
_STATES: Final[tuple[State | None, ...]] = (None, 1, 0, -1)
_VIEWS: Final[Mapping[str, View]] = {"ap": "AP", "pa": "PA", "ll": "other", "rl": "other"}
"""LL and RL stand only beside images that the table calls frontal: the patient lies on a side."""
_BATCH: Final = re.compile(r"CheXpert-v1\.0 batch \d.*")


class _Row(NamedTuple):
    study: str
    patient: str
    file: str
    split: Split
    sex: str
    age: str
    lateral: str
    projection: str
    states: int
    """All 14 states, two bits each, as places in ``_STATES``; those of the first finding are the lowest."""


class CheXpert:
    """A copy of CheXpert, the full one, the small one, or the batches that the full one is offered in.

    A study's images have the same labels; should a table say otherwise, present outweighs uncertain, and
    uncertain outweighs absent. Ages are in years; the set writes 90 for all that are older, and 0 where
    it does not know.
    """

    info = SourceInfo(
        name="chexpert",
        title="CheXpert v1.0 (Stanford)",
        data_use="registration",
        licence="other",
        citation=(
            "Irvin J, Rajpurkar P, Ko M, Yu Y, Ciurea-Ilcus S, Chute C, et al. CheXpert: A Large Chest Radiograph "
            "Dataset with Uncertainty Labels and Expert Comparison. AAAI Conference on Artificial Intelligence "
            "(2019)."
        ),
        home=HOME,
        download=(
            "CheXpert-v1.0 or CheXpert-v1.0-small, with train.csv and valid.csv",
            "the test images and test_labels.csv, a download of their own (without them there is no test split)",
        ),
        expected={"train": 223_414, "validation": 234, "test": 668},
    )
    prerendered = True

    def __init__(self, root: Path) -> None:
        """
        Args:
            root: the folder of the tables, or the one above it.

        Raises:
            RequestError: the folder or every table is missing, or a table is not as its owners ship it.
        """
        folder = existing_folder(root, "CheXpert")
        self._tables = _find_tables(folder)
        if not self._tables:
            raise RequestError(f"train.csv and valid.csv are missing from {folder}: download them from {HOME}.")
        self._folder = folder
        self._rows = _read_tables(self._tables)
        self.total: int | None = int(self._rows["study"].nunique())
        self.warnings = tuple(
            f"{LOST[split]} is missing, so there are none of these: download it from {HOME}."
            for split in ("train", "validation")
            if split not in self._tables
        )

    @cached_property
    def _roots(self) -> dict[str, str]:
        """From ``train/patient00001`` and the like to the folder above it, from the one that was named."""
        places: dict[str, str] = {}
        for root in ("", *_folders_below(self._folder)):
            at = self._folder / root
            for split in ("train", "valid", "val", "test"):
                for patient in _patients(at / split):
                    places.setdefault(f"{split}/{patient}", f"{root}/{split}/{patient}".lstrip("/"))
            # A batch may hold its patients without the folder of their split.
            if _BATCH.fullmatch(Path(root).name):
                for patient in _patients(at):
                    places.setdefault(f"train/{patient}", f"{root}/{patient}")
        return places

    def _file(self, file: str) -> str:
        split, patient, rest = file.split("/", 2)
        place = self._roots.get(f"{split}/{patient}")
        return f"{place}/{rest}" if place else file

    def studies(self) -> Iterator[Study]:
        """Every study, in the order of the tables, training studies first; its images frontal ones first."""
        for study, rows in groupby(map(_Row._make, rows_of(self._rows)), key=lambda row: row.study):
            listed = list(rows)
            first = listed[0]
            images = [
                Radiograph(_image_id(row.file), self._folder / self._file(row.file), _view(row)) for row in listed
            ]
            yield Study(
                study_id=study,
                subject_id=first.patient,
                source=self.info.name,
                split=first.split,
                radiographs=tuple(sorted(images, key=frontal_first)),
                reference_findings=_findings(listed),
                sex=next(filter(None, (sex_of(row.sex) for row in listed)), None),
                age=next(filter(None, (age_of(row.age) for row in listed)), None),
            )

    def inventory(self) -> Inventory:
        """See ``Shipped``. Labels are counted by image, where they are present."""
        labels: Counter[str] = Counter()
        for packed, times in self._rows["states"].value_counts().items():
            for name, state in _unpacked(int(str(packed))).items():
                labels[name] += int(times) if state == 1 else 0
        return Inventory(
            root=self._folder,
            tables=tuple(path.relative_to(self._folder).as_posix() for path in self._tables.values()),
            absent=tuple(LOST[split] for split in TABLES if split not in self._tables),
            rows=len(self._rows),
            counts={
                "images": len(self._rows),
                "studies": int(self._rows["study"].nunique()),
                "subjects": int(self._rows["patient"].nunique()),
                **{str(split): int(times) for split, times in self._rows["split"].value_counts().items()},
            },
            images=tuple(map(self._file, self._rows["file"])),
            labels=+labels,
            unmapped=frozenset(),
        )


def _folders_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name.startswith("CheXpert"))


def _patients(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [path.name for path in folder.iterdir() if path.name.startswith("patient")]


def _find_tables(folder: Path) -> dict[Split, Path]:
    """The table of each split that is there, in the folder or in one of CheXpert's folders in it."""
    places = (folder, *(folder / name for name in _folders_below(folder)))
    found: dict[Split, Path] = {}
    for split, names in TABLES.items():
        candidates = (optional_file(place, name) for name in names for place in places)
        if path := next(filter(None, candidates), None):
            found[split] = path
    return found


def _read_tables(tables: Mapping[Split, Path]) -> "pd.DataFrame":
    import pandas as pd

    frames = [_read_split(path, split) for split, path in tables.items()]
    return pd.concat(frames, ignore_index=True)[list(_Row._fields)]


def _read_split(path: Path, split: Split) -> "pd.DataFrame":
    """One table, the images of a study next to each other, in the order in which its studies first appear."""
    frame = read_table(path, None, HOME)
    for name in ("Path", *FINDINGS):
        if name not in frame.columns:
            raise RequestError(f"{path} has no column {name}: get it anew from {HOME}.")
    for name in ("Sex", "Age", "Frontal/Lateral", "AP/PA"):  # the test split's table has none of these
        if name not in frame.columns:
            frame[name] = ""
    frame = frame.drop_duplicates(ignore_index=True)
    refuse_conflicts(frame, "Path", path, HOME)
    parts = frame["Path"].str.extract(f"^{_PATH.pattern}$")
    refuse(frame.loc[parts[0].isna(), "Path"], path, "an impossible Path", HOME)
    states = [_places(frame[name], f"{path}, column {name}") << 2 * at for at, name in enumerate(FINDINGS)]
    rows = frame.assign(
        study=parts[1] + "/" + parts[2],
        patient=parts[1],
        file=parts[0],
        split=split,
        states=sum(states),
    )
    rows = rows.rename(columns={"Sex": "sex", "Age": "age", "Frontal/Lateral": "lateral", "AP/PA": "projection"})
    rows["age"] = rows["age"].where(rows["age"] != "0", "")
    return rows.iloc[rows["study"].factorize()[0].argsort(kind="stable")][list(_Row._fields)]


def _places(column: "pd.Series[str]", where: str) -> "npt.NDArray[np.int64]":
    """The place in ``_STATES`` of every cell.

    Raises:
        RequestError: a cell holds no state.
    """
    import numpy as np
    import pandas as pd

    codes, cells = pd.factorize(column)
    return np.array([_STATES.index(read_state(str(cell), where)) for cell in cells], dtype=np.int64)[codes]


@lru_cache(maxsize=65536)
def _unpacked(packed: int) -> dict[str, State | None]:
    return {name: _STATES[packed >> 2 * at & 3] for at, name in enumerate(FINDINGS)}


def _view(row: _Row) -> View:
    """By the projection where the table gives one, else by the name, as in ``view2_lateral.jpg``."""
    if row.projection.casefold() in _VIEWS:
        return _VIEWS[row.projection.casefold()]
    said = row.lateral or row.file.rpartition("_")[2]
    return "LATERAL" if said.casefold().startswith("lateral") else "unknown"


def _image_id(file: str) -> str:
    """As the published lists of test images write it: ``patient64741_study1_view1_frontal``."""
    return "_".join(file.split("/")[1:]).rpartition(".")[0]


def _findings(rows: list[_Row]) -> dict[str, State | None]:
    found = blank()
    for packed in {row.states for row in rows}:
        for name, state in _unpacked(packed).items():
            found[name] = weightier(found[name], state)
    return found
