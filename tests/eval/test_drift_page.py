"""The drift report's page: what it says unmissably, and what hostile texts cannot do to it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cxr_max.eval.drift_page import page, plot, shade, share
from cxr_max.eval.drift_report import DriftReport, measure
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


def test_a_prompt_that_gave_findings_away_is_not_measured(tmp_path: Path) -> None:
    rows = [replace(row, prompt_given="findings", prompt_name="rationale") for n in range(4) for row in alike(n)]
    (prompt,) = measured(tmp_path, rows).prompts
    assert prompt.drift is None and prompt.statuses and prompt.laterality
    assert "repeat them" in page(measure(tmp_path))


HOSTILE = "<script>alert(1)</script> & \"quotes\" 'single' {{ 7*7 }} \x00\u202e edema is present"


def test_hostile_texts_are_shown_and_do_nothing(tmp_path: Path) -> None:
    claims = {teacher: {"Edema": 1, "text": HOSTILE} for teacher in "abc"}
    claims["d"] = {"Edema": 0, "text": HOSTILE.replace("edema is present", ". There is no edema.")}
    rows = study(0, claims, finish_reason="<b>stop</b>", model_reported="<img src=x>")
    html = page(measured(tmp_path, rows))
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html and "{{ 7*7 }}" in html
    assert "<img" not in html and "<b>stop" not in html and "\u202e" not in html and "\x00" not in html
    assert "<mark" in html


def test_simulated_teachers_are_said_to_be(tmp_path: Path) -> None:
    rows = [replace(row, provider="simulated") for row in alike(0)]
    assert 'class="banner"' in page(measured(tmp_path / "one", rows))
    assert 'class="banner"' not in page(measured(tmp_path / "two", alike(0)))


def test_cells() -> None:
    assert [share(value) for value in (None, 0.0, 0.256, 0.999, 1.0)] == ["–", ".00", ".26", "1", "1"]
    assert "color: #fff" in shade(0.9) and "color: #fff" not in shade(0.3)


def test_a_plot_keeps_to_its_frame() -> None:
    drawn: Any = plot([0.0, None, 0.5, 2.0], top=1.0)
    assert [value for _, _, value in drawn["points"]] == [0.0, 0.5, 2.0]
    assert all(36 <= across <= 604 and 36 <= down <= 184 for across, down, _ in drawn["points"])
