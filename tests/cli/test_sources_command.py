"""``cxr-max sources`` and ``cxr-max sources check``: what is printed, and the exit codes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cxr_max.builders.sources.chestxray14 import ChestXray14
from tests.cli.test_cli import call
from tests.source_fixtures import chestxray14


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ChestXray14, "info", replace(ChestXray14.info, expected={"images": 6}))
    return chestxray14.write(tmp_path)


def test_the_listing_names_source_terms_home_and_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, printed, said = call(capsys, monkeypatch, "sources")
    assert code == 0 and said == ""
    lines = printed.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("vindr-cxr:PATH"))
    assert "credentialed" in lines[place] and "18,000 images" in lines[place + 1]
    assert lines[place + 2].strip() == "https://physionet.org/content/vindr-cxr/1.0.0/"


def test_a_whole_copy_ends_with_0(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, copy: Path
) -> None:
    code, printed, said = call(capsys, monkeypatch, "sources", "check", f"chestxray14:{copy}")
    assert code == 0 and said == ""
    assert "images    6 of 6 published\n" in printed and "the copy is whole" in printed
    assert "unmapped  2 labels: Emphysema 1, Hernia 1\n" in printed


def test_a_copy_with_defects_ends_with_1_and_says_which(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, copy: Path
) -> None:
    (copy / "images_001" / "images" / "00000001_000.png").write_bytes(b"")
    code, printed, said = call(
        capsys, monkeypatch, "sources", "check", f"chestxray14:{copy}", "--images", "--json"
    )
    report = json.loads(printed)
    assert code == 1 and report["whole"] is False
    assert list(report["unreadable"]) == ["images_001/images/00000001_000.png"]
    assert (
        said
        == "cxr-max: 1 images cannot be read: get them anew from https://nihcc.app.box.com/v/ChestXray-NIHCC.\n"
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nih:x", "There is no source 'nih'"),
        ("chestxray14", "needs a path"),
        ("chestxray14:/nowhere", "not a folder"),
    ],
)
def test_no_such_copy_ends_with_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    code, printed, said = call(capsys, monkeypatch, "sources", "check", spec)
    assert (code, printed) == (2, "") and message in said and said.count("\n") == 1
