"""How soon the first study of MIMIC-CXR-JPG comes, and what its tables hold of memory, at their true size."""

import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from tests.mimic_at_size import write_tables

RUNS: Final = 5
_CHILD: Final = """
import sys, time
from pathlib import Path
from cxr_max.builders.sources.registry import open_source
start, cpu = time.perf_counter(), time.process_time()
source = open_source("mimic-cxr-jpg:" + sys.argv[1], workspace=Path(sys.argv[1]))
next(source.studies())
wall, spent = time.perf_counter() - start, time.process_time() - cpu
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(wall, spent, int(peak) / 1024)
"""
_READ: Final = """
import sys, gzip, time
start = time.perf_counter()
for name in ("metadata", "split", "chexpert"):
    gzip.open(f"{sys.argv[1]}/mimic-cxr-2.0.0-{name}.csv.gz").read()
print(time.perf_counter() - start)
"""


def section() -> str:
    """Medians of fresh processes; unpacking the three tables, side by side, is the floor."""
    with TemporaryDirectory() as folder:
        images = len(write_tables(Path(folder)))
        runs = [(_run(_CHILD, folder), _run(_READ, folder)) for _ in range(RUNS)]
    wall, cpu, peak = (median(ours[place] for ours, _ in runs) for place in range(3))
    floor = median(read[0] for _, read in runs)
    return (
        f"## First study of MIMIC-CXR-JPG ({images:,} synthetic rows)\n\n"
        f"{wall:.1f} s ({cpu:.1f} s of CPU), {wall / floor:.1f} times as long as unpacking its three tables; peak"
        f" memory {peak:.0f} MB with all imports (medians of {RUNS} fresh processes).\n"
    )


def _run(code: str, folder: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    return [float(number) for number in done.stdout.split()]
