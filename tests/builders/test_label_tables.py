"""The tables that map a set's labels to the 14 findings, and the sides that boxes give."""

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.builders.sources.boxes import Box, halves, side_of, sides_of
from cxr_max.builders.sources.labels import LabelTable, Meaning, label_table, weightier
from cxr_max.builders.sources.open_i_terms import findings_of, meaning_of, parsed, sides_of_terms
from cxr_max.findings import FINDINGS, State, positives
from tests.source_fixtures import chestx_det, vindr_cxr

OPEN_I = Path(__file__).resolve().parents[3] / "shared" / "data" / "open-i"
TABLES = ("chestxray14", "chestx-det", "vindr-cxr", "open-i", "padchest")
MAPPED = {
    "chestxray14": {
        "Effusion": "Pleural Effusion",
        "Infiltration": "Lung Opacity",
        "Mass": "Lung Lesion",
        "Nodule": "Lung Lesion",
        "Pleural_Thickening": "Pleural Other",
        "Emphysema": None,
        "Fibrosis": None,
        "Hernia": None,
    },
    "chestx-det": {"Diffuse Nodule": "Lung Lesion", "Pleural Thickening": "Pleural Other", "Calcification": None},
    "vindr-cxr": {
        "Nodule/Mass": "Lung Lesion",
        "Rib fracture": "Fracture",
        "Aortic enlargement": None,
        "No finding": "No Finding",
        "Tuberculosis": None,
    },
    "padchest": {
        "ground glass pattern": "Lung Opacity",
        "callus rib fracture": "Fracture",
        "dai": "Support Devices",
        "mediastinal mass": "Enlarged Cardiomediastinum",
        "pulmonary fibrosis": None,
        "aortic aneurysm": None,
        "normal": "No Finding",
    },
}


@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_sound_and_every_row_that_is_not_obvious_has_its_reason(name: str) -> None:
    table = label_table(name)
    assert len(table.meanings) >= 13
    for label, meaning in table.meanings.items():
        assert set(meaning.findings) <= set(FINDINGS)
        assert meaning.reason == "" or (meaning.reason.endswith(".") and len(meaning.reason) > 5), label
        assert meaning.reason or [name.casefold() for name in meaning.findings] == [label.replace("_", " ")]


@pytest.mark.parametrize(
    ("name", "label", "finding"), [(name, *row) for name, rows in MAPPED.items() for row in rows.items()]
)
def test_what_labels_mean(name: str, label: str, finding: str | None) -> None:
    meaning = label_table(name).meaning(label)
    assert meaning is not None
    assert meaning.findings == (() if finding is None else (finding,))


def test_the_tables_cover_their_sets() -> None:
    assert len(label_table("padchest").meanings) == 193  # 174 findings and 19 diagnoses (Bustos et al. 2020)
    assert not label_table("vindr-cxr").unknown(vindr_cxr.LABELS)
    assert not label_table("chestx-det").unknown((*chestx_det_categories(), "fracture"))


def chestx_det_categories() -> tuple[str, ...]:
    from cxr_max.builders.sources.chestx_det import ADDED, CATEGORIES

    assert len((*CATEGORIES, *ADDED)) == 13
    assert chestx_det.TRAIN
    return (*CATEGORIES, *ADDED)


def table(abnormal: str = "mapped", **meanings: Meaning) -> LabelTable:
    return LabelTable("made", abnormal, meanings)  # type: ignore[arg-type]


def test_present_outweighs_uncertain_outweighs_absent_outweighs_nothing() -> None:
    order: tuple[State | None, ...] = (1, -1, 0, None)
    for first, heavier in enumerate(order):
        for lighter in order[first:]:
            assert weightier(heavier, lighter) == weightier(lighter, heavier) == heavier


def test_a_part_that_is_absent_says_nothing_and_one_that_is_present_says_all() -> None:
    made = table(rib=Meaning(("Fracture",), part=True), any=Meaning(("Pneumonia",)))
    assert made.findings({"rib": 0, "any": 0})["Fracture"] is None
    assert made.findings({"rib": 0, "any": 0})["Pneumonia"] == 0
    assert made.findings({"rib": 1})["Fracture"] == 1
    assert made.findings({"rib": -1})["Fracture"] == -1


def test_what_rules_out_no_finding() -> None:
    meanings = {
        "hernia": Meaning(()),
        "tube": Meaning(("Support Devices",)),
        "mass": Meaning(("Lung Lesion",)),
        "healthy": Meaning(("No Finding",)),
    }
    mapped, anything = table("mapped", **meanings), table("any", **meanings)
    assert mapped.findings({"mass": 1})["No Finding"] == 0
    assert mapped.findings({"hernia": 1, "tube": 1})["No Finding"] is None
    assert anything.findings({"hernia": 1})["No Finding"] == 0
    assert anything.findings({"mass": 0})["No Finding"] is None
    assert mapped.findings({"healthy": 1, "mass": 1})["No Finding"] == 1


def test_labels_without_a_row_and_without_a_finding_are_kept_under_their_own_names() -> None:
    made = table(mass=Meaning(("Lung Lesion",)), hernia=Meaning(()))
    labels: Mapping[str, State] = {"mass": 1, "hernia": 1, "News": -1, "gone": 0}
    assert made.others(labels) == {"hernia": "1", "News": "-1"}
    assert made.unmapped(labels) == {"hernia", "News", "gone"}
    assert made.unknown(labels) == {"News", "gone"}


