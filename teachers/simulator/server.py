"""The loopback server: three wire formats, one handler.

Routes: ``POST /openai/v1/chat/completions``, ``GET /openai/v1/models``, ``POST /anthropic/v1/messages`` and
``POST /gemini/v1beta/models/{model}:generateContent`` (or ``v1``, which google-genai 3 asks for by default).
The official SDKs reach them with only their base URL changed, to ``{address}/openai/v1``,
``{address}/anthropic`` and ``{address}/gemini``. ``batches`` adds the batch interfaces.

A reply depends on (seed, persona, images in order, prompt, noise key) alone and repeats byte for byte. The noise
key is the ``Idempotency-Key`` header, or the body's sha256 where there is none. No clock is read, except for the
faults that a test asks for.

Tokens: text counts one per 4 characters, rounded up; an image width * height / 750, as Anthropic documents,
or ``UNSIZED_IMAGE_TOKENS`` where its size cannot be read.
"""

import asyncio
import io
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from types import TracebackType
from typing import Final, Self

from aiohttp import web
from PIL import Image

from cxr_max.teachers.simulator import acting, personas, prose, world
from cxr_max.teachers.simulator.batches import Batches, BatchFate
from cxr_max.teachers.simulator.batches_anthropic import AnthropicBatches
from cxr_max.teachers.simulator.batches_gemini import GeminiBatches
from cxr_max.teachers.simulator.batches_openai import OpenAIBatches
from cxr_max.teachers.simulator.faults import (
    ERROR_REPLIES,
    LOST_REPLIES,
    ODD_REPLIES,
    Faults,
    Rule,
    Script,
    Served,
)
from cxr_max.teachers.simulator.personas import PERSONAS, Persona, Wire
from cxr_max.teachers.simulator.wires import (
    CHARACTERS_PER_TOKEN,
    EPOCH,
    FORMATS,
    Answer,
    Ask,
    Fault,
    WireFormat,
    tokens,
)
from cxr_max.teachers.simulator.world import Truth

MAX_BODY_BYTES: Final = 256 * 2**20
UNSIZED_IMAGE_TOKENS: Final = 258
BLOCKED_SHARE: Final = 0.3
"""The share of refusals that use the wire's own sign for it, with no prose."""
STOP_GRACE_S: Final = 0.1
"""What a request in flight is given when the simulator stops."""


