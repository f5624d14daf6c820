"""The sending loop beside a raw aiohttp client: same server, same image, same number in flight.

The loop does what the raw client does not: it paces, keeps every reply in the ledger, counts it, and draws a board
on a terminal.
"""

import asyncio
import base64
import io
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import aiohttp
from rich.console import Console

from cxr_max.cli.progress import ConsoleWatch
from cxr_max.costs import Price
from cxr_max.data_use import Gate
from cxr_max.ledger import Ledger
from cxr_max.records import Question, Sampling
from cxr_max.teachers.asking import Asking, Batch, Picture
from cxr_max.teachers.base import TeacherSpec
from cxr_max.teachers.roster import connect

REQUESTS, RUNS = 600, 3
JPEG = bytes(range(256)) * 500
"""128 KB: what a radiograph of 852 x 1024 comes to."""
_SERVER = """
import asyncio, sys
from aiohttp import web
BODY = '{"id":"c","model":"m","choices":[{"finish_reason":"stop","message":{"content":"%s"}}],' % ("word " * 300)
BODY += '"usage":{"prompt_tokens":900,"completion_tokens":300}}'
async def reply(request):
    await request.read()
    await asyncio.sleep(float(sys.argv[1]))
    return web.Response(text=BODY, content_type="application/json")
async def main():
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", reply)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


def section() -> str:
    """Requests per second and client CPU at 64 and 256 in flight."""
    lines = [
        "## Asking beside a raw aiohttp client (128 KB image, replies after 200 ms)\n",
        "| in flight | raw requests/s | asking requests/s | ratio | raw CPU s/1k | asking CPU s/1k | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    with serving(latency_s=0.2) as address:
        for in_flight in (64, 256):
            raw, ours = [], []
            for _ in range(RUNS):
                raw.append(_measured(lambda: _raw(address, in_flight)))  # noqa: B023
                ours.append(_measured(lambda: _asking(address, in_flight)))  # noqa: B023
            lines.append(_line(in_flight, raw, ours))
    return (
        "\n".join(lines)
        + f"\n\nMedians of {RUNS} runs of {REQUESTS} requests, client and server sharing the cores.\n"
    )


@contextmanager
def serving(latency_s: float) -> Iterator[str]:
    """A process that answers every chat completion alike."""
    command = [sys.executable, "-c", _SERVER, str(latency_s)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    finally:
        server.kill()
        server.wait()


def _line(in_flight: int, raw: list[tuple[float, float]], ours: list[tuple[float, float]]) -> str:
    raw_s, our_s = median(run[0] for run in raw), median(run[0] for run in ours)
    raw_cpu, our_cpu = median(run[1] for run in raw), median(run[1] for run in ours)
    return (
        f"| {in_flight} | {REQUESTS / raw_s:.0f} | {REQUESTS / our_s:.0f} | {raw_s / our_s:.2f}"
        f" | {raw_cpu * 1000 / REQUESTS:.2f} | {our_cpu * 1000 / REQUESTS:.2f} | {our_cpu / raw_cpu:.2f} |"
    )


def _measured(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of this process."""
    before, start = _cpu(), time.perf_counter()
    asyncio.run(work())  # type: ignore[arg-type]
    return time.perf_counter() - start, _cpu() - before


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _raw(address: str, in_flight: int) -> None:
    url = "data:image/jpeg;base64," + base64.b64encode(JPEG).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "read"}]
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    room = asyncio.Semaphore(in_flight)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one() -> None:
            async with room, session.post(f"{address}/chat/completions", json=body) as response:
                await response.json()

        await asyncio.gather(*(one() for _ in range(REQUESTS)))


async def _asking(address: str, in_flight: int) -> None:
    await ask_all(address, in_flight, (JPEG for _ in range(REQUESTS)))


async def ask_all(address: str, in_flight: int, images: Iterator[bytes]) -> None:
    """Ask about every image, into a ledger in a temporary folder."""
    spec = TeacherSpec(
        "a", "vllm", "m", address, "local", "openai", None, Sampling(), in_flight, None, Price(1.0, 1.0)
    )
    watch = ConsoleWatch()
    watch._console = Console(file=io.StringIO(), force_terminal=True, width=120)
    watch.started((spec,), None)
    with watch, tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        teacher = connect(spec, "none")
        asking = Asking([teacher], Gate("t", "open"), ledger, watch, (), asyncio.Event())
        sent = 0

        def batches() -> Iterator[Batch]:
            nonlocal sent
            for sent, image in enumerate(images, 1):
                yield Batch((Picture(image, "j"),), ((_question(sent), "read"),))

        await asking.run(batches())
        assert len(ledger.answered()) == sent


def _question(number: int) -> Question:
    return Question(
        f"s{number}", "p", "t", None, ("i",), ("f",), "as_is-1@1024", "a", "vllm", "m", "diagnose", "1", "t",
        "nothing", False, Sampling(), 0, str(number),
    )  # fmt: skip
