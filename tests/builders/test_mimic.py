"""Both MIMIC sets: every study of a copy in miniature, every irregularity, every refusal."""

import gzip
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from cxr_max.builders.sources.base import Source
from cxr_max.builders.sources.mimic_cxr import MimicCxr
from cxr_max.builders.sources.mimic_cxr_jpg import MimicCxrJpg
from cxr_max.builders.sources.mimic_tables import timestamp
from cxr_max.builders.sources.views import frontal
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, positives
from cxr_max.records import Study
from tests.mimic_fixture import EXAMS, copy_mimic, dicom_id, read_table, report_text, write_mimic, write_table

METADATA = "mimic-cxr-2.0.0-metadata.csv.gz"
SPLIT = "mimic-cxr-2.0.0-split.csv.gz"
CHEXPERT = "mimic-cxr-2.0.0-chexpert.csv.gz"
TEST_LABELS = "mimic-cxr-2.1.0-test-set-labeled.csv"
RECORDS = "cxr-record-list.csv.gz"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mimic-fixture"

Pair = tuple[Path, Path]
Rows = list[list[str]]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return write_mimic(tmp_path_factory.mktemp("mimic"))


@pytest.fixture
def copied(written: Pair, tmp_path: Path) -> Pair:
    return copy_mimic(written, tmp_path)


def change(path: Path, edit: Callable[[list[str], Rows], object]) -> None:
    """Rewrite a table, its columns and rows edited in place."""
    columns, rows = read_table(path)
    edit(columns, rows)
    write_table(path, columns, rows)


def by_id(source: Source) -> dict[str, Study]:
    return {study.study_id: study for study in source.studies()}


def plain(study: Study) -> Study:
    """A study without what may differ between the two sets."""
    images = tuple(replace(image, path=Path(image.path.name.partition(".")[0])) for image in study.radiographs)
    return replace(study, source="", radiographs=images)


EXPECTED = [
    # study, subject, split, acquired, views, present, uncertain, absent
    (
        "50414267",
        "10000032",
        "train",
        "2180-05-06T21:30:14",
        "PA LATERAL",
        "No Finding",
        "",
        "Pneumothorax",
    ),
    (
        "53189527",
        "10000032",
        "train",
        "2180-06-26T09:05:00",
        "AP AP",
        "Cardiomegaly,Support Devices",
        "Edema",
        "",
    ),
    (
        "57375967",
        "10000764",
        "train",
        "2132-10-15T10:15:00",
        "PA unknown",
        "Pleural Effusion",
        "Atelectasis",
        "",
    ),
    ("50771383", "10000898", "train", "2188-03-30T00:05:00", "PA LL", "Lung Opacity", "Pneumonia", ""),
    ("50578979", "10000935", "train", "", "AP", "", "", ""),
    ("51178377", "10000935", "train", "2187-09-01T08:12:33", "AP LATERAL", None, None, None),
    ("50985099", "10000980", "validation", "2189-03-07T23:59:59", "PA", "Pleural Other", "", "Fracture"),
    (
        "51967283",
        "10000980",
        "validation",
        "2189-04-11T12:00:00",
        "AP other",
        "Enlarged Cardiomediastinum",
        "",
        "",
    ),
    (
        "58224503",
        "10001038",
        "test",
        "2142-09-06T07:07:07",
        "PA LATERAL",
        "Lung Opacity",
        "Consolidation",
        "Pneumonia",
    ),
    ("53447138", "10001122", "test", "2129-01-01T00:00:00", "AP", "Pneumothorax", "", "Lung Lesion"),
    ("53186264", "10001176", "test", "2186-11-18T18:00:00", "PA", "No Finding", "", ""),
    ("52067803", "10001217", "train", "2157-12-18T10:00:00", "other", "No Finding", "", ""),
    ("58913004", "10001217", "train", "2157-11-18T09:00:00", "PA LATERAL", "Consolidation", "", ""),
    ("55555555", "10001400", "train", "2160-02-29T11:11:11", "PA", "", "", "Cardiomegaly,Pleural Effusion"),
]


def states(study: Study, state: int) -> str | None:
    if study.reference_findings is None:
        return None
    assert tuple(study.reference_findings) == FINDINGS
    return ",".join(name for name, value in study.reference_findings.items() if value == state)


