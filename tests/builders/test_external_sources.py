"""The external benchmarks, each read from its owners' layout in miniature: known answers and faults."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cxr_max.builders.sources.base import Shipped
from cxr_max.builders.sources.registry import open_copy, open_source
from cxr_max.errors import RequestError
from cxr_max.records import Study
from tests.source_fixtures import chestx_det, chestxray14, chexpert, open_i, padchest, vindr_cxr
from tests.source_fixtures.pictures import as_windows_writes, replace_in, write_text


def said(study: Study) -> dict[str, int] | None:
    """The findings that are not null."""
    findings = study.reference_findings
    return None if findings is None else {name: state for name, state in findings.items() if state is not None}


def sides(study: Study) -> dict[str, str]:
    return {name: side for name, side in (study.reference_sides or {}).items() if side}


def by_id(source: Shipped) -> dict[str, Study]:
    studies = list(source.studies())
    assert source.total == len(studies) == len({study.study_id for study in studies})
    assert [study.study_id for study in source.studies()] == [study.study_id for study in studies]
    for study in studies:
        assert study.source == source.info.name
        assert study.reference_findings is None or len(study.reference_findings) == 14
    return {study.study_id: study for study in studies}


def views(study: Study) -> list[str]:
    return [image.view for image in study.radiographs]


WRITERS: dict[str, Callable[[Path], Path]] = {
    "chestxray14": chestxray14.write,
    "chestx-det10": chestx_det.write_ten,
    "chestx-det": chestx_det.write_thirteen,
    "chexpert": chexpert.write,
    "vindr-cxr": vindr_cxr.write,
    "padchest": padchest.write,
    "open-i": open_i.write_xml,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A copy of every set, to be read only."""
    return {name: write(tmp_path_factory.mktemp("sets") / name) for name, write in WRITERS.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_every_image_of_a_whole_copy_is_there(written: dict[str, Path], name: str) -> None:
    source = open_copy(f"{name}:{written[name]}")
    assert all(image.path.is_file() for study in source.studies() for image in study.radiographs)


def test_chestxray14_row_by_row(written: dict[str, Path]) -> None:
    source = open_copy(f"chestxray14:{written['chestxray14']}")
    assert source.warnings == () and source.prerendered
    studies = by_id(source)
    assert [
        (study.subject_id, study.split, study.sex, study.age, views(study)[0]) for study in studies.values()
    ] == [
        ("00000001", "train", "M", 57, "PA"),
        ("00000001", "train", "M", 58, "PA"),
        ("00000002", "train", "M", 80, "AP"),
        ("00000003", "test", "F", 74, "PA"),
        ("00000003", "test", "F", 75, "PA"),
        ("00000004", "train", "F", None, "AP"),
    ]
    assert [said(study) for study in studies.values()] == [
        {"Cardiomegaly": 1, "No Finding": 0},
        {"Cardiomegaly": 1, "No Finding": 0},
        {"No Finding": 1},
        {"Pleural Effusion": 1, "Lung Opacity": 1, "Lung Lesion": 1, "No Finding": 0},
        {"No Finding": 0},
        {"Lung Lesion": 1, "Pleural Other": 1, "No Finding": 0},
    ]
    assert [study.other_labels for study in studies.values()] == [
        {},
        {"Emphysema": "1"},
        {},
        {},
        {"Hernia": "1"},
        {},
    ]
    assert sides(studies["00000003_000"]) == {"Pleural Effusion": "right", "Lung Opacity": "bilateral"}
    assert sides(studies["00000001_000"]) == {} and studies["00000002_000"].reference_sides is None


def test_chestxray14_of_2017_has_other_headers_and_ages_and_says_the_same(
    written: dict[str, Path], tmp_path: Path
) -> None:
    old = open_copy(f"chestxray14:{chestxray14.write(tmp_path, old=True)}")
    new = open_copy(f"chestxray14:{written['chestxray14']}")
    for ours, theirs in zip(old.studies(), new.studies(), strict=True):
        assert (ours.study_id, ours.sex, ours.age, ours.reference_findings) == (
            theirs.study_id,
            theirs.sex,
            theirs.age,
            theirs.reference_findings,
        )


def test_chestx_det10_row_by_row(written: dict[str, Path]) -> None:
    source = open_copy(f"chestx-det10:{written['chestx-det10']}")
    assert source.warnings == ()
    studies = by_id(source)
    absent = dict.fromkeys(
        ("Atelectasis", "Consolidation", "Fracture", "Lung Lesion", "Pleural Effusion", "Pneumothorax"), 0
    )
    assert [(study.study_id, study.subject_id, study.split) for study in studies.values()] == [
        ("00000013_005", "00000013", "train"),
        ("00000013_026", "00000013", "train"),
        ("00000071_008", "00000071", "test"),
        ("00000103_000", "00000103", "test"),
    ]
    assert [said(study) for study in studies.values()] == [
        absent,
        absent | {"Pleural Effusion": 1, "Fracture": 1, "No Finding": 0},
        absent | {"Pleural Effusion": 1, "No Finding": 0},
        absent | {"Lung Lesion": 1, "Consolidation": 1, "No Finding": 0},
    ]
    assert [sides(study) for study in studies.values()] == [
        {},
        {"Pleural Effusion": "bilateral", "Fracture": "right"},
        {"Pleural Effusion": "left"},
        {"Lung Lesion": "right", "Consolidation": "bilateral"},
    ]
    assert studies["00000103_000"].other_labels == {"Calcification": "1"}


def test_chestx_det10_takes_views_sex_and_age_from_nihs_table(tmp_path: Path) -> None:
    root = chestx_det.write_ten(chestxray14.write(tmp_path))
    replace_in(root / "Data_Entry_2017_v2020.csv", "00000001_000.png", "00000071_008.png")
    studies = by_id(open_copy(f"chestx-det10:{root}"))
    known, unknown = studies["00000071_008"], studies["00000103_000"]
    assert (views(known), known.sex, known.age) == (["PA"], "M", 57)
    assert (views(unknown), unknown.sex, unknown.age) == (["unknown"], None, None)


def test_chestx_det_has_three_categories_more_and_no_patients(written: dict[str, Path]) -> None:
    source = open_copy(f"chestx-det:{written['chestx-det']}")
    (warning,) = source.warnings
    assert "patients are not known" in warning
    studies = by_id(source)
    assert studies["100"].subject_id == "100" and (said(studies["100"]) or {})["Cardiomegaly"] == 0
    assert "Pleural Other" not in (said(studies["100"]) or {})
    found = said(studies["36199"]) or {}
    assert (found["Lung Lesion"], found["Pleural Other"], found["No Finding"]) == (1, 1, 0)
    assert sides(studies["36199"]) == {
        "Pleural Effusion": "left",
        "Lung Lesion": "bilateral",
        "Pleural Other": "right",
    }


@pytest.mark.parametrize("batches", [False, True])
def test_chexpert_row_by_row(tmp_path: Path, batches: bool) -> None:
    source = open_copy(f"chexpert:{chexpert.write(tmp_path, name='CheXpert-v1.0', batches=batches)}")
    assert source.warnings == ()
    studies = by_id(source)
    assert [
        (study.study_id, study.subject_id, study.split, study.sex, study.age, views(study))
        for study in studies.values()
    ] == [
        ("patient00001/study1", "patient00001", "train", "F", 68, ["AP"]),
        ("patient00002/study2", "patient00002", "train", "F", 87, ["PA", "LATERAL"]),
        ("patient00002/study1", "patient00002", "train", "F", 83, ["other"]),
        ("patient00003/study1", "patient00003", "train", None, None, ["AP"]),
        ("patient64541/study1", "patient64541", "validation", "M", 73, ["AP"]),
        ("patient64741/study1", "patient64741", "test", None, None, ["unknown", "LATERAL"]),
    ]
    assert [said(study) for study in studies.values()][:4] == [
        {"No Finding": 1, "Pneumothorax": 0, "Support Devices": 1},
        {"Lung Opacity": -1, "Pleural Effusion": 1},
        {},
        {"Edema": 1},
    ]
    zeros = dict.fromkeys(chexpert.FINDINGS, 0)
    assert said(studies["patient64541/study1"]) == zeros | {"Enlarged Cardiomediastinum": 1, "Cardiomegaly": 1}
    assert said(studies["patient64741/study1"]) == zeros | {"Cardiomegaly": 1}
    assert all(image.path.is_file() for study in studies.values() for image in study.radiographs)
    assert studies["patient64741/study1"].radiographs[0].image_id == "patient64741_study1_view1_frontal"


def test_chexpert_from_the_folder_of_its_tables(written: dict[str, Path]) -> None:
    inside = open_copy(f"chexpert:{written['chexpert'] / 'CheXpert-v1.0-small'}")
    above = open_copy(f"chexpert:{written['chexpert']}")
    assert list(inside.studies()) == list(above.studies())


def test_vindr_cxr_row_by_row(written: dict[str, Path]) -> None:
    source = open_copy(f"vindr-cxr:{written['vindr-cxr']}")
    assert not source.prerendered and "no patients" in source.warnings[0]
    studies = by_id(source)
    assert list(studies) == [vindr_cxr.FIRST, vindr_cxr.SECOND, vindr_cxr.TESTED, vindr_cxr.NORMAL]
    absent = dict.fromkeys(
        (
            *(
                "Atelectasis",
                "Cardiomegaly",
                "Consolidation",
                "Edema",
                "Lung Lesion",
                "Lung Opacity",
                "No Finding",
            ),
            *("Pleural Effusion", "Pneumonia", "Pneumothorax"),
        ),
        0,
    )
    assert [said(study) for study in studies.values()] == [
        # Effusion by two readers, a fracture by two (of different bones), pneumonia by one of three.
        absent | {"Pleural Effusion": 1, "Fracture": 1, "Pneumonia": -1},
        absent | {"No Finding": 1},
        absent | {"Lung Lesion": 1, "Cardiomegaly": 1},
        absent | {"No Finding": 1},
    ]
    assert [study.split for study in studies.values()] == ["train", "train", "test", "test"]
    assert [views(study) for study in studies.values()] == [["PA"], ["AP"], ["PA"], ["PA"]]
    assert [(study.sex, study.age) for study in studies.values()] == [
        ("F", 58),
        ("M", None),
        (None, None),
        (None, None),
    ]
    # Both readers drew an effusion on the right, only one of them also on the left.
    assert sides(studies[vindr_cxr.FIRST]) == {"Pleural Effusion": "right", "Fracture": "left"}
    assert sides(studies[vindr_cxr.TESTED]) == {"Lung Lesion": "bilateral"}
    assert studies[vindr_cxr.FIRST].other_labels == {"Aortic enlargement": "1"}
    assert studies[vindr_cxr.TESTED].other_labels == {"ILD": "1"}
    assert studies[vindr_cxr.TESTED].radiographs[0].columns == 80


def test_vindr_cxr_without_boxes_or_with_an_unreadable_image_has_no_sides(tmp_path: Path) -> None:
    root = vindr_cxr.write(tmp_path)
    (root / "train" / f"{vindr_cxr.FIRST}.dicom").write_bytes(b"\0" * 200)
    (root / "annotations" / "annotations_test.csv").unlink()
    studies = by_id(open_copy(f"vindr-cxr:{tmp_path / 'vindr-cxr'}"))
    assert all(study.reference_sides is None for study in studies.values())
    assert (said(studies[vindr_cxr.FIRST]) or {})["Pleural Effusion"] == 1


def test_padchest_row_by_row(written: dict[str, Path]) -> None:
    source = open_copy(f"padchest:{written['padchest']}")
    assert not source.prerendered
    assert "leave --split out" in source.warnings[0] and source.warnings[1].startswith("1 images are MONOCHROME1")
    studies = by_id(source)
    assert [
        (study.study_id, study.subject_id, study.split, study.sex, study.age, views(study))
        for study in studies.values()
    ] == [
        ("S1", "P1", None, "M", 62, ["PA", "LATERAL"]),
        ("S2", "P2", None, "F", 33, ["AP"]),
        ("S3", "P2", None, None, None, ["other"]),
        ("S4", "P3", None, None, None, ["other"]),
        ("S5", "P4", None, None, None, ["AP"]),
    ]
    assert [said(study) for study in studies.values()] == [
        {"Pleural Effusion": 1, "Lung Lesion": 1, "No Finding": 0},
        {"No Finding": 1},
        {"Support Devices": 1},
        None,
        {"Pneumothorax": 1, "Pleural Effusion": 1, "No Finding": 0},
    ]
    assert [study.other_labels for study in studies.values()] == [
        {"aortic elongation": "1", "MethodLabel": "Physician"},
        {"MethodLabel": "RNN_model"},
        {"MethodLabel": "Physician"},
        {"MethodLabel": "Physician"},
        {"COVID 19": "1", "MethodLabel": "RNN_model"},
    ]
    assert studies["S2"].radiographs[0].photometric_interpretation == "MONOCHROME1"
    assert all(study.report is None for study in studies.values())


def test_padchest_with_all_images_in_one_folder(tmp_path: Path) -> None:
    root = padchest.write(tmp_path)
    (root / "images").mkdir()
    for image in list(root.glob("[0-9]/*.png")):
        image.rename(root / "images" / image.name)
    source = open_copy(f"padchest:{root}")
    assert all(image.path.is_file() for study in source.studies() for image in study.radiographs)


@pytest.fixture(params=["xml", "tables"])
def indiana(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Open-I in either form, with views."""
    if request.param == "tables":
        return open_i.write_tables(tmp_path)
    open_i.write_projections(tmp_path)
    return open_i.write_xml(tmp_path)


def test_open_i_row_by_row_in_both_forms(indiana: Path) -> None:
    source = open_source(f"open-i:{indiana}", workspace=indiana, reports=True)
    assert source.warnings[0] == "1 reports have no image and are left out."
    studies = {study.study_id: study for study in source.studies()}
    assert list(studies) == ["CXR1", "CXR2", "CXR10", "CXR11"]  # by number
    assert [views(study) for study in studies.values()] == [
        ["PA", "LATERAL"],
        ["unknown", "LATERAL"],
        ["AP"],
        ["unknown"],
    ]
    assert [said(study) for study in studies.values()] == [
        {"No Finding": 1},
        {"Cardiomegaly": -1},
        {"Lung Opacity": 1, "Lung Lesion": 1, "Pleural Other": 1, "No Finding": 0},
        None,
    ]
    assert sides(studies["CXR10"]) == {"Lung Opacity": "bilateral", "Lung Lesion": "left"}
    assert studies["CXR1"].report == (
        "FINDINGS: The lungs are clear. There is no pneumothorax & no effusion.\nIMPRESSION: Normal chest x-XXXX."
    )
    assert studies["CXR10"].report == "IMPRESSION: Bibasilar opacities. Left nodule."
    assert studies["CXR2"].report is not None and '"stable"' in studies["CXR2"].report
    assert [image.image_id for image in studies["CXR1"].radiographs] == ["CXR1_IM-0001-4001", "CXR1_IM-0001-3001"]
    assert all(image.path.is_file() for study in studies.values() for image in study.radiographs)
    assert studies["CXR2"].other_labels["MeSH major"] == "Pulmonary Artery/enlarged"
    assert all(
        (study.split, study.sex, study.subject_id) == (None, None, study.study_id) for study in studies.values()
    )


def test_open_i_keeps_automatic_terms_apart_and_gives_reports_only_when_asked(written: dict[str, Path]) -> None:
    studies = by_id(open_copy(f"open-i:{written['open-i']}"))
    assert studies["CXR2"].other_labels["MeSH automatic"] == "cardiomegaly; pulmonary artery"
    assert studies["CXR11"].other_labels == {"MeSH major": "No Indexing", "MeSH automatic": "Hernia"}
    assert all(study.report is None for study in studies.values())


def test_open_i_without_the_table_of_views_says_so(written: dict[str, Path]) -> None:
    source = open_copy(f"open-i:{written['open-i']}")
    assert "indiana_projections.csv" in source.warnings[1]
    assert views(by_id(source)["CXR1"]) == ["unknown", "unknown"]
    assert views(by_id(source)["CXR10"]) == ["AP"]  # the caption of a single image


def test_open_i_reads_reports_of_one_form_with_images_of_the_other(tmp_path: Path) -> None:
    root = open_i.write_tables(tmp_path)
    open_i.write_xml(tmp_path)
    shutil.rmtree(root / "NLMCXR_png")
    source = open_copy(f"open-i:{root}")
    assert all(image.path.is_file() for study in source.studies() for image in study.radiographs)


# What goes wrong with tables.


TABLE_FILES = {
    "chestxray14": ("Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"),
    "chestx-det10": ("train.json", "test.json"),
    "chexpert": tuple(f"CheXpert-v1.0-small/{name}.csv" for name in ("train", "valid", "test_labels")),
    "vindr-cxr": tuple(
        f"annotations/{name}.csv" for name in ("image_labels_train", "image_labels_test", "annotations_train")
    ),
    "padchest": (padchest.TABLE,),
    "open-i": ("indiana_reports.csv", "indiana_projections.csv"),
}


def write_set(name: str, root: Path) -> Path:
    return open_i.write_tables(root) if name == "open-i" else WRITERS[name](root)


@pytest.mark.parametrize("name", TABLE_FILES)
def test_a_byte_order_mark_and_windows_line_endings_change_nothing(name: str, tmp_path: Path) -> None:
    root = write_set(name, tmp_path)
    before = list(open_copy(f"{name}:{root}").studies())
    for file in TABLE_FILES[name]:
        as_windows_writes(root / file)
    assert list(open_copy(f"{name}:{root}").studies()) == before


@pytest.mark.parametrize("name", [name for name in TABLE_FILES if name != "chestx-det10"])
def test_a_row_that_stands_twice_is_read_once(name: str, tmp_path: Path) -> None:
    root = write_set(name, tmp_path)
    before = [study.study_id for study in open_copy(f"{name}:{root}").studies()]
    path = root / TABLE_FILES[name][0]
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]))
    assert [study.study_id for study in open_copy(f"{name}:{root}").studies()] == before


WRONG = [
    (
        "chestxray14",
        0,
        "00000001_001.png,Cardiomegaly|Emphysema",
        "00000001_000.png,Effusion",
        "contradict each other",
    ),
    ("chestxray14", 0, "Finding Labels", "Labels", "no column Finding Labels"),
    ("chestxray14", 0, "Patient ID", "Patient", "no column Patient ID"),
    ("chestxray14", 0, "Follow-up #,", "", "cannot be read as a table"),
    ("chestxray14", 0, ",0,1,57,", ",0,p1,57,", "impossible Patient ID 'p1'"),
    ("chestxray14", 1, "00000001_000.png", "00000003_000.png", "on both lists"),
    ("chestxray14", 3, "Bbox [x,y,w,h]", "x,y,w,h", "does not begin with the columns"),
    ("chestxray14", 3, "186.7", "wide", "'wide' is no number"),
    ("chestx-det10", 0, '"syms"', '"labels"', "wrong about 00000013_005.png (KeyError: 'syms')"),
    ("chestx-det10", 0, '"Fracture"]', '"Fracture", "Fracture"]', "wrong about 00000013_026.png (ValueError"),
    ("chestx-det10", 0, '"Fracture"]', '"Scoliosis"]', "Scoliosis is none of its categories"),
    ("chestx-det10", 0, "[162, 344", '["a", 344', "wrong about 00000013_026.png"),
    ("chestx-det10", 0, "[{", "{", "cannot be read as JSON"),
    ("chestx-det10", 1, "00000071_008.png", "00000013_005.png", "contradicts itself, or the other split"),
    ("chexpert", 0, "Path,", "File,", "no column Path"),
    ("chexpert", 0, "Pleural Other", "Pleura", "no column Pleural Other"),
    ("chexpert", 0, "-1.0", "-2.0", "'-2.0' is no finding's state"),
    ("chexpert", 0, "patient00001/study1", "study1", "impossible Path"),
    ("chexpert", 0, "view2_lateral.jpg", "view1_frontal.jpg", "contradict each other for Path"),
    ("vindr-cxr", 0, "image_id,rad_id", "id,rad_id", "no column image_id"),
    ("vindr-cxr", 0, ",R9,", ",R8,", "contradict each other"),
    ("vindr-cxr", 0, f"{vindr_cxr.SECOND},R1,0", f"{vindr_cxr.SECOND},R1,2", "'2' is no finding's state"),
    ("vindr-cxr", 0, f"{vindr_cxr.SECOND},R1,0", f"{vindr_cxr.SECOND},R1,", "empty cell"),
    ("vindr-cxr", 2, "x_max", "right", "no column x_max"),
    ("vindr-cxr", 2, "R8,Pleural effusion,5", "R8,Pleural effusion,left", "'left' is no number"),
    ("padchest", 0, "PatientID", "Patient", "no column PatientID"),
    ("padchest", 0, "['normal']", "normal", "Labels that are no list: 'normal'"),
    ("padchest", 0, "['normal']", "['normal'", "Labels that are no list"),
    ("padchest", 0, "4,3.png,", "4,,", "an empty ImageID"),
    ("padchest", 0, ",2.png,", ",1.png,", "contradict each other for ImageID"),
    ("open-i", 0, "uid,MeSH", "id,MeSH", "no column uid"),
    ("open-i", 0, "\n1,normal", "\nCXR1,normal", "impossible uid 'CXR1'"),
    ("open-i", 0, "\n1,normal", "\n2,normal", "contradict each other for uid"),
    ("open-i", 1, "projection", "view", "no column projection"),
    (
        "open-i",
        1,
        "\n2,2_IM-0652-2001.dcm.png",
        "\n2,1_IM-0001-3001.dcm.png",
        "contradict each other for filename",
    ),
]


@pytest.mark.parametrize(("name", "table", "old", "new", "message"), WRONG)
def test_a_wrong_table_is_refused_by_name_with_what_to_do(
    name: str, table: int, old: str, new: str, message: str, tmp_path: Path
) -> None:
    root = write_set(name, tmp_path)
    replace_in(root / TABLE_FILES[name][table], old, new)
    with pytest.raises(RequestError) as caught:
        open_copy(f"{name}:{root}")
    assert message in str(caught.value)
    assert " from http" in str(caught.value) or "write 1, 0, -1 or nothing" in str(caught.value)


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_is_not_there_or_holds_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not a folder"):
        open_copy(f"{name}:{tmp_path / 'absent'}")
    with pytest.raises(RequestError, match=r"(missing from|has neither) .*from http"):
        open_copy(f"{name}:{tmp_path}")


def test_damaged_xml_is_named(tmp_path: Path) -> None:
    root = open_i.write_xml(tmp_path)
    replace_in(root / "ecgen-radiology" / "10.xml", "</eCitation>", "")
    with pytest.raises(RequestError, match=r"10\.xml is damaged .*from https"):
        open_copy(f"open-i:{root}")


def test_xml_that_does_not_say_which_report_it_is_and_two_that_say_the_same(tmp_path: Path) -> None:
    root = open_i.write_xml(tmp_path)
    replace_in(root / "ecgen-radiology" / "10.xml", '<uId id="CXR10"/>', '<uId id="CXR1"/>')
    with pytest.raises(RequestError, match="say that they are CXR1"):
        open_copy(f"open-i:{root}")
    replace_in(root / "ecgen-radiology" / "10.xml", '<uId id="CXR1"/>', "")
    with pytest.raises(RequestError, match="does not say which report it is"):
        open_copy(f"open-i:{root}")


def test_cells_that_say_nan_say_nothing(tmp_path: Path) -> None:
    nih = chestxray14.write(tmp_path / "nih")
    replace_in(nih / "Data_Entry_2017_v2020.csv", "Cardiomegaly,0,1,57,M,PA", "nan,0,1,nan,nan,nan")
    study = by_id(open_copy(f"chestxray14:{nih}"))["00000001_000"]
    assert (study.reference_findings, study.age, study.sex, views(study)) == (None, None, None, ["unknown"])
    small = chexpert.write(tmp_path / "chexpert")
    replace_in(small / "CheXpert-v1.0-small" / "train.csv", "-1.0", "nan")
    assert said(by_id(open_copy(f"chexpert:{small}"))["patient00002/study2"]) == {"Pleural Effusion": 1}
    tables = open_i.write_tables(tmp_path / "open-i")
    replace_in(tables / "indiana_reports.csv", "11,No Indexing", "11,nan")
    study = by_id(open_copy(f"open-i:{tables}"))["CXR11"]
    assert study.reference_findings is None and study.other_labels == {}


def test_a_label_that_the_table_lacks_is_kept_under_its_own_name(tmp_path: Path) -> None:
    root = chestxray14.write(tmp_path)
    replace_in(root / "Data_Entry_2017_v2020.csv", "Hernia", "Situs inversus, total".replace(",", ""))
    study = by_id(open_copy(f"chestxray14:{root}"))["00000003_001"]
    assert study.other_labels == {"Situs inversus total": "1"}
    assert said(study) == {"No Finding": 0}


def test_a_padchest_image_without_study_or_patient_is_one_of_its_own(tmp_path: Path) -> None:
    root = padchest.write(tmp_path)
    replace_in(root / padchest.TABLE, ",S2,P2,", ",,,")
    replace_in(root / padchest.TABLE, ",S5,P4,", ",S5,,")
    studies = by_id(open_copy(f"padchest:{root}"))
    assert (studies["1.png"].subject_id, studies["S5"].subject_id) == ("1.png", "S5")


def test_missing_lists_and_boxes_are_gaps_with_a_name(tmp_path: Path) -> None:
    root = chestxray14.write(tmp_path)
    for name in ("train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"):
        (root / name).unlink()
    source = open_copy(f"chestxray14:{root}")
    assert "test_list.txt are missing, so splits are null" in source.warnings[0]
    assert all(study.split is None and study.reference_sides is None for study in source.studies())
    write_text(root / "test_list_NIH.txt", "00000003_000.png\n")
    source = open_copy(f"chestxray14:{root}")
    assert source.warnings == ("5 images are on neither list of the official split, so their split is null.",)
    assert by_id(source)["00000003_000"].split == "test"


def test_an_absent_half_is_said(tmp_path: Path) -> None:
    ten = chestx_det.write_ten(tmp_path / "ten")
    (ten / "train.json").unlink()
    source = open_copy(f"chestx-det10:{ten}")
    assert "train.json is missing" in source.warnings[0] and source.total == 2
    small = chexpert.write(tmp_path / "chexpert")
    (small / "CheXpert-v1.0-small" / "train.csv").unlink()
    source = open_copy(f"chexpert:{small}")
    assert "train.csv" in source.warnings[0] and source.total == 2
    vindr = vindr_cxr.write(tmp_path / "vindr")
    (vindr / "annotations" / "image_labels_train.csv").unlink()
    source = open_copy(f"vindr-cxr:{vindr}")
    assert "image_labels_train.csv is missing" in source.warnings[0] and source.total == 2


def test_an_image_that_is_not_there_is_yielded_all_the_same(tmp_path: Path) -> None:
    root = chestxray14.write(tmp_path)
    (root / "images_001" / "images" / "00000001_000.png").unlink()
    study = by_id(open_copy(f"chestxray14:{root}"))["00000001_000"]
    assert study.radiographs[0].path == root / "images" / "00000001_000.png"


def test_images_behind_a_linked_folder_are_found(tmp_path: Path) -> None:
    root = chestxray14.write(tmp_path / "set")
    elsewhere = (root / "images_001").rename(tmp_path / "elsewhere")
    (root / "images_001").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(root)
    source = open_copy(f"chestxray14:{root}")
    assert all(image.path.is_file() for study in source.studies() for image in study.radiographs)


def test_labels_from_elsewhere_are_refused(written: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="brings its own labels"):
        open_source(f"chexpert:{written['chexpert']}", workspace=tmp_path, labels=tmp_path)
