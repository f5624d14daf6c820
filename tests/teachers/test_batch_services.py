"""The three batch interfaces: a question in a batch is the same question, and each result means what it says."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cxr_max.errors import RequestError
from cxr_max.records import Reply
from cxr_max.teachers import roster
from cxr_max.teachers.base import TeacherError, Wire
from cxr_max.teachers.batch.base import (
    BatchService,
    Cancelled,
    Expired,
    Outcome,
    Progress,
    Unsure,
    refused_to_submit,
)
from cxr_max.teachers.batch.connect import connect, refuse_without_batches
from cxr_max.teachers.simulator import Simulator, Truth
from cxr_max.teachers.simulator.batches import BatchFate
from tests.builders.batching import MODELS, PATHS, pictures
from tests.teachers.scripted import JPEG, asked, body, spec

ALL: tuple[Wire, ...] = ("openai", "anthropic", "gemini")
KEY = "a" * 64
KEY_NAME: dict[Wire, str] = {"openai": "custom_id", "anthropic": "custom_id", "gemini": "key"}


def with_service(wire: Wire, act: Callable[[BatchService], Any], endpoint: str = "http://127.0.0.1:9") -> Any:
    """What ``act`` makes of a service, awaited where it must be."""

    async def run() -> Any:
        service = connect(spec(wire, endpoint, model=MODELS[wire]), "secret-key-123")
        try:
            made = act(service)
            return await made if asyncio.iscoroutine(made) else made
        finally:
            await service.close()

    return asyncio.run(run())


def read(wire: Wire, line: Any) -> Outcome:
    raw = line if isinstance(line, bytes) else json.dumps(line).encode()
    outcome: Outcome = with_service(wire, lambda service: service.read(raw))
    return outcome


def good(wire: Wire, text: str = "I see a heart.") -> dict[str, Any]:
    said = json.loads(body(wire, text).body)  # type: ignore[arg-type]
    return {
        "openai": {"custom_id": KEY, "response": {"status_code": 200, "request_id": "r-1", "body": said}},
        "anthropic": {"custom_id": KEY, "result": {"type": "succeeded", "message": said}},
        "gemini": {"key": KEY, "response": said},
    }[wire]


@pytest.mark.parametrize("wire", ALL)
def test_a_question_in_a_batch_is_the_same_question(wire: Wire) -> None:
    async def sent_at_once() -> Any:
        async with asked(wire, body(wire)) as (teacher, scripted):
            await teacher.ask([JPEG, JPEG + b"2"], "Look.", KEY)
            return scripted.received[0]

    line = with_service(wire, lambda service: service.line([JPEG, JPEG + b"2"], "Look.", KEY))
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    request = json.loads(line)
    assert request[KEY_NAME[wire]] == KEY
    in_batch = request[{"openai": "body", "anthropic": "params", "gemini": "request"}[wire]]
    expected = asyncio.run(sent_at_once())
    in_batch.pop("model", None), expected.pop("model", None)
    assert standard(in_batch) == standard(expected)


def standard(value: Any) -> Any:
    """Either alphabet of base64, and either order of parts' fields, is the same request."""
    return json.loads(json.dumps(value, sort_keys=True).replace("-", "+").replace("_", "/"))


@pytest.mark.parametrize("wire", ALL)
def test_a_good_result_is_the_reply_that_was_asked_for_at_once(wire: Wire) -> None:
    async def at_once() -> Reply:
        async with asked(wire, body(wire)) as (teacher, _):
            return await teacher.ask([JPEG], "Look.", KEY)

    outcome = read(wire, good(wire))
    assert outcome.request_sha256 == KEY and isinstance(outcome.result, Reply)
    expected = asyncio.run(at_once())
    assert json.loads(outcome.result.raw) == json.loads(expected.raw)
    same = {"raw": "", "request_id": None, "limits": None}
    assert replace(outcome.result, **same) == replace(expected, **same)


FAILED: list[tuple[Wire, dict[str, Any], str]] = [
    ("openai", {"response": None, "error": {"code": "batch_expired", "message": "late"}}, "expired"),
    ("openai", {"response": None, "error": {"code": "batch_cancelled", "message": "no"}}, "cancelled"),
    ("openai", {"response": None, "error": {"code": "request_timeout", "message": "slow"}}, "server"),
    ("openai", {"response": {"status_code": 500, "body": {"error": {"message": "oops"}}}}, "server"),
    ("openai", {"response": {"status_code": 429, "body": {"error": {"code": "insufficient_quota"}}}}, "quota"),
    ("openai", {"response": {"status_code": 400, "body": {"error": {"message": "bad image"}}}}, "bad_request"),
    ("openai", {"response": {"status_code": 200, "body": {"choices": []}}}, "bad_reply"),
    ("anthropic", {"result": {"type": "expired"}}, "expired"),
    ("anthropic", {"result": {"type": "canceled"}}, "cancelled"),
    ("anthropic", {"result": {"type": "errored", "error": {"type": "error", "error": {
        "type": "invalid_request_error", "message": "bad image"}}}}, "bad_request"),
    ("anthropic", {"result": {"type": "errored", "error": {"type": "error", "error": {
        "type": "overloaded_error", "message": "later"}}}}, "server"),
    ("anthropic", {"result": {"type": "errored", "error": {"type": "billing_error", "message": "pay"}}}, "quota"),
    ("anthropic", {}, "server"),
    ("gemini", {"error": {"code": 13, "message": "internal", "status": "INTERNAL"}}, "server"),
    ("gemini", {"error": {"code": 3, "message": "bad image"}}, "bad_request"),
    ("gemini", {"status": {"code": 429, "message": "Resource exhausted"}}, "rate_limit"),
    ("gemini", {"response": {"candidates": []}}, "bad_reply"),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "line", "kind"), FAILED)