@pytest.mark.parametrize("which", [MimicCxr, MimicCxrJpg])
def test_every_study_row_by_row(written: Pair, which: type[MimicCxr] | type[MimicCxrJpg]) -> None:
    source: Source = which(written[which is MimicCxrJpg])
    studies = list(source.studies())
    assert source.total == len(studies) == len(EXPECTED)
    assert source.warnings == ()
    for study, (name, subject, split, acquired, views, present, uncertain, absent) in zip(
        studies, EXPECTED, strict=True
    ):
        assert (study.study_id, study.subject_id, study.split) == (name, subject, split)
        assert study.source == source.info.name
        assert study.acquired_at == (datetime.fromisoformat(acquired) if acquired else None)
        assert " ".join(image.view for image in study.radiographs) == views
        assert (states(study, 1), states(study, -1), states(study, 0)) == (present, uncertain, absent)
        assert (study.report, study.sex, study.age, dict(study.other_labels)) == (None, None, None, {})
        for image in study.radiographs:
            assert image.path.is_file()
            assert (image.rows, image.columns) == (64, 56)


def test_both_sets_give_the_same_studies(written: Pair) -> None:
    dicom, jpg = (list(source.studies()) for source in both(written, reports=True))
    assert [plain(study) for study in dicom] == [plain(study) for study in jpg]
    assert {study.source for study in dicom} == {"mimic-cxr"}


def both(versions: Pair, *, reports: bool = False) -> tuple[MimicCxr, MimicCxrJpg]:
    return MimicCxr(versions[0], reports=reports), MimicCxrJpg(versions[1], reports=reports)


def test_what_the_sets_are(written: Pair) -> None:
    dicom, jpg = both(written)
    assert (dicom.info.name, jpg.info.name) == ("mimic-cxr", "mimic-cxr-jpg")
    assert (dicom.prerendered, jpg.prerendered) == (False, True)
    for source in (dicom, jpg):
        assert (source.info.data_use, source.info.licence) == ("credentialed", "other")
        assert "Johnson" in source.info.citation


def test_paths_follow_the_layout(written: Pair) -> None:
    dicom, jpg = (by_id(source)["50414267"].radiographs for source in both(written))
    stem = f"files/p10/p10000032/s50414267/{dicom_id(EXAMS[0], 1)}"
    assert dicom[0].path == written[0] / f"{stem}.dcm"
    assert jpg[0].path == written[1] / f"{stem}.jpg"
    assert dicom[0].image_id == jpg[0].image_id == dicom_id(EXAMS[0], 1)


def test_images_come_by_time_then_view_then_identifier(copied: Pair) -> None:
    both_ap = by_id(MimicCxrJpg(copied[1]))["53189527"].radiographs
    assert both_ap[0].image_id == dicom_id(EXAMS[1], 1), "the one taken ten minutes earlier"
    set_cells(copied[1] / METADATA, "study_id", "53189527", StudyTime="91500.0")
    names = [image.image_id for image in by_id(MimicCxrJpg(copied[1]))["53189527"].radiographs]
    assert names == sorted(names)


def set_cells(path: Path, key: str, value: str, **cells: str) -> None:
    def edit(columns: list[str], rows: Rows) -> None:
        for row in rows:
            if row[columns.index(key)] == value:
                for name, cell in cells.items():
                    row[columns.index(name)] = cell

    change(path, edit)


def test_the_folder_above_the_version_will_do(written: Pair) -> None:
    for source in (MimicCxr(written[0].parent), MimicCxrJpg(written[1].parent)):
        assert source.total == len(EXPECTED)
        assert next(source.studies()).radiographs[0].path.is_file()
    assert MimicCxr(written[0].parent).warnings == ()


def test_the_newest_version_is_taken(copied: Pair) -> None:
    shutil.copytree(copied[1], copied[1].with_name("2.0.0"))
    (copied[1].with_name("10.0.0")).mkdir()
    assert MimicCxrJpg(copied[1].parent)._folder == copied[1]


