"""The sending loop beside a raw aiohttp client, and curator: same server, same image, same number in flight.

The loop does what the raw client does not: it paces, keeps every reply in the ledger, counts it, and draws a board
on a terminal. Curator takes part where ``CXR_MAX_CURATOR`` names an interpreter that has it.
"""

import asyncio
import base64
import io
import json
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

from benchmarks.asking_curator import HERE as CURATOR
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
BODY = '{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop",'
BODY += '"message":{"role":"assistant","content":"%s"}}],' % ("word " * 300)
BODY += '"usage":{"prompt_tokens":900,"completion_tokens":300,"total_tokens":1200}}'
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
        "## Asking beside a raw aiohttp client and curator (128 KB image, replies after 200 ms)\n",
        "| in flight | client | requests/s | of raw | CPU s per 1,000 | times raw |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    with serving(latency_s=0.2) as address:
        for in_flight in (64, 256):
            lines += _lines(in_flight, _taken_in_turn(address, in_flight))
    return (
        "\n".join(lines)
        + f"\n\nMedians of {RUNS} runs of {REQUESTS} requests taken in turn, client and server sharing the cores."
        + ("\n" if CURATOR else " Curator was not at hand (CXR_MAX_CURATOR names no interpreter).\n")
    )


def _taken_in_turn(address: str, in_flight: int) -> dict[str, list[tuple[float, float]]]:
    """Wall-clock and CPU seconds of every run, by client."""
    runs: dict[str, list[tuple[float, float]]] = {"raw aiohttp": [], "cxr-max": [], "curator": []}
    for _ in range(RUNS):
        runs["raw aiohttp"].append(_measured(lambda: _raw(address, in_flight)))
        runs["cxr-max"].append(_measured(lambda: _asking(address, in_flight)))
        if CURATOR and in_flight == 64:
            runs["curator"].append(_curator(address, in_flight))
    return {client: taken for client, taken in runs.items() if taken}


def _curator(address: str, in_flight: int) -> tuple[float, float]:
    assert CURATOR is not None
    script = Path(__file__).with_name("asking_curator.py")
    with tempfile.TemporaryDirectory() as folder:
        numbers = map(str, (REQUESTS, in_flight, len(JPEG)))
        command = [CURATOR, str(script), address, *numbers, folder]
        run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    wall_s, cpu_s = json.loads(run.stdout.strip().splitlines()[-1])
    return wall_s, cpu_s


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


def _lines(in_flight: int, runs: dict[str, list[tuple[float, float]]]) -> Iterator[str]:
    taken = {client: (median(s for s, _ in each), median(cpu for _, cpu in each)) for client, each in runs.items()}
    raw_s, raw_cpu = taken["raw aiohttp"]
    for client, (wall_s, cpu_s) in taken.items():
        yield (
            f"| {in_flight} | {client} | {REQUESTS / wall_s:.0f} | {raw_s / wall_s:.2f}"
            f" | {cpu_s * 1000 / REQUESTS:.2f} | {cpu_s / raw_cpu:.2f} |"
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
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        await ask_all(address, in_flight, (JPEG for _ in range(REQUESTS)), ledger)


async def ask_all(address: str, in_flight: int, images: Iterator[bytes], ledger: Ledger, keys: str = "") -> None:
    """Ask about every image, as a build on a terminal does.

    Args:
        keys: what the requests' keys begin with.
    """
    spec = TeacherSpec(
        "a", "vllm", "m", address, "local", "openai", None, Sampling(), in_flight, None, Price(1.0, 1.0)
    )
    watch = ConsoleWatch()
    watch._console = Console(file=io.StringIO(), force_terminal=True, width=120)
    watch.started((spec,), None)
    before, sent = len(ledger.answered()), 0

    def batches() -> Iterator[Batch]:
        nonlocal sent
        for sent, image in enumerate(images, 1):
            yield Batch((Picture(image, "j"),), ((_question(sent, keys), "read"),))

    with watch:
        asking = Asking([connect(spec, "none")], Gate("t", "open"), ledger, watch, (), asyncio.Event())
        await asking.run(batches())
    assert len(ledger.answered()) == before + sent


def _question(number: int, keys: str) -> Question:
    return Question(
        f"s{number}", "p", "t", None, ("i",), ("f",), "as_is-1@1024", "a", "vllm", "m", "diagnose", "1", "t",
        "nothing", False, Sampling(), 0, f"{keys}{number}",
    )  # fmt: skip