def _image_tokens(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data)) as image:  # reads the header only
            return max(1, image.width * image.height // 750)
    except (OSError, Image.DecompressionBombError):
        return UNSIZED_IMAGE_TOKENS


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that could be read."""

    wire: Wire
    persona: Persona
    ask: Ask
    image_sha256: str
    truth: Truth
    key: str


class Simulator:
    """The server, in a thread of its own while the context lasts.

    Args:
        seed: Of everything the personas claim and say.
        latency_s: Seconds each reply is held back.
        faults: What goes wrong; by default nothing. Only where they are given, be it none, is what each persona
            receives and sends counted by request, which takes memory.
        clock: Seconds, monotonic; read for faults only.
        batches: What becomes of the batches that are made; by default all goes well.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        latency_s: float = 0.0,
        faults: Faults | None = None,
        clock: Callable[[], float] = time.monotonic,
        batches: Sequence[BatchFate] = (),
    ) -> None:
        self.requests = 0
        """Generation requests received, answered well or not."""
        self.requests_by_persona: Counter[str] = Counter()
        """Of those, the ones that name a persona."""
        self.served: defaultdict[str, Served] = defaultdict(Served)
        """What each persona received and sent, where ``faults`` are given."""
        self._faults = faults
        self._clock = clock
        self._seed = seed
        self._latency_s = latency_s
        self.batches = Batches(self._answer, batches)
        self._truths: dict[str, Truth] = {}  # written and read by single operations, which are atomic
        self._address: str | None = None
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], None] | None = None

    @property
    def address(self) -> str:
        """``http://127.0.0.1:PORT``.

        Raises:
            RuntimeError: the simulator is not running.
        """
        if self._address is None:
            raise RuntimeError("the simulator is not running; use it as a context manager")
        return self._address

    def learn(self, images: str | Sequence[str], truth: Truth) -> None:
        """Tell the truth of an image, named by the sha256 (hexadecimal) of the bytes that will be sent.

        Args:
            images: of one image, or of several that are sent together, in their order: in another order they
                are not known.
        """
        together = [images] if isinstance(images, str) else list(images)
        for image_sha256 in together:
            if len(image_sha256) != 64:
                raise ValueError(f"{image_sha256!r} is not the hexadecimal sha256 of an image")
        self._truths[_named([one.lower() for one in together])] = truth

    def __enter__(self) -> Self:
        started: Future[tuple[str, Callable[[], None]]] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="simulator", daemon=True)
        self._thread.start()
        self._address, self._stop = started.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stop is not None and self._thread is not None:
            self._stop()
            self._thread.join()
        self._address = self._stop = self._thread = None

    def _run(self, started: "Future[tuple[str, Callable[[], None]]]") -> None:
        try:
            asyncio.run(self._serve(started))
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)  # __enter__ raises it in the caller's thread

    async def _serve(self, started: "Future[tuple[str, Callable[[], None]]]") -> None:
        runner = web.AppRunner(
            self._application(),
            handle_signals=False,
            access_log=None,
            shutdown_timeout=STOP_GRACE_S,
            handler_cancellation=True,  # nobody is waiting for a reply that is held back
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            stop, loop = asyncio.Event(), asyncio.get_running_loop()

            def finish() -> None:
                loop.call_soon_threadsafe(stop.set)

            started.set_result((f"http://127.0.0.1:{runner.addresses[0][1]}", finish))
            await stop.wait()
        finally:
            await runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        script = Script(self._faults, self._clock) if self._faults is not None else None
        application.router.add_get("/openai/v1/models", _models)
        application.router.add_post("/openai/v1/chat/completions", self._handler("openai", script))
        application.router.add_post("/anthropic/v1/messages", self._handler("anthropic", script))
        application.router.add_post(
            r"/gemini/{version:v1(?:beta)?}/models/{model}:generateContent", self._handler("gemini", script)
        )
        for interface in (OpenAIBatches, AnthropicBatches, GeminiBatches):
            for method, path, handler in interface(self.batches).routes():
                application.router.add_route(method, path, handler)
        application.on_cleanup.append(self.batches.remove_files)
        return application

    def _handler(
        self, wire: Wire, script: Script | None
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        wire_format = FORMATS[wire]

        async def handle(request: web.Request) -> web.StreamResponse:
            self.requests += 1
            try:
                asked = await self._receive(wire, wire_format, request)
            except Fault as fault:
                status, body = wire_format.error(fault)
                return web.json_response(body, status=status)
            if script is not None:
                return await self._scripted(asked, script, request)
            await asyncio.sleep(self._latency_s)
            return web.json_response(wire_format.write(self._composed(asked)))

        return handle

    async def _receive(self, wire: Wire, wire_format: WireFormat, request: web.Request) -> _Asked:
        if not wire_format.authorized(request):
            raise Fault(401, "No API key was sent. Any value will do.")
        raw = await request.read()
        ask = _read(wire_format, raw, request)
        self.requests_by_persona[_persona(wire, ask).name] += 1
        return self._asked(wire, ask, request.headers.get("Idempotency-Key") or sha256(raw).hexdigest())

    def _asked(self, wire: Wire, ask: Ask, key: str) -> _Asked:
        image_sha256 = _named([sha256(image).hexdigest() for image in ask.images])
        truth = self._truths.get(image_sha256)
        if truth is None:
            several = f" (of {len(ask.images)} images in their order)" if len(ask.images) > 1 else ""
            raise Fault(
                400, f"The simulator was not told the truth of the image with sha256 {image_sha256}{several}."
            )
        return _Asked(wire, _persona(wire, ask), ask, image_sha256, truth, key)

    def _answer(self, wire: Wire, ask: Ask, key: str) -> Answer:
        return self._composed(self._asked(wire, ask, key))

    def _composed(self, asked: _Asked) -> Answer:
        return compose(asked.persona, asked.ask, asked.image_sha256, asked.truth, asked.key, self._seed)

    async def _scripted(self, asked: _Asked, script: Script, request: web.Request) -> web.StreamResponse:
        served = self.served[asked.persona.name]
        served.received[asked.key] += 1
        served.in_flight += 1
        served.most_in_flight = max(served.most_in_flight, served.in_flight)
        try:
            return await self._act(asked, script, served, request)
        finally:
            served.in_flight -= 1

    async def _act(
        self, asked: _Asked, script: Script, served: Served, request: web.Request
    ) -> web.StreamResponse:
        """Reply, or act out the rule or the limit that the request falls under."""
        rule = script.rule(asked.persona.name, asked.key, served)
        if rule is not None:
            served.faults[rule.kind] += 1
            if rule.kind in ERROR_REPLIES:
                return acting.error_reply(asked.wire, rule.kind, asked.ask, rule.retry_after_s)
        answer = self._composed(asked)
        headers: dict[str, str] = {}
        gauge = script.gauge(asked.persona.name)
        if gauge is not None:
            wait_s = gauge.take(answer.input_tokens + answer.output_tokens)
            headers = acting.limit_headers(asked.wire, gauge)
            if wait_s:
                served.faults["rate_limit"] += 1
                stated = float(ceil(wait_s)) if gauge.limit.retry_after else None
                return acting.error_reply(asked.wire, "rate_limit", asked.ask, stated, headers)
        await asyncio.sleep(self._latency_s)
        return await _reply(asked, answer, rule, served, request, headers)


async def _reply(
    asked: _Asked,
    answer: Answer,
    rule: Rule | None,
    served: Served,
    request: web.Request,
    headers: dict[str, str],
) -> web.StreamResponse:
    if rule is not None and rule.kind == "slow":
        await asyncio.sleep(rule.delay_s)
    if rule is not None and rule.kind in ODD_REPLIES:
        answer = acting.altered(rule.kind, answer, asked.ask, asked.key)
    if answer.ending == "filtered" and "filtered" in acting.ERRORS[asked.wire]:
        served.answered[asked.key] += 1  # this service's sign for it is an error
        return acting.error_reply(asked.wire, "filtered", asked.ask, None)
    body = json.dumps(FORMATS[asked.wire].write(answer)).encode()
    if rule is not None and rule.kind in LOST_REPLIES:
        return await acting.lose(rule, request, body)
    served.answered[asked.key] += 1
    return web.Response(body=body, content_type="application/json", charset="utf-8", headers=headers)


def _named(images: Sequence[str]) -> str:
    """One sha256 for images that are sent together: an image's own if it is alone."""
    return images[0] if len(images) == 1 else sha256("\x1f".join(images).encode()).hexdigest()


def _persona(wire: Wire, ask: Ask) -> Persona:
    found = personas.persona(ask.model)
    if found is None or found.wire != wire:
        served = ", ".join(name for name, other in PERSONAS.items() if other.wire == wire)
        raise Fault(404, f"The model `{ask.model}` does not exist here; this wire serves {served}.")
    return found


def _read(wire_format: WireFormat, raw: bytes, request: web.Request) -> Ask:
    try:
        return wire_format.read(json.loads(raw), request)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Fault(400, f"The request is not of this wire's form: {type(error).__name__}: {error}") from error


def compose(persona: Persona, ask: Ask, image_sha256: str, truth: Truth, key: str, seed: int) -> Answer:
    """Claim, say and cut one reply: a pure function of its arguments."""
    asked = world.question(ask.prompt)
    if asked.kind == "compare":
        said = _compared(persona, image_sha256, truth, key, seed)
        return _answered(persona, ask, image_sha256, key, seed, said, blocked=False)
    decide = world.rationale if asked.kind == "rationale" else world.claims
    claims = decide(persona, image_sha256, truth, key, seed, asked.findings)
    said = prose.reply(persona, claims, asked, str(seed), image_sha256, key)
    draw = world.uniform(str(seed), "blocked", persona.name, image_sha256, key)
    blocked = claims.refused and draw < BLOCKED_SHARE
    if blocked and persona.wire != "openai":
        said = prose.Said("")  # only OpenAI's sign for a refusal has words
    return _answered(persona, ask, image_sha256, key, seed, said, blocked=blocked)


def _compared(persona: Persona, image_sha256: str, truth: Truth, key: str, seed: int) -> prose.Said:
    changes = world.changes(persona, image_sha256, truth, key, seed)
    return prose.comparison(persona, changes, str(seed), image_sha256, key)


def _answered(
    persona: Persona, ask: Ask, image_sha256: str, key: str, seed: int, said: prose.Said, *, blocked: bool
) -> Answer:
    reasoning, text, cut = _cut(said, ask.max_tokens)
    return Answer(
        model=ask.model,
        text=text,
        reasoning=reasoning,
        ending="blocked" if blocked else "length" if cut else "stop",
        digest=sha256("\x1f".join((str(seed), persona.name, image_sha256, key)).encode()).hexdigest(),
        text_tokens=tokens(ask.prompt),
        image_tokens=sum(map(_image_tokens, ask.images)),
        output_tokens=tokens(text) + tokens(reasoning or ""),
    )


def _cut(said: prose.Said, max_tokens: int | None) -> tuple[str | None, str, bool]:
    """Reasoning and text within the limit, which reasoning spends first, and whether anything was lost."""
    if max_tokens is None:
        return said.reasoning, said.text, False
    reasoning = said.reasoning[: max_tokens * CHARACTERS_PER_TOKEN] if said.reasoning is not None else None
    left = (max_tokens - tokens(reasoning or "")) * CHARACTERS_PER_TOKEN
    return reasoning, said.text[:left], len(said.text) > left


async def _models(request: web.Request) -> web.Response:
    """The personas that this wire serves."""
    if not FORMATS["openai"].authorized(request):
        status, body = FORMATS["openai"].error(Fault(401, "No API key was sent. Any value will do."))
        return web.json_response(body, status=status)
    served = [name for name, persona in PERSONAS.items() if persona.wire == "openai"]
    data = [{"id": name, "object": "model", "created": EPOCH, "owned_by": "simulator"} for name in served]
    return web.json_response({"object": "list", "data": data})
