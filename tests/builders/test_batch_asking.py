"""The batch loop on real sockets: nothing is bought twice, nothing that was finished is lost, however it ends."""

import os
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cxr_max.builders.batch_asking import ROUNDS
from cxr_max.builders.sending import Interrupted
from cxr_max.errors import DataUseError, StorageError
from cxr_max.ledger import Ledger
from cxr_max.teachers.base import Wire
from cxr_max.teachers.batch.anthropic import AnthropicBatches
from cxr_max.teachers.batch.base import BatchLimits
from cxr_max.teachers.batch.gemini import GeminiBatches
from cxr_max.teachers.batch.openai import OpenAIBatches
from cxr_max.teachers.simulator import Simulator
from cxr_max.teachers.simulator.batches import BatchFate, SimulatedBatch
from cxr_max.teachers.simulator.world import uniform
from tests.builders.batching import job

ALL: tuple[Wire, ...] = ("openai", "anthropic", "gemini")
SERVICES: dict[Wire, Any] = {"openai": OpenAIBatches, "anthropic": AnthropicBatches, "gemini": GeminiBatches}


def test_three_services_answer_in_batches_at_half_the_price(tmp_path: Path) -> None:
    with job(tmp_path, *ALL, fates=[BatchFate(looks=3)] * 3) as asked:
        assert asked.once() == asked.keys
        assert asked.simulator.requests == 0, "nothing may be asked one by one"
        assert set(asked.simulator.batches.submitted().values()) == {1}
        assert len(asked.simulator.batches.made) == 3
        with Ledger(asked.path) as ledger:
            assert [batch.state for batch in ledger.batches()] == ["ended"] * 3
            for _, answer in ledger.rows():
                reply = answer.reply
                assert reply.input_tokens and reply.output_tokens and answer.latency_s >= 0
                full = (reply.input_tokens * 1.0 + reply.output_tokens * 2.0) / 1e6
                assert answer.cost_usd == pytest.approx(full), "the loop takes the price that it is given"
    assert sorted(teacher for teacher, _ in asked.log.answered_by) == sorted(ALL * 6)
    assert any("18 requests" in state for state in asked.log.states)
    assert not (tmp_path / "batches").exists(), "no picture is left behind"


@pytest.mark.parametrize("wire", ALL)
def test_only_what_failed_is_asked_again(tmp_path: Path, wire: Wire) -> None:
    with job(tmp_path, wire, fates=[BatchFate(answered=0.5)], count=12) as asked:
        assert asked.once() == asked.keys
        first, second = asked.simulator.batches.made
        answered = {key for key in first.keys if first.answers(key)}
    assert 0 < len(answered) < 12
    assert set(second.keys) == set(first.keys) - answered
    assert asked.log.failures == []


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_the_finished_replies_of_an_expired_batch_are_kept(tmp_path: Path, wire: Wire) -> None:
    with job(tmp_path, wire, fates=[BatchFate(ends="expired", answered=0.5)], count=12) as asked:
        assert asked.once() == asked.keys
        first, second = asked.simulator.batches.made
        assert set(second.keys) == {key for key in first.keys if not first.answers(key)} != set(first.keys)


def test_an_expired_job_of_gemini_has_no_results_and_is_asked_again_whole(tmp_path: Path) -> None:
    with job(tmp_path, "gemini", fates=[BatchFate(ends="expired", answered=0.5)]) as asked:
        assert asked.once() == asked.keys
        assert set(asked.simulator.batches.submitted().values()) == {2}


@pytest.mark.parametrize("wire", ALL)
def test_what_never_succeeds_is_given_up_and_named(tmp_path: Path, wire: Wire) -> None:
    fates = [BatchFate(answered=0.0)] * 9
    with job(tmp_path, wire, fates=fates) as asked:
        assert asked.once() == set()
        assert set(asked.simulator.batches.submitted().values()) == {ROUNDS}
        with Ledger(asked.path) as ledger:
            assert {failure.request_sha256 for failure in ledger.failures()} == asked.keys
            assert all(failure.kind == "server" for failure in ledger.failures())
            assert ledger.open_batches() == []
        assert len(asked.log.failures) == 6
        # The same command again begins anew.
        asked.simulator.batches.fates = ()
        assert asked.once() == asked.keys
        with Ledger(asked.path) as ledger:
            assert ledger.failures() == []


@pytest.mark.parametrize("wire", ALL)
def test_a_batch_whose_answer_is_lost_is_found_and_not_sent_again(tmp_path: Path, wire: Wire) -> None:
    with job(tmp_path, wire, fates=[BatchFate(lost=True)]) as asked:
        assert asked.once() == asked.keys
        assert set(asked.simulator.batches.submitted().values()) == {1}


