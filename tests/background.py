"""A scripted server in a thread of its own, and builds as processes of their own."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.teachers.scripted import Scripted, body, serving

TEXT = "The heart is large.\n\nANSWER\nCardiomegaly: present\nPneumothorax: absent"


async def slow_reply(request: web.Request) -> web.StreamResponse:
    """A good reply after a while, so that there is something to interrupt."""
    await asyncio.sleep(0.02)
    return body("openai", TEXT)


@contextmanager
def background(answer: Any = slow_reply) -> Iterator[Scripted]:
    """Serve from another thread until the block ends."""
    ready, done = threading.Event(), threading.Event()
    holder: list[Scripted] = []

    async def run() -> None:
        async with serving(answer) as scripted:
            holder.append(scripted)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield holder[0]
    finally:
        done.set()
        thread.join(10)


def roster_of(folder: Path, scripted: Scripted, *names: str) -> Path:
    """A roster file whose teachers all live on the scripted server."""
    path = folder / "roster.toml"
    tables = [
        f'[{name}]\nprovider = "openai"\nmodel = "m-{name}"\nendpoint = "{scripted.address}/v1"\nconcurrency = 4\n'
        for name in names
    ]
    path.write_text("\n".join(tables))
    return path


def start(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """``cxr-max build`` as a process."""
    command = [sys.executable, "-m", "cxr_max", "build", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, **options)


def run(*arguments: object, **options: Any) -> "tuple[int, dict[str, Any], str]":
    """Run a build to its end: exit code, the JSON object, what was said on stderr."""
    process = start(*arguments, "--json", **options)
    out, said = process.communicate(timeout=120)
    return process.returncode, json.loads(out) if out.strip() else {}, said


def committed(out: Path) -> set[str]:
    """The keys of the replies in a run's ledger, read by other means than the ledger's own."""
    path = out / "ledger.sqlite"
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as db:
        try:
            return {row[0] for row in db.execute("SELECT request_sha256 FROM replies")}
        except sqlite3.OperationalError:
            return set()


def keys_received(scripted: Scripted) -> list[str]:
    """The request keys that reached the server, in order."""
    return [headers["idempotency-key"] for headers in scripted.headers]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
