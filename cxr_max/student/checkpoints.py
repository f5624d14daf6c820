"""Checkpoints that are whole or ignored, however many processes write them and whatever kills them."""

import shutil
from pathlib import Path
from typing import Any, Final

from transformers import (
    AutoModelForImageTextToText,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from cxr_max.errors import RequestError
from cxr_max.shards import write_text
from cxr_max.student import processes
from cxr_max.student.model import Student

WHOLE: Final = "whole"
"""A file that is written into a checkpoint last: without it, the checkpoint is half written."""
PLAIN: Final = "DDP or one process"
"""Both write the same."""


class Checkpoints(TrainerCallback):
    """Marks a checkpoint when every process has written its part of it."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """See ``TrainerCallback``."""
        processes.wait()
        if state.is_world_process_zero:
            write_text(Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE, "")


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint; the main process removes half-written ones."""
    found = []
    for path in folder.glob("checkpoint-*"):
        if (path / WHOLE).exists():
            found.append(path)
        elif processes.is_main():
            shutil.rmtree(path)
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None


def restore(student: Student, checkpoint: str, written_by: str) -> None:
    """Take a checkpoint's whole weights over.

    The Trainer looks for the names that weights have in memory, and ignores what it does not find; on disk they
    have those of the published models. An adapter it restores itself.

    Args:
        written_by: what the training is launched with now, in the words of ``writer``.

    Raises:
        RequestError: it was launched otherwise before, and wrote what cannot be read now.
    """
    before = writer(Path(checkpoint))
    if before != written_by:
        raise RequestError(
            f"The checkpoint {checkpoint} was written under {before}, and this is {written_by}: launch the"
            " training as it was begun, or choose another --out."
        )
    if (Path(checkpoint) / "config.json").exists():
        saved = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=student.model.dtype)
        student.model.load_state_dict(saved.state_dict())


def writer(checkpoint: Path) -> str:
    """Who wrote a checkpoint: ``FSDP``, ``DeepSpeed``, or ``PLAIN``."""
    if any(checkpoint.glob("pytorch_model_fsdp*")):
        return "FSDP"
    return "DeepSpeed" if any(checkpoint.glob("global_step*")) else PLAIN
