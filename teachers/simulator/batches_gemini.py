"""Gemini's batch interface on the loopback server: a resumable upload, an operation, a file of results."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from cxr_max.teachers.simulator.acting import ERRORS
from cxr_max.teachers.simulator.batches import Batches, Route, SimulatedBatch, handled, newest, streamed
from cxr_max.teachers.simulator.wires import Fault


@dataclass(frozen=True, slots=True)
class GeminiBatches:
    """The interface to a simulator's batches."""

    batches: Batches

    def routes(self) -> tuple[Route, ...]:
        """What it answers."""
        root = "/gemini/{version:v1(?:beta)?}"
        routes: tuple[Route, ...] = (
            ("POST", "/gemini/upload/{version:v1(?:beta)?}/files", self._start),
            ("POST", root + "/models/{model}:batchGenerateContent", self._create),
            ("GET", root + "/batches", self._listed),
            ("GET", root + "/batches/{name}", self._look),
            ("POST", root + "/batches/{name}:cancel", self._cancel),
            ("GET", root + "/files/output-{name}:download", self._download),
        )
        answered = tuple(
            (method, path, handled(self.batches, "gemini", handler)) for method, path, handler in routes
        )
        # A session's address is its own key.
        return (*answered, ("POST", "/gemini/upload/session/{name}", self._upload))

    def _shown(self, batch: SimulatedBatch) -> dict[str, Any]:
        ends = {
            "completed": "SUCCEEDED", "expired": "EXPIRED", "cancelled": "CANCELLED", "failed": "FAILED",
            "queue_full": "FAILED",
        }  # fmt: skip
        metadata: dict[str, Any] = {
            "displayName": batch.label,
            "state": f"BATCH_STATE_{ends[batch.ends] if batch.done else 'RUNNING'}",
            "createTime": batch.made_at.isoformat().replace("+00:00", "Z"),
            "model": batch.model,
        }
        # A job that did not end well has no results.
        if batch.done and batch.ends == "completed":
            metadata["output"] = {"responsesFile": f"files/output-{batch.name}"}
        return {"name": f"batches/{batch.name}", "metadata": metadata, "done": batch.done}

    async def _start(self, request: web.Request) -> web.StreamResponse:
        name, _ = self.batches.new_file()
        url = f"{request.url.origin()}/gemini/upload/session/{name}"
        return web.json_response({}, headers={"X-Goog-Upload-URL": url, "X-Goog-Upload-Status": "active"})

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        with self.batches.files[name].open("ab") as file:
            async for chunk in request.content.iter_chunked(2**20):
                file.write(chunk)
        last = "finalize" in request.headers.get("X-Goog-Upload-Command", "")
        body = {"file": {"name": f"files/{name}"}} if last else {}
        return web.json_response(body, headers={"X-Goog-Upload-Status": "final" if last else "active"})

    async def _create(self, request: web.Request) -> web.StreamResponse:
        asked = (await request.json())["batch"]
        path = self.batches.files[asked["inputConfig"]["fileName"].removeprefix("files/")]
        model = request.match_info["model"]
        return web.json_response(
            self._shown(self.batches.make(request, "gemini", path, asked.get("displayName", ""), model))
        )

    async def _look(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._shown(self.batches.look("gemini", request.match_info["name"])))

    async def _listed(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"operations": [self._shown(batch) for batch in newest(self.batches, "gemini")]})

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        batch = self.batches.named("gemini", request.match_info["name"])
        if batch.done:
            raise Fault(400, "The batch has ended.")
        batch.cancelled = True
        return web.json_response({})

    async def _download(self, request: web.Request) -> web.StreamResponse:
        return await streamed(request, self._lines(self.batches.named("gemini", request.match_info["name"])))

    def _lines(self, batch: SimulatedBatch) -> Iterator[dict[str, Any]]:
        for key, body in self.batches.results(batch, answered=True):
            yield {"key": key, "response": body}
        for key, _ in self.batches.results(batch, answered=False):
            yield {"key": key, "error": ERRORS["gemini"]["server_error"]["body"]["error"]}
