"""A contact sheet shows every image, what is known of it, and why one is missing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_max.builders import sheet
from cxr_max.builders.sheet import write_sheet
from cxr_max.errors import RequestError, StorageError
from tests.radiograph_files import dicom, jpeg_bytes, phantom, saved


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    place.mkdir()
    saved(place / "a.dcm", dicom(phantom(600, 500, high=4000), ViewPosition="PA", BurnedInAnnotation="YES"))
    (place / "b.jpg").write_bytes(jpeg_bytes(np.full((90, 120), 255, np.uint8)))
    (place / "c.dcm").write_bytes(b"no DICOM at all")
    return place


def test_every_image_of_the_first_studies_is_shown(folder: Path, tmp_path: Path) -> None:
    shown = write_sheet(f"folder:{folder}", tmp_path / "out" / "sheet.png", studies=3)
    assert [cell.number for cell in shown] == [1, 2, 3]
    assert [cell.refused is None for cell in shown] == [True, True, False]
    with Image.open(tmp_path / "out" / "sheet.png") as image:
        assert image.format == "PNG" and image.mode == "L" and not image.info
        pixels = np.asarray(image)
    # The second cell's picture is white and lies in the middle, the third is grey all over.
    middle = sheet._MARGIN + sheet._PICTURE // 2
    assert pixels[middle, sheet._CELL + 40 : 2 * sheet._CELL - 40].min() > 250
    assert np.median(pixels[middle, 2 * sheet._CELL + 40 : 3 * sheet._CELL - 40]) == 225
    assert pixels[middle, 20 : sheet._CELL - 20].std() > 20
    # Text stands under each.
    under = pixels[sheet._MARGIN + sheet._PICTURE + 4 :]
    for cell in range(3):
        assert under[:, cell * sheet._CELL : (cell + 1) * sheet._CELL].min() < 100
    assert len(write_sheet(f"folder:{folder}", tmp_path / "one.png", studies=1)) == 1


def test_what_stands_under_a_picture(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    original = sheet._facts

    def facts(*arguments: object) -> list[str]:
        lines = original(*arguments)  # type: ignore[arg-type]
        said.extend(lines)
        return lines

    monkeypatch.setattr(sheet, "_facts", facts)
    write_sheet(f"folder:{folder}", tmp_path / "sheet.png")
    assert said[1:3] == ["sent as 500 x 600, mimic_jpg", "declares burned-in text"]
    assert "500 x 600 px" in said[0] and "120 x 90 px" in said[3]
    assert "Doe" not in " ".join(said) and "SECRET" not in " ".join(said)


def test_labels_name_what_is_present_and_what_is_uncertain(tmp_path: Path) -> None:
    shown = write_sheet("phantom:3", tmp_path / "sheet.png", studies=20)
    texts = {sheet._labels(cell.study) for cell in shown}
    assert any("," in text for text in texts)
    for cell in shown:
        findings = cell.study.reference_findings or {}
        text = sheet._labels(cell.study)
        assert all((name in text) == (state in {1, -1}) for name, state in findings.items() if name != "Edema")
        assert all(f"{name}?" in text for name, state in findings.items() if state == -1)


def test_no_image_and_no_place_to_write(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError):
        write_sheet(f"folder:{tmp_path / 'empty'}", tmp_path / "sheet.png")
    with pytest.raises(RequestError, match="voi"):
        write_sheet(f"folder:{folder}", tmp_path / "sheet.png", rendering="voi")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_sheet(f"folder:{folder}", tmp_path / "file" / "sheet.png")
