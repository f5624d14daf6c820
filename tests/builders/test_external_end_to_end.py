"""From a copy of a data set to scores, by the command line: source -> teachers -> release -> eval."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.builders.test_external_sources import WRITERS
from tests.cli.test_cli import call
from tests.source_fixtures.pictures import write_picture, write_text

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TEACHER = "sim-gpt-5-nano"
Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def run(capsys: Capture, monkeypatch: Patch, *arguments: object) -> dict[str, object]:
    """The JSON object that a command prints; it must end well."""
    code, printed, said = call(capsys, monkeypatch, *arguments, "--json")
    assert code == 0, said
    answer: dict[str, object] = json.loads(printed)
    return answer


def build(capsys: Capture, monkeypatch: Patch, spec: str, out: Path, *more: object) -> dict[str, object]:
    return run(capsys, monkeypatch, "build", "--source", spec, "--teachers", TEACHER, "--out", out, *more)


def scores(capsys: Capture, monkeypatch: Patch, suite: str, out: Path, *more: object) -> dict[str, float]:
    """The values of a suite over all findings, by metric."""
    chosen = ("--release", out / "release", "--teacher", TEACHER, "--out", out / suite)
    rows = run(capsys, monkeypatch, "eval", "--suite", suite, *chosen, *more)["scores"]
    assert isinstance(rows, list)
    return {row["metric"]: row["value"] for row in rows if row["finding"] is None and row["value"] is not None}


@pytest.mark.parametrize("name", WRITERS)
def test_every_set_in_miniature_becomes_a_release(
    name: str, tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    copy = WRITERS[name](tmp_path / "copy")
    made = build(capsys, monkeypatch, f"{name}:{copy}", tmp_path / "run")
    assert made["failed"] == 0 and made["gaps"] == 0 and made["trajectories"]
    manifest = json.loads((tmp_path / "run" / "release" / "manifest.json").read_text())
    assert manifest["source"]["name"] == name and manifest["source"]["expected"]
    assert all(
        str(tmp_path) not in line for line in (tmp_path / "run" / "release" / "README.md").read_text().split()
    )


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "open-i").is_dir(), reason=f"needs the Open-I reports in {DATA / 'open-i'}")
def test_real_reports_of_open_i_are_answered_and_scored(
    tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    """The reports are real; the images are phantoms, since only the reports are at hand."""
    copy = tmp_path / "open-i"
    copy.mkdir()
    shutil.copy(DATA / "open-i" / "reports.csv", copy / "indiana_reports.csv")
    with (copy / "indiana_reports.csv").open(encoding="utf-8") as stream:
        uids = [row["uid"] for row in csv.DictReader(stream)][:30]
    lines = ["uid,filename,projection"]
    for number, uid in enumerate(uids):
        lines += [f"{uid},{uid}_IM-0001-1001.dcm.png,Frontal", f"{uid},{uid}_IM-0001-2001.dcm.png,Lateral"]
        write_picture(copy / "images" / f"{uid}_IM-0001-1001.dcm.png", number)
    write_text(copy / "indiana_projections.csv", "\n".join(lines) + "\n")
    made = build(capsys, monkeypatch, f"open-i:{copy}", tmp_path / "run")
    assert (made["studies"], made["trajectories"], made["gaps"]) == (30, 30, 0)  # no lateral image is asked about
    assert "auroc" in scores(capsys, monkeypatch, "generalization", tmp_path / "run", "--stored")
    assert scores(capsys, monkeypatch, "report", tmp_path / "run")["bleu_4"] > 0


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "cxr").is_dir(), reason=f"needs the radiographs in {DATA / 'cxr'}")
def test_a_folder_of_real_radiographs_is_whole_answered_and_scored(
    tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    spec = f"folder:{DATA / 'cxr'}"
    checked = run(capsys, monkeypatch, "sources", "check", spec, "--images")
    assert (checked["whole"], checked["present"]) == (True, checked["rows"])
    made = build(capsys, monkeypatch, spec, tmp_path / "run")
    assert made["studies"] == checked["rows"] and made["gaps"] == 0
    assert scores(capsys, monkeypatch, "generalization", tmp_path / "run", "--stored")["accuracy"] > 0.5
