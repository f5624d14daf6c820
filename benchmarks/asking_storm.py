"""A storm of 429s at three services at once, one per wire format: how much of what they allow gets through.

``limited``: each allows so many requests per second, 70% of what is offered, and says in its headers what is left.
``turned away``: 30% of all requests, whatever the rate, without a word about when to come again.
"""

import asyncio
import io
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from PIL import Image

from cxr_max.data_use import Gate
from cxr_max.ledger import Ledger
from cxr_max.records import Question, Sampling
from cxr_max.teachers.asking import Asking, Batch, Picture
from cxr_max.teachers.base import TeacherSpec, Wire
from cxr_max.teachers.roster import connect
from cxr_max.teachers.simulator import Simulator, Truth
from cxr_max.teachers.simulator.faults import Faults, Limit, Rule

TEACHERS: Final[dict[str, tuple[Wire, str]]] = {
    "sim-gpt-5-nano": ("openai", "/openai/v1"),
    "sim-claude-sonnet-4": ("anthropic", "/anthropic"),
    "sim-gemini-2.5-flash-lite": ("gemini", "/gemini"),
}
IN_FLIGHT, LATENCY_S, SHARE = 16, 1.0, 0.7
ALLOWED: Final = SHARE * IN_FLIGHT / LATENCY_S
BEGIN_S, SECONDS = 15.0, 60.0
STORMS: Final = {
    "limited": Faults(limits=(Limit(requests_per_minute=round(60 * ALLOWED), burst_s=5.0),)),
    "turned away": Faults(
        Rule("rate_limit", share=1 - SHARE, each_time=True, window_s=(BEGIN_S, BEGIN_S + SECONDS))
    ),
}


class _Times:
    """When each teacher's replies were committed."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.at: dict[str, list[float]] = {name: [] for name in TEACHERS}
        self.failures = 0

    def answered(self, teacher: str, *_: object) -> None:
        self.at[teacher].append(time.monotonic() - self.begun)

    def failed(self, *_: object) -> None:
        self.failures += 1

    def stopped(self, *_: object) -> None: ...
    def warned(self, *_: object) -> None: ...

    def per_second(self, teacher: str) -> float:
        return sum(BEGIN_S <= at < BEGIN_S + SECONDS for at in self.at[teacher]) / SECONDS


def section() -> str:
    """Replies per second and teacher, as a share of what is allowed."""
    lines = [
        f"## A storm of 429s for {SECONDS:.0f} s ({IN_FLIGHT} in flight, replies after {LATENCY_S:g} s)\n",
        "| storm | teacher | allowed/s | replies/s | share | 429s per reply |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for storm, faults in STORMS.items():
        times, refused = _measured(faults)
        assert times.failures == 0, "a 429 is no failure"
        for name in TEACHERS:
            got = times.per_second(name)
            per_reply = refused[name] / len(times.at[name])
            lines.append(
                f"| {storm} | {name} | {ALLOWED:.1f} | {got:.1f} | {got / ALLOWED:.2f} | {per_reply:.2f} |"
            )
    return "\n".join(lines) + "\n\nNo request was given up.\n"


def _measured(faults: Faults) -> tuple[_Times, dict[str, int]]:
    jpeg = _picture()
    with (
        Simulator(latency_s=LATENCY_S, faults=faults) as simulator,
        tempfile.TemporaryDirectory() as folder,
        Ledger(Path(folder) / "ledger.sqlite") as ledger,
    ):
        simulator.learn(sha256(jpeg).hexdigest(), Truth(None))
        times = _Times()
        asyncio.run(_ask(simulator.address, ledger, times, jpeg))
        sent = simulator.requests_by_persona
        return times, {name: sent[name] - len(times.at[name]) for name in TEACHERS}


async def _ask(address: str, ledger: Ledger, times: _Times, jpeg: bytes) -> None:
    specs = [
        TeacherSpec(name, wire, name, address + path, "local", wire, None, Sampling(), IN_FLIGHT, None, None)
        for name, (wire, path) in TEACHERS.items()
    ]
    teachers = [connect(spec, "any") for spec in specs]
    picture = Picture(jpeg, sha256(jpeg).hexdigest())
    asking = Asking(teachers, Gate("t", "open"), ledger, times, (), asyncio.Event())
    await asking.run(_batches(specs, picture, times.begun))


def _batches(specs: list[TeacherSpec], picture: Picture, begun: float) -> Iterator[Batch]:
    number = 0
    while time.monotonic() - begun < BEGIN_S + SECONDS:
        number += 1
        questions = [
            Question(
                f"s{number}", "p", "t", None, ("i",), ("f",), "as_is-1@1024", spec.name, spec.provider, spec.model,
                "diagnose", "1", "t", "nothing", False, Sampling(), 0, f"{spec.name}/{number}",
            )
            for spec in specs
        ]  # fmt: skip
        yield Batch((picture,), tuple((question, "What is there?") for question in questions))


def _picture() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (64, 64), 90).save(stream, "JPEG")
    return stream.getvalue()
