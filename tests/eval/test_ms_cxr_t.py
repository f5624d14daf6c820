"""Both protocols of MS-CXR-T by the command line: source -> teachers -> release -> eval -> leaderboard."""

import json
from pathlib import Path
from typing import Any

import pytest

from cxr_max.builders.build import BuildRequest
from cxr_max.builders.estimate import estimate
from cxr_max.errors import RequestError
from cxr_max.progression import COMPARED
from cxr_max.schemas import read_asked
from tests.cli.test_cli import call
from tests.source_fixtures import ms_cxr_t

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
TEACHERS = ("sim-gpt-5-nano", "sim-claude-sonnet-4", "sim-gemini-2.5-flash-lite")
PROGRESSION = ("--prompt", "progression", "--views", "study")


def run(capsys: Capture, monkeypatch: Patch, *arguments: object, code: int = 0) -> dict[str, Any]:
    ended, printed, said = call(capsys, monkeypatch, *arguments, "--json")
    assert ended == code, said
    answer: dict[str, Any] = json.loads(printed)
    return answer


def scored(
    capsys: Capture, monkeypatch: Patch, run_: Path, suite: str, teacher: str, *more: object
) -> dict[Any, Any]:
    chosen = ("--release", run_, "--suite", suite, "--teacher", teacher, "--out", run_ / f"{suite}-{teacher}")
    rows = run(capsys, monkeypatch, "eval", *chosen, *more)["scores"]
    return {(row["metric"], row["finding"], row["condition"]): row for row in rows}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ms_cxr_t.write_population(tmp_path_factory.mktemp("sets"))


@pytest.mark.slow
def test_both_protocols_from_one_copy(copy: Path, tmp_path: Path, capsys: Capture, monkeypatch: Patch) -> None:
    pairs, alone = tmp_path / "pairs", tmp_path / "alone"
    build = ("build", "--source", f"ms-cxr-t:{copy}", "--teachers", ",".join(TEACHERS))
    made = run(capsys, monkeypatch, *build, "--out", pairs, *PROGRESSION)
    assert (made["trajectories"], made["failed"], made["gaps"]) == (120, 0, 0), "each wire kept the order"
    made = run(capsys, monkeypatch, *build, "--out", alone)
    assert made["trajectories"] == 120
    asked = {len(one.image_ids) for one in read_asked(pairs / "release", "test", None)}
    assert asked == {2} and {len(one.image_ids) for one in read_asked(alone / "release", "test", None)} == {1}

    for teacher in TEACHERS:
        official = scored(capsys, monkeypatch, pairs, "ms-cxr-t-progression", teacher, "--stored")
        papers = scored(capsys, monkeypatch, alone, "ms-cxr-t-presence", teacher, "--stored")
        assert {key[0] for key in official} & {key[0] for key in papers} == {"refusal_rate"}
        for name in (None, *COMPARED):
            macro, top1 = official["progression_macro_accuracy", name, None], papers["top1_accuracy", name, None]
            assert macro["low"] < macro["value"] < macro["high"] and top1["low"] < top1["value"] < top1["high"]
            assert macro["n_scored"] + macro["n_refused"] == (200 if name is None else 40)
        floor = official["progression_macro_accuracy", None, "floor: the commonest change"]
        assert floor["value"] == pytest.approx(1 / 3)
        assert (papers["top1_accuracy", None, "floor: nothing is there"]["value"] or 0) > 0.5

    results = [pairs / f"ms-cxr-t-progression-{t}" for t in TEACHERS]
    results += [alone / f"ms-cxr-t-presence-{t}" for t in TEACHERS]
    run(capsys, monkeypatch, "leaderboard", *results, "--out", tmp_path / "site")
    text = (tmp_path / "site" / "leaderboard.md").read_text("utf-8")
    presence, official_table = sorted(
        text.split("\n## ")[1:], key=lambda part: "progression 1" in part.split("\n")[0]
    )
    assert "published by others: GPT-5" in presence and "BioViL" not in presence
    assert "published by others: BioViL-T" in official_table and "GPT-5 (" not in official_table
    page = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert "Published by others" in page and "not measured here" in page
    assert not any(f"In {n} predictions the text claims" in page for n in range(1, 200))