@pytest.mark.parametrize("wire", ALL)
def test_a_busy_service_gets_the_batch_later(tmp_path: Path, wire: Wire) -> None:
    with job(tmp_path, wire, fates=[BatchFate(busy=True)] * 3) as asked:
        assert asked.once() == asked.keys
        assert set(asked.simulator.batches.submitted().values()) == {1}


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    with job(tmp_path, "openai", fates=[BatchFate(ends="queue_full")] * 2) as asked:
        assert asked.once() == asked.keys
        assert [batch.ends for batch in asked.simulator.batches.made] == ["queue_full", "queue_full", "completed"]
        with Ledger(asked.path) as ledger:
            assert len(ledger.batches()) == 1


@pytest.mark.parametrize("wire", ["openai", "gemini"])
def test_a_batch_that_is_refused_stops_its_teacher(tmp_path: Path, wire: Wire) -> None:
    with job(tmp_path, wire, "anthropic", fates=[BatchFate(ends="failed", wire=wire)]) as asked:
        assert len(asked.once()) == 6, "the other teacher finishes"
        ((stopped, message),) = asked.log.stops
        assert stopped == wire and "refused the batch" in message
        assert len(asked.simulator.batches.made) == 2


def test_batches_keep_to_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenAIBatches, "limits", BatchLimits(requests=4, bytes=10**9))
    monkeypatch.setattr(AnthropicBatches, "limits", BatchLimits(requests=1000, bytes=1500))
    with job(tmp_path, "openai", "anthropic", count=10) as asked:
        assert asked.once() == asked.keys
        made = asked.simulator.batches.made
        assert [len(batch.keys) for batch in made if batch.wire == "openai"] == [4, 4, 2]
        assert all(batch.requests.stat().st_size <= 1500 for batch in made if batch.wire == "anthropic")
        assert len([batch for batch in made if batch.wire == "anthropic"]) > 2


def test_credentialed_data_are_not_sent_in_batches(tmp_path: Path) -> None:
    from cxr_max.data_use import Gate

    with job(tmp_path, "openai") as asked:
        assert asked.once(data_use="credentialed") == asked.keys, "a gateway on this machine is local"
    with pytest.raises(DataUseError, match="leave --batch out"):
        Gate("MIMIC", "credentialed").check_batch("gpt", "https://api.openai.com/v1", "remote")
    Gate("open", "open").check_batch("gpt", "https://api.openai.com/v1", "remote")


def test_a_budget_holds_for_what_is_at_the_services_too(tmp_path: Path) -> None:
    with job(tmp_path, "openai") as asked:
        with Ledger(asked.path) as ledger:
            asked.run(ledger, budget=(budget := asked.budget(0.01)))
            first = len(ledger.answered())
            assert 0 < first < 6 and budget.refused
            assert any("--max-cost-usd" in message for _, message in asked.log.stops)
            spent = sum(answer.cost_usd or 0 for _, answer in ledger.rows())
            assert budget.spent_usd == pytest.approx(spent) and spent < 0.01
        with Ledger(asked.path) as ledger:
            asked.run(ledger, budget=asked.budget(1.0, spent))
            assert ledger.answered() == asked.keys


# Stopping and going on.


def interrupted_once() -> Callable[[], None]:
    """Ctrl-C, when it is called for the first time."""
    calls: list[None] = []

    def call() -> None:
        calls.append(None)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    return call


def test_a_stop_leaves_the_batches_at_the_service_and_says_so(tmp_path: Path) -> None:
    with job(tmp_path, *ALL, fates=[BatchFate(looks=10**6)] * 3) as asked:
        asked.log.on_state = interrupted_once()
        with pytest.raises(Interrupted, match=r"go on at the services.*--cancel") as stopped:
            asked.once()
        assert stopped.value.exit_code == 130
        with Ledger(asked.path) as ledger:
            assert {batch.state for batch in ledger.open_batches()} <= {"running"}
        for batch in asked.simulator.batches.made:
            batch.looked = 10**6
        assert asked.once() == asked.keys
        assert set(asked.simulator.batches.submitted().values()) == {1}


@pytest.mark.parametrize("wire", ALL)
def test_a_cancelled_batch_gives_what_it_finished(tmp_path: Path, wire: Wire) -> None:
    with job(tmp_path, wire, fates=[BatchFate(looks=10**6)], count=12) as asked:
        asked.log.on_state = interrupted_once()
        with pytest.raises(Interrupted):
            asked.once()
        (batch,) = asked.simulator.batches.made
        half = asked.once(ask=False, cancel=True)
        assert half == ({key for key in batch.keys if batch.answers(key)} if wire != "gemini" else set())
        with Ledger(asked.path) as ledger:
            assert ledger.open_batches() == []
            assert {f.request_sha256 for f in ledger.failures()} == asked.keys - half
        assert len(asked.simulator.batches.made) == 1, "what was cancelled is not asked again"
        assert asked.once() == asked.keys


