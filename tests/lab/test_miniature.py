"""The whole lab, so small that its numbers mean nothing: the stages fit together."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from cxr_max.cli import app
from cxr_max.lab.report import write_report
from cxr_max.lab.schedule import StageFailed, run_lab
from cxr_max.lab.settings import SELF, settings


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_miniature_runs_from_nothing_to_a_page(tmp_path: Path) -> None:
    out = tmp_path / "lab"
    done = CliRunner().invoke(app, ["lab", "--preset", "miniature", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.strip().splitlines()[-1])
    page = page_of(out)
    assert Path(said["report"]) == out / "report.html"
    for words in (
        "A miniature",
        "Claims",
        "Finding by finding",
        "Learning curves",
        "Can the student see?",
        "Where the time went",
    ):
        assert words in page
    assert "http" not in page.replace("http-equiv", "")
    assert len(said["claims"]) >= 12 and not any(claim["late"] for claim in said["claims"])
    more = replace(settings("miniature"), ablations=("drifting",))
    run_lab(out, more, lambda _: None, workers=2)
    assert sum(claim.late for claim in write_report(out, more)) == 2
    assert "stated late" in page_of(out)
    # So small a student says nothing that can be read.
    with pytest.raises(StageFailed, match=r"(?s)train:self-trained:0 failed .*nothing to prefer"):
        run_lab(out, replace(more, ablations=("drifting", SELF)), lambda _: None, workers=2)


def page_of(out: Path) -> str:
    return (out / "report.html").read_text()
