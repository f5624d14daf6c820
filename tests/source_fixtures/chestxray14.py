"""ChestX-ray14 in miniature: two of the twelve image folders, both headers, the boxes' broken header."""

from pathlib import Path
from typing import Final

from tests.source_fixtures.pictures import write_picture, write_text

HOME_COLUMNS: Final = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient {sex},View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ROWS: Final = (
    ("00000001_000.png", "Cardiomegaly", "0", "1", "57", "M", "PA"),
    ("00000001_001.png", "Cardiomegaly|Emphysema", "1", "1", "58", "M", "PA"),
    ("00000002_000.png", "No Finding", "0", "2", "80", "M", "AP"),
    ("00000003_000.png", "Effusion|Infiltration|Nodule", "0", "3", "74", "F", "PA"),
    ("00000003_001.png", "Hernia", "1", "3", "75", "F", "PA"),
    ("00000004_000.png", "Mass|Nodule|Pleural_Thickening", "0", "4", "411", "F", "AP"),
)
TEST: Final = ("00000003_000.png", "00000003_001.png")
FOLDERS: Final = ("images_001/images", "images_002/images")


def write(root: Path, *, old: bool = False) -> Path:
    """Write the layout.

    Args:
        old: the table of 2017: Patient Gender, ages as ``058Y``, a comma at the end of every line.
    """
    end = "," if old else ""
    lines = [HOME_COLUMNS.format(sex="Gender" if old else "Sex") + end]
    for image, labels, visit, patient, age, sex, view in ROWS:
        shown = f"{age:0>3}Y" if old else age
        lines.append(f"{image},{labels},{visit},{patient},{shown},{sex},{view},2682,2749,0.143,0.143{end}")
    name = "Data_Entry_2017.csv" if old else "Data_Entry_2017_v2020.csv"
    write_text(root / name, "\n".join(lines) + "\n")
    train = [row[0] for row in ROWS if row[0] not in TEST]
    write_text(root / "train_val_list.txt", "\n".join(train))
    write_text(root / "test_list.txt", "\n".join(TEST) + "\n")
    write_text(
        root / "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00000003_000.png,Effusion,100.5,547.0,186.7,79.2,,,\n"
        "00000003_000.png,Infiltrate,100.0,300.0,150.0,79.2,,,\n"
        "00000003_000.png,Infiltrate,700.0,300.0,150.0,79.2,,,\n"
        "00000001_000.png,Cardiomegaly,400.0,500.0,300.0,200.0,,,\n",
    )
    for number, row in enumerate(ROWS):
        write_picture(root / FOLDERS[number % 2] / row[0], number)
    return root
