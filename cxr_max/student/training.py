"""What both stages of training share: a fixed course, divided among processes, and one result."""

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor
from transformers import (
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
from cxr_max.student import processes
from cxr_max.student.batches import Turns
from cxr_max.student.card import card
from cxr_max.student.checkpoints import PLAIN, Checkpoints, last_checkpoint, restore
from cxr_max.student.curves import CURVES, write_course
from cxr_max.student.data import Lesson, Turn, division, filled
from cxr_max.student.logps import core
from cxr_max.student.model import Student, open_student, save_student
from cxr_max.student.settings import Course, Model, Recipe, Stage
from cxr_max.student.trackers import Tracking, require

Watch = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""

DRAW_EVERY: Final = 60.0
"""Seconds: curves are drawn when a checkpoint is written, but not more often than this."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training made."""

    checkpoint: str
    """The folder of the student."""
    steps: int
    seconds: float
    metrics: dict[str, float]
    """Of the last step."""
    warnings: tuple[str, ...] = ()


class StudentTrainer(Trainer):
    """transformers' Trainer on packs. Subclasses say what the loss of a pack is.

    The data are one long epoch in a fixed order, so that a step's data depend on the step's number alone and a
    resumed run sees what an undisturbed one would have seen, by however many processes.
    """

    measures: tuple[str, ...] = ()
    """What a subclass notes with ``seen``; the same in every process, whatever its packs hold."""
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
            callbacks=[Checkpoints(), _Steps(watch)],
        )
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        # The Trainer then counts ``labels`` over all passes and processes of a step; the loss is divided by them.
        self.model_accepts_loss_kwargs = True
        self.warned: list[str] = []
        self._counts = {"replies": 0, "replies_cut": 0}
        self._seen: dict[str, list[Tensor]] = {}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The pack's summed loss, divided by what the whole step holds."""
        self._counts = {name: count + inputs["counts"][name] for name, count in self._counts.items()}
        total = self.pack_loss(model, inputs)
        # DDP averages gradients over processes, so that each counts as often as there are processes.
        return total / num_items_in_batch * self.accelerator.num_processes

    def pack_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """The loss of a pack, summed over what ``labels`` counts."""
        raise NotImplementedError

    def seen(self, **values: Tensor) -> None:
        """Keep numbers of this pass, as many of each as there are; their means are logged with the step."""
        for name, these in values.items():
            self._seen.setdefault(name, []).append(these.float())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what all processes saw since the last time: the means, and how many replies there were."""
        if "loss" in logs:
            seen = [torch.cat(self._seen.get(name, [torch.empty(0)])) for name in self.measures]
            numbers = [x for these in seen for x in (float(these.sum()), len(these))]
            mine = torch.tensor([*self._counts.values(), *numbers], device=self.args.device)
            counts, of_all = self.accelerator.reduce(mine, "sum").split([len(self._counts), len(numbers)])
            logs |= {name: round(count) for name, count in zip(self._counts, counts.tolist(), strict=True)}
            for name, (total, times) in zip(self.measures, of_all.view(-1, 2).tolist(), strict=True):
                if times:
                    logs[name] = total / times
            self._seen.clear()
            self._counts = dict.fromkeys(self._counts, 0)
        super().log(logs, start_time)

    @property
    def launched_with(self) -> str:
        """In the words of ``checkpoints.writer``."""
        return "FSDP" if self.is_fsdp_enabled else "DeepSpeed" if self.is_deepspeed_enabled else PLAIN

    @property
    def history(self) -> list[dict[str, float]]:
        """The logged steps, those before an interruption too; without the Trainer's epoch, which is none here."""
        logged = [entry for entry in self.state.log_history if "loss" in entry]
        return [{name: value for name, value in entry.items() if name != "epoch"} for entry in logged]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not estimated: transformers' formula knows no packs."""
        return 0


class _Steps(TrainerCallback):
    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # The last step is logged, whatever log_every says.
        control.should_log = control.should_log or state.global_step == state.max_steps
        if state.is_world_process_zero:
            self._watch("Training", state.global_step, state.max_steps)


class _Course(TrainerCallback):
    """Writes ``metrics.jsonl`` and the curves beside the checkpoints."""

    def __init__(self, trainer: StudentTrainer, out: Path) -> None:
        self._trainer, self._out, self._drawn = trainer, out, time.monotonic()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero and time.monotonic() - self._drawn >= DRAW_EVERY:
            write_course(self._trainer.history, self._out)
            self._drawn = time.monotonic()


