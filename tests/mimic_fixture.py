"""MIMIC-CXR and MIMIC-CXR-JPG in miniature, drawn and written by rule: every number and word is invented.

The layout, the column names and the known irregularities are those of the published version 2.1.0.
"""

import csv
import gzip
import hashlib
import shutil
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

from cxr_max.findings import FINDINGS

TEST_COLUMNS: Final = (
    *("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Airspace Opacity", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other"),
    *("Fracture", "Support Devices", "No Findings"),
)
METADATA_COLUMNS: Final = (
    *("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition"),
    *("Rows", "Columns", "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning"),
    *("ViewCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning"),
)
PA_LAT: Final = "CHEST (PA AND LAT)"
PORTABLE: Final = "CHEST (PORTABLE AP)"
MEANINGS: Final = {
    "PA": "postero-anterior",
    "AP": "antero-posterior",
    "LATERAL": "lateral",
    "LL": "left lateral",
}


@dataclass(frozen=True)
class Image:
    """One image: what the tables say of it, and how its DICOM file is stored."""

    view: str
    procedure: str = PA_LAT
    meaning: str | None = None
    """Of the view code; that of ``view`` where it is ``None``."""
    time: str | None = None
    """StudyTime, where it is not the study's."""
    monochrome1: bool = False
    storage: str = "plain"
    """``plain``, ``jpeg2000``, ``rle``, or ``gz`` for ``.dcm.gz``."""

    @property
    def code_meaning(self) -> str:
        return MEANINGS.get(self.view, "") if self.meaning is None else self.meaning


@dataclass(frozen=True)
class Exam:
    """One study, its images in the order of the tables, which is not the order they were taken in."""

    subject: int
    study: int
    split: str
    date: str
    time: str
    images: tuple[Image, ...]
    labels: dict[str, float] | None
    """``None`` for a study without a row of labels; empty for a row of blanks."""
    radiologist: dict[str, float] | None = None
    findings: str = "The lungs are clear. There is no pneumothorax."
    impression: str | None = "No acute cardiopulmonary process."
    addendum: str | None = None


PORTABLE_AP: Final = Image("AP", PORTABLE)
EXAMS: Final[tuple[Exam, ...]] = (
    Exam(
        10000032,
        50414267,
        "train",
        "21800506",
        "213014.53100000002",
        (Image("LATERAL"), Image("PA")),
        {"No Finding": 1, "Pneumothorax": 0},
    ),
    Exam(
        10000032,
        53189527,
        "train",
        "21800626",
        "91500.0",
        (PORTABLE_AP, Image("AP", PORTABLE, time="90500.5", monochrome1=True)),
        {"Cardiomegaly": 1, "Edema": -1, "Support Devices": 1},
        findings="The heart is enlarged. Mild edema cannot be excluded. A left pacemaker is in place.",
        impression="Cardiomegaly.",
    ),
    Exam(
        10000764,
        57375967,
        "train",
        "21321015",
        "101500.0",
        (Image("", meaning="postero-anterior", storage="jpeg2000"), Image("", meaning="")),
        {"Pleural Effusion": 1, "Atelectasis": -1},
        findings="Small left pleural effusion. Atelectasis is possible.",
        impression=None,
    ),
    Exam(
        10000898,
        50771383,
        "train",
        "21880330",
        "500.0",
        (Image("LL"), Image("PA", monochrome1=True)),
        {"Pneumonia": -1, "Lung Opacity": 1},
        findings="Patchy opacity in the right lower lobe.",
        impression="Right lower lobe opacity, possibly pneumonia.",
        addendum="The opacity was discussed with Dr. ___ by telephone at 10:20.",
    ),
    Exam(10000935, 50578979, "train", "21870823", "", (Image("", PORTABLE, meaning=""),), {}),
    Exam(
        10000935,
        51178377,
        "train",
        "21870901",
        "81233.25",
        (Image("LATERAL"), Image("AP Supine", PORTABLE, meaning="")),
        None,
        impression=None,
    ),
    Exam(
        10000980,
        50985099,
        "validate",
        "21890307",
        "235959.0",
        (Image("PA", storage="rle"),),
        {"Pleural Other": 1, "Fracture": 0},
        findings="Pleural thickening. No fracture.",
        impression="Pleural thickening.",
    ),
    Exam(
        10000980,
        51967283,
        "validate",
        "21890411",
        "120000.0",
        (Image("XTABLE", "CHEST (PORTABLE AP) PORT", meaning=""), PORTABLE_AP),
        {"Enlarged Cardiomediastinum": 1},
        findings="Widened mediastinum.",
        impression="Widened mediastinum.",
    ),
    Exam(
        10001038,
        58224503,
        "test",
        "21420906",
        "70707.0",
        (Image("PA"), Image("LATERAL")),
        {"Pneumonia": 1},
        radiologist={"Pneumonia": 0, "Lung Opacity": 1, "Consolidation": -1},
        findings="Ill-defined opacity at the left base.",
        impression="Left basal opacity.",
    ),
    Exam(
        10001122,
        53447138,
        "test",
        "21290101",
        "000000.0",
        (PORTABLE_AP,),
        {"Pneumothorax": 1, "Lung Lesion": 0},
        findings="Large right pneumothorax.",
        impression="Right pneumothorax.",
    ),
    Exam(
        10001176,
        53186264,
        "test",
        "21861118",
        "180000.0",
        (Image("PA", storage="gz"),),
        None,
        radiologist={"No Finding": 1},
    ),
    Exam(
        10001217,
        58913004,
        "train",
        "21571118",
        "090000.0",
        (Image("LATERAL", storage="gz"), Image("PA", monochrome1=True)),
        {"Consolidation": 1},
        findings="Consolidation in the left upper lobe.",
        impression="Left upper lobe consolidation.",
    ),
    Exam(10001217, 52067803, "train", "21571218", "100000.0", (Image("LAO", meaning=""),), {"No Finding": 1}),
    Exam(
        10001400,
        55555555,
        "train",
        "21600229",
        "111111.1",
        (Image("PA"),),
        {"Cardiomegaly": 0, "Pleural Effusion": 0},
        findings="Normal heart size. No pleural effusion.",
        impression="Normal.",
    ),
)
"""Not sorted by study, as nothing promises an order."""


def dicom_id(exam: Exam, position: int) -> str:
    """The identifier of a study's image: five groups of eight hexadecimal digits, as MIMIC's are."""
    digest = hashlib.sha1(f"{exam.study}/{position}".encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))


