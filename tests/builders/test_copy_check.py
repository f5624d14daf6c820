"""Whether a user's copy is whole: what is missing, extra, unreadable, and fewer than published."""

import gzip
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cxr_max.builders.sources.base import SourceInfo
from cxr_max.builders.sources.chestxray14 import ChestXray14
from cxr_max.builders.sources.copy_check import NAMED, check_copy
from cxr_max.builders.sources.image_files import image_files
from cxr_max.builders.sources.registry import NAMES, listing, open_copy
from cxr_max.errors import RequestError
from tests.mimic_fixture import write_mimic
from tests.source_fixtures import chestx_det, chestxray14, chexpert, open_i, padchest, vindr_cxr
from tests.source_fixtures.pictures import replace_in, write_picture


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A whole copy of ChestX-ray14, had its owners published six images."""
    monkeypatch.setattr(
        ChestXray14,
        "info",
        replace(ChestXray14.info, expected={"images": 6, "subjects": 4, "train": 4, "test": 2}),
    )
    yield chestxray14.write(tmp_path)


def test_a_whole_copy(copy: Path) -> None:
    report = check_copy(open_copy(f"chestxray14:{copy}"), images=True)
    assert report.defects == () and report.absent == ()
    assert (report.rows, report.present, report.missing, report.extra, report.unreadable) == (6, 6, 0, 0, {})
    assert report.counts == {"images": 6, "studies": 6, "subjects": 4, "train": 4, "test": 2}
    assert report.mapped == {
        "Cardiomegaly": 2,
        "Nodule": 2,
        "Effusion": 1,
        "Infiltration": 1,
        "Mass": 1,
        "No Finding": 1,
        "Pleural_Thickening": 1,
    }
    assert report.unmapped == {"Emphysema": 1, "Hernia": 1} and report.unknown == ()
    assert report.tables == (
        "Data_Entry_2017_v2020.csv",
        "train_val_list.txt",
        "test_list.txt",
        "BBox_List_2017.csv",
    )


def test_missing_and_extra_images_are_named(copy: Path) -> None:
    (copy / "images_001" / "images" / "00000001_000.png").rename(copy / "images_002" / "images" / "new.png")
    report = check_copy(open_copy(f"chestxray14:{copy}"))
    assert (report.present, report.missing, report.missing_names) == (5, 1, ("images/00000001_000.png",))
    assert (report.extra, report.extra_names) == (1, ("images_002/images/new.png",))
    assert report.defects == (
        f"1 images that the tables list are missing: get them from {ChestXray14.info.home}.",
    )


def test_an_image_in_two_folders_is_extra_once(copy: Path) -> None:
    write_picture(copy / "images" / "00000001_000.png", 0)
    report = check_copy(open_copy(f"chestxray14:{copy}"))
    assert (report.missing, report.extra) == (0, 1)


def test_many_missing_images_are_counted(copy: Path) -> None:
    for file in list(copy.rglob("*.png")):
        file.unlink()
    for number in range(NAMED + 5):
        write_picture(copy / "other" / f"x{number:02}.png", 0)
    report = check_copy(open_copy(f"chestxray14:{copy}"))
    assert report.missing == 6 and report.extra == NAMED + 5
    assert len(report.extra_names) == NAMED


def test_unreadable_images_are_found_when_asked(copy: Path) -> None:
    (copy / "images_001" / "images" / "00000001_000.png").write_bytes(b"not a picture")
    (copy / "images_002" / "images" / "00000001_001.png").write_bytes(b"")
    assert check_copy(open_copy(f"chestxray14:{copy}")).defects == ()
    report = check_copy(open_copy(f"chestxray14:{copy}"), images=True)
    assert set(report.unreadable or {}) == {
        "images_001/images/00000001_000.png",
        "images_002/images/00000001_001.png",
    }
    assert report.defects == (f"2 images cannot be read: get them anew from {ChestXray14.info.home}.",)


def test_fewer_than_published_and_more(copy: Path) -> None:
    path = copy / "Data_Entry_2017_v2020.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    defects = check_copy(open_copy(f"chestxray14:{copy}")).defects
    assert [defect.partition(", its owners")[0] for defect in defects] == [
        "The tables list 5 images",
        "The tables list 3 subjects",
        "The tables list 3 images in the split train",
    ]
    path.write_text(
        path.read_text() + "00000004_000.png,Mass,0,4,4,F,AP,1,1,1,1\n00000005_000.png,Mass,0,5,4,F,AP,1,1,1,1\n"
    )
    write_picture(copy / "images" / "00000005_000.png", 1)
    assert check_copy(open_copy(f"chestxray14:{copy}")).defects == ()


def test_an_absent_table_and_an_unknown_label_are_said(copy: Path) -> None:
    (copy / "BBox_List_2017.csv").unlink()
    replace_in(copy / "Data_Entry_2017_v2020.csv", "Hernia", "Situs inversus")
    report = check_copy(open_copy(f"chestxray14:{copy}"))
    assert report.absent == ("BBox_List_2017.csv (sides)",)
    assert report.unknown == ("Situs inversus",) and report.unmapped == {"Emphysema": 1, "Situs inversus": 1}


@pytest.mark.parametrize(
    ("name", "write", "listed", "labels"),
    [
        ("chestx-det10", chestx_det.write_ten, {"images": 4, "studies": 4, "train": 2, "test": 2}, 5),
        ("chestx-det", chestx_det.write_thirteen, {"images": 4, "studies": 4, "train": 2, "test": 2}, 7),
        (
            "chexpert",
            chexpert.write,
            {"images": 8, "studies": 6, "subjects": 5, "train": 5, "validation": 1, "test": 2},
            6,
        ),
        ("vindr-cxr", vindr_cxr.write, {"images": 4, "studies": 4, "train": 2, "test": 2}, 7),
        ("padchest", padchest.write, {"images": 6, "studies": 5, "subjects": 4}, 5),
        ("open-i", open_i.write_xml, {"images": 6, "studies": 4}, 6),
        ("open-i", open_i.write_tables, {"images": 6, "studies": 4}, 6),
    ],
)
def test_what_the_other_sets_list_is_on_disk(
    name: str, write: Callable[[Path], Path], listed: dict[str, int], labels: int, tmp_path: Path
) -> None:
    report = check_copy(open_copy(f"{name}:{write(tmp_path)}"), images=True)
    assert report.counts == listed and len(report.mapped) == labels
    assert (report.present, report.missing, report.extra, report.unreadable) == (listed["images"], 0, 0, {})
    assert all("its owners publish" in defect for defect in report.defects) and report.defects


def test_both_mimic_sets_and_files_compressed_one_by_one(tmp_path: Path) -> None:
    dicom, jpg = write_mimic(tmp_path)
    for name, root in (("mimic-cxr", dicom), ("mimic-cxr-jpg", jpg)):
        report = check_copy(open_copy(f"{name}:{root}"), images=True)
        assert (report.present, report.missing, report.extra, report.unreadable) == (report.rows, 0, 0, {}), name
        assert report.absent == () and report.counts["studies"] == 14
    plain = next(path for path in dicom.rglob("*.dcm"))
    plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert check_copy(open_copy(f"mimic-cxr:{dicom}")).missing == 0


def test_a_folder_knows_what_its_table_lists(tmp_path: Path) -> None:
    for number in range(3):
        write_picture(tmp_path / f"{number}.png", number)
    (tmp_path / "manifest.csv").write_text("file,finding,split\n0.png,Pneumonia,test\n1.png,,\nabsent.png,,\n")
    report = check_copy(open_copy(f"folder:{tmp_path}"))
    assert (report.present, report.missing_names, report.extra_names) == (2, ("absent.png",), ("2.png",))
    assert report.mapped == {"Pneumonia": 1} and report.counts == {"images": 3, "studies": 3, "test": 1}


def test_progress_is_told_and_reaches_its_end(copy: Path) -> None:
    told: list[tuple[str, int, int]] = []
    check_copy(open_copy(f"chestxray14:{copy}"), images=True, watch=lambda *step: told.append(step))
    assert (
        told[0] == ("files found", 0, 6) and ("files found", 6, 6) in told and told[-1] == ("headers read", 6, 6)
    )


def test_the_phantoms_are_nobodys_copy() -> None:
    with pytest.raises(RequestError, match="nothing to check"):
        open_copy("phantom:7")


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    for name in (".a.png", ".hidden/b.png", "c.PNG", "d.txt", "e.dcm.gz", "f.dicom"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(image_files(tmp_path)) == ["c.PNG", "e.dcm.gz", "f.dicom"]


def test_the_listing_says_where_to_get_each_set_and_how_much_it_is() -> None:
    entries = {entry["spec"].partition(":")[0].partition("[")[0]: entry for entry in listing()}
    assert tuple(entries) == NAMES
    for name, entry in entries.items():
        if name not in ("phantom", "folder"):
            assert entry["home"].startswith("https://") and entry["download"] and entry["expected"], name
    assert entries["chestx-det10"]["overlaps"] == ["chestxray14", "chestx-det"]
    assert {name: entry["data_use"] for name, entry in entries.items()} == {
        "phantom": "open",
        "mimic-cxr-jpg": "credentialed",
        "mimic-cxr": "credentialed",
        "ms-cxr-t": "credentialed",
        "open-i": "open",
        "chestxray14": "open",
        "chexpert": "registration",
        "chestx-det10": "open",
        "chestx-det": "open",
        "vindr-cxr": "credentialed",
        "padchest": "registration",
        "folder": "by licence",
    }


def test_a_manifest_from_before_these_fields_is_read() -> None:
    old = {"name": "folder", "title": "T", "data_use": "open", "licence": "other", "citation": ""}
    assert SourceInfo(**old).overlaps == () and SourceInfo(**old).expected == {}  # type: ignore[arg-type]
