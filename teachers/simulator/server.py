"""The loopback server: three wire formats, one handler.

Routes: ``POST /openai/v1/chat/completions``, ``GET /openai/v1/models``, ``POST /anthropic/v1/messages`` and
``POST /gemini/v1beta/models/{model}:generateContent`` (or ``v1``, which google-genai 3 asks for by default).
The official SDKs reach them with only their base URL changed, to ``{address}/openai/v1``,
``{address}/anthropic`` and ``{address}/gemini``.

A reply depends on (seed, persona, first image, prompt, noise key) alone and repeats byte for byte. The noise
key is the ``Idempotency-Key`` header, or the body's sha256 where there is none. No clock is read.

Tokens: text counts one per 4 characters, rounded up; an image width * height / 750, as Anthropic documents,
or ``UNSIZED_IMAGE_TOKENS`` where its size cannot be read.
"""

import asyncio
import io
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from hashlib import sha256
from types import TracebackType
from typing import Final, Self

from aiohttp import web
from PIL import Image

from cxr_max.teachers.simulator import prose, world
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


class Simulator:
    """The server, in a thread of its own while the context lasts.

    Args:
        seed: Of everything the personas claim and say.
        latency_s: Seconds each reply is held back.
    """

    def __init__(self, *, seed: int = 0, latency_s: float = 0.0) -> None:
        self.requests = 0
        """Generation requests received, answered well or not."""
        self.requests_by_persona: Counter[str] = Counter()
        """Of those, the ones that name a persona."""
        self._seed = seed
        self._latency_s = latency_s
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

    def learn(self, image_sha256: str, truth: Truth) -> None:
        """Tell the truth of an image, named by the sha256 (hexadecimal) of the bytes that will be sent."""
        if len(image_sha256) != 64:
            raise ValueError(f"{image_sha256!r} is not the hexadecimal sha256 of an image")
        self._truths[image_sha256.lower()] = truth

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
            self._application(), handle_signals=False, access_log=None, shutdown_timeout=STOP_GRACE_S
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
        application.router.add_get("/openai/v1/models", _models)
        application.router.add_post("/openai/v1/chat/completions", self._handler("openai"))
        application.router.add_post("/anthropic/v1/messages", self._handler("anthropic"))
        application.router.add_post(
            r"/gemini/{version:v1(?:beta)?}/models/{model}:generateContent", self._handler("gemini")
        )
        return application

    def _handler(self, wire: Wire) -> Callable[[web.Request], Awaitable[web.Response]]:
        wire_format = FORMATS[wire]

        async def handle(request: web.Request) -> web.Response:
            self.requests += 1
            try:
                answer = await self._answer(wire, wire_format, request)
                status, body = 200, wire_format.write(answer)
            except Fault as fault:
                status, body = wire_format.error(fault)
            return web.json_response(body, status=status)

        return handle

    async def _answer(self, wire: Wire, wire_format: WireFormat, request: web.Request) -> Answer:
        if not wire_format.authorized(request):
            raise Fault(401, "No API key was sent. Any value will do.")
        raw = await request.read()
        ask = _read(wire_format, raw, request)
        persona = PERSONAS.get(ask.model)
        if persona is None or persona.wire != wire:
            served = ", ".join(name for name, other in PERSONAS.items() if other.wire == wire)
            raise Fault(404, f"The model `{ask.model}` does not exist here; this wire serves {served}.")
        self.requests_by_persona[persona.name] += 1
        image_sha256 = sha256(ask.image).hexdigest()
        truth = self._truths.get(image_sha256)
        if truth is None:
            raise Fault(400, f"The simulator was not told the truth of the image with sha256 {image_sha256}.")
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        key = request.headers.get("Idempotency-Key") or sha256(raw).hexdigest()
        return compose(persona, ask, image_sha256, truth, key, self._seed)


def _read(wire_format: WireFormat, raw: bytes, request: web.Request) -> Ask:
    try:
        return wire_format.read(json.loads(raw), request)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Fault(400, f"The request is not of this wire's form: {type(error).__name__}: {error}") from error


def compose(persona: Persona, ask: Ask, image_sha256: str, truth: Truth, key: str, seed: int) -> Answer:
    """Claim, say and cut one reply: a pure function of its arguments."""
    asked = world.question(ask.prompt)
    decide = world.rationale if asked.kind == "rationale" else world.claims
    claims = decide(persona, image_sha256, truth, key, seed, asked.findings)
    said = prose.reply(persona, claims, asked, str(seed), image_sha256, key)
    draw = world.uniform(str(seed), "blocked", persona.name, image_sha256, key)
    blocked = claims.refused and draw < BLOCKED_SHARE
    if blocked and persona.wire != "openai":
        said = prose.Said("")  # only OpenAI's sign for a refusal has words
    reasoning, text, cut = _cut(said, ask.max_tokens)
    return Answer(
        model=persona.name,
        text=text,
        reasoning=reasoning,
        ending="blocked" if blocked else "length" if cut else "stop",
        digest=sha256("\x1f".join((str(seed), persona.name, image_sha256, key)).encode()).hexdigest(),
        text_tokens=tokens(ask.prompt),
        image_tokens=_image_tokens(ask.image),
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
