"""Batches on the loopback server, and what can become of one. Each wire's interface has a file of its own.

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

from aiohttp import web

from cxr_max.teachers.simulator.acting import ERRORS
from cxr_max.teachers.simulator.personas import Wire
from cxr_max.teachers.simulator.wires import FORMATS, Answer, Ask, Fault
from cxr_max.teachers.simulator.world import uniform

BatchEnd = Literal["completed", "expired", "cancelled", "failed", "queue_full"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Route = tuple[str, str, Handler]
"""Method, path and what answers."""

_SHAPES: Final[dict[Wire, tuple[str, str]]] = {
    "openai": ("custom_id", "body"),
    "anthropic": ("custom_id", "params"),
    "gemini": ("key", "request"),
}
"""Where a request's line has its key and its body."""


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

    async def remove_files(self, _: web.Application) -> None:
        """Leave nothing on the disk."""
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


def handled(batches: Batches, wire: Wire, handle: Handler) -> Handler:
    """``handle`` with its errors in the wire's words."""

    async def answered(request: web.Request) -> web.StreamResponse:
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

    return answered


async def streamed(request: web.Request, lines: Iterator[dict[str, Any]]) -> web.StreamResponse:
    """A file of JSON lines."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-jsonl"})
    await response.prepare(request)
    for line in lines:
        await response.write(json.dumps(line).encode() + b"\n")
        await asyncio.sleep(0)
    await response.write_eof()
    return response


def newest(batches: Batches, wire: Wire) -> list[SimulatedBatch]:
    """All batches, each one look nearer to its end."""
    return [batches.look(wire, batch.name) for batch in reversed(batches.made) if batch.wire == wire]
