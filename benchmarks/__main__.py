"""Run every benchmark and write RESULTS.md beside this file."""

import os
import platform
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

BENCHMARKS: Final = (
    "asking",
    "asking_ledger",
    "asking_memory",
    "asking_storm",
    "phantoms",
    "labeler",
    "consensus_weights",
    "student",
    "bootstrap",
    "evaluation",
    "radiographs",
    "sources",
    "verify",
)


def main() -> None:
    """Each benchmark is a module with ``section() -> str``, a piece of Markdown."""
    names = sys.argv[1:] or BENCHMARKS
    head = (
        "# Benchmarks\n\nMeasured by `make bench`. Numbers of one table come from one run on one machine: only"
        f" their ratios carry over.\n\nPython {platform.python_version()}, {os.cpu_count()} cores,"
        f" {platform.system()} {platform.machine()}.\n"
    )
    sections = []
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr)
        sections.append(import_module(f"benchmarks.{name}").section())
    text = "\n".join([head, *sections])
    if not sys.argv[1:]:
        Path(__file__).with_name("RESULTS.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
