"""What both stages of training share: a fixed course, checkpoints that are whole or ignored, one result."""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    AutoModelForImageTextToText,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import set_seed

from cxr_max.errors import RequestError, StorageError
from cxr_max.shards import canonical_json, write_text
from cxr_max.student.batches import Turns
from cxr_max.student.card import card
from cxr_max.student.model import Student, open_student, save_student
from cxr_max.student.settings import Course, Model, Stage

Watch = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""

WHOLE: Final = "whole"
"""A file that is written into a checkpoint last: without it, the checkpoint is half written."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training made."""

    checkpoint: str
    """The folder of the student."""
    steps: int
    seconds: float
    metrics: dict[str, float]
    """Of the last logged step."""
    warnings: tuple[str, ...] = ()


class StudentTrainer(Trainer):
    """transformers' Trainer on packs. Subclasses say what the loss of a pack is.

    The data are one long epoch in a fixed order, so that a step's data depend on the step's number alone and a
    resumed run sees what an undisturbed one would have seen.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self, student: Student, data: Turns, collate: Any, arguments: TrainingArguments, watch: Watch
    ) -> None:
        super().__init__(
            model=student.model,
            args=arguments,
            train_dataset=data,
            data_collator=collate,
            processing_class=student.chat.tokenizer,
            callbacks=[_Checkpoints(), _Steps(watch)],
        )
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        # The Trainer then counts ``labels`` over all passes and processes of a step; the loss is divided by them.
        self.model_accepts_loss_kwargs = True
        self.warned: list[str] = []
        self._seen: dict[str, list[float]] = {}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The pack's summed loss, divided by what the whole step holds."""
        total = self.pack_loss(model, inputs)
        # DDP averages gradients over processes, so that each counts as often as there are processes.
        return total / num_items_in_batch * self.accelerator.num_processes

    def pack_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """The loss of a pack, summed over what ``labels`` counts."""
        raise NotImplementedError

    def seen(self, **values: float) -> None:
        """Keep numbers of this pass; their means are logged with the step."""
        for name, value in values.items():
            self._seen.setdefault(name, []).append(value)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means, over all processes, of what was seen since the last time."""
        if "loss" in logs and self._seen:
            names = sorted(self._seen)
            means = torch.tensor([sum(self._seen[n]) / len(self._seen[n]) for n in names], device=self.args.device)
            logs |= dict(zip(names, self.accelerator.reduce(means, "mean").tolist(), strict=True))
            self._seen.clear()
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not estimated: transformers' formula knows no packs."""
        return 0


class _Checkpoints(TrainerCallback):
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            write_text(Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE, "")


class _Steps(TrainerCallback):
    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self._watch("Training", state.global_step, state.max_steps)


def begin(stage: Stage, base: str, course: Course, model: Model, out: Path, data: str) -> Student:
    """Open what is trained, and keep the settings for later starts of the same command.

    Raises:
        RequestError: the model is wrong, or the folder holds a training with other settings.
    """
    # A new adapter is drawn at random; the Trainer seeds what comes after it.
    set_seed(course.seed)
    student = open_student(base, lora=model.lora, dtype=model.dtype, max_pixels=model.max_pixels, trainable=True)
    settings = {
        "stage": stage,
        "base": student.fingerprint,
        "course": course.model_dump(),
        "model": model.model_dump(),
        "data": data,
    }
    path, wanted = out / "train.json", canonical_json(settings)
    if path.exists() and path.read_text("utf-8") != wanted:
        raise RequestError(
            f"{out} holds a training with other settings: choose another --out, or the same settings."
        )
    write_text(path, wanted)
    return student


def arguments(out: Path, course: Course, model: Model, turns: int) -> TrainingArguments:
    """The Trainer's arguments.

    Raises:
        RequestError: ``images_per_step`` is not whole passes of all processes.
    """
    checkpointing: dict[str, Any] = {}
    if model.gradient_checkpointing:
        checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    made = TrainingArguments(
        output_dir=str(out / "checkpoints"),
        num_train_epochs=1,
        per_device_train_batch_size=course.images_per_pass,
        learning_rate=course.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(course.warmup * math.ceil(turns / course.images_per_step)),
        weight_decay=course.weight_decay,
        max_grad_norm=course.max_grad_norm,
        adam_beta2=0.98,
        seed=course.seed,
        data_seed=course.seed,
        train_sampling_strategy="sequential",
        save_strategy="steps",
        save_steps=course.save_every,
        save_total_limit=2,
        logging_steps=course.log_every,
        report_to=_reports(),
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        **checkpointing,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
    )
    per_pass = course.images_per_pass * made.world_size
    if course.images_per_step % per_pass:
        raise RequestError(
            f"images_per_step is {course.images_per_step}, which is not a multiple of {per_pass}: images_per_pass"
            f" {course.images_per_pass} times {made.world_size} processes."
        )
    made.gradient_accumulation_steps = course.images_per_step // per_pass
    return made


def _reports() -> list[str]:
    from importlib.util import find_spec

    return ["tensorboard"] if find_spec("tensorboard") else []


def run(trainer: StudentTrainer, student: Student, out: Path, *, merged: bool) -> Trained:
    """Train, from the last whole checkpoint if there is one, and write the student to ``out/student``.

    Raises:
        StorageError: the disk refused; the last whole checkpoint is untouched.
    """
    started = time.monotonic()
    checkpoint = last_checkpoint(out / "checkpoints")
    if checkpoint is not None:
        restore(student, checkpoint)
    # Numbers too small to matter make a CPU many times slower; other code in this process may want them.
    torch.set_flush_denormal(True)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
        if trainer.is_world_process_zero():
            _finish(trainer, student, out, merged)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        raise StorageError(
            f"{out} cannot be written ({error}). The last whole checkpoint is untouched: make room, and the same"
            " command goes on from there."
        ) from error
    finally:
        torch.set_flush_denormal(False)
    trainer.accelerator.wait_for_everyone()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    metrics = {name: value for name, value in (logged[-1] if logged else {}).items() if isinstance(value, float)}
    return Trained(
        str(out / "student"),
        trainer.state.global_step,
        round(time.monotonic() - started, 2),
        metrics,
        tuple(trainer.warned),
    )


def _finish(trainer: StudentTrainer, student: Student, out: Path, merged: bool) -> None:
    history = [json.dumps(entry) for entry in trainer.state.log_history if "loss" in entry]
    write_text(out / "metrics.jsonl", "".join(f"{line}\n" for line in history))
    partial = out / "student.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_student(student, partial, merged=merged)
    settings = json.loads((out / "train.json").read_text("utf-8"))
    last = json.loads(history[-1]) if history else {}
    write_text(partial / "README.md", card(settings, Path(student.base).name, trainer.state.global_step, last))
    shutil.rmtree(out / "student", ignore_errors=True)
    partial.replace(out / "student")


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint; half-written ones are removed."""
    found = []
    for path in folder.glob("checkpoint-*"):
        if (path / WHOLE).exists():
            found.append(path)
        else:
            shutil.rmtree(path)
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None


def restore(student: Student, checkpoint: str) -> None:
    """Take a checkpoint's whole weights over.

    The Trainer looks for the names that weights have in memory, and ignores what it does not find; on disk they
    have those of the published models. An adapter it restores itself.
    """
    if (Path(checkpoint) / "config.json").exists():
        saved = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=student.model.dtype)
        student.model.load_state_dict(saved.state_dict())