def test_a_batch_that_the_service_does_not_know_is_not_bought_again(tmp_path: Path) -> None:
    with job(tmp_path, "openai", fates=[BatchFate(looks=10**6)]) as asked:
        asked.log.on_state = interrupted_once()
        with pytest.raises(Interrupted):
            asked.once()
        lost = asked.simulator.batches.made.pop()
        assert asked.once() == set()
        ((_, message),) = asked.log.stops
        assert lost.name in message and "--cancel" in message
        assert asked.simulator.batches.made == []
        asked.once(ask=False, cancel=True)
        assert asked.once() == asked.keys


class Crash(BaseException):
    """The process dies here."""


def steps(wire: Wire) -> list[tuple[Any, str]]:
    """Every commit and every call of the service, and the one call within a submission."""
    from google.genai.files import AsyncFiles as GeminiFiles
    from openai.resources.files import AsyncFiles

    service = SERVICES[wire]
    within = {"openai": [(AsyncFiles, "create")], "anthropic": [], "gemini": [(GeminiFiles, "upload")]}[wire]
    ledger = [(Ledger, name) for name in ("begin_batch", "batch_accepted", "batch_is", "commit")]
    return [*ledger, *((service, name) for name in ("submit", "find", "progress", "fetch")), *within]


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Wire, int], dict[str, int]]]:
    """Make the process die before or after the n-th step of all that are taken."""

    def arm(wire: Wire, number: int) -> dict[str, int]:
        taken = {"steps": 0}

        def passed() -> None:
            taken["steps"] += 1
            if taken["steps"] == number:
                raise Crash

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            import inspect

            if inspect.iscoroutinefunction(original):

                async def awaited(*args: Any, **options: Any) -> Any:
                    passed()
                    result = await original(*args, **options)
                    passed()
                    return result

                return awaited

            def called(*args: Any, **options: Any) -> Any:
                passed()
                result = original(*args, **options)
                passed()
                return result

            return called

        for owner, name in steps(wire):
            monkeypatch.setattr(owner, name, around(getattr(owner, name)))
        return taken

    yield arm
    monkeypatch.undo()


def slow(wire: Wire, **fate: Any) -> Any:
    return pytest.param(wire, BatchFate(**fate), marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("wire", "fate"),
    [
        ("openai", BatchFate(looks=2)),
        slow("openai", ends="queue_full"),
        slow("openai", lost=True),
        slow("openai", ends="expired", answered=0.5),
        slow("anthropic", looks=2),
        slow("anthropic", lost=True),
        slow("anthropic", answered=0.5),
        slow("gemini", looks=2),
        slow("gemini", ends="expired"),
    ],
)
def test_a_crash_between_any_two_steps_buys_nothing_twice_and_loses_nothing(
    tmp_path: Path,
    wire: Wire,
    fate: BatchFate,
    crash_at: Callable[[Wire, int], dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        with job(folder, wire, fates=[fate], count=2) as asked:
            taken = crash_at(wire, number)
            try:
                asked.once()
            except Crash:
                died = True
            else:
                died = False
            monkeypatch.undo()
            assert asked.once() == asked.keys
            assert_bought_once(asked.simulator)
            assert len(asked.log.answered_by) <= 2, f"step {number}: a reply was told of twice"
            assert asked.log.stops == []
        if not died:
            assert taken["steps"] == number - 1 > 15
            break


def assert_bought_once(simulator: Simulator) -> None:
    """No request is in a second batch unless its first one ended without a reply to it."""
    holders: dict[str, list[SimulatedBatch]] = {}
    for batch in simulator.batches.made:
        for key in batch.keys:
            holders.setdefault(key, []).append(batch)
    for key, held in holders.items():
        for batch in held[:-1]:
            lost = batch.wire == "gemini" and batch.ends != "completed"  # such a job has no results
            refused = batch.ends in {"failed", "queue_full"}
            assert refused or (batch.done and (lost or not batch.answers(key))), "a request was bought twice"


def test_a_full_disk_is_one_sentence_and_the_batch_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(self: Any, service_id: str, into: Path) -> None:
        raise OSError(28, "No space left on device")

    with job(tmp_path, "openai") as asked:
        with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left"):
            patch.setattr(OpenAIBatches, "fetch", full)
            asked.once()
        assert asked.once() == asked.keys
        assert set(asked.simulator.batches.submitted().values()) == {1}


def test_the_share_that_fails_is_what_the_script_says() -> None:
    draws = [uniform("batch", "batch_0", str(number)) for number in range(2000)]
    assert sum(draw < 0.5 for draw in draws) == pytest.approx(1000, abs=100)
