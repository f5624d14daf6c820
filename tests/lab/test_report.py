"""What the page says follows from the claims, whichever way they fall."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

from cxr_max.eval.metrics.measured import Measured
from cxr_max.lab.claims import Claim, Verdict
from cxr_max.lab.report import HEIGHT, MARGIN, WIDTH, chart, summary
from cxr_max.lab.settings import POSITIVE, PRESETS


def claim(sentence: str, verdict: Verdict, value: float = 0.1) -> Claim:
    return Claim(sentence, verdict, value, value - 0.05, value + 0.05)


def gathered(preset: str = "quick", taught: float = 0.97) -> Any:
    return SimpleNamespace(
        lab=PRESETS[preset], accuracy={(POSITIVE, "test"): SimpleNamespace(measured=Measured(taught))}
    )


@pytest.mark.parametrize(
    ("verdict", "words"),
    [("reproduced", "is better"), ("not reproduced", "is not better"), ("undecided", "undecided here")],
)
def test_the_main_claim_is_said_as_it_fell(verdict: Verdict, words: str) -> None:
    said = " ".join(summary([claim("APO with an anchor beats SFT", verdict)], gathered()))
    assert words in said and "+0.100" in said


def test_a_failed_control_takes_everything_back() -> None:
    said = " ".join(summary([claim("Control: noise", "fails"), claim("x", "reproduced")], gathered()))
    assert "FAILS" in said and "can be believed" in said
    held = " ".join(summary([claim("Control: noise", "holds")], gathered()))
    assert "gains nothing" in held


def test_students_that_cannot_learn_are_said_to_be_such() -> None:
    said = " ".join(summary([claim("Control: noise", "undecided")], gathered(taught=0.6)))
    assert "The positive control FAILS" in said and "0.600" in said
    assert "The positive control holds" in " ".join(summary([], gathered()))


def test_one_seed_is_said_to_be_one() -> None:
    assert any("One seed" in line for line in summary([], gathered("quick")))
    assert not any("One seed" in line for line in summary([], gathered("paper")))


def test_lines_stay_inside_the_chart(tmp_path: Path) -> None:
    place = tmp_path / "train" / "apo-0"
    place.mkdir(parents=True)
    entries = [{"step": step, "reward_margin": 0.1 * step - 2} for step in range(1, 101)]
    (place / "metrics.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    drawn = chart(tmp_path, PRESETS["quick"], "Margin", "nats", "reward_margin", ("apo",))
    points = [tuple(map(float, point.split(","))) for point in drawn.lines[0].points.split()]
    assert all(MARGIN <= x <= WIDTH - MARGIN and MARGIN <= y <= HEIGHT - MARGIN for x, y in points)
    assert drawn.steps <= 100 and drawn.zero is not None and drawn.lines[0].last > 7
