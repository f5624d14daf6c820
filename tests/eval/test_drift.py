"""The drift report: known answers on small releases made by hand, and a page that hostile texts cannot break."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cxr_max.cli import main
from cxr_max.errors import RequestError
from cxr_max.eval.drift_html import page, plot, shade, share
from cxr_max.eval.drift_report import DriftReport, measure
from cxr_max.eval.drift_table import table, table_schema
from cxr_max.records import Trajectory
from cxr_max.schemas import row_of, trajectory_schema
from cxr_max.shards import write_config, write_text
from tests.builders.test_consensus import said

TEACHERS = ("a", "b", "c", "d")


def released(folder: Path, rows: list[Trajectory]) -> Path:
    """A sealed release of these rows."""
    dicts = [row_of(row) for row in rows]
    write_config(folder / "data" / "trajectories", {"train": len(rows)}, lambda _: dicts, trajectory_schema())
    manifest = {"source": {"title": "By hand", "data_use": "open"}, "trajectories_digest": "0" * 64}
    write_text(folder / "manifest.json", json.dumps(manifest))
    return folder


def study(number: int, claims: dict[str, dict[str, Any]], **changes: Any) -> list[Trajectory]:
    """One reply per teacher about one study of one patient, in time."""
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    return [
        replace(
            said(teacher, study=f"s{number:04d}", **claim),
            subject_id=f"p{number:04d}",
            created_at=at,
            **changes,
        )
        for teacher, claim in claims.items()
    ]


def alike(number: int) -> list[Trajectory]:
    claim = {"Edema": number % 2, "Pleural_Effusion": (1, "left"), "text": "There is a left pleural effusion."}
    return study(number, dict.fromkeys(TEACHERS, claim))


def measured(folder: Path, rows: list[Trajectory]) -> DriftReport:
    return measure(released(folder, rows))


def test_identical_teachers_do_not_drift(tmp_path: Path) -> None:
    report = measured(tmp_path, [row for n in range(30) for row in alike(n)])
    (prompt,) = report.prompts
    assert prompt.drift is not None and not isinstance(prompt.drift.steps, str)
    assert {mean.value for mean in prompt.drift.mean_conflict.values()} == {0.0}
    assert {pair.agreement.value for pair in prompt.drift.pairs} == {1.0}
    assert set(prompt.drift.steps.divergence) == {0.0} and prompt.drift.examples == ()
    assert (report.studies, report.subjects, report.teachers) == (30, 30, TEACHERS)


def test_one_teacher_against_the_others(tmp_path: Path) -> None:
    """d says the opposite of one of two findings: its conflict is 1/2, that of the others 0."""
    claims = {teacher: {"Edema": 1, "Fracture": 0} for teacher in "abc"}
    rows = [row for n in range(20) for row in study(n, {**claims, "d": {"Edema": 0, "Fracture": 0}})]
    drift = measured(tmp_path, rows).prompts[0].drift
    assert drift is not None
    assert {teacher: mean.value for teacher, mean in drift.mean_conflict.items()} == {
        "a": 0.0, "b": 0.0, "c": 0.0, "d": 0.5,
    }  # fmt: skip
    assert drift.conflict["d"]["Edema"].value == 1.0 and drift.conflict["d"]["Fracture"].value == 0.0
    assert drift.positive["d"]["Edema"].value == 0.0 and drift.positive["a"]["Edema"].value == 1.0
    assert (drift.mean_conflict["d"].low, drift.mean_conflict["d"].high) == (0.5, 0.5)
    assert len(drift.examples) == 8


def test_laterality_is_counted(tmp_path: Path) -> None:
    sides = {"a": "left", "b": "left", "c": "left", "d": "right"}
    claims = {teacher: {"Pleural_Effusion": (1, side)} for teacher, side in sides.items()}
    agreed = {teacher: {"Pleural_Effusion": (1, "bilateral")} for teacher in TEACHERS}
    prompt = measured(tmp_path, study(0, claims) + study(1, agreed)).prompts[0]
    effusion = next(one for one in prompt.laterality if one.finding == "Pleural Effusion")
    assert (effusion.left, effusion.right, effusion.bilateral, effusion.unsided) == (3, 1, 4, 0)
    assert (effusion.split.value, effusion.split.n) == (0.5, 2)
    assert prompt.drift is not None and prompt.drift.side_conflict["d"].value == 0.5


def test_refusals_are_counted_and_vote_for_nothing(tmp_path: Path) -> None:
    claims: dict[str, dict[str, Any]] = {teacher: {"Edema": 1} for teacher in "abc"}
    claims["d"] = {"status": "refused"}
    prompt = measured(tmp_path, [row for n in range(5) for row in study(n, claims)]).prompts[0]
    counts = {one.teacher: one.counts for one in prompt.statuses}
    assert counts["d"]["refused"] == 5 and counts["a"]["ok"] == 5
    assert prompt.drift is not None and prompt.drift.mean_conflict["d"].n == 0


def test_a_prompt_that_gave_findings_away_is_not_measured(tmp_path: Path) -> None:
    rows = [replace(row, prompt_given="findings", prompt_name="rationale") for n in range(4) for row in alike(n)]
    (prompt,) = measured(tmp_path, rows).prompts
    assert prompt.drift is None and prompt.statuses and prompt.laterality
    assert "repeat them" in page(measure(tmp_path))


def test_a_teacher_that_changes_over_time_is_found(tmp_path: Path) -> None:
    rows = []
    for n in range(400):
        claims = {teacher: {"Edema": 0 if teacher == "d" and n >= 200 else 1} for teacher in TEACHERS}
        rows += study(n, claims, model_reported="m-2" if n >= 200 else "m-1")
    drift = measured(tmp_path, rows).prompts[0].drift
    assert drift is not None and not isinstance(drift.time, str)
    times = {one.teacher: one for one in drift.time}
    assert times["a"].changes == () and len(times["d"].changes) == 1
    (change,) = times["d"].changes
    assert abs((change.onset - datetime(2026, 1, 1, tzinfo=UTC)).total_seconds() / 60 - 200) < 20
    assert [(one.before, one.after) for one in times["d"].model_changes] == [("m-1", "m-2")]


HOSTILE = "<script>alert(1)</script> & \"quotes\" 'single' {{ 7*7 }} \x00\u202e edema is present"


def test_hostile_texts_are_shown_and_do_nothing(tmp_path: Path) -> None:
    claims = {teacher: {"Edema": 1, "text": HOSTILE} for teacher in "abc"}
    claims["d"] = {"Edema": 0, "text": HOSTILE.replace("edema is present", ". There is no edema.")}
    rows = study(0, claims, finish_reason="<b>stop</b>", model_reported="<img src=x>")
    html = page(measured(tmp_path, rows))
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html and "{{ 7*7 }}" in html
    assert "<img" not in html and "<b>stop" not in html and "\u202e" not in html and "\x00" not in html
    assert "<mark" in html


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    html = page(measured(tmp_path, [row for n in range(6) for row in alike(n)]))
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://""", html)
    assert html.startswith("<!doctype html>") and html.count("<h1>") == 1


