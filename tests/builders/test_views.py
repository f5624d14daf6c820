"""Views as data sets spell them, and the frontal images of a study."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.builders.sources.views import VIEW_ORDER, from_header, frontal, normalise_view
from cxr_max.records import Radiograph, View


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("PA", "PA"),
        ("AP", "AP"),
        ("LATERAL", "LATERAL"),
        ("LL", "LL"),
        ("pa", "PA"),
        (" Lateral ", "LATERAL"),
        ("lat", "LATERAL"),
        ("RL", "LATERAL"),
        ("AP Supine", "AP"),
        ("AP AXIAL", "AP"),
        ("AP LLD", "AP"),
        ("AP RLD", "AP"),
        ("AP left lateral decubitus", "AP"),
        ("PA LLD", "PA"),
        ("PA RLD", "PA"),
        ("AP_SUPINE", "AP"),
        ("Left Lateral", "LL"),
        ("postero-anterior", "PA"),
        ("XTABLE LATERAL", "LATERAL"),
        ("XTABLE", "other"),
        ("SWIMMERS", "other"),
        ("LAO", "other"),
        ("RAO", "other"),
        ("LPO", "other"),
        ("PA OBLIQUE", "other"),
        ("LLD", "other"),
        ("LATERAL DECUBITUS", "other"),
        ("PAINT", "other"),
        ("PA LATERAL", "unknown"),
        ("AP/PA", "unknown"),
        ("", "unknown"),
        ("  ", "unknown"),
        (None, "unknown"),
        ("unknown", "unknown"),
        ("N/A", "unknown"),
        ("Frontal", "unknown"),
        ("Portable, semi-erect", "unknown"),
        ("?", "unknown"),
    ],
)
def test_view_position(text: str | None, view: View) -> None:
    assert normalise_view(text, None, None) == view


@pytest.mark.parametrize(
    ("meaning", "view"),
    [
        ("postero-anterior", "PA"),
        ("Antero-Posterior", "AP"),
        ("antero posterior", "AP"),
        ("lateral", "LATERAL"),
        ("left lateral", "LL"),
        ("right lateral", "LATERAL"),
        ("oblique", "other"),
        ("swimmers", "other"),
        ("erect", "unknown"),
        ("", "unknown"),
    ],
)
def test_code_meaning_counts_only_without_a_view_position(meaning: str, view: View) -> None:
    assert normalise_view("", meaning, "") == view
    assert normalise_view("PA", meaning, "") == "PA"
    assert normalise_view("XTABLE", meaning, "") == "other"


@pytest.mark.parametrize(
    ("procedure", "view"),
    [
        ("CHEST (PORTABLE AP)", "AP"),
        ("PORTABLE CHEST AP", "AP"),
        ("CHEST (SINGLE VIEW) PA", "PA"),
        ("CHEST (PA AND LAT)", "unknown"),
        ("CHEST (PA, LAT & OBLIQUES)", "unknown"),
        ("CHEST (PRE-OP PA & LAT)", "unknown"),
        ("CHEST (AP, LAT DECUB ONLY)", "unknown"),
        ("CHEST (PA AND AP)", "unknown"),
        ("CHEST (LATERAL ONLY)", "unknown"),
        ("CHEST (2 VIEWS AP)", "unknown"),
        ("CHEST", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_procedure_counts_only_where_it_names_one_frontal_projection(procedure: str | None, view: View) -> None:
    assert normalise_view("", "", procedure) == view
    assert normalise_view("", "lateral", procedure) == "LATERAL"


@given(*[st.none() | st.text() | st.sampled_from(["PA", "LL", "AP LLD", "x\x00", "ſ", "ﬁ"])] * 3)
def test_any_text_gives_a_view(position: str | None, meaning: str | None, procedure: str | None) -> None:
    view = normalise_view(position, meaning, procedure)
    assert view in VIEW_ORDER
    if position and position.strip() in ("PA", "LL"):
        assert view == position.strip()


def images(*views: View) -> tuple[Radiograph, ...]:
    return tuple(Radiograph(str(place), Path(f"{place}.jpg"), view) for place, view in enumerate(views))


@pytest.mark.parametrize(
    ("views", "places"),
    [
        (("PA", "LATERAL"), [0]),
        (("LATERAL", "AP", "PA"), [1, 2]),
        (("unknown", "PA"), [1]),
        (("unknown", "LATERAL", "unknown"), [0, 2]),
        (("other", "LATERAL", "LL"), []),
        (("other", "unknown"), [1]),
        (("other",), []),
        ((), []),
    ],
)
def test_frontal(views: tuple[View, ...], places: list[int]) -> None:
    study = images(*views)
    assert frontal(study) == tuple(study[place] for place in places)


def test_an_image_whose_header_cannot_be_read_stays_as_it_was(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"not DICOM")
    for path in (broken, tmp_path / "absent.dcm", tmp_path):
        image = Radiograph("1", path)
        assert from_header(image) == (image, None)
