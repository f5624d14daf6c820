"""CheXpert in miniature: small and full, paths with the name of the download, a test table without attributes."""

from pathlib import Path
from typing import Final

from tests.source_fixtures.pictures import write_picture, write_text

FINDINGS: Final = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other"),
    *("Fracture", "Support Devices"),
)
"""In CheXpert's own order."""
TRAIN: Final = (
    (
        "train/patient00001/study1/view1_frontal.jpg",
        "Female",
        "68",
        "Frontal",
        "AP",
        {0: "1.0", 9: "0.0", 13: "1.0"},
    ),
    ("train/patient00002/study2/view2_lateral.jpg", "Female", "87", "Lateral", "", {3: "-1.0", 10: "1.0"}),
    ("train/patient00002/study2/view1_frontal.jpg", "Female", "87", "Frontal", "PA", {3: "-1.0", 10: "1.0"}),
    ("train/patient00002/study1/view1_frontal.jpg", "Female", "83", "Frontal", "LL", {}),
    ("train/patient00003/study1/view1_frontal.jpg", "Unknown", "0", "Frontal", "AP", {5: "1.0"}),
)
VALID: Final = (
    ("valid/patient64541/study1/view1_frontal.jpg", "Male", "73", "Frontal", "AP", {1: "1.0", 2: "1.0"}),
)
TEST: Final = (
    ("test/patient64741/study1/view1_frontal.jpg", {2: "1.0"}),
    ("test/patient64741/study1/view2_lateral.jpg", {2: "1.0"}),
)


def _cells(labels: dict[int, str], blank: str) -> str:
    return ",".join(labels.get(place, blank) for place in range(14))


def write(root: Path, *, name: str = "CheXpert-v1.0-small", batches: bool = False) -> Path:
    """Write the layout below ``root``, which is returned: ``root/CheXpert-v1.0-small/train.csv`` and so on.

    Args:
        batches: as the full set is offered, its tables in the first batch and its patients in the others.
    """
    first = "CheXpert-v1.0 batch 1 (validate & csv)" if batches else name
    header = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(FINDINGS)}\n"
    for table, rows, blank in (("train", TRAIN, ""), ("valid", VALID, "0.0")):
        lines = [
            f"{name}/{path},{sex},{age},{plane},{projection},{_cells(labels, blank)}\n"
            for path, sex, age, plane, projection, labels in rows
        ]
        write_text(root / first / f"{table}.csv", header + "".join(lines))
    tested = [f"{path},{_cells(labels, '0.0')}\n" for path, labels in TEST]
    write_text(root / first / "test_labels.csv", f"Path,{','.join(FINDINGS)}\n" + "".join(tested))
    paths = [row[0] for row in (*TRAIN, *VALID)] + [row[0] for row in TEST]
    for number, path in enumerate(paths):
        inside = Path(first) / path
        if batches and path.startswith("train/"):
            batch = "CheXpert-v1.0 batch 2 (train 1)" if "00001" in path else "CheXpert-v1.0 batch 3 (train 2)"
            inside = Path(batch) / path.removeprefix("train/")
        write_picture(root / inside, number)
    return root