def begin(stage: Stage, base: str, recipe: Recipe, out: Path, data: str) -> Student:
    """Open what is trained, and keep the settings for later starts of the same command.

    Raises:
        RequestError: the model is wrong, a tracker is missing, or the folder holds a training with other settings.
    """
    require(recipe.log.to)
    processes.require_gpus()
    course, model = cast(Course, getattr(recipe, stage)), recipe.model
    processes.here()
    # A new adapter is drawn at random; the Trainer seeds what comes after it.
    set_seed(course.seed)
    student = open_student(base, lora=model.lora, dtype=model.dtype, max_pixels=model.max_pixels, trainable=True)
    if not model.vision:
        core(student.model).visual.requires_grad_(False)
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
    processes.wait()
    if processes.is_main():
        write_text(path, wanted)
    processes.wait()
    return student


def course_of(
    student: Student, lessons: Sequence[Lesson], turns: Sequence[Turn], course: Course, model: Model, out: Path
) -> tuple[Turns, TrainingArguments]:
    """The data in their order, and the Trainer's arguments, for as many processes as there are.

    An optimizer step holds the same ``images_per_step`` image sets whatever their number: they are dealt out
    evenly, and what is left of the last pass is idle.
    """
    together = processes.here().num_processes
    passes, per_pass = division(course.images_per_step, course.images_per_pass, together)
    data = Turns(
        student.chat, lessons, filled(turns, course.images_per_step, per_pass * together), course.max_length
    )
    steps = math.ceil(len(turns) / course.images_per_step)
    return data, _arguments(out, course, model, steps, passes, per_pass)


def _arguments(
    out: Path, course: Course, model: Model, steps: int, passes: int, per_pass: int
) -> TrainingArguments:
    checkpointing: dict[str, Any] = {}
    if model.gradient_checkpointing:
        checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    return TrainingArguments(
        output_dir=str(out / "checkpoints"),
        num_train_epochs=1,
        per_device_train_batch_size=per_pass,
        gradient_accumulation_steps=passes,
        learning_rate=course.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(course.warmup * steps),
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
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        **checkpointing,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
    )


def run(trainer: StudentTrainer, student: Student, recipe: Recipe, out: Path, *, merged: bool) -> Trained:
    """Train, from the last whole checkpoint if there is one, and write the student to ``out/student``.

    Raises:
        RequestError: a tracker refuses.
        StorageError: the disk refused; the last whole checkpoint is untouched.
    """
    started = time.monotonic()
    trainer.add_callback(_Course(trainer, out))
    settings = json.loads((out / "train.json").read_text("utf-8"))
    tracking = Tracking(recipe.log.to if processes.is_main() else (), out, settings)
    trainer.add_callback(tracking)
    checkpoint = last_checkpoint(out / "checkpoints")
    if checkpoint is not None:
        restore(student, checkpoint, trainer.launched_with)
    # Numbers too small to matter make a CPU many times slower; other code in this process may want them.
    torch.set_flush_denormal(True)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
        _finish(trainer, student, settings, out, merged)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        raise StorageError(
            f"{out} cannot be written ({error}). The last whole checkpoint is untouched: make room, and the same"
            " command goes on from there."
        ) from error
    finally:
        torch.set_flush_denormal(False)
        tracking.close()
    processes.wait()
    last = trainer.history[-1] if trainer.history else {}
    metrics = {name: value for name, value in last.items() if isinstance(value, float)}
    warnings = (*trainer.warned, *_cut(trainer.history, trainer.train_dataset.max_length))
    seconds = round(time.monotonic() - started, 2)
    return Trained(str(out / "student"), trainer.state.global_step, seconds, metrics, warnings)


def _cut(history: Sequence[dict[str, float]], max_length: int) -> list[str]:
    cut, replies = (sum(entry[name] for entry in history) for name in ("replies_cut", "replies"))
    if not cut:
        return []
    return [
        f"{cut} of {replies} replies, each with its prompt, took more than {max_length} tokens: they were cut, and"
        " their ends were not learnt. Raise max_length in the recipe, or lower max_pixels."
    ]


def _finish(trainer: StudentTrainer, student: Student, settings: dict[str, Any], out: Path, merged: bool) -> None:
    """Write what the training made; all processes must call it, for each may hold a part of the weights."""
    sharded = trainer.is_fsdp_enabled
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if not trainer.is_world_process_zero():
        return
    write_course(trainer.history, out)
    partial = out / "student.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_student(student, partial, merged=merged and not sharded, weights=weights)
    if merged and sharded:
        whole = open_student(str(partial), dtype=str(student.model.dtype).removeprefix("torch."))
        shutil.rmtree(partial)
        save_student(whole, partial, merged=True)
    last = trainer.history[-1] if trainer.history else {}
    write_text(partial / "README.md", card(settings, Path(student.base).name, trainer.state.global_step, last))
    shutil.copyfile(out / CURVES, partial / CURVES)
    shutil.rmtree(out / "student", ignore_errors=True)
    partial.replace(out / "student")