def study_path(exam: Exam) -> str:
    """From the version folder: the study's folder, and with ``.txt`` its report."""
    return f"files/p{str(exam.subject)[:2]}/p{exam.subject}/s{exam.study}"


def write_mimic(folder: Path, *, size: int = 64) -> tuple[Path, Path]:
    """Write both sets, the same bytes every time, and return their version folders, the DICOM set's first.

    Args:
        folder: receives ``mimic-cxr/2.1.0`` and ``mimic-cxr-jpg/2.1.0``.
        size: rows of an image; it has seven columns for every eight rows.
    """
    dicom, jpg = folder / "mimic-cxr" / "2.1.0", folder / "mimic-cxr-jpg" / "2.1.0"
    for exam in EXAMS:
        for position, image in enumerate(exam.images):
            pixels = _pixels(exam, position, size, inverted=image.monochrome1)
            stem = f"{study_path(exam)}/{dicom_id(exam, position)}"
            _write_dicom(dicom / f"{stem}.dcm", exam, image, position, pixels)
            _write_jpg(jpg / f"{stem}.jpg", pixels, inverted=image.monochrome1)
    _write_dicom_tables(dicom)
    _write_jpg_tables(jpg, size)
    return dicom, jpg


def _pixels(exam: Exam, position: int, size: int, *, inverted: bool) -> NDArray[np.uint16]:
    """Two dark lungs in a bright chest, 12 bits, with noise of the study's own."""
    columns = size * 7 // 8
    y, x = np.mgrid[0 : 1 : 1j * size, 0 : 1 : 1j * columns]
    lungs = sum(np.exp(-(((x - centre) / 0.14) ** 2) - ((y - 0.5) / 0.3) ** 2) for centre in (0.3, 0.7))
    noise = np.random.default_rng([exam.study, position]).normal(0, 40, (size, columns))
    bright = np.clip(3200 - 2400 * lungs + noise, 0, 4095)
    stored: NDArray[np.uint16] = (4095 - bright if inverted else bright).astype(np.uint16)
    return stored


def _write_dicom(path: Path, exam: Exam, image: Image, position: int, pixels: NDArray[np.uint16]) -> None:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = generate_uid(entropy_srcs=[dicom_id(exam, position)])
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.Modality = "DX"
    data.PatientID, data.StudyID = str(exam.subject), str(exam.study)
    data.StudyDate, data.StudyTime = exam.date, _dicom_time(image.time or exam.time)
    data.ViewPosition, data.PerformedProcedureStepDescription = image.view.upper(), image.procedure
    data.Rows, data.Columns = pixels.shape
    data.ImagerPixelSpacing = [0.139, 0.139]
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.PhotometricInterpretation = "MONOCHROME1" if image.monochrome1 else "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.WindowCenter, data.WindowWidth = 2048, 4096
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OW"
    if syntax := {"jpeg2000": JPEG2000Lossless, "rle": RLELossless}.get(image.storage):
        data.compress(syntax, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    if image.storage == "gz":
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()


def _dicom_time(time: str) -> str:
    """A valid TM value: the table lost leading zeros and gained digits by going through a number."""
    whole, _, fraction = time.partition(".")
    return f"{whole.zfill(6)}.{fraction[:6].ljust(3, '0')}" if time else ""


def _write_jpg(path: Path, pixels: NDArray[np.uint16], *, inverted: bool) -> None:
    """MIMIC-CXR-JPG's recipe: to 8 bits by minimum and maximum, invert, equalise, JPEG of quality 95."""
    shifted = (pixels - pixels.min()).astype(np.float64)
    grey = (shifted / shifted.max() * 255).astype(np.uint8)
    equalised = cv2.equalizeHist(cv2.bitwise_not(grey) if inverted else grey)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), equalised, [cv2.IMWRITE_JPEG_QUALITY, 95])


