"""MS-CXR-T: pairs of MIMIC's images, read from its owners' layout in miniature: known answers and faults."""

import shutil
from pathlib import Path

import pytest

from cxr_max.builders.selection import image_sets
from cxr_max.builders.sources.copy_check import check_copy
from cxr_max.builders.sources.registry import open_copy, open_source
from cxr_max.errors import RequestError
from cxr_max.progression import changes_of
from cxr_max.records import Study
from tests.mimic_fixture import read_table, write_table
from tests.source_fixtures import ms_cxr_t
from tests.source_fixtures.pictures import replace_in


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of MS-CXR-T beside MIMIC-CXR-JPG, to be read only."""
    return ms_cxr_t.write(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt."""
    shutil.copytree(written.parent.parent, tmp_path / "sets")
    return tmp_path / "sets" / "ms-cxr-t" / "1.0.0"


def studies_of(folder: Path, **options: Path) -> list[Study]:
    return list(open_source(f"ms-cxr-t:{folder}", workspace=folder, **options).studies())


def test_every_pair_row_by_row(written: Path) -> None:
    studies = {study.study_id.partition("-")[0]: study for study in studies_of(written)}
    assert list(studies) == [
        "53189527",
        "51178377",
        "51967283",
        "53447138",
        "52067803",
    ]  # by subject, repeats once
    assert {study.split for study in studies.values()} == {"test"}
    assert [study.subject_id for study in studies.values()][:2] == ["10000032", "10000935"]
    worse = studies["53189527"]
    assert worse.other_labels == {
        "consolidation_label_quality": "radiologist",
        "consolidation_progression": "stable",
        "edema_label_quality": "radiologist",
        "edema_progression": "worsening",
    }
    assert changes_of(worse.other_labels)["Edema"] == "worsening"
    assert changes_of(worse.other_labels)["Pneumonia"] is None
    findings = worse.reference_findings or {}
    assert (findings["Cardiomegaly"], findings["Edema"], findings["Consolidation"]) == (1, -1, None)
    assert studies["51967283"].other_labels["pneumothorax_progression"] == "worsening"  # whatever its case
    assert studies["52067803"].other_labels == {}
    assert studies["51178377"].reference_findings is None  # MIMIC has no row of labels


def test_the_earlier_image_comes_first_and_is_a_prior(written: Path) -> None:
    study = studies_of(written)[0]
    previous, current = study.radiographs
    assert (previous.image_id, current.image_id) == (ms_cxr_t.image(50414267, 1), ms_cxr_t.image(53189527, 0))
    assert (previous.prior, current.prior) == (True, False)
    assert (previous.view, current.view) == ("PA", "AP")
    assert previous.path.is_file() and current.path.is_file()
    assert image_sets(study, "study") == [(previous, current)]
    assert image_sets(study, "frontal") == [(current,)], "reference findings are not of the earlier image"


def test_a_previous_image_that_is_missing_is_listed_and_said(written: Path) -> None:
    source = open_copy(f"ms-cxr-t:{written}")
    assert any("does not list 1 images" in warning for warning in source.warnings)
    lost = next(study for study in source.studies() if study.study_id.startswith("53447138"))
    assert lost.radiographs[0].image_id == ms_cxr_t.LOST and not lost.radiographs[0].path.exists()
    report = check_copy(source)
    assert (report.rows, report.present, report.missing) == (5, 9, 1)
    assert report.counts == {"images": 10, "studies": 5, "subjects": 5, "test": 5}
    assert report.unmapped["pneumothorax_progression: worsening"] == 1 and not report.mapped


def test_images_of_mimic_that_are_not_compared_are_no_extras(copy: Path) -> None:
    source = open_copy(f"ms-cxr-t:{copy}")
    other = source.inventory().root / "other.jpg"
    shutil.copy(next(other.parent.rglob("*.jpg")), other)
    report = check_copy(source)
    assert (report.extra, report.present, report.missing) == (0, 9, 1)
    assert report.missing_names[0].endswith(f"{ms_cxr_t.LOST}.jpg")


