"""``cxr-max build --batch``, end to end: the same release at half the price, and nothing bought twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cxr_max.builders import batches, build
from cxr_max.builders.build import BuildRequest
from cxr_max.builders.sending import Interrupted
from cxr_max.errors import DataUseError, RequestError
from cxr_max.ledger import Ledger
from cxr_max.teachers.simulator import Simulator, Truth
from cxr_max.teachers.simulator.batches import BatchFate
from tests.background import committed
from tests.builders.batching import MODELS, PATHS, QUICK
from tests.builders.test_batch_asking import assert_bought_once
from tests.builders.test_build import Quiet, built, rows
from tests.mimic_fixture import write_mimic

PERSONAS = "sim-gpt-5-nano,sim-claude-sonnet-4,sim-gemini-2.5-flash-lite"
TIMES = ("created_at", "latency_s")
"""The only columns in which two builds of the same questions may differ."""


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """One simulator for all builds of a test: its batches outlive a build, as a service's do."""
    with Simulator() as running:
        for module in (batches, build):
            monkeypatch.setattr(module, "simulator_for", lambda _: nullcontext(running))
        monkeypatch.setattr(batches, "PATIENCE", QUICK)
        yield running


def timeless(out: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows(out)]


def test_the_release_is_the_one_of_asking_at_once(tmp_path: Path, simulator: Simulator) -> None:
    at_once, _ = built("phantom", tmp_path / "once", PERSONAS, studies=8)
    assert simulator.batches.made == []
    simulator.batches.fates = [
        BatchFate(looks=2),
        BatchFate(answered=0.5),
        BatchFate(ends="expired", answered=0.5),
    ]
    requests = simulator.requests
    batched, _ = built("phantom", tmp_path / "batch", PERSONAS, studies=8, batch=True)
    assert simulator.requests == requests, "nothing is asked one by one"
    assert timeless(tmp_path / "batch") == timeless(tmp_path / "once")
    assert batched.complete and batched.requests_sent == at_once.requests_sent == batched.trajectories == 24
    again, _ = built("phantom", tmp_path / "batch", PERSONAS, studies=8, batch=True)
    assert (again.requests_sent, again.replies_reused) == (0, 24)
    assert len(simulator.batches.made) == 5


def interrupted(simulator: Simulator, out: Path, **options: Any) -> None:
    """A build that is stopped while its batches are at the services."""
    simulator.batches.fates = [BatchFate(looks=10**6)] * 3

    class Impatient(Quiet):
        def batches(self, state: str) -> None:
            if "3 batches" in state and not self.warnings:
                self.warnings.append("stopped")
                os.kill(os.getpid(), signal.SIGINT)

    request = BuildRequest(source="phantom", teachers=PERSONAS, out=out, studies=4, batch=True, **options)
    with pytest.raises(Interrupted, match="3 batches go on at the services"):
        build.build(request, Impatient())


def test_what_is_in_a_batch_is_not_asked_another_way(tmp_path: Path, simulator: Simulator) -> None:
    interrupted(simulator, tmp_path)
    result, watch = built("phantom", tmp_path, PERSONAS, studies=5)
    assert simulator.requests == 3, "only the fifth study is new"
    assert (result.failed, result.complete) == (12, False)
    assert any("12 requests are in batches" in warning for warning in watch.warnings)
    for batch in simulator.batches.made:
        batch.looked = 10**6
    result, _ = built("phantom", tmp_path, PERSONAS, studies=5, batch=True)
    assert result.complete and set(simulator.batches.submitted().values()) == {1}


def test_batches_are_listed_and_cancelled(tmp_path: Path, simulator: Simulator) -> None:
    from cxr_max.cli import app

    interrupted(simulator, tmp_path)
    run = CliRunner().invoke
    listed = json.loads(run(app, ["batches", str(tmp_path), "--json"]).stdout)["batches"]
    assert {row["teacher"] for row in listed} == set(PERSONAS.split(","))
    assert {(row["state"], row["requests"]) for row in listed} == {("running", 4)}
    shown = run(app, ["batches", str(tmp_path), "--cancel"])
    assert shown.exit_code == 0 and shown.stdout.count(" ended ") == 3
    result, _ = built("phantom", tmp_path, PERSONAS, studies=4)
    assert result.complete, "what was cancelled can be asked in any way"
    with pytest.raises(RequestError, match="holds no run"):
        run(app, ["batches", str(tmp_path / "none")], catch_exceptions=False)


def test_a_simulator_that_is_gone_took_its_batches_along(tmp_path: Path, simulator: Simulator) -> None:
    interrupted(simulator, tmp_path)
    simulator.batches.made.clear()
    simulator.batches.fates = ()
    result, _ = built("phantom", tmp_path, PERSONAS, studies=4, batch=True)
    assert result.complete


