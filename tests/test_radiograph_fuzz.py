"""Thousands of damaged files: each renders or is refused, and the process lives on in little memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def fuzzed(count: int, seed: int, folder: Path) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.radiograph_fuzz", str(count), str(seed), str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "Traceback" not in ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout)
    assert result["faults"] == []
    assert result["rendered"] + result["refused"] == count
    # Damage of both kinds: none that shows, and none that can be read past.
    assert min(result["rendered"], result["refused"]) > count // 20
    return result


def test_300_damaged_files_render_or_are_refused(tmp_path: Path) -> None:
    fuzzed(300, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_10_000_damaged_files_render_or_are_refused(tmp_path: Path) -> None:
    fuzzed(10_000, 2, tmp_path)
