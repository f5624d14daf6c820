"""The three batch interfaces on the loopback server, and what can become of a batch.

    Simulator(batches=[BatchFate(looks=3), BatchFate(ends="expired", answered=0.5), BatchFate(lost=True)])

The first batch that is made meets the first fate of its wire, and so on; later ones go well. A batch is done after
it was looked at so many times: no clock is read. Its replies are those of single questions with the same keys.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any, Final, Literal

from aiohttp import BodyPartReader, web

from cxr_max.teachers.simulator.acting import ERRORS
from cxr_max.teachers.simulator.personas import Wire
from cxr_max.teachers.simulator.wires import FORMATS, Answer, Ask, Fault
from cxr_max.teachers.simulator.world import uniform

BatchEnd = Literal["completed", "expired", "cancelled", "failed", "queue_full"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SHAPES: Final[dict[Wire, tuple[str, str]]] = {
    "openai": ("custom_id", "body"),
    "anthropic": ("custom_id", "params"),
    "gemini": ("key", "request"),
}
"""Where a request's line has its key and its body."""
_EXPIRED: Final = {"code": "batch_expired", "message": "This request could not be executed in time."}
_CANCELLED: Final = {"code": "batch_cancelled", "message": "The batch was cancelled."}
_QUEUE_FULL: Final = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached.", "line": None}
_MALFORMED: Final = {"code": "invalid_json_line", "message": "This line is not parseable.", "line": 1}


@dataclass(frozen=True, slots=True)
class BatchFate:
    """What becomes of one batch."""

    looks: int = 1
    """How often it must be looked at, by itself or in the list, until it is done."""
    ends: BatchEnd = "completed"
    """``queue_full`` and ``failed`` are decided before it is worked on."""
    answered: float = 1.0
    """The share of its requests that get a reply, chosen by their keys. The others expire, are cancelled or, in
    ``completed``, fail with a server's error."""
    lost: bool = False
    """The batch is made, and the connection reset before the answer to that."""
    busy: bool = False
    """It is not made: 429."""
    wire: Wire | None = None
    """Only a batch of this wire meets this fate."""


@dataclass(slots=True)
class SimulatedBatch:
    """A batch at the service."""

    name: str
    wire: Wire
    requests: Path
    keys: tuple[str, ...]
    fate: BatchFate
    label: str
    """What the client calls it, where the interface has room for that."""
    model: str
    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    looked: int = 0
    cancelled: bool = False

    @property
    def done(self) -> bool:
        return self.cancelled or self.looked >= self.fate.looks

    @property
    def ends(self) -> BatchEnd:
        if self.cancelled and self.fate.ends == "completed":
            return "cancelled"
        return self.fate.ends

    def answers(self, key: str) -> bool:
        """Whether a request gets a reply."""
        if self.ends in {"failed", "queue_full"}:
            return False
        return uniform("batch", self.name, key) < (0.5 if self.cancelled else self.fate.answered)


@dataclass(slots=True)
class Batches:
    """All batches of a simulator.

    Args:
        answer: what one request is answered, given its wire, what it asks and its key.
        fates: in the order in which batches are made.
    """

    answer: Callable[[Wire, Ask, str], Answer]
    fates: Sequence[BatchFate] = ()
    made: list[SimulatedBatch] = field(default_factory=list)
    """In the order in which they were made."""
    files: dict[str, Path] = field(default_factory=dict)
    calls: int = 0
    """Requests to the batch interfaces, answered well or not."""
    _met: set[int] = field(default_factory=set)
    _folder: Path | None = None

    def submitted(self) -> Counter[str]:
        """How many batches held each request's key."""
        return Counter(key for batch in self.made for key in batch.keys)

    def register(self, application: web.Application) -> None:
        """Add the routes."""
        add = application.router.add_route
        for method, path, handler in (*_openai(self), *_anthropic(self), *_gemini(self)):
            add(method, path, handler)
        application.on_cleanup.append(self._remove_files)

    async def _remove_files(self, _: web.Application) -> None:
        if self._folder is not None:
            rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def new_file(self) -> tuple[str, Path]:
        """A name for a file, and where it lies."""
        if self._folder is None:
            self._folder = Path(mkdtemp(prefix="simulated-batches-"))
        name = f"file-{len(self.files)}"
        self.files[name] = self._folder / name
        return name, self.files[name]

    def make(self, request: web.Request, wire: Wire, path: Path, label: str, model: str = "") -> SimulatedBatch:
        """Make a batch of a file of requests, or act out that it cannot be.

        Raises:
            Busy: the service takes no batch now.
            ConnectionResetError: it was made, and the client will never know.
        """
        fate = self._next_fate(wire)
        if fate.busy:
            raise Busy
        keys = tuple(json.loads(line)[_SHAPES[wire][0]] for line in _lines(path))
        batch = SimulatedBatch(f"batch_{len(self.made)}", wire, path, keys, fate, label, model)
        self.made.append(batch)
        if fate.lost:
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError
        return batch

    def _next_fate(self, wire: Wire) -> BatchFate:
        for number, fate in enumerate(self.fates):
            if number not in self._met and fate.wire in {None, wire}:
                self._met.add(number)
                return fate
        return BatchFate()

    def named(self, wire: Wire, name: str) -> SimulatedBatch:
        """The batch of that name.

        Raises:
            Fault: there is none.
        """
        for batch in self.made:
            if batch.wire == wire and batch.name == name:
                return batch
        raise Fault(404, f"There is no batch {name}.")

    def look(self, wire: Wire, name: str) -> SimulatedBatch:
        """The batch of that name, one look nearer to its end."""
        batch = self.named(wire, name)
        batch.looked += 1
        return batch

    def results(self, batch: SimulatedBatch, *, answered: bool) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Key and reply's body of each request that got a reply, or key and ``None`` of each that did not."""
        key_name, body_name = _SHAPES[batch.wire]
        wire_format = FORMATS[batch.wire]
        for line in _lines(batch.requests):
            said = json.loads(line)
            key = said[key_name]
            if batch.answers(key) != answered:
                continue
            if not answered:
                yield key, None
                continue
            about: Any = SimpleNamespace(match_info={"model": batch.model})
            ask = wire_format.read(said[body_name], about)
            yield key, wire_format.write(self.answer(batch.wire, ask, key))