def test_tables_may_be_unzipped_and_written_otherwise(copied: Pair, written: Pair) -> None:
    before = list(MimicCxrJpg(written[1]).studies())
    for path in copied[1].glob("*.csv.gz"):
        columns, *rows = gzip.decompress(path.read_bytes()).decode().splitlines()
        order = list(reversed(range(columns.count(",") + 1)))
        cells = [[line.split(",")[place] for place in order] for line in [columns, *rows]]
        quoted = [",".join(f'" {cell}"' for cell in [*line, 'extra, "" column']) for line in cells]
        path.unlink()
        path.with_suffix("").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(quoted).encode() + b"\r\n")
    after = list(MimicCxrJpg(copied[1]).studies())
    assert [plain(study) for study in after] == [plain(study) for study in before]


def test_labels_without_a_row_and_without_a_value(written: Pair) -> None:
    studies = by_id(MimicCxrJpg(written[1]))
    assert studies["51178377"].reference_findings is None
    assert studies["50578979"].reference_findings == dict.fromkeys(FINDINGS)


def test_test_split_without_the_radiologists_table(copied: Pair) -> None:
    (copied[1] / TEST_LABELS).unlink()
    for source in both(copied):
        (warning,) = source.warnings
        assert TEST_LABELS in warning and "physionet.org/content/mimic-cxr-jpg" in warning
        studies = by_id(source)
        assert positives(studies["58224503"].reference_findings or {}) == ("Pneumonia",)
        assert studies["53186264"].reference_findings is None


def test_a_radiologists_row_outside_the_test_split_does_not_count(copied: Pair) -> None:
    set_cells(copied[1] / SPLIT, "study_id", "58224503", split="train")
    assert positives(by_id(MimicCxrJpg(copied[1]))["58224503"].reference_findings or {}) == ("Pneumonia",)


def test_the_other_spelling_of_no_finding(copied: Pair) -> None:
    change(copied[1] / TEST_LABELS, lambda columns, rows: columns.__setitem__(-1, "No Finding"))
    assert positives(by_id(MimicCxrJpg(copied[1]))["53186264"].reference_findings or {}) == ("No Finding",)


def test_repeated_rows_are_read_once(copied: Pair) -> None:
    for name in (METADATA, SPLIT, CHEXPERT):
        change(copied[1] / name, lambda columns, rows: rows.extend(rows[:3]))
    change(copied[0] / RECORDS, lambda columns, rows: rows.extend(rows[:3]))
    for source in both(copied):
        assert source.total == len(EXPECTED)
        assert sum(len(study.radiographs) for study in source.studies()) == sum(len(e.images) for e in EXAMS)


def test_images_without_a_split(copied: Pair) -> None:
    def edit(columns: list[str], rows: Rows) -> None:
        rows[:] = [row for row in rows if row[1] != "50414267" and row[0] != dicom_id(EXAMS[1], 0)]

    change(copied[1] / SPLIT, edit)
    studies = by_id(MimicCxrJpg(copied[1]))
    assert studies["50414267"].split is None
    assert studies["53189527"].split == "train", "as its other image is"


def test_frontal_images(written: Pair) -> None:
    found = {name: len(frontal(study.radiographs)) for name, study in by_id(MimicCxrJpg(written[1])).items()}
    assert found["50414267"] == 1 and found["53189527"] == 2 and found["57375967"] == 1
    assert found["52067803"] == 0, "an oblique view is not frontal"


def test_reports_from_the_archive(written: Pair) -> None:
    for source in both(written, reports=True):
        studies = by_id(source)
        assert {name: studies[name].report for name in studies} == {
            str(exam.study): report_text(exam) for exam in EXAMS
        }
        assert "FINAL ADDENDUM" in (studies["50771383"].report or "")
        assert "IMPRESSION" not in (studies["57375967"].report or "")


def test_reports_from_files_beside_the_images(copied: Pair) -> None:
    archive = copied[0] / "mimic-cxr-reports.zip"
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(copied[0])
    archive.unlink()
    (copied[0] / "files/p10/p10000032/s53189527.txt").unlink()
    for source in both(copied, reports=True):
        assert source.warnings == ()
        studies = by_id(source)
        assert studies["50414267"].report == report_text(EXAMS[0])
        assert studies["53189527"].report is None


def test_an_archive_in_the_images_folder_and_with_a_folder_inside(copied: Pair) -> None:
    with zipfile.ZipFile(copied[1] / "mimic-cxr-reports.zip", "w") as archive:
        archive.writestr("mimic-cxr-reports/files/p10/p10000032/s50414267.txt", "caf\xe9".encode("latin-1"))
    shutil.rmtree(copied[0])
    studies = by_id(MimicCxrJpg(copied[1], reports=True))
    assert studies["50414267"].report == "caf�"
    assert studies["53189527"].report is None