def test_each_way_to_fail_is_told_apart(wire: Wire, line: dict[str, Any], kind: str) -> None:
    outcome = read(wire, {KEY_NAME[wire]: KEY, **line})
    assert outcome.request_sha256 == KEY and isinstance(outcome.result, TeacherError)
    own = {"expired": Expired, "cancelled": Cancelled}
    if kind in own:
        assert isinstance(outcome.result, own[kind])
    else:
        assert outcome.result.kind == kind


def test_what_a_content_filter_refuses_is_a_reply() -> None:
    error = {"error": {"code": "content_filter", "message": "no"}}
    outcome = read("openai", {"custom_id": KEY, "response": {"status_code": 400, "body": error}})
    assert isinstance(outcome.result, Reply) and outcome.result.ended == "filtered"


@pytest.mark.parametrize("wire", ALL)
@pytest.mark.parametrize("line", [b"", b"[1]", b"{", b'{"other": 1}', b'"text"', b'{"custom_id": 3, "key": 3}'])
def test_a_line_about_nothing_is_said_to_be_one(wire: Wire, line: bytes) -> None:
    with pytest.raises(TeacherError, match="line of the results"):
        read(wire, line)


def submitted(
    simulator: Simulator, wire: Wire, path: Path, act: Callable[[BatchService, str], Any], count: int = 3
) -> Any:
    """Submit a batch of ``count`` pictures, then do something with it."""
    shown = pictures(count)
    for picture in shown:
        simulator.learn(picture.sha256, Truth(None))

    async def run(service: BatchService) -> Any:
        requests = path / "batch.jsonl"
        requests.write_bytes(b"".join(service.line([p.jpeg], "Look.", p.sha256) for p in shown))
        return await act(service, await service.submit("b" * 32, requests))

    return with_service(wire, run, simulator.address + PATHS[wire])


@pytest.mark.parametrize("wire", ALL)
def test_a_batch_goes_there_and_comes_back(wire: Wire, tmp_path: Path) -> None:
    async def collect(service: BatchService, name: str) -> tuple[Progress, Progress, list[Outcome]]:
        first = await service.progress(name)
        second = await service.progress(name)
        await service.fetch(name, tmp_path / "results")
        lines = (tmp_path / "results").read_bytes().splitlines()
        return first, second, [service.read(line) for line in lines]

    with Simulator(batches=[BatchFate(looks=2)]) as simulator:
        first, second, outcomes = submitted(simulator, wire, tmp_path, collect)
    assert (first.ended, second.ended) == (False, True)
    assert {outcome.request_sha256 for outcome in outcomes} == {picture.sha256 for picture in pictures(3)}
    assert all(isinstance(outcome.result, Reply) and outcome.result.text for outcome in outcomes)


@pytest.mark.parametrize("wire", ALL)
def test_a_batch_is_found_by_what_the_service_knows_of_it(wire: Wire, tmp_path: Path) -> None:
    ours = {picture.sha256 for picture in pictures(3)}
    now = datetime.now(UTC)

    async def find(service: BatchService, name: str) -> list[str | None]:
        await service.progress(name)
        return [
            await service.find("b" * 32, now, 3, ours.__contains__),
            await service.find("c" * 32, now, 3, lambda key: False),
            await service.find("b" * 32, now + timedelta(days=2), 3, ours.__contains__)
            if wire == "anthropic"
            else None,
        ]

    with Simulator() as simulator:
        found = submitted(simulator, wire, tmp_path, find)
        (made,) = simulator.batches.made
    assert found == [f"batches/{made.name}" if wire == "gemini" else made.name, None, None]


def test_a_batch_of_anthropic_cannot_be_told_by_its_size_alone(tmp_path: Path) -> None:
    async def find(service: BatchService, name: str) -> None:
        assert await service.find("b" * 32, datetime.now(UTC), 4, lambda key: True) is None
        with pytest.raises(Unsure):
            await service.find("b" * 32, datetime.now(UTC), 3, lambda key: True)

    with Simulator(batches=[BatchFate(looks=99)]) as simulator:
        submitted(simulator, "anthropic", tmp_path, find)


@pytest.mark.parametrize("wire", ALL)
def test_an_unknown_batch_is_a_matter_of_its_own(wire: Wire) -> None:
    name = "batches/x" if wire == "gemini" else "x"
    with Simulator() as simulator, pytest.raises(TeacherError) as refused:
        with_service(wire, lambda service: service.progress(name), simulator.address + PATHS[wire])
    assert refused.value.kind == "model"


@pytest.mark.parametrize("wire", ALL)
def test_nobody_there_leaves_it_open_whether_a_batch_arrived(wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "batch.jsonl").write_bytes(b"{}\n")
    with pytest.raises(TeacherError) as refused:
        with_service(wire, lambda service: service.submit("b" * 32, tmp_path / "batch.jsonl"))
    assert refused.value.kind == "transport" and not refused_to_submit(refused.value)


def test_teachers_without_batches_are_named_before_anything_is_sent() -> None:
    known = roster.load()
    ours = tuple(known[name] for name in ("gpt-5-nano", "claude-sonnet-4", "gemini-2.5-flash-lite"))
    refuse_without_batches((*ours, known["sim-grok-4"], spec("openai", "http://127.0.0.1:8/v1")))
    with pytest.raises(RequestError, match=r"for grok-4, qwen-vl-max: leave them out"):
        refuse_without_batches((*ours, known["grok-4"], known["qwen-vl-max"]))
    with pytest.raises(RequestError, match="for my-vllm: leave it out"):
        refuse_without_batches((spec("openai", "http://127.0.0.1:8/v1", provider="vllm", name="my-vllm"),))
