"""What the ledger costs a run: the time spent in its commits, in a new ledger and in one of a whole build.

Commits happen in a thread of their own while others wait for replies, so that their share of the clock is more
than what the run would gain without them; their share of the processor's time is what they take from the rest.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.asking import JPEG, ask_all, serving
from cxr_max.ledger import Answered, Failure, Ledger
from cxr_max.records import Reply

REPLIES: Final = 170_982
REQUESTS, IN_FLIGHT, RUNS = 2_000, 64, 3
_WORDS: Final = "The heart is not large and the lungs are clear. " * 30


class Timed(Ledger):
    """A ledger that knows how long its commits took."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.commits = 0
        self.wall_s = self.cpu_s = 0.0

    def commit(self, answers: Sequence[Answered], failures: Sequence[Failure] = ()) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        super().commit(answers, failures)
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.thread_time() - cpu
        self.commits += 1


def section() -> str:
    """Shares of a run, and how long it takes to know what is left."""
    lines = [
        f"## The ledger's share of asking ({IN_FLIGHT} in flight, replies after 200 ms)\n",
        "| replies before | what is left known in, s | commits | replies each | of the clock | of the run's CPU |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    with serving(latency_s=0.2) as address, tempfile.TemporaryDirectory() as folder:
        for replies in (0, REPLIES):
            path = Path(folder) / f"{replies}.sqlite"
            _fill(path, replies)
            lines.append(_line(replies, [_measured(address, path, run) for run in range(RUNS)]))
    return "\n".join(lines) + f"\n\nMedians of {RUNS} runs of {REQUESTS:,} requests; a full flush per commit.\n"


def _line(replies: int, runs: Sequence[Sequence[float]]) -> str:
    known_s, commits, wall, cpu = (median(each) for each in zip(*runs, strict=True))
    return f"| {replies:,} | {known_s:.2f} | {commits:.0f} | {REQUESTS / commits:.1f} | {wall:.1%} | {cpu:.1%} |"


def _measured(address: str, path: Path, run: int) -> tuple[float, float, float, float]:
    """Seconds until what is left is known, number of commits, their share of the clock and of the CPU."""
    with Timed(path) as ledger:
        start = time.perf_counter()
        ledger.answered()
        known_s = time.perf_counter() - start
        wall, cpu = time.perf_counter(), time.process_time()
        asyncio.run(ask_all(address, IN_FLIGHT, (JPEG for _ in range(REQUESTS)), ledger, f"run {run}"))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return known_s, ledger.commits, ledger.wall_s / wall, ledger.cpu_s / cpu


def _fill(path: Path, replies: int) -> None:
    with Ledger(path) as ledger:
        for first in range(0, replies, 5_000):
            ledger.commit([_answered(n) for n in range(first, min(first + 5_000, replies))])


def _answered(number: int) -> Answered:
    reply = Reply(_WORDS, None, "stop", "stop", "m", 900, 300, f"r{number}", f'{{"id": {number}}} {_WORDS}')
    key = sha256(str(number).encode()).hexdigest()
    return Answered(key, ("j",), reply, 0.001, 1.0, datetime(2026, 1, 1, tzinfo=UTC))