def test_reports_asked_for_and_not_there(copied: Pair) -> None:
    (copied[0] / "mimic-cxr-reports.zip").unlink()
    for source in both(copied, reports=True):
        (warning,) = source.warnings
        assert "mimic-cxr-reports.zip" in warning
        assert next(source.studies()).report is None


def test_a_damaged_archive(copied: Pair) -> None:
    archive = copied[0] / "mimic-cxr-reports.zip"
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(RequestError, match=r"mimic-cxr-reports\.zip is damaged"):
        next(MimicCxr(copied[0], reports=True).studies())


def test_dicom_files_alone(copied: Pair) -> None:
    shutil.rmtree(copied[1])
    source = MimicCxr(copied[0])
    (warning,) = source.warnings
    for name in (METADATA, SPLIT, CHEXPERT):
        assert name in warning
    studies = by_id(source)
    for name, subject, _, acquired, *_ in EXPECTED:
        study = studies[name]
        assert (study.subject_id, study.split, study.reference_findings) == (subject, None, None)
        assert study.acquired_at == (datetime.fromisoformat(acquired) if acquired else None)
    first = studies["50771383"].radiographs
    assert [image.view for image in first] == ["PA", "LL"]
    assert (first[0].photometric_interpretation, first[0].rows, first[0].columns) == ("MONOCHROME1", 64, 56)
    assert first[0].pixel_spacing_mm == (0.139, 0.139)
    assert studies["58224503"].acquired_at == datetime(2142, 9, 6, 7, 7, 7)
    assert [image.view for image in studies["58913004"].radiographs] == ["PA", "LATERAL"]
    assert studies["58913004"].radiographs[1].path.name.endswith(".dcm.gz")


def test_headers_are_read_study_by_study(copied: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    import cxr_max.radiograph

    shutil.rmtree(copied[1])
    read: list[str] = []
    original = cxr_max.radiograph.read_header

    def watched(path: Path) -> object:
        read.append(path.parent.name)
        return original(path)

    monkeypatch.setattr(cxr_max.radiograph, "read_header", watched)
    studies = MimicCxr(copied[0]).studies()
    assert read == []
    next(studies)
    assert read == ["s50414267"] * 2


def test_an_unreadable_header_does_not_lose_the_study(copied: Pair) -> None:
    shutil.rmtree(copied[1])
    files = sorted((copied[0] / "files/p10/p10000032/s50414267").iterdir())
    files[0].write_bytes(b"\0" * 200)
    files[1].unlink()
    study = next(MimicCxr(copied[0]).studies())
    assert [image.view for image in study.radiographs] == ["unknown", "unknown"]
    assert study.acquired_at is None


def test_an_image_that_only_the_record_list_names(copied: Pair) -> None:
    lateral = dicom_id(next(exam for exam in EXAMS if exam.study == 58224503), 1)
    change(copied[1] / METADATA, lambda columns, rows: rows.remove(next(row for row in rows if row[0] == lateral)))
    study = by_id(MimicCxr(copied[0]))["58224503"]
    assert [image.view for image in study.radiographs] == ["PA", "LATERAL"]
    assert [image.photometric_interpretation for image in study.radiographs] == [None, "MONOCHROME2"]


def test_the_plain_file_is_taken_before_the_compressed_one(copied: Pair) -> None:
    zipped = next((copied[0] / "files/p10/p10001176").rglob("*.dcm.gz"))
    zipped.with_suffix("").write_bytes(gzip.decompress(zipped.read_bytes()))
    assert by_id(MimicCxr(copied[0]))["53186264"].radiographs[0].path == zipped.with_suffix("")


def test_labels_from_another_folder(copied: Pair, written: Pair) -> None:
    tables = copied[1].rename(copied[1].parent.parent / "tables")
    source = MimicCxr(copied[0], labels=tables)
    assert source.warnings == ()
    expected = [plain(study) for study in MimicCxr(written[0]).studies()]
    assert [plain(study) for study in source.studies()] == expected


def test_another_table_of_labels(copied: Pair) -> None:
    mine = copied[1].parent / "mine.csv"
    write_table(mine, ("study_id", *FINDINGS), [["50414267", *["1"] * 14]])
    for source in (MimicCxr(copied[0], labels=mine), MimicCxrJpg(copied[1], labels=mine)):
        studies = by_id(source)
        assert positives(studies["50414267"].reference_findings or {}) == FINDINGS
        assert studies["53189527"].reference_findings is None
        assert studies["53189527"].split == "train"


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("21800506", "101500.0", datetime(2180, 5, 6, 10, 15)),
        ("21800506", "91500.0", datetime(2180, 5, 6, 9, 15)),
        ("21800506", "500", datetime(2180, 5, 6, 0, 5)),
        ("21800506", "0.0", datetime(2180, 5, 6)),
        ("21800506", "213014.53100000002", datetime(2180, 5, 6, 21, 30, 14)),
        ("21800506", "235959.9999999", datetime(2180, 5, 6, 23, 59, 59)),
        ("21800506", "", None),
        ("21800506", "999999.0", None),
        ("21800506", "1e5", None),
        ("", "101500.0", None),
        ("21801340", "101500.0", None),
    ],
)
def test_timestamp(date: str, time: str, expected: datetime | None) -> None:
    assert timestamp(date, time) == expected