@pytest.mark.parametrize(
    ("left", "right", "sides"),
    [
        (100, 300, {"right"}),
        (700, 900, {"left"}),
        (412, 612, {"left", "right"}),
        (90, 900, {"left", "right"}),
        (400, 560, {"right"}),  # 48 of 160 columns, under a third, are beyond the middle
        (400, 580, {"left", "right"}),  # 68 of 180 are
        (500, 500, set()),
        (-50, 40, {"right"}),
        (0, 512, {"right"}),
        (512, 1024, {"left"}),
    ],
)
def test_the_images_left_is_the_patients_right(left: float, right: float, sides: set[str]) -> None:
    assert halves(Box("x", left, right), 1024) == sides


@given(st.floats(0, 1000), st.floats(0.1, 1000))
def test_a_box_and_its_mirror_image_are_on_opposite_sides(left: float, width: float) -> None:
    swapped = {"left": "right", "right": "left"}
    box, mirrored = Box("x", left, left + width), Box("x", 1024 - left - width, 1024 - left)
    share = max(0.0, min(512 - left, width)) / width
    if all(abs(share - limit) > 1e-6 for limit in (1 / 3, 2 / 3)):
        assert {swapped[side] for side in halves(box, 1024)} == set(halves(mirrored, 1024))


def test_sides_are_of_findings_that_are_present_and_may_have_one() -> None:
    known = label_table("chestx-det")
    boxes = [
        Box("Effusion", 700, 900),
        Box("Cardiomegaly", 400, 800),
        Box("Mass", 100, 200),
        Box("Nodule", 800, 900),
    ]
    findings = known.findings({"Effusion": 1, "Cardiomegaly": 1, "Mass": 0, "Nodule": 1})
    sides = sides_of(boxes, 1024, known, findings)
    assert set(sides) == set(FINDINGS)
    assert {name: side for name, side in sides.items() if side} == {
        "Pleural Effusion": "left",
        "Lung Lesion": "bilateral",
    }
    assert (
        side_of([]) is None and side_of(["left", "left"]) == "left" and side_of(["left", "right"]) == "bilateral"
    )


@pytest.mark.parametrize(
    ("term", "findings", "state"),
    [
        ("Cardiomegaly/mild", ("Cardiomegaly",), 1),
        ("Cardiomegaly/borderline", ("Cardiomegaly",), -1),
        ("Cardiac Shadow/enlarged/mild", ("Cardiomegaly",), 1),
        ("Cardiac Shadow/enlarged/borderline", ("Cardiomegaly",), -1),
        ("Cardiac Shadow/obscured", (), 1),
        ("Opacity/lung/base/left", ("Lung Opacity",), 1),
        ("Opacity/breast", (), 1),
        ("Nodule/lung/upper lobe/right", ("Lung Lesion",), 1),
        ("Thickening/apex/Pleura", ("Pleural Other",), 1),
        ("Thickening/bronchi", (), 1),
        ("Calcified Granuloma/lung/right", (), 1),
        ("Pulmonary Disease, Chronic Obstructive", (), 1),
        ("Hydropneumothorax/right", ("Pneumothorax", "Pleural Effusion"), 1),
    ],
)
def test_the_row_with_most_qualifiers_counts(term: str, findings: tuple[str, ...], state: int) -> None:
    meaning = meaning_of(parsed(term), label_table("open-i"))
    assert meaning is not None and (meaning.findings, meaning.state) == (findings, state)


def test_sides_from_terms() -> None:
    known = label_table("open-i")
    terms = [
        parsed(term)
        for term in (
            "Pulmonary Atelectasis/base/left",
            "Pulmonary Atelectasis/middle lobe",
            "Pneumonia/lingula",
            "Pleural Effusion/bilateral/small",
            "Consolidation/lung",
            "Cardiomegaly/left",
        )
    ]
    sides = sides_of_terms(terms, known, findings_of(terms, known))
    assert {name: side for name, side in sides.items() if side} == {
        "Atelectasis": "bilateral",
        "Pneumonia": "left",
        "Pleural Effusion": "bilateral",
    }


@pytest.mark.skipif(not OPEN_I.is_dir(), reason=f"needs the Open-I reports in {OPEN_I}")
def test_the_table_for_open_i_agrees_with_the_public_gold() -> None:
    """Peng et al. 2018 read the same reports by another way; their classes, where they have one."""
    classes = {
        "Atelectasis": ("Atelectasis",),
        "Cardiomegaly": ("Cardiomegaly",),
        "Consolidation": ("Consolidation",),
        "Edema": ("Edema",),
        "Lung Lesion": ("Mass", "Nodule"),
        "No Finding": ("normal",),
        "Pleural Effusion": ("Effusion",),
        "Pleural Other": ("Pleural_Thickening",),
        "Pneumonia": ("Pneumonia",),
        "Pneumothorax": ("Pneumothorax",),
    }
    with (OPEN_I / "gold.csv").open(encoding="utf-8") as stream:
        gold = {row["filename"]: row for row in csv.DictReader(stream)}
    with (OPEN_I / "reports.csv").open(encoding="utf-8") as stream:
        reports = list(csv.DictReader(stream))
    counts: Counter[tuple[str, bool, bool]] = Counter()
    known = label_table("open-i")
    for report in reports:
        found = positives(findings_of([parsed(term) for term in report["MeSH"].split(";")], known))
        row = gold[f"CXR{report['uid']}"]
        for name, columns in classes.items():
            counts[name, name in found, any(row[column] == "1" for column in columns)] += 1
    for name in classes:
        right = 2 * counts[name, True, True]
        assert right / (right + counts[name, True, False] + counts[name, False, True]) >= 0.8, name