def test_a_live_evaluation_asks_the_pair_and_agrees_with_the_stored_one(
    copy: Path, tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    source = ("--source", f"ms-cxr-t:{copy}", "--teachers", "sim-grok-4", "--studies", "12")
    run(capsys, monkeypatch, "build", *source, "--out", tmp_path, *PROGRESSION)
    suite = "ms-cxr-t-progression"
    live = scored(capsys, monkeypatch, tmp_path, suite, "sim-gpt-5-nano")
    again = scored(capsys, monkeypatch, tmp_path, suite, "sim-grok-4", "--stored")
    assert live["progression_accuracy", "Edema", None]["n_failed"] == 0
    assert live["progression_accuracy", "Edema", None]["patients"] >= 11
    assert again["progression_accuracy", "Edema", None]["n_scored"] == 12


def test_texts_can_be_submitted(copy: Path, tmp_path: Path, capsys: Capture, monkeypatch: Patch) -> None:
    source = ("--source", f"ms-cxr-t:{copy}", "--teachers", "sim-grok-4", "--studies", "10")
    run(capsys, monkeypatch, "build", *source, "--out", tmp_path, *PROGRESSION)
    lines = ["study_id,image_ids,text"]
    for number, one in enumerate(read_asked(tmp_path / "release", "test", None)):
        block = "".join(f"\n{name}: stable" for name in COMPARED)
        text = "I cannot tell." if number == 0 else f"ANSWER{block}"
        lines.append(f'{one.study_id},{" ".join(one.image_ids)},"{text}"')
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    chosen = ("--release", tmp_path, "--suite", "ms-cxr-t-progression", "--predictions", tmp_path / "mine.csv")
    rows = run(capsys, monkeypatch, "eval", *chosen, "--out", tmp_path / "mine")["scores"]
    found = {(row["metric"], row["finding"], row["condition"]): row for row in rows}
    plain = found["progression_accuracy", "Edema", None]
    assert (plain["n_scored"], plain["n_refused"]) == (9, 1)


def test_one_picture_alone_is_not_compared(copy: Path, tmp_path: Path) -> None:
    request = BuildRequest(f"ms-cxr-t:{copy}", "sim-grok-4", tmp_path / "run", prompt="progression")
    with pytest.raises(RequestError, match="add --views study"):
        estimate(request, lambda *_: None)


def test_a_lost_previous_picture_is_a_named_gap(tmp_path: Path, capsys: Capture, monkeypatch: Patch) -> None:
    copy = ms_cxr_t.write(tmp_path / "sets")
    source = ("--source", f"ms-cxr-t:{copy}", "--teachers", "sim-grok-4", "--out", tmp_path / "run")
    made = run(capsys, monkeypatch, "build", *source, *PROGRESSION, code=3)
    assert (made["trajectories"], made["gaps"]) == (4, 1)


def test_a_model_that_was_trained_on_the_same_patients_is_found_out(
    tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    copy = ms_cxr_t.write(tmp_path / "sets")
    jpg = copy.parent.parent / "mimic-cxr-jpg" / "2.1.0"
    teacher = ("--teachers", "sim-grok-4")
    run(capsys, monkeypatch, "build", "--source", f"mimic-cxr-jpg:{jpg}", *teacher, "--out", tmp_path / "mimic")
    run(capsys, monkeypatch, "build", "--source", f"ms-cxr-t:{copy}", *teacher, "--out", tmp_path / "alone")
    chosen = (
        "--release",
        tmp_path / "alone",
        "--suite",
        "ms-cxr-t-presence",
        "--teacher",
        "sim-grok-4",
        "--stored",
    )
    out = ("--trained-on", tmp_path / "mimic", "--out", tmp_path / "result")
    said = run(capsys, monkeypatch, "eval", *chosen, *out)
    (flag,) = said["flags"]["ms-cxr-t-presence 1"]
    assert (flag["name"], flag["verdict"]) == ("unseen test set", "no")
    notes = json.loads((tmp_path / "result" / "result" / "result.json").read_text())["dataset_notes"]
    assert any("in common with MIMIC-CXR-JPG" in note for note in notes)
