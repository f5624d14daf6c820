"""``cxr-max eval --max-cost-usd`` with several data sets: their builds and evaluations share the limit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cxr_max.builders.build import build
from cxr_max.builders.run_folder import RunFolder
from cxr_max.eval.collection import Collection, Part, to_build, to_evaluate
from cxr_max.eval.run import EvalRequest
from cxr_max.eval.spending import by_itself, by_others
from cxr_max.eval.subject import Given
from cxr_max.ledger import Answered, Ledger
from cxr_max.ledger_batches import Member, SentBatch
from tests.background import background
from tests.builders.test_build import Quiet
from tests.cli.test_cli import call
from tests.eval.test_money import MOST_USD, REPLY_USD, asked, priced, reply
from tests.ledgers import NOW, answered
from tests.source_fixtures import chestx_det, open_i

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
SOURCE = "phantom:1,test"
PARTS = Collection(
    name="two",
    version=1,
    part=tuple(Part(name=name, data="phantom", suites="robustness", split="test") for name in "ab"),
)


def filled(path: Path, *replies: Answered) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Ledger(path) as ledger:
        ledger.commit(replies)
    return path


def test_a_reply_that_was_taken_over_is_paid_once_and_one_that_was_bought_twice_is_paid_twice(
    tmp_path: Path,
) -> None:
    shared, again = answered("shared", cost=1.0), answered("again", cost=2.0, minutes_ago=5)
    built = filled(tmp_path / "a" / "ledger.sqlite", shared, again)
    before = answered("again", cost=4.0, minutes_ago=90)
    evaluated = filled(tmp_path / "a" / "eval" / "ledger.sqlite", shared, before, answered("own", cost=8.0))
    with Ledger(built) as known, Ledger(evaluated) as ledger:
        assert by_itself(ledger, known) == (12.0, 0)
        assert by_itself(ledger, None) == (13.0, 0)
    parts = [tmp_path / "a", tmp_path / "b"]
    assert by_others(parts, RunFolder(tmp_path / "b")) == (15.0, 0)
    assert by_others(parts, RunFolder(tmp_path / "a")) == (12.0, 0)
    assert by_others(parts, RunFolder(tmp_path / "a" / "eval")) == (3.0, 0)


def test_unknown_costs_and_waiting_batches_of_other_parts_are_not_forgotten(tmp_path: Path) -> None:
    with Ledger(
        filled(tmp_path / "a" / "ledger.sqlite", answered("x", cost=None), answered("y", cost=1.0))
    ) as paid:
        batch = SentBatch("b-1", "t", "https://s", NOW, requests=2)
        paid.begin_batch(batch, [Member("z", ("j",), True, 0.25), Member("w", ("j",), True, None)])
    filled(tmp_path / "foreign" / "ledger.sqlite", answered("f", cost=100.0))
    assert by_others([tmp_path / "a", tmp_path / "b"], RunFolder(tmp_path / "b")) == (1.25, 2)


def test_parts_share_a_limit(tmp_path: Path) -> None:
    """Two parts of two phantoms each; the limit is enough for the first build and one request more."""
    with background(reply) as server:
        who: dict[str, Any] = {"who": Given(teacher="mine", roster=priced(tmp_path, server))}
        pattern = EvalRequest(Path(), tmp_path / "out", **who, max_cost_usd=MOST_USD + 2.5 * REPLY_USD)

        def built(pattern: EvalRequest) -> list[int]:
            sent = []
            for part in PARTS.part:
                request = replace(to_build(part, SOURCE, pattern, PARTS), studies=2)
                sent.append(build(request, Quiet()).requests_sent)
            return sent

        assert built(pattern) == [2, 1]
        assert built(pattern) == [0, 0]
        first, second = PARTS.part
        assert asked(to_evaluate(first, pattern, PARTS)).sent == 0
        more = replace(pattern, max_cost_usd=MOST_USD + 5.5 * REPLY_USD)
        assert asked(to_evaluate(first, more, PARTS)).sent == 3, "what its own build bought is free, and counts"
        assert built(more) == [0, 0], "evaluations count for builds"
        usd = to_build(second, SOURCE, more, PARTS).spent_elsewhere
        assert usd == (pytest.approx(5 * REPLY_USD), 0)
        unlimited = replace(pattern, max_cost_usd=None)
        assert to_evaluate(second, unlimited, PARTS).spent_elsewhere == (0.0, 0)


def test_a_limit_that_is_used_up_is_said_of_every_part(
    tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    with background(reply) as server:
        sets = {"open-i": open_i.write_xml(tmp_path / "b"), "chestx-det10": chestx_det.write_ten(tmp_path / "c")}
        data = [option for name, path in sets.items() for option in ("--data", f"{name}:{path}")]
        who = ("--teacher", "mine", "--roster", priced(tmp_path, server), "--out", tmp_path / "out")

        def run(limit: float) -> tuple[int, dict[str, Any]]:
            chosen = ("eval", "--suite", "paper", *who, *data, "--max-cost-usd", limit, "--json")
            code, printed, _ = call(capsys, monkeypatch, *chosen)
            gaps = {name: why for name, why in json.loads(printed)["gaps"].items() if name in sets}
            return code, {"asked": len(server.headers), "gaps": gaps}

        code, first = run(MOST_USD + 1.5 * REPLY_USD)
        assert code == 3 and first["asked"] == 2, "one more than what a single part may have"
        assert set(first["gaps"]) == set(sets)
        assert "none of 2 questions has a reply" in first["gaps"]["chestx-det10"]
        assert all("a higher --max-cost-usd" in why for why in first["gaps"].values())
        assert run(MOST_USD + 1.5 * REPLY_USD)[1] == first
        _, rest = run(1000)
        assert rest["asked"] > 10 and rest["gaps"] == {}


def test_one_command_at_a_time_spends_a_limit(tmp_path: Path, capsys: Capture, monkeypatch: Patch) -> None:
    chosen = ("--teacher", "sim-grok-4", "--data", f"open-i:{tmp_path}", "--out", tmp_path / "out")
    with RunFolder(tmp_path / "out").locked():
        code, _, said = call(capsys, monkeypatch, "eval", "--suite", "paper", *chosen)
    assert code == 2 and "at work in" in said