@pytest.mark.parametrize("which", [MimicCxr, MimicCxrJpg])
def test_a_folder_that_is_not_there(tmp_path: Path, which: type[MimicCxr] | type[MimicCxrJpg]) -> None:
    with pytest.raises(RequestError, match=r"absent is not a folder"):
        which(tmp_path / "absent")


@pytest.mark.parametrize("name", [METADATA, SPLIT, CHEXPERT])
def test_a_missing_table(copied: Pair, name: str) -> None:
    (copied[1] / name).unlink()
    with pytest.raises(RequestError, match=rf"^{name} is missing from .*: download it from https://physionet"):
        MimicCxrJpg(copied[1])
    (warning,) = MimicCxr(copied[0]).warnings
    assert name in warning


def test_a_missing_record_list(copied: Pair) -> None:
    (copied[0] / RECORDS).unlink()
    with pytest.raises(RequestError, match=r"cxr-record-list\.csv\.gz is missing .*/mimic-cxr/2\.1\.0/\.$"):
        MimicCxr(copied[0])


@pytest.mark.parametrize(
    ("name", "column"),
    [
        (METADATA, "ViewPosition"),
        (METADATA, "StudyTime"),
        (SPLIT, "split"),
        (CHEXPERT, "Edema"),
        (CHEXPERT, "study_id"),
        (TEST_LABELS, "Airspace Opacity"),
    ],
)
def test_a_missing_column(copied: Pair, name: str, column: str) -> None:
    change(copied[1] / name, lambda columns, rows: columns.__setitem__(columns.index(column), "x"))
    shown = "Lung Opacity" if column == "Airspace Opacity" else column
    for which, version in ((MimicCxr, copied[0]), (MimicCxrJpg, copied[1])):
        with pytest.raises(RequestError, match=rf"{name} has no column {shown}: get it anew from https"):
            which(version)


@pytest.mark.parametrize(
    ("name", "key", "value", "cells", "message"),
    [
        (
            SPLIT,
            "dicom_id",
            dicom_id(EXAMS[0], 0),
            {"split": "test"},
            "contradict each other for study_id '50414267'",
        ),
        (SPLIT, "study_id", "50414267", {"split": "dev"}, "unknown split 'dev'"),
        (CHEXPERT, "study_id", "50414267", {"Edema": "2"}, "column Edema: '2' is no finding's state"),
        (CHEXPERT, "study_id", "50414267", {"study_id": "s5"}, "impossible study_id 's5'"),
        (METADATA, "study_id", "50414267", {"subject_id": ""}, "impossible subject_id ''"),
        (
            TEST_LABELS,
            "study_id",
            "58224503",
            {"Edema": "yes"},
            "column Edema: 'yes' is no finding's state",
        ),
    ],
)
def test_impossible_cells(
    copied: Pair, name: str, key: str, value: str, cells: dict[str, str], message: str
) -> None:
    set_cells(copied[1] / name, key, value, **cells)
    with pytest.raises(RequestError, match=message):
        MimicCxrJpg(copied[1])


