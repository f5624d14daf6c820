"""Anthropic's message batches on the loopback server: the requests come in the call, the results as a stream."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from cxr_max.teachers.simulator.acting import ERRORS
from cxr_max.teachers.simulator.batches import Batches, Route, SimulatedBatch, handled, newest, streamed
from cxr_max.teachers.simulator.wires import Fault


@dataclass(frozen=True, slots=True)
class AnthropicBatches:
    """The interface to a simulator's batches."""

    batches: Batches

    def routes(self) -> tuple[Route, ...]:
        """What it answers."""
        root = "/anthropic/v1/messages/batches"
        routes: tuple[Route, ...] = (
            ("POST", root, self._create),
            ("GET", root, self._listed),
            ("GET", f"{root}/{{name}}", self._look),
            ("POST", f"{root}/{{name}}/cancel", self._cancel),
            ("GET", f"{root}/{{name}}/results", self._results),
        )
        return tuple(
            (method, path, handled(self.batches, "anthropic", handler)) for method, path, handler in routes
        )

    def _shown(self, batch: SimulatedBatch, request: web.Request) -> dict[str, Any]:
        done = sum(map(batch.answers, batch.keys))
        rest = {"completed": "errored", "expired": "expired", "cancelled": "canceled"}.get(batch.ends, "errored")
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        counts |= (
            {"succeeded": done, rest: len(batch.keys) - done} if batch.done else {"processing": len(batch.keys)}
        )
        url = f"{request.url.origin()}/anthropic/v1/messages/batches/{batch.name}/results"
        made = batch.made_at.isoformat()
        return {
            "id": batch.name, "type": "message_batch", "created_at": made, "expires_at": made,
            "processing_status": "ended" if batch.done else "in_progress", "request_counts": counts,
            "ended_at": made if batch.done else None, "results_url": url if batch.done else None,
            "archived_at": None, "cancel_initiated_at": None,
        }  # fmt: skip

    async def _create(self, request: web.Request) -> web.StreamResponse:
        _, path = self.batches.new_file()
        with path.open("wb") as file:
            for entry in (await request.json())["requests"]:
                file.write(json.dumps(entry).encode() + b"\n")
        return web.json_response(self._shown(self.batches.make(request, "anthropic", path, ""), request))

    async def _look(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._shown(self.batches.look("anthropic", request.match_info["name"]), request))

    async def _listed(self, request: web.Request) -> web.StreamResponse:
        data = [self._shown(batch, request) for batch in newest(self.batches, "anthropic")]
        return web.json_response({"data": data, "has_more": False, "first_id": None, "last_id": None})

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        batch = self.batches.named("anthropic", request.match_info["name"])
        if batch.done:
            raise Fault(400, "The batch has ended.")
        batch.cancelled = True
        return web.json_response({**self._shown(batch, request), "processing_status": "canceling"})

    async def _results(self, request: web.Request) -> web.StreamResponse:
        return await streamed(request, self._lines(self.batches.named("anthropic", request.match_info["name"])))

    def _lines(self, batch: SimulatedBatch) -> Iterator[dict[str, Any]]:
        for key, body in self.batches.results(batch, answered=True):
            yield {"custom_id": key, "result": {"type": "succeeded", "message": body}}
        for key, _ in self.batches.results(batch, answered=False):
            if batch.ends in {"expired", "cancelled"}:
                kind = "expired" if batch.ends == "expired" else "canceled"
                yield {"custom_id": key, "result": {"type": kind}}
            else:
                error = ERRORS["anthropic"]["server_error"]["body"]
                yield {"custom_id": key, "result": {"type": "errored", "error": error}}
