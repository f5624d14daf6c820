"""No client leaves the host that its teacher's table names: not for a redirect, a URL, a proxy or a variable."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cxr_max.records import Reply
from cxr_max.teachers.base import TeacherError, Wire
from cxr_max.teachers.batch.connect import connect as connect_batches
from cxr_max.teachers.check import check
from cxr_max.teachers.roster import connect
from tests.gate.listening import OTHER, listening, mapped
from tests.teachers.scripted import JPEG, spec

every_wire = pytest.mark.parametrize("wire", ["openai", "anthropic", "gemini"])
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def ask(wire: Wire, endpoint: str, **changes: Any) -> Reply:
    async def run() -> Reply:
        teacher = connect(spec(wire, endpoint, **changes), "secret-key-123")
        try:
            return await teacher.ask([JPEG], "prompt", "key")
        finally:
            await teacher.close()

    return asyncio.run(run())


def batches(wire: Wire, endpoint: str, call: Callable[[Any], Awaitable[Any]]) -> TeacherError:
    async def run() -> Any:
        service = connect_batches(spec(wire, endpoint), "secret-key-123")
        try:
            await call(service)
        finally:
            await service.close()

    with pytest.raises(TeacherError) as caught:
        asyncio.run(run())
    return caught.value


@every_wire
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_named_in_one_sentence(wire: Wire, status: int) -> None:
    with mapped(), listening() as service, listening() as target:
        service.moved = (status, f"http://{OTHER}:{target.port}/v1")
        with pytest.raises(TeacherError, match=f"HTTP {status} sends on to {OTHER}") as caught:
            ask(wire, f"http://127.0.0.1:{service.port}")
        assert caught.value.kind == "moved" and caught.value.fatal and len(service.bodies) == 1
        assert target.silent


@every_wire
@pytest.mark.parametrize("status", [302, 307])
def test_no_call_about_a_batch_follows_a_redirect(wire: Wire, status: int, tmp_path: Path) -> None:
    requests = tmp_path / "requests.jsonl"
    requests.write_text(json.dumps({"custom_id": "k", "key": "k"}) + "\n")
    now = datetime.now(UTC)
    calls: list[Callable[[Any], Awaitable[Any]]] = [
        lambda service: service.submit("b1", requests),
        lambda service: service.progress("batches/1"),
        lambda service: service.fetch("batches/1", tmp_path / "into"),
        lambda service: service.cancel("batches/1"),
        lambda service: service.find("b1", now, 1, lambda _: True),
    ]
    for call in calls:
        with mapped(), listening() as service, listening() as target:
            service.moved = (status, f"http://{OTHER}:{target.port}/v1")
            assert batches(wire, f"http://127.0.0.1:{service.port}", call).kind == "moved"
            assert service.connections and target.silent


def test_results_are_not_fetched_from_another_host(tmp_path: Path) -> None:
    """Anthropic's interface names the URL of a batch's results, and the key would go there."""
    with mapped(), listening() as service, listening() as target:
        batch = {
            "id": "b", "type": "message_batch", "processing_status": "ended", "created_at": "2026-01-01T00:00:00Z",
            "expires_at": "2026-01-02T00:00:00Z", "results_url": f"http://{OTHER}:{target.port}/results",
            "request_counts": {"processing": 0, "succeeded": 1, "errored": 0, "canceled": 0, "expired": 0},
        }  # fmt: skip
        service.says = lambda _: ({}, json.dumps(batch).encode())
        endpoint = f"http://127.0.0.1:{service.port}"
        error = batches("anthropic", endpoint, lambda one: one.fetch("b", tmp_path / "into"))
        assert error.kind == "moved" and OTHER in str(error) and target.silent


def test_a_file_is_not_uploaded_to_another_host(tmp_path: Path) -> None:
    """Gemini's interface names the URL that a file of requests is uploaded to."""
    requests = tmp_path / "requests.jsonl"
    requests.write_text("{}\n")
    with mapped(), listening() as service, listening() as target:
        url = f"http://{OTHER}:{target.port}/upload"
        service.says = lambda _: ({"X-Goog-Upload-URL": url, "X-Goog-Upload-Status": "active"}, b"{}")
        endpoint = f"http://127.0.0.1:{service.port}"
        batches("gemini", endpoint, lambda one: one.submit("b1", requests))
        assert target.silent


@every_wire
def test_no_proxy_of_the_environment_carries_a_local_request(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login thief password of-keys\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("NO_PROXY", "elsewhere.example")
    with listening() as proxy, listening() as service:
        for name in PROXIES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        ask(wire, f"http://127.0.0.1:{service.port}")
        assert len(service.bodies) == 1 and proxy.silent


@every_wire
def test_a_gateway_on_this_machine_is_asked_through_no_proxy_either(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attested one is asked over plain http, which a proxy could read."""
    with listening() as proxy, listening() as service:
        for name in PROXIES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        ask(wire, f"http://127.0.0.1:{service.port}", place="remote")
        assert len(service.bodies) == 1 and proxy.silent


@every_wire
def test_no_variable_of_an_sdk_moves_the_endpoint(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    with mapped(), listening() as target, listening() as service:
        elsewhere = f"http://{OTHER}:{target.port}"
        for name in ("OPENAI", "ANTHROPIC", "GOOGLE_GEMINI", "GOOGLE_VERTEX", "GEMINI"):
            monkeypatch.setenv(f"{name}_BASE_URL", elsewhere)
        for name in ("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE"):
            monkeypatch.setenv(name, "true")
        for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"):
            monkeypatch.setenv(name, "x")
        monkeypatch.setenv("GOOGLE_API_KEY", "another")
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "another")
        monkeypatch.setenv("GOOGLE_GENAI_HTTP_CLIENT", "httpx2")
        ask(wire, f"http://127.0.0.1:{service.port}")
        assert len(service.bodies) == 1 and target.silent


@every_wire
def test_teachers_check_follows_nobody_either(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret-key-123")
    with mapped(), listening() as service, listening() as target, listening() as proxy:
        service.moved = (307, f"http://{OTHER}:{target.port}/v1")
        for name in PROXIES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        (found,) = check([spec(wire, f"http://127.0.0.1:{service.port}")], JPEG)
        assert found.problem is not None and f"sends on to {OTHER}" in found.problem
        assert "\n" not in found.problem and target.silent and proxy.silent


def test_a_client_knows_its_own_host() -> None:
    from cxr_max.teachers.wire import ToAnotherHost, refuse_other_than

    refuse = refuse_other_than("https://api.openai.com/v1")
    refuse("https://api.openai.com:443/v1/files/f/content")
    for url in (
        "http://api.openai.com/v1",
        "https://api.openai.com.evil.example/v1",
        "https://api.openai.com:8443/",
    ):
        with pytest.raises(ToAnotherHost):
            refuse(url)
