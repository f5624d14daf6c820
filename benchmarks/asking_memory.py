"""The sending loop's memory: ten times as many image requests may not take more of it.

Each number of requests in a fresh process, whose peak the kernel keeps (VmHWM).
"""

import asyncio
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.asking import JPEG, ask_all, serving
from cxr_max.ledger import Ledger

SIZES: Final = (2_000, 20_000)
IN_FLIGHT: Final = 64


def section() -> str:
    """Peak memory at both sizes."""
    with serving(latency_s=0.02) as address:
        peaks = [_peak_mb(address, requests) for requests in SIZES]
    lines = [
        "## Memory of asking (a different 128 KB image per request, 64 in flight)\n",
        "| requests | peak MB |",
        "| --- | --- |",
        *(f"| {requests:,} | {peak:.0f} |" for requests, peak in zip(SIZES, peaks, strict=True)),
    ]
    return "\n".join(lines) + f"\n\n{peaks[1] / peaks[0]:.2f} times as much, SDK and interpreter included.\n"


def _peak_mb(address: str, requests: int) -> float:
    command = [sys.executable, "-m", "benchmarks.asking_memory", address, str(requests)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _images(number: int) -> Iterator[bytes]:
    for n in range(number):
        yield n.to_bytes(8) + JPEG


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        asyncio.run(ask_all(sys.argv[1], IN_FLIGHT, _images(int(sys.argv[2])), ledger))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