def test_same_release_same_bytes(tmp_path: Path) -> None:
    rows = [row for n in range(12) for row in alike(n)]
    release = released(tmp_path, rows)
    assert page(measure(release)) == page(measure(release))
    assert list(table(measure(release))) == list(table(measure(release)))


def test_simulated_teachers_are_said_to_be(tmp_path: Path) -> None:
    rows = [replace(row, provider="simulated") for row in alike(0)]
    assert 'class="banner"' in page(measured(tmp_path / "one", rows))
    assert 'class="banner"' not in page(measured(tmp_path / "two", alike(0)))


def test_the_command_writes_three_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release, out = released(tmp_path / "release", [row for n in range(6) for row in alike(n)]), tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["cxr-max", "drift", str(release), "--out", str(out), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    summary = json.loads(capsys.readouterr().out)
    assert summary["studies"] == 6 and summary["conflict"]["diagnose"] == dict.fromkeys(TEACHERS, 0.0)
    assert sorted(path.name for path in out.iterdir()) == ["drift.json", "drift.parquet", "index.html"]
    read = pq.read_table(out / "drift.parquet")
    assert read.schema.equals(table_schema(), check_metadata=False) and read.num_rows > 100
    assert json.loads((out / "drift.json").read_text())["studies"] == 6


@pytest.mark.parametrize("unsealed", [False, True])
def test_what_is_no_release_is_said(tmp_path: Path, unsealed: bool) -> None:
    if unsealed:
        (released(tmp_path, alike(0)) / "manifest.json").unlink()
    with pytest.raises(RequestError, match="no sealed release"):
        measure(tmp_path)


def test_reports_that_are_not_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has no report of any study"):
        measure(released(tmp_path, alike(0)), reports="phantom")


def test_cells() -> None:
    assert [share(value) for value in (None, 0.0, 0.256, 0.999, 1.0)] == ["–", ".00", ".26", "1", "1"]
    assert "color: #fff" in shade(0.9) and "color: #fff" not in shade(0.3)


def test_a_plot_keeps_to_its_frame() -> None:
    drawn: Any = plot([0.0, None, 0.5, 2.0], top=1.0)
    assert [value for _, _, value in drawn["points"]] == [0.0, 0.5, 2.0]
    assert all(36 <= across <= 604 and 36 <= down <= 184 for across, down, _ in drawn["points"])
