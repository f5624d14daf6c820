"""The whole lab, so small that its numbers mean nothing: the stages fit together."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from cxr_max.cli import app


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_miniature_runs_from_nothing_to_a_page(tmp_path: Path) -> None:
    out = tmp_path / "lab"
    done = CliRunner().invoke(app, ["lab", "--preset", "miniature", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.strip().splitlines()[-1])
    page = Path(said["report"]).read_text()
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
    assert len(said["claims"]) >= 12
