"""Processes that train one student together (``accelerate launch``): who writes, and how they tell each other.

Started without a launcher there is one process, the main one, and nothing here waits for anybody.
"""

import os
from datetime import timedelta
from typing import Final, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from cxr_max.errors import RequestError

T = TypeVar("T")

_PATIENCE: Final = timedelta(hours=2)
"""How long a process waits for the others: the main one may have a large model to write, or a slow disk."""


def here() -> PartialState:
    """This process's number, how many there are, and the device that is its own.

    Ask before a model is loaded: until then, every process takes the first GPU for its own.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)


def require_gpus() -> None:
    """See that what the launcher shards is sharded: accelerate would silently copy it instead.

    Raises:
        RequestError: sharding was asked for where there is no GPU.
    """
    sharded = any(os.environ.get(f"ACCELERATE_USE_{name}", "") == "true" for name in ("FSDP", "DEEPSPEED"))
    if sharded and not torch.cuda.is_available():
        raise RequestError("Weights are sharded over GPUs, and there is none here: launch with ddp instead.")


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return bool(here().is_main_process)


def wait() -> None:
    """Go on when all processes have come this far."""
    here().wait_for_everyone()


def from_main(value: T) -> T:
    """What the main process calls with; the others' own value is ignored."""
    if here().num_processes > 1:
        (value,) = broadcast_object_list([value])
    return value


def from_all(value: T) -> list[T]:
    """What each process calls with, in their order."""
    return list(gather_object([value])) if here().num_processes > 1 else [value]
