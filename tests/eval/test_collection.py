"""The paper's suite: every data set that is given is built, asked and scored; what is not is a named gap."""

import json
from pathlib import Path
from typing import Any

import pytest

from cxr_max.builders.sources.registry import NAMES
from cxr_max.errors import RequestError
from cxr_max.eval.collection import collections, given
from cxr_max.eval.leaks import HashedImage, find_leaks
from cxr_max.eval.suite import read_suites, shipped
from tests.cli.test_cli import call
from tests.source_fixtures import chestx_det, ms_cxr_t, open_i

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
PAPER = collections()["paper"]


def run(capsys: Capture, monkeypatch: Patch, *arguments: object) -> tuple[int, dict[str, Any], str]:
    code, printed, said = call(capsys, monkeypatch, "eval", "--suite", "paper", *arguments, "--json")
    return code, json.loads(printed) if printed else {}, said


def test_every_part_names_a_source_and_suites_that_there_are() -> None:
    assert "paper" not in shipped()
    assert {part.data for part in PAPER.part} == {
        "ms-cxr-t", "open-i", "chestxray14", "chexpert", "chestx-det10",
    }  # fmt: skip
    assert len({part.name for part in PAPER.part}) == len(PAPER.part)
    for part in PAPER.part:
        suites = read_suites(part.suites)
        assert part.data in NAMES and {suite.split for suite in suites} == {part.split or "test"}
    tasks = {suite.name for part in PAPER.part for suite in read_suites(part.suites)}
    assert tasks == {"ms-cxr-t-progression", "ms-cxr-t-presence", "generalization", "report"}


@pytest.mark.parametrize("data", [["folder:x"], ["open-i"], ["open-i:a", "open-i:b"], []])
def test_data_that_no_part_needs_is_refused(data: list[str]) -> None:
    with pytest.raises(RequestError, match="--data"):
        given(PAPER, data)


@pytest.mark.parametrize(
    "more",
    [
        ("--stored",),
        ("--release", "x"),
        ("--images", "x:y"),
        ("--predictions", "x.csv"),
        ("--teacher", "simulated"),
    ],
)
def test_options_of_a_single_release_are_refused(
    more: tuple[str, ...], tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    chosen = ("--teacher", "sim-grok-4", "--data", f"open-i:{tmp_path}", "--out", tmp_path / "out", *more)
    code, _, said = run(capsys, monkeypatch, *chosen)
    assert code == 2 and "--teacher" in said and not (tmp_path / "out").exists()


def test_a_suite_of_one_release_needs_it(tmp_path: Path, capsys: Capture, monkeypatch: Patch) -> None:
    code, _, said = call(capsys, monkeypatch, "eval", "--teacher", "sim-grok-4", "--out", tmp_path / "out")
    assert code == 2 and "Give --release" in said


@pytest.mark.slow
def test_given_sets_are_scored_and_the_others_are_named(
    tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    copies = {
        "ms-cxr-t": ms_cxr_t.write_population(tmp_path / "a", patients=12),
        "open-i": open_i.write_xml(tmp_path / "b"),
        "chestx-det10": chestx_det.write_ten(tmp_path / "c"),
    }
    data = [option for name, path in copies.items() for option in ("--data", f"{name}:{path}")]
    arguments = ("--teacher", "sim-grok-4", "--out", tmp_path / "out", *data)
    code, said, _ = run(capsys, monkeypatch, *arguments)
    assert code == 3 and said["suite"] == "paper 1"
    assert set(said["gaps"]) == {"chestxray14", "chexpert"}
    assert said["gaps"]["chexpert"] == "no --data chexpert:PATH was given"
    tasks = {name: {row["task"] for row in part["scores"]} for name, part in said["parts"].items()}
    assert tasks == {
        "ms-cxr-t-progression": {"progression"},
        "ms-cxr-t-presence": {"presence_top1"},
        "open-i": {"generalization", "report"},
        "chestx-det10": {"generalization"},
    }
    assert {part["failed"] for part in said["parts"].values()} == {0}
    again = run(capsys, monkeypatch, *arguments)[1]
    assert again["parts"]["open-i"]["scores"] == said["parts"]["open-i"]["scores"]


def test_a_set_that_is_not_whole_is_a_gap_and_the_rest_goes_on(
    tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    (tmp_path / "empty").mkdir()
    ten = chestx_det.write_ten(tmp_path / "c")
    data = ("--data", f"chexpert:{tmp_path / 'empty'}", "--data", f"chestx-det10:{ten}")
    code, said, _ = run(capsys, monkeypatch, "--teacher", "sim-grok-4", "--out", tmp_path / "out", *data)
    assert code == 3 and list(said["parts"]) == ["chestx-det10"] and "chexpert" in said["gaps"]
    assert "missing" in said["gaps"]["chexpert"]


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("ms-cxr-t", "mimic-cxr-jpg", 1),
        ("ms-cxr-t", "mimic-cxr", 1),
        ("chestx-det10", "chestxray14", 1),
        ("chestx-det", "chestxray14", 0),
        ("open-i", "mimic-cxr", 0),
    ],
)
def test_patients_of_overlapping_sets_leak(ours: str, theirs: str, same: int) -> None:
    scored = HashedImage("a", "10000032", ours, "i", "0" * 64, None)
    trained = HashedImage("b", "10000032", theirs, "j", "1" * 64, None)
    assert find_leaks([scored], [trained]).leaked == same