def report_text(exam: Exam) -> str:
    """A report in the form of MIMIC's: removed words as ``___``, an addendum on top, often no impression."""
    lines = ["                                 FINAL REPORT"]
    if exam.addendum:
        rule = " " + "_" * 78
        lines = [f"                                 FINAL ADDENDUM\n ADDENDUM  {exam.addendum}", rule, *lines]
    lines += [" EXAMINATION:  CHEST", " ", " INDICATION:  ___ year old with cough.", " "]
    lines += [" COMPARISON:  ___", " ", " FINDINGS: ", " ", f" {exam.findings}", " "]
    if exam.impression:
        lines += [" IMPRESSION: ", " ", f" {exam.impression}"]
    return "\n".join(lines) + "\n"


def _write_dicom_tables(folder: Path) -> None:
    records = [
        (exam.subject, exam.study, name, f"{study_path(exam)}/{name}.dcm")
        for exam in EXAMS
        for name in (dicom_id(exam, position) for position in range(len(exam.images)))
    ]
    write_table(folder / "cxr-record-list.csv.gz", ("subject_id", "study_id", "dicom_id", "path"), records)
    studies = [(exam.subject, exam.study, f"{study_path(exam)}.txt") for exam in EXAMS]
    write_table(folder / "cxr-study-list.csv.gz", ("subject_id", "study_id", "path"), studies)
    with zipfile.ZipFile(folder / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for exam in EXAMS:
            member = zipfile.ZipInfo(f"{study_path(exam)}.txt", date_time=(2024, 7, 23, 0, 0, 0))
            archive.writestr(member, report_text(exam))


def _write_jpg_tables(folder: Path, size: int) -> None:
    named = [
        (exam, image, dicom_id(exam, position)) for exam in EXAMS for position, image in enumerate(exam.images)
    ]
    write_table(
        folder / "mimic-cxr-2.0.0-metadata.csv.gz",
        METADATA_COLUMNS,
        [_metadata_row(exam, image, name, size) for exam, image, name in named],
    )
    write_table(
        folder / "mimic-cxr-2.0.0-split.csv.gz",
        ("dicom_id", "study_id", "subject_id", "split"),
        [(name, exam.study, exam.subject, exam.split) for exam, _, name in named],
    )
    labels = [
        (exam.subject, exam.study, *_cells(exam.labels, FINDINGS)) for exam in EXAMS if exam.labels is not None
    ]
    for labeler in ("chexpert", "negbio"):
        path = folder / f"mimic-cxr-2.0.0-{labeler}.csv.gz"
        write_table(path, ("subject_id", "study_id", *FINDINGS), labels)
    names = {"Airspace Opacity": "Lung Opacity", "No Findings": "No Finding"}
    columns = [names.get(name, name) for name in TEST_COLUMNS]
    read = [(exam.study, *_cells(exam.radiologist, columns)) for exam in EXAMS if exam.radiologist is not None]
    write_table(folder / "mimic-cxr-2.1.0-test-set-labeled.csv", ("study_id", *TEST_COLUMNS), read)
    files = [f"{study_path(exam)}/{name}.jpg\n" for exam, _, name in named]
    (folder / "IMAGE_FILENAMES").write_text("".join(files), encoding="utf-8")


def _metadata_row(exam: Exam, image: Image, name: str, size: int) -> tuple[object, ...]:
    ids, shape = (name, exam.subject, exam.study), (size, size * 7 // 8)
    taken = (exam.date, image.time or exam.time)
    codes = (image.procedure, image.code_meaning, "Erect" if image.view == "PA" else "")
    return (*ids, image.procedure, image.view, *shape, *taken, *codes)


def _cells(labels: dict[str, float] | None, columns: Iterable[str]) -> list[str]:
    return [f"{labels[name]:.1f}" if labels and name in labels else "" for name in columns]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV table, compressed where its name ends in ``.gz``; the same bytes every time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [columns, *rows]
    text = "".join(",".join(map(_quoted, line)) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """A table written by ``write_table``: its columns and its rows."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    columns, *rows = csv.reader(text.splitlines())
    return columns, rows


def _quoted(cell: object) -> str:
    text = str(cell)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text


def copy_mimic(written: tuple[Path, Path], folder: Path) -> tuple[Path, Path]:
    """A copy of what ``write_mimic`` wrote, to be spoilt by a test."""
    for version in written:
        shutil.copytree(version, folder / version.parent.name / version.name)
    dicom, jpg = (folder / version.parent.name / version.name for version in written)
    return dicom, jpg