@pytest.mark.parametrize(
    ("name", "column", "cell", "key"),
    [
        (SPLIT, "split", "test", "50414267"),
        (METADATA, "ViewPosition", "AP", dicom_id(EXAMS[0], 0)),
        (CHEXPERT, "Edema", "1.0", "50414267"),
    ],
)
def test_rows_that_contradict_each_other(copied: Pair, name: str, column: str, cell: str, key: str) -> None:
    def edit(columns: list[str], rows: Rows) -> None:
        again = list(rows[0])
        again[columns.index(column)] = cell
        rows.append(again)

    change(copied[1] / name, edit)
    with pytest.raises(RequestError, match=f"{name} has rows that contradict each other for .*{key}"):
        MimicCxrJpg(copied[1])


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08\x00", b"PK\x03\x04 no table", None])
def test_a_damaged_table(copied: Pair, content: bytes | None) -> None:
    path = copied[1] / METADATA
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(RequestError, match=rf"{METADATA} cannot be read as a table .*get it anew"):
        MimicCxrJpg(copied[1])


def test_labels_that_are_not_there(written: Pair, tmp_path: Path) -> None:
    for which, version in ((MimicCxr, written[0]), (MimicCxrJpg, written[1])):
        with pytest.raises(RequestError, match=r"none\.csv is neither a table of labels nor a folder"):
            which(version, labels=tmp_path / "none.csv")
        with pytest.raises(RequestError, match=r"chexpert\.csv\.gz is missing from"):
            which(version, labels=tmp_path)


def test_absent_images_are_yielded_all_the_same(copied: Pair) -> None:
    shutil.rmtree(copied[0] / "files")
    shutil.rmtree(copied[1] / "files")
    dicom, jpg = (list(source.studies()) for source in both(copied))
    assert [plain(study) for study in dicom] == [plain(study) for study in jpg]
    assert len(jpg) == len(EXPECTED)


def test_the_fixture_is_the_same_every_time(written: Pair, tmp_path: Path) -> None:
    again = write_mimic(tmp_path)
    for before, after in zip(written, again, strict=True):
        files = sorted(path.relative_to(before) for path in before.rglob("*") if path.is_file())
        assert files == sorted(path.relative_to(after) for path in after.rglob("*") if path.is_file())
        assert all((before / file).read_bytes() == (after / file).read_bytes() for file in files)


def test_importing_the_sources_is_cheap() -> None:
    modules = ["mimic_cxr", "mimic_cxr_jpg", "folder", "views"]
    script = f"import sys; {'; '.join(f'import cxr_max.builders.sources.{name}' for name in modules)}; "
    script += "sys.exit(any(name in sys.modules for name in ('pandas', 'numpy', 'pydicom', 'cv2')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the larger copy in miniature is not on this machine")


@shared
def test_the_larger_copy_row_by_row() -> None:
    dicom, jpg = both((SHARED / "mimic-cxr/2.1.0", SHARED / "mimic-cxr-jpg/2.1.0"), reports=True)
    studies = list(jpg.studies())
    assert [plain(study) for study in dicom.studies()] == [plain(study) for study in studies]
    assert dicom.warnings == jpg.warnings == ()
    by_row = {study.study_id: study for study in studies}
    columns, labels = read_table(SHARED / "mimic-cxr-jpg/2.1.0" / CHEXPERT)
    assert columns[2:] == list(FINDINGS)
    for row in labels:
        known = by_row.pop(row[1])
        assert [None if cell == "" else float(cell) for cell in row[2:]] == list(
            (known.reference_findings or {}).values()
        )
    (unlabelled,) = by_row.values()
    assert (unlabelled.study_id, unlabelled.reference_findings) == ("59900291", None)


@shared
def test_the_larger_copys_views_times_and_splits() -> None:
    studies = list(MimicCxrJpg(SHARED / "mimic-cxr-jpg", reports=True).studies())
    views = [image.view for study in studies for image in study.radiographs]
    assert [views.count(view) for view in ("PA", "AP", "unknown")] == [9, 4, 2]
    splits = [study.split for study in studies]
    assert [splits.count(split) for split in ("train", "validation", "test")] == [6, 8, 1]
    assert studies[0].acquired_at == datetime(2130, 1, 5, 10, 15)
    assert all(study.report and "FINAL REPORT" in study.report for study in studies)
    assert all(image.path.is_file() for study in studies for image in study.radiographs)
