"""MS-CXR-T in miniature, on the images of ``mimic_fixture``: pairs as its table has them, quirks included."""

from hashlib import sha1
from pathlib import Path
from random import Random
from typing import Final

from cxr_max.findings import FINDINGS as MIMIC_FINDINGS
from tests.mimic_fixture import EXAMS, METADATA_COLUMNS, dicom_id, write_mimic, write_table
from tests.source_fixtures.pictures import as_windows_writes, write_picture, write_text

TABLE: Final = "MS_CXR_T_temporal_image_classification_v1.0.0.csv"
SENTENCES: Final = "MS_CXR_T_temporal_sentence_similarity_v1.0.0.csv"
FINDINGS: Final = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
COLUMNS: Final = (
    *("dicom_id", "previous_dicom_id", "subject_id", "study_id", "previous_study_id"),
    *(f"{name}_{kind}" for name in FINDINGS for kind in ("progression", "label_quality")),
)
LOST: Final = "00000000-11111111-22222222-33333333-44444444"
"""A previous image that nobody has."""
_BY_STUDY: Final = {exam.study: exam for exam in EXAMS}
PAIRS: Final = (
    # Later study and image, previous study and image, labels.
    (53189527, 0, 50414267, 1, {"edema": "worsening", "consolidation": "stable"}),
    (51178377, 1, 50578979, 0, {"pleural_effusion": "improving"}),
    (51967283, 1, 50985099, 0, {"pneumonia": "stable", "pneumothorax": "Worsening"}),
    (52067803, 0, 58913004, 1, {}),
    (53447138, 0, 53447138, None, {"pneumothorax": "improving"}),
)
"""The view of 52067803 is LAO; nothing is said of that pair. The last one's previous image is lost."""


def image(study: int, position: int | None) -> str:
    return LOST if position is None else dicom_id(_BY_STUDY[study], position)


def row(study: int, position: int, previous: int, before: int | None, labels: dict[str, str]) -> str:
    subject = _BY_STUDY[study].subject
    folder = f"p{str(subject)[:2]}/p{subject}"
    # The last pair's ids are bare, as those of MIMIC are.
    paths = ("", "") if before is None else (f"{folder}/s{study}/", f"{folder}/s{previous}/")
    cells = [paths[0] + image(study, position), paths[1] + image(previous, before), str(subject)]
    cells += [str(study), str(previous)]
    for name in FINDINGS:
        word = labels.get(name, "")
        cells += [word, "radiologist" if word else ""]
    return ",".join(cells)


def write_pairs(root: Path) -> Path:
    """``ms-cxr-t/1.0.0`` with a repeated row, as Windows writes, and the table that is not read."""
    rows = [row(*pair) for pair in PAIRS]
    folder = root / "ms-cxr-t" / "1.0.0"
    write_text(folder / TABLE, "\n".join([",".join(COLUMNS), *rows, rows[0]]) + "\n")
    as_windows_writes(folder / TABLE)
    write_text(folder / SENTENCES, "category,subject_id,label\nswaps,1,paraphrase\n")
    return folder


def write(root: Path, *, size: int = 64) -> Path:
    """Both sets beside each other; returns the folder of MS-CXR-T."""
    write_mimic(root, size=size)
    return write_pairs(root)


def write_population(root: Path, *, patients: int = 40, seed: int = 0) -> Path:
    """A copy large enough for intervals: two studies a patient, every label there, drawn by seed."""
    dice = Random(seed)
    jpg = root / "mimic-cxr-jpg" / "2.1.0"
    metadata: list[tuple[object, ...]] = []
    labels: list[tuple[object, ...]] = []
    pairs = []
    for number in range(patients):
        subject, studies = 10_000_000 + number, (50_000_000 + 2 * number, 50_000_001 + 2 * number)
        names = []
        for place, study in enumerate(studies):
            digits = sha1(f"{study}".encode(), usedforsecurity=False).hexdigest()
            names.append("-".join(digits[start : start + 8] for start in range(0, 40, 8)))
            write_picture(jpg / f"files/p10/p{subject}/s{study}/{names[-1]}.jpg", 2 * number + place)
            metadata.append(
                (names[-1], subject, study, "", "AP", 64, 64, f"2180010{place + 1}", "120000.0", "", "", "")
            )
            labels.append((subject, study, *(dice.choice(("1.0", "0.0", "-1.0", "")) for _ in MIMIC_FINDINGS)))
        changes = [cell for _ in FINDINGS for cell in (dice.choice(("improving", "stable", "worsening")), "gold")]
        pairs.append(",".join([names[1], names[0], str(subject), str(studies[1]), str(studies[0]), *changes]))
    write_table(jpg / "mimic-cxr-2.0.0-metadata.csv.gz", METADATA_COLUMNS, metadata)
    write_table(jpg / "mimic-cxr-2.0.0-chexpert.csv.gz", ("subject_id", "study_id", *MIMIC_FINDINGS), labels)
    folder = root / "ms-cxr-t" / "1.0.0"
    write_text(folder / TABLE, "\n".join([",".join(COLUMNS), *pairs]) + "\n")
    return folder