@pytest.mark.parametrize("above", ["version", "set", "everything"])
def test_any_folder_above_it_will_do(written: Path, above: str) -> None:
    folder = {"version": written, "set": written.parent, "everything": written.parent.parent}[above]
    assert len(studies_of(folder)) == 5


def test_images_elsewhere_are_named_with_labels(copy: Path, tmp_path: Path) -> None:
    (copy.parent.parent / "mimic-cxr-jpg").rename(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match="name it with --labels"):
        studies_of(copy)
    found = studies_of(copy, labels=tmp_path / "elsewhere")
    assert found[0].radiographs[0].path.is_file()


def test_rows_that_contradict_each_other_are_refused(copy: Path) -> None:
    table = copy / ms_cxr_t.TABLE
    study, position, previous, before, _ = ms_cxr_t.PAIRS[0]
    table.write_bytes(
        table.read_bytes() + ms_cxr_t.row(study, position, previous, before, {"edema": "stable"}).encode()
    )
    with pytest.raises(RequestError, match="contradict each other for images"):
        studies_of(copy)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("worsening", "rising", "in edema_progression the unknown value 'rising'"),
        ("edema_progression", "oedema", "has no column edema_progression"),
        ("10000032", "10000033", "disagree on whose image"),
        (",50414267,", ",5041x,", "an impossible previous_study_id"),
        (ms_cxr_t.LOST, "lost", "an impossible previous_dicom_id"),
        (
            f"s50414267/{ms_cxr_t.image(50414267, 1)}",
            f"s50414267/{ms_cxr_t.image(53189527, 0)}",
            "compared with itself",
        ),
    ],
)
def test_a_table_that_is_wrong_is_refused(copy: Path, old: str, new: str, message: str) -> None:
    replace_in(copy / ms_cxr_t.TABLE, old, new)
    with pytest.raises(RequestError, match=message):
        studies_of(copy)


def test_a_table_without_a_pair_is_refused(copy: Path) -> None:
    table = copy / ms_cxr_t.TABLE
    table.write_bytes(table.read_bytes().partition(b"\n")[0] + b"\n")
    with pytest.raises(RequestError, match="lists no pair"):
        studies_of(copy)


def test_a_copy_of_mimic_without_any_of_the_images_still_lists_the_pairs(copy: Path) -> None:
    table = next((copy.parent.parent / "mimic-cxr-jpg" / "2.1.0").glob("*metadata*"))
    columns, _ = read_table(table)
    write_table(table, columns, [])
    source = open_copy(f"ms-cxr-t:{copy}")
    assert source.total == 5 and any("does not list 10 images" in warning for warning in source.warnings)


def test_a_cell_of_nan_is_blank_and_a_study_may_have_a_fraction(copy: Path, written: Path) -> None:
    replace_in(copy / ms_cxr_t.TABLE, ",,", ",nan,")
    replace_in(copy / ms_cxr_t.TABLE, ",50414267,", ",50414267.0,")
    assert [study.other_labels for study in studies_of(copy)] == [s.other_labels for s in studies_of(written)]


def test_without_labels_there_is_progression_and_a_warning(copy: Path) -> None:
    for table in (copy.parent.parent / "mimic-cxr-jpg" / "2.1.0").glob("*.csv*"):
        if "chexpert" in table.name or "labeled" in table.name:
            table.unlink()
    source = open_copy(f"ms-cxr-t:{copy}")
    assert any("only progression" in warning for warning in source.warnings)
    assert all(study.reference_findings is None for study in source.studies())


def test_a_pair_whose_times_run_backward_is_said(copy: Path) -> None:
    table = next((copy.parent.parent / "mimic-cxr-jpg" / "2.1.0").glob("*metadata*"))
    columns, rows = read_table(table)
    date, study = columns.index("StudyDate"), columns.index("study_id")
    write_table(
        table, columns, [[*r[:date], "21990101", *r[date + 1 :]] if r[study] == "50414267" else r for r in rows]
    )
    warnings = open_copy(f"ms-cxr-t:{copy}").warnings
    assert any(warning.startswith("In 1 pairs") for warning in warnings)
