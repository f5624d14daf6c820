"""``python -m cxr_max.student.launch ddp`` prints where that configuration for ``accelerate launch`` lies."""

import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from cxr_max.errors import RequestError

NAMES: Final = ("ddp", "fsdp", "zero2")
"""Whole weights on every GPU; weights, gradients and optimizer sharded; gradients and optimizer sharded."""


def config(name: str) -> Path:
    """The path of a shipped configuration.

    Raises:
        RequestError: there is none of that name.
    """
    if name not in NAMES:
        raise RequestError(f"There is no configuration {name!r}: choose {', '.join(NAMES[:-1])} or {NAMES[-1]}.")
    return Path(str(files("cxr_max.student"))) / "accelerate" / f"{name}.yaml"


def main(arguments: Sequence[str]) -> int:
    """Print a path; exit code 2 if the name is wrong."""
    try:
        print(config(" ".join(arguments)))
    except RequestError as error:
        print(f"cxr-max: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
