"""A loopback server that answers as it is told, for what no simulator of good manners would say."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from cxr_max.costs import Price
from cxr_max.records import Sampling
from cxr_max.teachers.base import Teacher, TeacherSpec, Wire
from cxr_max.teachers.roster import connect

JPEG = bytes.fromhex("ffd8ffdb") + b"not really" + bytes.fromhex("ffd9")


@dataclass
class Scripted:
    """The server: what it received, and what it says next (the last entry again and again)."""

    answers: list[web.Response | Callable[[], Any]]
    address: str = ""
    received: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.received.append(json.loads(await request.read()))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            return await answer(request)
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)


@asynccontextmanager
async def serving(*answers: Any) -> AsyncIterator[Scripted]:
    """Serve on a free port until the block ends."""
    scripted = Scripted(list(answers))
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", scripted.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    scripted.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield scripted
    finally:
        await runner.cleanup()


def spec(wire: Wire, endpoint: str, /, **changes: Any) -> TeacherSpec:
    """A teacher on loopback."""
    values: dict[str, Any] = {
        "name": f"my-{wire}", "provider": wire, "model": "m-1", "endpoint": endpoint, "place": "local",
        "wire": wire, "key": "SOME_KEY", "sampling": Sampling(temperature=0.5, top_p=0.9, max_tokens=64, seed=3),
        "concurrency": 4, "rpm": None, "price": Price(1.0, 2.0),
    }  # fmt: skip
    return TeacherSpec(**{**values, **changes})


@asynccontextmanager
async def asked(wire: Wire, *answers: Any, **changes: Any) -> AsyncIterator[tuple[Teacher, Scripted]]:
    """A teacher connected to a server that answers as told."""
    async with serving(*answers) as scripted:
        teacher = connect(spec(wire, scripted.address, **changes), "secret-key-123")
        try:
            yield teacher, scripted
        finally:
            await teacher.close()


def body(wire: Wire, text: str = "I see a heart.", **changes: Any) -> web.Response:
    """A good reply of each wire format, with top-level changes."""
    good: dict[str, dict[str, Any]] = {
        "openai": {
            "id": "c-1", "object": "chat.completion", "created": 1, "model": "m-1-2025",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
        },
        "anthropic": {
            "id": "m-1", "type": "message", "role": "assistant", "model": "m-1-2025", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": text}], "usage": {"input_tokens": 100, "output_tokens": 7},
        },
        "gemini": {
            "candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 5, "thoughtsTokenCount": 2},
            "modelVersion": "m-1-2025", "responseId": "g-1",
        },
    }  # fmt: skip
    return web.json_response({**good[wire], **changes})


def error(http: int, message: str = "no", headers: dict[str, str] | None = None, **fields: Any) -> web.Response:
    """An error body with the parts that services put into theirs."""
    return web.json_response({"error": {"message": message, **fields}}, status=http, headers=headers)


async def reset(request: web.Request) -> web.StreamResponse:
    """Drop the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    await asyncio.sleep(0)
    return web.Response()
