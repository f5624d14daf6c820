"""``--dry-run``: it foretells what the build then does, and touches nothing."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cxr_max import prompts
from cxr_max.builders.build import BuildRequest, build
from cxr_max.builders.estimate import MEASURED, Estimate, estimate
from cxr_max.cli import forecast
from cxr_max.ledger import Ledger
from cxr_max.ledger_batches import Member, SentBatch
from cxr_max.teachers.budget import prompt_tokens
from tests.background import TEXT, background, contents
from tests.builders.test_build import Quiet
from tests.mimic_fixture import write_mimic
from tests.teachers.scripted import Scripted, body

DIAGNOSE = prompt_tokens(prompts.load("diagnose").text)


async def reply(_: Any) -> Any:
    return body("openai", TEXT)


def roster(folder: Path, server: Scripted, *more: str) -> Path:
    path = folder / "roster.toml"
    lines = ['provider = "openai"', 'model = "m"', f'endpoint = "{server.address}/v1"', "concurrency = 4", *more]
    path.write_text("\n".join(["[a]", *lines, ""]))
    return path


def looked_at(**options: Any) -> Estimate:
    return estimate(BuildRequest(**options), lambda done, total: None)


def test_personas_cost_nothing_and_nothing_is_left_behind(tmp_path: Path) -> None:
    found = looked_at(source="phantom", teachers="simulated", out=tmp_path / "r")
    assert (found.studies, found.requests, found.known_cost_usd, found.unpriced) == (64, 448, 0.0, ())
    assert list(tmp_path.iterdir()) == []


def test_the_numbers_are_the_formulas(tmp_path: Path) -> None:
    """A phantom of 256 x 256 for a service that documents nothing: 10 x 10 patches of 28 pixels."""
    with background(reply) as server:
        mine = roster(tmp_path, server, "rpm = 30", "price = { input = 2, output = 10 }")
        found = looked_at(source="phantom", teachers="a", out=tmp_path / "r", studies=5, samples=2, roster=mine)
        assert server.headers == []
        assert found.notes == ()
        asked = {"source": "phantom", "teachers": "a", "out": tmp_path / "r", "studies": 5, "roster": mine}
        assert looked_at(**asked, max_cost_usd=0.2).notes == ()
        assert "All of it may cost $0.11" in looked_at(**asked, max_cost_usd=0.1).notes[0]
    (a,) = found.teachers
    assert (a.requests, a.reused, a.input_tokens, a.output_tokens) == (10, 0, 10 * (100 + DIAGNOSE), 10 * 2048)
    assert a.cost_usd == pytest.approx((10 * (100 + DIAGNOSE) * 2 + 10 * 2048 * 10) / 1e6)
    assert (a.seconds, found.seconds) == (20.0, 20.0), "30 requests a minute"
    assert (a.measured, a.documented) == (False, False)


def test_two_images_in_one_request_count_both(tmp_path: Path) -> None:
    dcm, _ = write_mimic(tmp_path / "mimic")
    single = looked_at(source=f"mimic-cxr:{dcm}", teachers="simulated", out=tmp_path / "r")
    together = looked_at(source=f"mimic-cxr:{dcm}", teachers="simulated", out=tmp_path / "r", views="study")
    assert (
        together.teachers[0].input_tokens / together.requests > single.teachers[0].input_tokens / single.requests
    )


OPTIONS: list[dict[str, Any]] = [
    {}, {"samples": 2}, {"views": "study"}, {"split": "train"}, {"studies": 2}, {"prompt": "rationale"},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("source", ["mimic-cxr-jpg", "mimic-cxr"])
def test_it_foretells_what_the_build_then_sends(tmp_path: Path, source: str, options: dict[str, Any]) -> None:
    dcm, jpg = write_mimic(tmp_path / "mimic")
    path = jpg if source == "mimic-cxr-jpg" else dcm
    asked: dict[str, Any] = {
        "source": f"{source}:{path}",
        "teachers": "sim-grok-4",
        "out": tmp_path / "r",
        **options,
    }
    before = looked_at(**asked)
    built = build(BuildRequest(**asked), Quiet())
    assert (before.requests, before.studies, before.gaps) == (built.requests_sent, built.studies, built.gaps)
    after = looked_at(**asked)
    assert (after.requests, after.teachers[0].reused) == (0, built.requests_sent)


def test_what_is_there_already_costs_nothing(tmp_path: Path) -> None:
    with background(reply) as server:
        mine = roster(tmp_path, server, "price = { input = 2, output = 10 }")
        asked: dict[str, Any] = {"source": "phantom", "teachers": "a", "out": tmp_path / "r", "roster": mine}
        build(BuildRequest(**asked, studies=4), Quiet())
        files = contents(tmp_path / "r" / "release")
        found = looked_at(**asked, studies=10)
        assert (found.requests, found.teachers[0].reused) == (6, 4)
        assert found.spent_usd == pytest.approx(4 * (100 * 2 + 7 * 10) / 1e6)
        assert contents(tmp_path / "r" / "release") == files and len(server.headers) == 4
        for picture in (tmp_path / "r" / "phantoms").rglob("*.png"):
            os.utime(picture, (1, 1))
        assert looked_at(**asked, studies=10).requests == 6, "a copied file is known by its bytes"
        mine.write_text(mine.read_text() + "sampling = { max_tokens = 7 }\n")
        assert looked_at(**asked, studies=10).requests == 10, "another question is another purchase"


def test_replies_that_are_there_tell_what_the_next_ones_take(tmp_path: Path) -> None:
    with background(reply) as server:
        mine = roster(tmp_path, server, "price = { input = 2, output = 10 }")
        asked: dict[str, Any] = {"source": "phantom", "teachers": "a", "out": tmp_path / "r", "roster": mine}
        build(BuildRequest(**asked, studies=MEASURED - 1), Quiet())
        assert not looked_at(**asked, studies=40).teachers[0].measured
        build(BuildRequest(**asked, studies=MEASURED), Quiet())
        (a,) = looked_at(**asked, studies=MEASURED + 40).teachers
        assert a.measured and (a.input_tokens, a.output_tokens) == (40 * 100, 40 * 7)
        assert a.seconds is not None and 0 < a.seconds < 60
        (other,) = looked_at(**asked, studies=MEASURED, prompt="rationale").teachers
        assert not other.measured, "another prompt has other replies"


def test_an_absent_file_is_a_gap(tmp_path: Path) -> None:
    _, jpg = write_mimic(tmp_path / "mimic")
    whole = looked_at(source=f"mimic-cxr-jpg:{jpg}", teachers="simulated", out=tmp_path / "r")
    next(jpg.rglob("*.jpg")).unlink()
    lacking = looked_at(source=f"mimic-cxr-jpg:{jpg}", teachers="simulated", out=tmp_path / "r", views="study")
    assert whole.gaps == 0 and lacking.gaps == 1


def test_missing_keys_and_attestations_are_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    _, jpg = write_mimic(tmp_path / "mimic")
    found = looked_at(source=f"mimic-cxr-jpg:{jpg}", teachers="gpt-5-nano", out=tmp_path / "r")
    assert found.requests > 0 and found.known_cost_usd > 0
    assert any("OPENAI_API_KEY" in note for note in found.notes)
    assert any("attestation" in note for note in found.notes)


def test_an_unknown_price_is_said_and_the_total_is_a_lower_bound(tmp_path: Path) -> None:
    found = looked_at(source="phantom", teachers="grok-4,qwen-vl-max", out=tmp_path / "r", studies=3)
    assert found.unpriced == ("qwen-vl-max",)
    text = forecast.as_text(found)
    grok, qwen, total = text.splitlines()[2:5]
    assert qwen.split()[:3] == ["qwen-vl-max", "3", "0"] and "unknown" in qwen
    assert grok.split()[0] == "grok-4" and "up to $" in grok
    assert total.split()[0] == "all" and "at least $" in total
    assert "price of qwen-vl-max is unknown" in text and "Prices: genai-prices" in text
    data = forecast.as_json(found)
    assert data["unpriced"] == ("qwen-vl-max",) and data["requests"] == 6
    assert [teacher["cost_usd"] is None for teacher in data["teachers"]] == [False, True]


def test_a_price_does_not_matter_where_nothing_is_left_to_ask(tmp_path: Path) -> None:
    with background(reply) as server:
        asked: dict[str, Any] = {
            "source": "phantom", "teachers": "a", "out": tmp_path / "r", "roster": roster(tmp_path, server),
            "studies": 2,
        }  # fmt: skip
        assert looked_at(**asked).unpriced == ("a",)
        build(BuildRequest(**asked), Quiet())
        assert looked_at(**asked).unpriced == ()


def test_what_is_in_a_batch_at_a_service_is_on_its_way(tmp_path: Path) -> None:
    with background(reply) as server:
        mine = roster(tmp_path, server, "price = { input = 2, output = 10 }")
        asked: dict[str, Any] = {"source": "phantom", "teachers": "a", "out": tmp_path / "r", "roster": mine}
        build(BuildRequest(**asked, studies=1, max_cost_usd=0.0), Quiet())
        with Ledger(tmp_path / "r" / "ledger.sqlite") as ledger:
            (key,) = ledger._db.execute("SELECT request_sha256 FROM questions").fetchone()
            batch = SentBatch("b1", "a", server.address, datetime(2026, 1, 2, tzinfo=UTC), 1)
            ledger.begin_batch(batch, [Member(key, ("j",), True, 0.5)])
        found = looked_at(**asked, studies=3)
        assert (found.requests, found.teachers[0].reused, found.spent_usd) == (2, 1, 0.5)
