"""``cxr-max sheet``: what it prints, and its exit codes."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from cxr_max.cli import app

RUNNER = CliRunner()


def test_a_sheet_of_phantoms(tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    ran = RUNNER.invoke(app, ["sheet", "phantom", "--out", str(out), "--studies", "7", "--json"])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert said["out"] == str(out) and len(said["images"]) >= 7
    assert {"number": 1, "refused": None}.items() <= said["images"][0].items()
    with Image.open(out) as image:
        assert image.width > 1000
    assert "shows" in RUNNER.invoke(app, ["sheet", "phantom", "--out", str(out), "--studies", "1"]).stdout


def test_an_image_that_cannot_be_shown_is_a_gap(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"no DICOM at all")
    ran = RUNNER.invoke(app, ["sheet", f"folder:{tmp_path}", "--out", str(tmp_path / "sheet.png")])
    assert ran.exit_code == 3
    assert "1: a.dcm" in ran.stderr and "shows 0 images" in ran.stdout


@pytest.mark.parametrize("arguments", [["nowhere"], ["folder:/nowhere"], ["phantom", "--studies", "0"]])
def test_what_cannot_be_asked_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    ran = RUNNER.invoke(app, ["sheet", *arguments, "--out", str(tmp_path / "sheet.png")])
    assert ran.exit_code != 0 and not (tmp_path / "sheet.png").exists()
