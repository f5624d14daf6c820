"""Acts a fault out on the socket, in the words and headers of the wire."""

import asyncio
import json
import socket
import struct
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from cxr_max.teachers.simulator import prose, world
from cxr_max.teachers.simulator.faults import Bucket, Gauge, OddReply, Rule
from cxr_max.teachers.simulator.personas import Wire
from cxr_max.teachers.simulator.wires import Answer, Ask

ERRORS: Final[Mapping[str, Mapping[str, Any]]] = tomllib.loads(
    Path(__file__).with_name("errors.toml").read_text(encoding="utf-8")
)
"""By wire and kind: ``status`` and ``body``."""
GATEWAY: Final = "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"
PORTAL: Final = "<!DOCTYPE html><html><body>Please sign in to continue.</body></html>"
STALL_S: Final = 3600.0
"""Longer than any client waits."""


def error_reply(
    wire: Wire, kind: str, ask: Ask, retry_after_s: float | None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An HTTP error as the service sends it."""
    if kind == "bad_gateway":
        return web.Response(status=502, text=GATEWAY, content_type="text/html")
    entry = ERRORS[wire][kind]
    body = json.loads(json.dumps(entry["body"]).replace("{model}", ask.model))
    sent = dict(headers or {})
    if retry_after_s is not None and wire == "gemini":
        delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_after_s:g}s"}
        body["error"].setdefault("details", []).append(delay)
    elif retry_after_s is not None:
        sent["Retry-After"] = f"{retry_after_s:g}"
    return web.json_response(body, status=entry["status"], headers=sent)


def altered(kind: OddReply, answer: Answer, ask: Ask, key: str) -> Answer:
    """The reply that an odd reply's rule makes of a good one."""
    match kind:
        case "slow":
            return answer
        case "empty":
            return replace(answer, text="", reasoning=None, ending="stop")
        case "filtered":
            return replace(answer, text="", reasoning=None, ending="filtered")
        case "cut":
            return replace(answer, text=answer.text[: len(answer.text) // 2], ending="length")
        case "refused":
            words = prose.refusal(world.question(ask.prompt), prose.Dice("refusal", key))
            return replace(answer, text=words, reasoning=None, ending="refused")
        case "new_version":
            return replace(answer, model=f"{answer.model}-next")


async def lose(rule: Rule, request: web.Request, body: bytes) -> web.StreamResponse:
    """Send what is left of a reply that is lost on its way."""
    match rule.kind:
        case "not_json":
            return web.Response(text=PORTAL, content_type="text/html")
        case "other_shape":
            return web.json_response({"status": "ok", "data": []})
        case "half_json":
            return web.Response(body=body[: len(body) // 2], content_type="application/json")
        case "reset":
            _reset(request)
            return web.Response()
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    if rule.kind == "stalled":
        await asyncio.sleep(STALL_S)
    await response.write(body[: len(body) // 2])
    if rule.kind == "reset_midway":
        _reset(request)
    elif request.transport is not None:
        request.transport.close()
    return response


def _reset(request: web.Request) -> None:
    """Drop the connection so that the other side gets RST, not an orderly end."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()


def limit_headers(wire: Wire, gauge: Gauge) -> dict[str, str]:
    """How much of the limit is left, in the headers that the service documents; Gemini sends none."""
    if wire == "gemini":
        return {}
    headers: dict[str, str] = {}
    for what, bucket in (("requests", gauge.requests), ("tokens", gauge.tokens)):
        if bucket is not None:
            headers |= _limit_headers(wire, what, bucket)
    return headers


def _limit_headers(wire: Wire, what: str, bucket: Bucket) -> dict[str, str]:
    reset_s, left = bucket.reset_s(), str(max(0, int(bucket.level)))
    if wire == "openai":
        start = "x-ratelimit"
        return {
            f"{start}-limit-{what}": str(bucket.per_minute),
            f"{start}-remaining-{what}": left,
            f"{start}-reset-{what}": duration(reset_s),
        }
    start = f"anthropic-ratelimit-{what}"
    when = datetime.now(UTC) + timedelta(seconds=ceil(reset_s))
    return {
        f"{start}-limit": str(bucket.per_minute),
        f"{start}-remaining": left,
        f"{start}-reset": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def duration(seconds: float) -> str:
    """As OpenAI writes it: ``8ms``, ``1.5s``, ``6m0s``."""
    milliseconds = ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"
