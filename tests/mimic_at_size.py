"""The tables of MIMIC-CXR-JPG in any size up to the true one, drawn by rule: every row is invented.

Of the published version 2.1.0 are the columns, and at scale 1 the numbers of images, studies and subjects of each
split. Views have about their published shares.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from cxr_max.findings import FINDINGS
from tests.mimic_fixture import METADATA_COLUMNS, PA_LAT, PORTABLE

if TYPE_CHECKING:
    import pandas as pd

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Numbers:
    """Of one split."""

    images: int
    studies: int
    subjects: int


PUBLISHED: Final = {
    "train": Numbers(368_960, 222_758, 64_586),
    "validate": Numbers(2_991, 1_808, 500),
    "test": Numbers(5_159, 3_269, 293),
}
_VIEWS: Final = {"AP": 0.39, "PA": 0.255, "LATERAL": 0.22, "LL": 0.093, "": 0.042}
_STATES: Final = {"": 0.78, "1.0": 0.12, "0.0": 0.07, "-1.0": 0.03}
TEMPORAL_SUBJECTS: Final = 800
"""Of the training split, in the table of MS-CXR-T that goes with these; at scale 1."""


def write_tables(folder: Path, *, scale: float = 1.0, seed: int = 0) -> "pd.DataFrame":
    """Write metadata, splits and labels into a version folder, and return a row per image."""
    import pandas as pd

    draw = np.random.default_rng(seed)
    images = pd.concat([_split(draw, name, _scaled(numbers, scale)) for name, numbers in PUBLISHED.items()])
    images["subject_id"] += 10_000_000
    images["study_id"] = 50_000_000 + draw.permutation(images["study"].nunique())[images.pop("study")]
    words = draw.integers(0, 2**32, size=(len(images), 5))
    images["dicom_id"] = ["-".join(f"{word:08x}" for word in row) for row in words.tolist()]
    images = images.sample(frac=1, random_state=seed, ignore_index=True)
    folder.mkdir(parents=True, exist_ok=True)
    _metadata(draw, images).to_csv(folder / "mimic-cxr-2.0.0-metadata.csv.gz", index=False)
    columns = ["dicom_id", "study_id", "subject_id", "split"]
    images[columns].to_csv(folder / "mimic-cxr-2.0.0-split.csv.gz", index=False)
    _labels(draw, images).to_csv(folder / "mimic-cxr-2.0.0-chexpert.csv.gz", index=False)
    return images


def _scaled(numbers: Numbers, scale: float) -> Numbers:
    if scale == 1:
        return numbers
    subjects = max(round(numbers.subjects * scale), 1)
    studies = max(round(numbers.studies * scale), subjects)
    return Numbers(max(round(numbers.images * scale), studies), studies, subjects)


_first: dict[str, int] = {"subject_id": 0, "study": 0}


def _split(draw: np.random.Generator, name: str, numbers: Numbers) -> "pd.DataFrame":
    """Every subject has a study and every study an image; the rest falls as it may."""
    import pandas as pd

    subject_of_study = _fall(draw, numbers.studies, numbers.subjects)
    study_of_image = _fall(draw, numbers.images, numbers.studies)
    if name == "train":
        _first.update(subject_id=0, study=0)
    frame = pd.DataFrame({
        "subject_id": subject_of_study[study_of_image] + _first["subject_id"],
        "study": study_of_image + _first["study"],
        "split": name,
    })  # fmt: skip
    _first["subject_id"] += numbers.subjects
    _first["study"] += numbers.studies
    return frame


def _fall(draw: np.random.Generator, balls: int, boxes: int) -> Ints:
    return np.concatenate([np.arange(boxes), draw.integers(0, boxes, balls - boxes)])


def _metadata(draw: np.random.Generator, images: "pd.DataFrame") -> "pd.DataFrame":
    frame = images[["dicom_id", "subject_id", "study_id"]].copy()
    n = len(frame)
    view = draw.choice(list(_VIEWS), n, p=list(_VIEWS.values()))
    frame["ViewPosition"] = view
    procedure = np.where(view == "AP", PORTABLE, PA_LAT)
    frame["PerformedProcedureStepDescription"] = frame["ProcedureCodeSequence_CodeMeaning"] = procedure
    frame["Rows"], frame["Columns"] = draw.choice([3056, 2544, 2022], n), draw.choice([2544, 3056, 1736], n)
    frame["StudyDate"] = draw.integers(2100, 2200, n) * 10_000 + draw.integers(1, 13, n) * 100 + 15
    frame["StudyTime"] = [f"{time}.{time % 1000:03d}" for time in draw.integers(0, 235_959, n).tolist()]
    frame["ViewCodeSequence_CodeMeaning"] = np.where(view == "PA", "postero-anterior", "antero-posterior")
    frame["PatientOrientationCodeSequence_CodeMeaning"] = "Erect"
    return frame[list(METADATA_COLUMNS)]


def _labels(draw: np.random.Generator, images: "pd.DataFrame") -> "pd.DataFrame":
    """Eight studies have no row, as in the published table."""
    frame = images[["subject_id", "study_id"]].drop_duplicates().sort_values(["subject_id", "study_id"])
    frame = frame.iloc[8:].copy()
    for name in FINDINGS:
        frame[name] = draw.choice(list(_STATES), len(frame), p=list(_STATES.values()))
    return frame


def write_temporal_table(path: Path, images: "pd.DataFrame", *, scale: float = 1.0) -> set[str]:
    """A table with subjects of the training split, as MS-CXR-T has them, and who they are."""
    subjects = sorted(images.loc[images["split"] == "train", "subject_id"].unique().tolist())
    chosen = subjects[:: max(len(subjects) // max(round(TEMPORAL_SUBJECTS * scale), 1), 1)]
    lines = ["dicom_id,previous_dicom_id,subject_id,study_id,previous_study_id"]
    lines += [f"a,b,{subject},1,2" for subject in chosen]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {str(subject) for subject in chosen}


def files_of(folder: Path, images: "pd.DataFrame") -> Iterator[Path]:
    """Where each image would be."""
    for subject, study, name in images[["subject_id", "study_id", "dicom_id"]].itertuples(index=False):
        yield folder / f"files/p{str(subject)[:2]}/p{subject}/s{study}/{name}.jpg"