class Busy(Exception):
    """The service takes no batch now."""


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from (line for line in file if line.strip())


def _handled(batches: Batches, wire: Wire, handle: Handler) -> Handler:
    """``handle`` with its errors in the wire's words."""

    async def handled(request: web.Request) -> web.StreamResponse:
        batches.calls += 1
        try:
            if not FORMATS[wire].authorized(request):
                raise Fault(401, "No API key was sent. Any value will do.")
            return await handle(request)
        except Fault as fault:
            status, body = FORMATS[wire].error(fault)
            return web.json_response(body, status=status)
        except Busy:
            entry = ERRORS[wire]["rate_limit"]
            return web.json_response(entry["body"], status=entry["status"])
        except ConnectionResetError:
            return web.Response()

    return handled


async def _streamed(request: web.Request, lines: Iterator[dict[str, Any]]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-jsonl"})
    await response.prepare(request)
    for line in lines:
        await response.write(json.dumps(line).encode() + b"\n")
        await asyncio.sleep(0)
    await response.write_eof()
    return response


def _newest(batches: Batches, wire: Wire) -> list[SimulatedBatch]:
    """All batches, each one look nearer to its end."""
    return [batches.look(wire, batch.name) for batch in reversed(batches.made) if batch.wire == wire]


Route = tuple[str, str, Handler]


def _openai(batches: Batches) -> tuple[Route, ...]:
    def shown(batch: SimulatedBatch) -> dict[str, Any]:
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

    async def upload(request: web.Request) -> web.StreamResponse:
        name, path = batches.new_file()
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name == "file":
                with path.open("wb") as file:
                    while chunk := await part.read_chunk(2**20):
                        file.write(chunk)
        return web.json_response(
            {"id": name, "object": "file", "bytes": path.stat().st_size, "created_at": 1, "filename": name,
             "purpose": "batch", "status": "processed"}
        )  # fmt: skip

    async def create(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        label = (body.get("metadata") or {}).get("cxr_max_batch", "")
        return web.json_response(
            shown(batches.make(request, "openai", batches.files[body["input_file_id"]], label))
        )

    async def look(request: web.Request) -> web.StreamResponse:
        return web.json_response(shown(batches.look("openai", request.match_info["name"])))

    async def listed(request: web.Request) -> web.StreamResponse:
        data = [shown(batch) for batch in _newest(batches, "openai")]
        return web.json_response({"object": "list", "data": data, "has_more": False})

    async def cancel(request: web.Request) -> web.StreamResponse:
        batch = batches.named("openai", request.match_info["name"])
        if batch.done:
            raise Fault(400, f"Cannot cancel a batch with status '{batch.ends}'.")
        batch.cancelled = True
        return web.json_response({**shown(batch), "status": "cancelling"})

    async def content(request: web.Request) -> web.StreamResponse:
        kind, _, name = request.match_info["name"].partition("-")
        batch = batches.named("openai", name)
        return await _streamed(request, lines(batch, answered=kind == "output"))

    def lines(batch: SimulatedBatch, *, answered: bool) -> Iterator[dict[str, Any]]:
        for key, body in batches.results(batch, answered=answered):
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

    routes: tuple[Route, ...] = (
        ("POST", "/openai/v1/files", upload),
        ("GET", "/openai/v1/files/{name}/content", content),
        ("POST", "/openai/v1/batches", create),
        ("GET", "/openai/v1/batches", listed),
        ("GET", "/openai/v1/batches/{name}", look),
        ("POST", "/openai/v1/batches/{name}/cancel", cancel),
    )
    return tuple((method, path, _handled(batches, "openai", handler)) for method, path, handler in routes)


def _anthropic(batches: Batches) -> tuple[Route, ...]:
    def shown(batch: SimulatedBatch, request: web.Request) -> dict[str, Any]:
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

    async def create(request: web.Request) -> web.StreamResponse:
        _, path = batches.new_file()
        with path.open("wb") as file:
            for entry in (await request.json())["requests"]:
                file.write(json.dumps(entry).encode() + b"\n")
        return web.json_response(shown(batches.make(request, "anthropic", path, ""), request))

    async def look(request: web.Request) -> web.StreamResponse:
        return web.json_response(shown(batches.look("anthropic", request.match_info["name"]), request))

    async def listed(request: web.Request) -> web.StreamResponse:
        data = [shown(batch, request) for batch in _newest(batches, "anthropic")]
        return web.json_response({"data": data, "has_more": False, "first_id": None, "last_id": None})

    async def cancel(request: web.Request) -> web.StreamResponse:
        batch = batches.named("anthropic", request.match_info["name"])
        if batch.done:
            raise Fault(400, "The batch has ended.")
        batch.cancelled = True
        return web.json_response({**shown(batch, request), "processing_status": "canceling"})

    async def results(request: web.Request) -> web.StreamResponse:
        return await _streamed(request, lines(batches.named("anthropic", request.match_info["name"])))

    def lines(batch: SimulatedBatch) -> Iterator[dict[str, Any]]:
        for key, body in batches.results(batch, answered=True):
            yield {"custom_id": key, "result": {"type": "succeeded", "message": body}}
        for key, _ in batches.results(batch, answered=False):
            if batch.ends in {"expired", "cancelled"}:
                kind = "expired" if batch.ends == "expired" else "canceled"
                yield {"custom_id": key, "result": {"type": kind}}
            else:
                error = ERRORS["anthropic"]["server_error"]["body"]
                yield {"custom_id": key, "result": {"type": "errored", "error": error}}

    root = "/anthropic/v1/messages/batches"
    routes: tuple[Route, ...] = (
        ("POST", root, create),
        ("GET", root, listed),
        ("GET", f"{root}/{{name}}", look),
        ("POST", f"{root}/{{name}}/cancel", cancel),
        ("GET", f"{root}/{{name}}/results", results),
    )
    return tuple((method, path, _handled(batches, "anthropic", handler)) for method, path, handler in routes)


def _gemini(batches: Batches) -> tuple[Route, ...]:
    def shown(batch: SimulatedBatch) -> dict[str, Any]:
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

    async def start(request: web.Request) -> web.StreamResponse:
        name, _ = batches.new_file()
        url = f"{request.url.origin()}/gemini/upload/session/{name}"
        return web.json_response({}, headers={"X-Goog-Upload-URL": url, "X-Goog-Upload-Status": "active"})

    async def upload(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        with batches.files[name].open("ab") as file:
            async for chunk in request.content.iter_chunked(2**20):
                file.write(chunk)
        last = "finalize" in request.headers.get("X-Goog-Upload-Command", "")
        body = {"file": {"name": f"files/{name}"}} if last else {}
        return web.json_response(body, headers={"X-Goog-Upload-Status": "final" if last else "active"})

    async def create(request: web.Request) -> web.StreamResponse:
        asked = (await request.json())["batch"]
        path = batches.files[asked["inputConfig"]["fileName"].removeprefix("files/")]
        model = request.match_info["model"]
        return web.json_response(shown(batches.make(request, "gemini", path, asked.get("displayName", ""), model)))

    async def look(request: web.Request) -> web.StreamResponse:
        return web.json_response(shown(batches.look("gemini", request.match_info["name"])))

    async def listed(request: web.Request) -> web.StreamResponse:
        return web.json_response({"operations": [shown(batch) for batch in _newest(batches, "gemini")]})

    async def cancel(request: web.Request) -> web.StreamResponse:
        batch = batches.named("gemini", request.match_info["name"])
        if batch.done:
            raise Fault(400, "The batch has ended.")
        batch.cancelled = True
        return web.json_response({})

    async def download(request: web.Request) -> web.StreamResponse:
        return await _streamed(request, lines(batches.named("gemini", request.match_info["name"])))

    def lines(batch: SimulatedBatch) -> Iterator[dict[str, Any]]:
        for key, body in batches.results(batch, answered=True):
            yield {"key": key, "response": body}
        for key, _ in batches.results(batch, answered=False):
            yield {"key": key, "error": ERRORS["gemini"]["server_error"]["body"]["error"]}

    root = "/gemini/{version:v1(?:beta)?}"
    routes: tuple[Route, ...] = (
        ("POST", "/gemini/upload/{version:v1(?:beta)?}/files", start),
        ("POST", root + "/models/{model}:batchGenerateContent", create),
        ("GET", root + "/batches", listed),
        ("GET", root + "/batches/{name}", look),
        ("POST", root + "/batches/{name}:cancel", cancel),
        ("GET", root + "/files/output-{name}:download", download),
    )
    handled = tuple((method, path, _handled(batches, "gemini", handler)) for method, path, handler in routes)
    # A session's address is its own key.
    return (*handled, ("POST", "/gemini/upload/session/{name}", upload))
