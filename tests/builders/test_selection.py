"""Which image sets a build is about: drawn by a stated rule, the same every time."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.builders.build import BuildRequest, build
from cxr_max.builders.estimate import Estimate, estimate
from cxr_max.builders.recipes import read_recipe
from cxr_max.builders.release import read_manifest
from cxr_max.builders.selection import Selection, read_subjects
from cxr_max.builders.sources.base import SourceInfo
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, blank
from cxr_max.records import Radiograph, Study
from tests.mimic_at_size import write_tables, write_temporal_table
from tests.mimic_fixture import write_mimic

TABLE = "MS_CXR_T_temporal_image_classification_v1.0.0.csv"


class Listed:
    """A source of the studies that it is given."""

    info = SourceInfo("listed", "A list", "open", "mit", "")
    prerendered = True
    warnings = ()

    def __init__(self, studies: list[Study]) -> None:
        self._studies = studies
        self.total: int | None = len(studies)

    def studies(self) -> Iterator[Study]:
        yield from self._studies


def study(number: int, *, split: Any = "train", images: int = 1, finding: bool = True) -> Study:
    radiographs = tuple(Radiograph(f"i{number}-{place}", Path("absent"), "PA") for place in range(images))
    findings = {**blank(), "Edema": 1 if finding else None}
    return Study(f"s{number}", f"p{number // 2}", "listed", split, radiographs, reference_findings=findings)


def drawn(listed: list[Study], /, **chosen: Any) -> list[str]:
    selection = Selection(**chosen)
    return [
        images[0].image_id
        for one, sets in selection.chosen(Listed(listed), lambda each: each.reference_findings["Edema"] == 1)  # type: ignore[index]
        for images in sets
    ]


STUDIES = [study(number, images=1 + number % 2, finding=number % 5 != 0) for number in range(40)]


def test_the_smallest_hashes_of_seed_and_image_are_drawn() -> None:
    askable = [f"i{n}-{place}" for n in range(40) if n % 5 for place in range(1 + n % 2)]
    by_hash = sorted(askable, key=lambda name: sha256(f"7/{name}".encode()).hexdigest())
    assert set(drawn(STUDIES, image_sets=13, seed=7)) == set(by_hash[:13])


@given(st.randoms(use_true_random=False), st.integers(1, 47), st.integers(0, 3))
def test_the_order_of_the_source_changes_nothing_and_a_larger_draw_holds_the_smaller(
    rng: Any, wanted: int, seed: int
) -> None:
    shuffled = rng.sample(STUDIES, len(STUDIES))
    fewer = drawn(STUDIES, image_sets=wanted, seed=seed)
    assert len(fewer) == wanted
    assert set(fewer) == set(drawn(shuffled, image_sets=wanted, seed=seed))
    assert set(fewer) < set(drawn(shuffled, image_sets=wanted + 1, seed=seed))


def test_another_seed_draws_others() -> None:
    assert set(drawn(STUDIES, image_sets=10, seed=1)) != set(drawn(STUDIES, image_sets=10, seed=2))


def test_excluded_subjects_and_other_splits_are_never_drawn() -> None:
    studies = [study(number, split="train" if number < 20 else "test") for number in range(40)]
    ids = drawn(studies, split="train", image_sets=12, excluded=frozenset({"p0", "p1"}))
    assert set(ids) <= {f"i{number}-0" for number in range(4, 20)} and len(ids) == 12


def test_without_a_draw_all_are_chosen_but_the_excluded() -> None:
    assert len(drawn(STUDIES)) == 60
    assert len(drawn(STUDIES, excluded=frozenset({"p0"}))) == 57
    assert len(drawn(STUDIES, studies=3)) == 4


def test_too_few_to_draw_from_is_said() -> None:
    with pytest.raises(RequestError, match=r"Only 48 image sets .* wants 49"):
        drawn(STUDIES, image_sets=49)


@pytest.mark.parametrize("more", [{"source": "phantom"}, {"studies": 3}])
def test_what_a_draw_does_not_go_with(more: dict[str, Any], tmp_path: Path) -> None:
    _, jpg = write_mimic(tmp_path / "data")
    request = {"source": f"mimic-cxr-jpg:{jpg}", "teachers": "simulated", "out": tmp_path / "run"}
    with pytest.raises(RequestError, match="leave one out"):
        estimate(BuildRequest(**{**request, **more}, image_sets=2), lambda *_: None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as a table"),
        ("subject\n10000032\n", "no column subject_id"),
        ("subject_id\n", "names no subject_id"),
        (None, "is not a file"),
    ],
)
def test_a_table_that_excludes_nobody_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    table = tmp_path / "subjects.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(RequestError, match=message):
        read_subjects(table)


def test_subjects_are_read_with_a_byte_order_mark_and_any_line_ending(tmp_path: Path) -> None:
    table = tmp_path / "subjects.csv"
    table.write_bytes(b"\xef\xbb\xbfdicom_id,subject_id\r\na,10000032\r\nb, 10000032\r\nc,\r\nd,10000764\r\n")
    assert read_subjects(table) == {"10000032", "10000764"}


class Quiet:
    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_a_run_keeps_to_its_draw_and_the_manifest_says_it(tmp_path: Path) -> None:
    _, jpg = write_mimic(tmp_path / "data")
    table = tmp_path / "subjects.csv"
    table.write_text("subject_id\n10000032\n")
    request = {"source": f"mimic-cxr-jpg:{jpg}", "teachers": "sim-grok-4", "out": tmp_path / "run"}
    build(BuildRequest(**request, image_sets=2, seed=5, exclude_subjects=table), Quiet())  # type: ignore[arg-type]
    manifest = read_manifest(tmp_path / "run" / "release")
    assert manifest["counts"]["trajectories"]["rows"] == 2
    assert manifest["settings"]["image_sets"] == "2 by seed 5"
    assert manifest["settings"]["excluded_subjects"].startswith("subjects.csv, sha256 ")
    for other in ({}, {"image_sets": 2, "seed": 5}, {"image_sets": 3, "seed": 5, "exclude_subjects": table}):
        with pytest.raises(RequestError, match="was begun with"):
            build(BuildRequest(**request, **other), Quiet())  # type: ignore[arg-type]


def paper(folder: Path, out: Path, **fewer: Any) -> Estimate:
    recipe = {**read_recipe("cxr-max"), "exclude_subjects": folder / TABLE, **fewer}
    return estimate(BuildRequest(source=f"mimic-cxr-jpg:{folder}", out=out, **recipe), lambda *_: None)


def touch(folder: Path, scale: float, wanted: int) -> set[str]:
    """Empty files where the rule of the recipe, written out once more, says that images are needed."""
    images = write_tables(folder, scale=scale)
    excluded = write_temporal_table(folder / TABLE, images, scale=scale)
    positive = studies_with_a_finding(folder)
    eligible = images[
        (images["split"] == "train")
        & ~images["subject_id"].astype(str).isin(excluded)
        & images["study_id"].isin(positive)
        & images["dicom_id"].isin(frontal(folder))
    ]
    lots = eligible["dicom_id"].map(lambda name: sha256(f"0/{name}".encode()).hexdigest())
    chosen = eligible.loc[lots.sort_values().index[:wanted]]
    for subject, study_id, name in chosen[["subject_id", "study_id", "dicom_id"]].itertuples(index=False):
        path = folder / f"files/p{str(subject)[:2]}/p{subject}/s{study_id}/{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert not {str(subject) for subject in chosen["subject_id"]} & excluded
    return set(chosen["dicom_id"])


def studies_with_a_finding(folder: Path) -> set[int]:
    """No Finding is one of the 14: it too can be given as the diagnosis."""
    import pandas as pd

    labels = pd.read_csv(folder / "mimic-cxr-2.0.0-chexpert.csv.gz")
    return set(labels.loc[(labels[list(FINDINGS)] == 1).any(axis=1), "study_id"])


def frontal(folder: Path) -> set[str]:
    """AP and PA; a blank view beside no frontal one is frontal by its description."""
    from cxr_max.builders.sources.mimic_cxr_jpg import MimicCxrJpg
    from cxr_max.builders.sources.views import frontal as choose

    return {image.image_id for each in MimicCxrJpg(folder).studies() for image in choose(each.radiographs)}


@pytest.mark.parametrize(
    ("scale", "wanted"),
    [(0.002, 48), pytest.param(1.0, 24_426, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
def test_the_recipe_of_the_paper_asks_as_often_as_the_paper(scale: float, wanted: int, tmp_path: Path) -> None:
    folder = tmp_path / "mimic-cxr-jpg" / "2.1.0"
    touch(folder, scale, wanted)
    fewer = {} if scale == 1 else {"image_sets": wanted}
    found = paper(folder, tmp_path / "run", **fewer)
    # A file that another draw needs is absent, and so a gap.
    assert (found.gaps, found.requests) == (0, 7 * wanted)
    assert scale < 1 or found.requests == 170_982


def test_the_recipe_of_the_paper_asks_for_the_table_of_subjects(tmp_path: Path) -> None:
    _, jpg = write_mimic(tmp_path / "data")
    recipe = read_recipe("cxr-max")
    with pytest.raises(RequestError, match=r"--exclude-subjects FILE.*MS_CXR_T"):
        estimate(BuildRequest(source=f"mimic-cxr-jpg:{jpg}", out=tmp_path / "run", **recipe), lambda *_: None)
