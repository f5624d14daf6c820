"""The coding of MIMIC-CXR-JPG's label cells."""

import math

import pytest

from cxr_max.findings import FINDINGS, positives, state_of


@pytest.mark.parametrize(
    ("cell", "state"),
    [("1.0", 1), ("0.0", 0), ("-1.0", -1), ("", None), (None, None), (math.nan, None), (1, 1), (" 0 ", 0)],
)
def test_cells(cell: object, state: int | None) -> None:
    assert state_of(cell) == state


@pytest.mark.parametrize("cell", ["2", "yes", "0.5"])
def test_anything_else_is_refused(cell: str) -> None:
    with pytest.raises(ValueError):
        state_of(cell)


def test_order_is_that_of_the_table() -> None:
    assert FINDINGS[0] == "Atelectasis" and FINDINGS[8] == "No Finding" and len(FINDINGS) == 14
    assert positives({"Pneumonia": 1, "Edema": 1, "Fracture": -1}) == ("Edema", "Pneumonia")
