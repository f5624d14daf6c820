"""VinDr-CXR in miniature: three readers of a training image, one line of a test image, boxes, ``.dicom`` files."""

from pathlib import Path
from typing import Final

from tests.source_fixtures.pictures import write_dicom, write_text

LABELS: Final = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation"),
    *("Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst"),
    *("Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax"),
    *("Pulmonary fibrosis", "Rib fracture", "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis"),
    *("Other diseases", "No finding"),
)
FIRST, SECOND, TESTED, NORMAL = "a" * 32, "b" * 32, "c" * 32, "d" * 32
TRAIN: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    (FIRST, "R8", ("Pleural effusion", "Rib fracture", "Aortic enlargement")),
    (SECOND, "R1", ("No finding",)),
    (FIRST, "R9", ("Pleural effusion", "Clavicle fracture", "Aortic enlargement")),
    (FIRST, "R10", ("Pneumonia",)),
    (SECOND, "R2", ("No finding",)),
    (SECOND, "R3", ("No finding",)),
)
"""An image's readers need not stand together."""
TEST: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (TESTED, ("Nodule/Mass", "ILD", "Cardiomegaly")),
    (NORMAL, ("No finding",)),
)


def _cells(stated: tuple[str, ...]) -> str:
    return ",".join("1" if label in stated else "0" for label in LABELS)


def write(root: Path) -> Path:
    """Write the version folder and return it. Images are 64 rows by 80 columns."""
    folder = root / "vindr-cxr" / "1.0.0"
    notes, names = folder / "annotations", ",".join(LABELS)
    train = [f"{image},{reader},{_cells(stated)}\n" for image, reader, stated in TRAIN]
    write_text(notes / "image_labels_train.csv", f"image_id,rad_id,{names}\n" + "".join(train))
    test = [f"{image},{_cells(stated)}\n" for image, stated in TEST]
    write_text(notes / "image_labels_test.csv", f"image_id,{names}\n" + "".join(test))
    write_text(
        notes / "annotations_train.csv",
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
        f"{FIRST},R8,Pleural effusion,5,30,20,60\n"
        f"{FIRST},R9,Pleural effusion,6,30,21,60\n"
        f"{FIRST},R9,Pleural effusion,60,30,75,60\n"
        f"{FIRST},R8,Rib fracture,50,10,60,15\n"
        f"{SECOND},R1,No finding,,,,\n",
    )
    write_text(
        notes / "annotations_test.csv",
        "image_id,class_name,x_min,y_min,x_max,y_max\n"
        f"{TESTED},Nodule/Mass,10,10,20,20\n"
        f"{TESTED},Nodule/Mass,70,10,78,20\n"
        f"{TESTED},Cardiomegaly,20,30,60,60\n"
        f"{NORMAL},No finding,nan,nan,nan,nan\n",
    )
    said = {FIRST: ("F", "058Y"), SECOND: ("M", "000Y"), TESTED: ("O", "")}
    for number, (split, image) in enumerate(
        (("train", FIRST), ("train", SECOND), ("test", TESTED), ("test", NORMAL))
    ):
        sex, age = said.get(image, ("", ""))
        path = folder / split / f"{image}.dicom"
        write_dicom(path, number, view="AP" if image == SECOND else "", columns=80, sex=sex, age=age)
    return folder
