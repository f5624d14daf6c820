"""OpenAI's batch interface on the loopback server: a file of requests, a batch, and files of what came of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import BodyPartReader, web

from cxr_max.teachers.simulator.acting import ERRORS
from cxr_max.teachers.simulator.batches import Batches, Route, SimulatedBatch, handled, newest, streamed
from cxr_max.teachers.simulator.wires import Fault

_EXPIRED: Final = {"code": "batch_expired", "message": "This request could not be executed in time."}
_CANCELLED: Final = {"code": "batch_cancelled", "message": "The batch was cancelled."}
_QUEUE_FULL: Final = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached.", "line": None}
_MALFORMED: Final = {"code": "invalid_json_line", "message": "This line is not parseable.", "line": 1}


@dataclass(frozen=True, slots=True)
class OpenAIBatches:
    """The interface to a simulator's batches."""

    batches: Batches

    def routes(self) -> tuple[Route, ...]:
        """What it answers."""
        routes: tuple[Route, ...] = (
            ("POST", "/openai/v1/files", self._upload),
            ("GET", "/openai/v1/files/{name}/content", self._content),
            ("POST", "/openai/v1/batches", self._create),
            ("GET", "/openai/v1/batches", self._listed),
            ("GET", "/openai/v1/batches/{name}", self._look),
            ("POST", "/openai/v1/batches/{name}/cancel", self._cancel),
        )
        return tuple((method, path, handled(self.batches, "openai", answer)) for method, path, answer in routes)

    def _shown(self, batch: SimulatedBatch) -> dict[str, Any]:
        failed = batch.ends in {"failed", "queue_full"}
        status = "failed" if failed else batch.ends if batch.done else "in_progress"
        done = sum(map(batch.answers, batch.keys)) if batch.done else 0
        errors = [_QUEUE_FULL if batch.ends == "queue_full" else _MALFORMED] if failed else []
        ended = batch.done and not failed
        return {
            "id": batch.name, "object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "input_file_id": batch.requests.name, "created_at": int(batch.made_at.timestamp()), "status": status,
            "metadata": {"cxr_max_batch": batch.label} if batch.label else None,
            "output_file_id": f"output-{batch.name}" if ended and done else None,
            "error_file_id": f"error-{batch.name}" if ended and done < len(batch.keys) else None,
            "errors": {"object": "list", "data": errors} if errors else None,
            "request_counts": {"total": len(batch.keys), "completed": done, "failed": 0},
        }  # fmt: skip

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        name, path = self.batches.new_file()
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name == "file":
                with path.open("wb") as file:
                    while chunk := await part.read_chunk(2**20):
                        file.write(chunk)
        return web.json_response(
            {"id": name, "object": "file", "bytes": path.stat().st_size, "created_at": 1, "filename": name,
             "purpose": "batch", "status": "processed"}
        )  # fmt: skip

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        label = (body.get("metadata") or {}).get("cxr_max_batch", "")
        return web.json_response(
            self._shown(self.batches.make(request, "openai", self.batches.files[body["input_file_id"]], label))
        )

    async def _look(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._shown(self.batches.look("openai", request.match_info["name"])))

    async def _listed(self, request: web.Request) -> web.StreamResponse:
        data = [self._shown(batch) for batch in newest(self.batches, "openai")]
        return web.json_response({"object": "list", "data": data, "has_more": False})

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        batch = self.batches.named("openai", request.match_info["name"])
        if batch.done:
            raise Fault(400, f"Cannot cancel a batch with status '{batch.ends}'.")
        batch.cancelled = True
        return web.json_response({**self._shown(batch), "status": "cancelling"})

    async def _content(self, request: web.Request) -> web.StreamResponse:
        kind, _, name = request.match_info["name"].partition("-")
        batch = self.batches.named("openai", name)
        return await streamed(request, self._lines(batch, answered=kind == "output"))

    def _lines(self, batch: SimulatedBatch, *, answered: bool) -> Iterator[dict[str, Any]]:
        for key, body in self.batches.results(batch, answered=answered):
            line: dict[str, Any] = {
                "id": f"batch_req_{key[:8]}",
                "custom_id": key,
                "response": None,
                "error": None,
            }
            if body is not None:
                line["response"] = {"status_code": 200, "request_id": f"req_{key[:8]}", "body": body}
            elif batch.ends == "completed":
                entry = ERRORS["openai"]["server_error"]
                line["response"] = {"status_code": entry["status"], "request_id": "", "body": entry["body"]}
            else:
                line["error"] = _EXPIRED if batch.ends == "expired" else _CANCELLED
            yield line