def test_credentialed_data_go_into_no_batch_even_with_an_attestation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-somebodys")
    attestation = tmp_path / "attestation.toml"
    attestation.write_text(
        '[[attestation]]\nprovider = "api.openai.com"\naccount = "a"\ndate = 2026-01-01\nexpiry = 2099-01-01\n'
        "zero_retention = true\nno_training = true\nno_human_review = true\n"
    )
    _, jpg = write_mimic(tmp_path / "mimic")
    options: dict[str, Any] = {"attestation": attestation, "batch": True}
    with pytest.raises(DataUseError, match="which no attestation covers"):
        built(f"mimic-cxr-jpg:{jpg}", tmp_path / "r", "gpt-5-nano", **options)
    assert not (tmp_path / "r" / "ledger.sqlite").exists()


def test_a_teacher_without_batches_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XAI_API_KEY", "xai-somebodys")
    with pytest.raises(RequestError, match="no known batch interface for grok-4"):
        built("phantom", tmp_path / "r", "grok-4,sim-gpt-5-nano", batch=True)
    assert not (tmp_path / "r" / "ledger.sqlite").exists()


class Everything(dict[str, Truth]):
    """The truth about pictures that another process made: nothing is known of them."""

    def get(self, *_: object) -> Truth:  # type: ignore[override]
        return Truth(None)


@contextmanager
def services(folder: Path, fates: list[BatchFate]) -> Iterator[tuple[Simulator, list[Any]]]:
    """A simulator for other processes, and what they are called with."""
    with Simulator(batches=fates) as running:
        running._truths = Everything()
        tables = [
            f'[{wire}]\nprovider = "{wire}"\nmodel = "{model}"\nendpoint = "{running.address}{PATHS[wire]}"\n'
            "price = { input = 1.0, output = 2.0 }\n"
            for wire, model in MODELS.items()
        ]
        (folder / "roster.toml").write_text("\n".join(tables))
        yield running, [
            "--source", "phantom", "--studies", 12, "--roster", folder / "roster.toml", "--teachers",
            "openai,anthropic,gemini", "--out", folder / "r", "--batch",
        ]  # fmt: skip


def start(arguments: list[Any]) -> "subprocess.Popen[str]":
    """``cxr-max build --batch`` as a process that waits as little as a test can bear."""
    hurried = (
        "from cxr_max.builders import batches; from cxr_max.builders.batch_desk import Patience;"
        "batches.PATIENCE = Patience(0.02, 0.1, 0.2);"
        "from cxr_max.teachers.batch import anthropic, gemini, openai;"
        "from cxr_max.teachers.batch.base import BatchLimits;"
        "[setattr(c, 'limits', BatchLimits(5, 10**9)) for c in"
        " (anthropic.AnthropicBatches, gemini.GeminiBatches, openai.OpenAIBatches)];"
        "from cxr_max.cli import main; main()"
    )
    command = [sys.executable, "-c", hurried, "build", *map(str, arguments), "--json"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes)


def test_a_build_as_people_run_it(tmp_path: Path) -> None:
    with services(tmp_path, [BatchFate(looks=3)]) as (running, arguments):
        process = start(arguments)
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        result = json.loads(out)
        assert (result["trajectories"], result["requests_sent"], result["failed"]) == (36, 36, 0)
        assert "At the services: " in said
        with Ledger(tmp_path / "r" / "ledger.sqlite") as ledger:
            for _, answer in ledger.rows():
                full = ((answer.reply.input_tokens or 0) + 2 * (answer.reply.output_tokens or 0)) / 1e6
                assert answer.cost_usd == pytest.approx(full / 2), "half the roster's price"
        assert len(running.batches.made) == 9


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kill_9_at_ten_random_moments_of_a_batch_build(tmp_path: Path) -> None:
    chance = random.Random(11)
    with services(tmp_path, []) as (running, arguments):
        assert start(arguments).wait(120) == 0
        (tmp_path / "r").rename(tmp_path / "undisturbed")
        running.batches.made.clear()
        odd = [
            BatchFate(looks=4),
            BatchFate(looks=2, answered=0.5),
            BatchFate(looks=3, lost=True),
            BatchFate(looks=2),
        ]
        running.batches.fates = odd * 20
        known: set[str] = set()
        for _ in range(10):
            process = start(arguments)
            time.sleep(chance.uniform(2.0, 6.0))
            process.kill()
            process.communicate()
            assert known <= committed(tmp_path / "r"), "a committed reply was lost"
            known = committed(tmp_path / "r")
        out, said = start(arguments).communicate(timeout=200)
        result = json.loads(out)
        assert result["failed"] == 0, said
        assert result["replies_reused"] >= len(known)
        assert_bought_once(running)
    assert timeless(tmp_path / "r") == timeless(tmp_path / "undisturbed")


def test_a_dry_run_knows_the_price_of_batches(tmp_path: Path) -> None:
    from cxr_max.builders.estimate import estimate

    with services(tmp_path, []) as (running, _):
        request = BuildRequest("phantom", "openai", tmp_path / "r", studies=3, roster=tmp_path / "roster.toml")
        at_once = estimate(request, lambda *_: None)
        batched = estimate(replace(request, batch=True), lambda *_: None)
    assert running.batches.calls == running.requests == 0
    assert at_once.known_cost_usd > 0
    assert batched.known_cost_usd == pytest.approx(at_once.known_cost_usd / 2)
    assert batched.seconds is None and any("within a day" in note for note in batched.notes)
