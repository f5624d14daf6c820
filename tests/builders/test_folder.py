"""A folder of images, with a table and without."""

from collections import Counter
from pathlib import Path

import pytest

from cxr_max.builders.sources.folder import Folder
from cxr_max.errors import RequestError
from cxr_max.findings import blank
from cxr_max.records import Study
from tests.mimic_fixture import write_mimic

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cxr"


def make(root: Path, *files: str, table: str | None = None, name: str = "manifest.csv") -> Path:
    """A folder of empty files, which is all that listing needs."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    if table is not None:
        (root / name).write_text(table, encoding="utf-8")
    return root


def studies(root: Path, labels: Path | None = None) -> list[Study]:
    return list(Folder(root, labels=labels).studies())


def only(root: Path) -> Study:
    (study,) = studies(root)
    return study


def test_without_a_table_each_image_is_a_study(tmp_path: Path) -> None:
    make(tmp_path, "b.PNG", "a/z.jpg", "a/y.dcm", "a/x.Dcm.Gz", "c.tiff", "d.tif", "e.jpeg", "notes.txt", "f.dcmx")
    make(tmp_path, ".hidden.png", ".cache/g.png", "a/.thumbs/h.png")
    source = Folder(tmp_path)
    listed = list(source.studies())
    assert [study.radiographs[0].image_id for study in listed] == [
        "a/x.Dcm.Gz",
        "a/y.dcm",
        "a/z.jpg",
        "b.PNG",
        "c.tiff",
        "d.tif",
        "e.jpeg",
    ]
    assert [study.study_id for study in listed] == ["a/x", "a/y", "a/z", "b", "c", "d", "e"]
    assert source.total == 7 and source.prerendered
    for study in listed:
        assert study.subject_id == study.study_id and study.source == "folder"
        assert (study.split, study.reference_findings, study.sex, study.age) == (None, None, None, None)
        assert study.radiographs[0].path.is_file() and study.radiographs[0].view == "unknown"


def test_files_that_differ_in_their_suffix_only_stay_apart(tmp_path: Path) -> None:
    make(tmp_path, "a.dcm", "a.jpg", "b.jpg")
    assert [study.study_id for study in studies(tmp_path)] == ["a.dcm", "a.jpg", "b"]


def test_a_folder_of_dicom_files_is_not_prerendered_and_tells_views(tmp_path: Path) -> None:
    dicom, _ = write_mimic(tmp_path)
    source = Folder(dicom)
    listed = list(source.studies())
    assert not source.prerendered and source.total == 22
    views = Counter(study.radiographs[0].view for study in listed)
    assert views == {"PA": 7, "AP": 5, "LATERAL": 4, "LL": 1, "other": 2, "unknown": 3}
    assert all(study.radiographs[0].rows == 64 for study in listed)
    assert sum(study.acquired_at is None for study in listed) == 1, "the one without a StudyTime"


def test_the_table_is_the_list_in_its_order(tmp_path: Path) -> None:
    make(
        tmp_path, "a.png", "b.png", "c.png", "d.png", table="file,licence\nc.png,CC0\n./a.png,CC0\ngone.png,CC0\n"
    )
    source = Folder(tmp_path)
    assert [study.radiographs[0].image_id for study in source.studies()] == ["c.png", "a.png", "gone.png"]
    assert source.warnings[0] == "2 images of the folder are not listed in manifest.csv and are left out."
    assert len(source.warnings) == 2 and "add a column named patient_id" in source.warnings[1]
    assert source.info.data_use == "open"


def test_which_table_is_read(tmp_path: Path) -> None:
    make(tmp_path, "a.png", table="file,sex\na.png,F\n", name="labels.csv")
    assert only(tmp_path).sex == "F"
    make(tmp_path, table="file,sex\na.png,M\n")
    assert only(tmp_path).sex == "M"
    mine = tmp_path / "mine.txt"
    mine.write_bytes(b"\xef\xbb\xbffile,sex,note\r\na.png,Female,\r\n")
    assert [study.sex for study in studies(tmp_path, mine)] == ["F"]


@pytest.mark.parametrize("column", ["file", "path", "Filename", "IMAGE", "file_name"])
def test_names_of_the_file_column(tmp_path: Path, column: str) -> None:
    make(tmp_path, "a.png", table=f"{column}\na.png\n")
    assert only(tmp_path).radiographs[0].image_id == "a.png"


def test_every_column(tmp_path: Path) -> None:
    make(
        tmp_path,
        "a.png",
        table="FILE,Study_ID,Subject_ID,Split,View,Sex,Age,License,Edema,pleural_effusion,finding,hints_auto,text,x\n"
        "a.png,S1,P1,VALIDATE,AP Supine,f,64.5,CC0,-1.0,0,Pneumonia;COVID-19 | Fracture=0,Edema=1,a long text,7\n",
    )
    study = only(tmp_path)
    assert (study.study_id, study.subject_id, study.split) == ("S1", "P1", "validation")
    assert (study.sex, study.age, study.radiographs[0].view) == ("F", 64.5, "AP")
    assert study.reference_findings == blank() | {
        "Edema": -1,
        "Pleural Effusion": 0,
        "Pneumonia": 1,
        "Fracture": 0,
    }
    assert study.other_labels == {"finding": "COVID-19", "hints_auto": "Edema=1"}


@pytest.mark.parametrize(
    ("cell", "stated", "beyond"),
    [
        ("No Finding", {"No Finding": 1}, None),
        ("no findings", {"No Finding": 1}, None),
        ("Pneumonia|Edema", {"Pneumonia": 1, "Edema": 1}, None),
        ("Pneumonia=1;Edema=0; Fracture = -1", {"Pneumonia": 1, "Edema": 0, "Fracture": -1}, None),
        ("Airspace Opacity", {"Lung Opacity": 1}, None),
        ("COVID-19, ARDS", None, "COVID-19, ARDS"),
        ("Mycoplasma Bacterial Pneumonia", None, "Mycoplasma Bacterial Pneumonia"),
        ("Pneumonia=2", None, "Pneumonia=2"),
        ("Pneumonia=", None, "Pneumonia="),
        ("", None, None),
        ("|;", None, None),
    ],
)
def test_the_finding_column(tmp_path: Path, cell: str, stated: dict[str, int] | None, beyond: str | None) -> None:
    make(tmp_path, "a.png", table=f'file,finding\na.png,"{cell}"\n')
    study = only(tmp_path)
    assert study.reference_findings == (None if stated is None else blank() | stated)
    assert study.other_labels.get("finding") == beyond


def test_columns_of_findings_that_are_blank_are_labels_all_the_same(tmp_path: Path) -> None:
    make(tmp_path, "a.png", table="file,Edema\na.png,\n")
    assert only(tmp_path).reference_findings == blank()


def test_rows_that_share_a_study(tmp_path: Path) -> None:
    make(
        tmp_path,
        table="file,study_id,patient_id,view,sex,Edema,finding,x_auto\n"
        "2.png,S,P,LATERAL,,,odd,u\n1.png,T,P,PA,F,0,,\n3.png,S,,PA,M,1,odd,v\n",
    )
    first, second = studies(tmp_path)
    assert (first.study_id, second.study_id) == ("S", "T")
    assert [image.image_id for image in first.radiographs] == ["2.png", "3.png"]
    assert (first.subject_id, first.sex, first.reference_findings) == ("P", "M", blank() | {"Edema": 1})
    assert first.other_labels == {"finding": "odd", "x_auto": "u; v"}


@pytest.mark.parametrize(
    ("age", "years"),
    [
        ("72", 72.0),
        ("058Y", 58.0),
        ("0.5", 0.5),
        ("90+", None),
        ("3M", None),
        ("nan", None),
        ("-1", None),
        ("", None),
    ],
)
def test_ages(tmp_path: Path, age: str, years: float | None) -> None:
    make(tmp_path, table=f"file,age\na.png,{age}\n")
    assert only(tmp_path).age == years


@pytest.mark.parametrize(
    ("table", "data_use"),
    [
        ("file,licence\na.png,CC BY 4.0\nb.png,CC0\n", "open"),
        ("file,license\na.png,CC BY 4.0\nb.png,CC0\n", "open"),
        ("file,licence\na.png,CC BY 4.0\nb.png,\n", "credentialed"),
        ("file,licence\na.png,CC BY 4.0\nb.png,unknown\n", "credentialed"),
        ("file,licence\na.png,CC0\nb.png,PhysioNet Credentialed Health Data License 1.5.0\n", "credentialed"),
        ("file\na.png\nb.png\n", "credentialed"),
        (None, "credentialed"),
    ],
)
def test_data_use(tmp_path: Path, table: str | None, data_use: str) -> None:
    source = Folder(make(tmp_path, "a.png", "b.png", table=table))
    assert (source.info.data_use, source.info.licence) == (data_use, "other")
    about_licences = [warning for warning in source.warnings if "licence" in warning]
    assert len(about_licences) == (data_use == "credentialed")
    for warning in about_licences:
        assert "attestation" in warning and "a column named licence" in warning


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,view\na.png,PA\n", r"does not say which file .*: add a column named file"),
        ("file,view\n", "lists no image: add a row"),
        ("", "cannot be read as a table"),
        ("file,sex\na.png,F,an unquoted, comma\n", r"cannot be read as a table \(.*\): get it anew from whoever"),
        ("file,sex\na.png,F\nb.png,F,an unquoted, comma\n", r"cannot be read as a table \(.*\): get it anew"),
        ("file\n../a.png\n", r"names the file '\.\./a\.png': write its path from inside the image folder"),
        ("file\nx/../../a.png\n", "from inside the image folder"),
        ("file\n/etc/a.png\n", "from inside the image folder"),
        ("file,sex\n,F\n", "names the file ''"),
        ("file\na.png\n./a.png\n", r"lists a\.png 2 times: leave one row"),
        ("file,split\na.png,dev\n", r"puts a\.png in the split 'dev': write train, validate, test or nothing"),
        ("file,Edema\na.png,2\n", r"Edema of a\.png: '2' is no finding's state; write 1, 0, -1 or nothing"),
        ("file,Edema\na.png,yes\n", "'yes' is no finding's state"),
        ("file,Edema,finding\na.png,0,Edema\n", r"contradicts itself about Edema of a\.png"),
        ("file,study_id,sex\na.png,S,F\nb.png,S,M\n", "rows of study S contradict each other about sex"),
        ("file,study_id,split\na.png,S,test\nb.png,S,val\n", "about split"),
        ("file,study_id,subject_id\na.png,S,1\nb.png,S,2\n", "about subject_id"),
        ("file,study_id,Edema\na.png,S,1\nb.png,S,0\n", "about Edema"),
    ],
)
def test_refused_tables(tmp_path: Path, table: str, message: str) -> None:
    make(tmp_path, "a.png", "b.png", table=table)
    with pytest.raises(RequestError, match=message):
        Folder(tmp_path)


def test_refused_folders(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="absent is not a folder"):
        Folder(tmp_path / "absent")
    with pytest.raises(RequestError, match=r"holds no image \(\.jpg, .*name a folder that does"):
        Folder(make(tmp_path, "notes.txt", ".hidden.png"))
    with pytest.raises(RequestError, match=r"none\.csv is not a file"):
        Folder(make(tmp_path, "a.png"), labels=tmp_path / "none.csv")


def test_braces_in_names_do_no_harm(tmp_path: Path) -> None:
    make(tmp_path, table="file,study_id,Edema\n{0}.png,{x},1\nb.png,{x},0\n")
    with pytest.raises(RequestError, match=r"study \{x\} contradict"):
        Folder(tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the openly licensed radiographs are not on this machine")
def test_openly_licensed_radiographs() -> None:
    source = Folder(SHARED)
    listed = list(source.studies())
    assert source.total == len(listed) == 76
    assert (source.info.data_use, source.warnings, source.prerendered) == ("open", (), True)
    assert Counter(study.sex for study in listed) == {"M": 40, "F": 31, None: 5}
    views = Counter(study.radiographs[0].view for study in listed)
    assert views == {"PA": 47, "AP": 29}, "46 by the table, one by its header"
    assert len({study.subject_id for study in listed}) == 40
    assert sum(study.age is not None for study in listed) == 40
    stated = Counter(
        name
        for study in listed
        if study.reference_findings is not None
        for name, state in study.reference_findings.items()
        if state == 1
    )
    assert stated == {"Pneumonia": 10, "No Finding": 5, "Cardiomegaly": 1}
    assert sum(study.reference_findings is None for study in listed) == 60
    assert listed[0].other_labels == {"finding": "COVID-19, ARDS", "finding_hints_auto": "Consolidation=1"}
    assert all(study.radiographs[0].path.is_file() for study in listed)


@pytest.mark.parametrize(
    ("licence", "data_use"),
    [
        ("CC BY-NC-SA 4.0", "open"), ("CC0", "open"), ("cc-by-4.0", "open"), ("public domain", "open"),
        ("Apache-2.0", "open"), ("no restrictions on use", "open"),
        ("internal use only", "credentialed"), ("proprietary", "credentialed"), ("DUA", "credentialed"),
        ("MIMIC", "credentialed"), ("no licence", "credentialed"), ("not specified", "credentialed"),
        ("tbd", "credentialed"), ("permitted", "credentialed"), ("CC BY, PhysioNet credentialed", "credentialed"),
    ],
)  # fmt: skip
def test_only_a_known_open_licence_opens_a_folder(tmp_path: Path, licence: str, data_use: str) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "labels.csv").write_text(f'file,licence\na.png,"{licence}"\n')
    assert Folder(tmp_path).info.data_use == data_use
