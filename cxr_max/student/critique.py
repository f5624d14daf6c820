"""Stage 3, "critique": the SFT student is trained to prefer the consensus to every teacher (arXiv 2510.04142)."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cxr_max.student.apo import apo_loss
from cxr_max.student.batches import NOT_COUNTED, Turns, collate_apo
from cxr_max.student.data import Lesson, preference_turns, whole_turns
from cxr_max.student.logps import sums, token_logps
from cxr_max.student.model import Student
from cxr_max.student.reference import reference_logps
from cxr_max.student.settings import Apo, Recipe
from cxr_max.student.training import StudentTrainer, Trained, Watch, begin, course_of, run

WARN_BELOW: Final = 1.0
"""Nats. With the preferred log-prob so far below the reference on average, likelihood is displaced (Razin et al.
2024)."""
WINDOW: Final = 5
"""Logged steps that the average is over."""


class ApoTrainer(StudentTrainer):
    """The Plackett-Luce loss of ``apo.apo_loss``, with the anchor, over packs of whole lessons."""

    measures = (
        "apo_loss",
        "chosen_nll",
        "chosen_logp_shift",
        "reward_chosen",
        "reward_rejected",
        "reward_margin",
        "reward_accuracy",
    )

    def __init__(
        self,
        student: Student,
        data: Turns,
        reference: list[list[float]],
        apo: Apo,
        args: TrainingArguments,
        watch: Watch,
    ) -> None:
        super().__init__(student, data, collate_apo, args, watch)
        self._lessons, self._reference, self._apo = data.lessons, reference, apo
        self.add_callback(_Displacement(apo.stop_below, self.warned))

    def pack_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Summed over studies, in nats."""
        pack, lessons, counted = inputs["pack"], inputs["lessons"].tolist(), inputs["labels"] != NOT_COUNTED
        values = token_logps(model, pack)
        counts = [len(study) - 1 for study in pack.layout]
        policy = _table(sums(values, pack.reply_lengths), counts)
        reference = _table(policy.new_tensor([x for index in lessons for x in self._reference[index]]), counts)
        weights = _table(
            policy.new_tensor([w for i in lessons for w in weights_of(self._lessons[i], self._apo)]), counts
        )
        loss = apo_loss(policy, reference, self._apo.beta, weights=weights)
        lengths = policy.new_tensor([study[1] for study in pack.layout])
        anchor = -policy[:, 0] / lengths
        about = (policy.detach() - reference, weights, loss.detach(), anchor.detach())
        self._note(*(values[counted] for values in about))
        return (loss + self._apo.anchor * anchor)[counted].sum()

    def _note(self, shift: Tensor, weights: Tensor, loss: Tensor, anchor: Tensor) -> None:
        rewards, heard = self._apo.beta * shift, weights[:, 1:] > 0
        chosen, others = rewards[:, :1].expand_as(rewards[:, 1:])[heard], rewards[:, 1:][heard]
        self.seen(
            apo_loss=loss,
            chosen_nll=anchor,
            chosen_logp_shift=shift[:, 0],
            reward_chosen=chosen,
            reward_rejected=others,
            reward_margin=chosen - others,
            reward_accuracy=(chosen > others).float(),
        )


def _table(values: Tensor, counts: Sequence[int]) -> Tensor:
    """(B, most replies): ragged rows, padded with 0."""
    return torch.nn.utils.rnn.pad_sequence(values.split(list(counts)), batch_first=True)


def weights_of(lesson: Lesson, apo: Apo) -> list[float]:
    """How much each reply counts as a negative; 0 leaves it out. The preferred one, first, is no negative: 1."""
    weights = [apo.teacher_weights.get(teacher, 1.0) for teacher in lesson.teachers[1:]]
    if apo.agreeing == "drop":
        weights = [0.0 if same else weight for weight, same in zip(weights, lesson.agreeing[1:], strict=True)]
    return [1.0, *weights]


class _Displacement(TrainerCallback):
    """Watches the preferred log-prob against the reference; warns once, and stops if that was asked for."""

    def __init__(self, stop_below: float | None, warned: list[str]) -> None:
        self._stop_below, self._warned = stop_below, warned

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        shifts = [entry["chosen_logp_shift"] for entry in state.log_history if "chosen_logp_shift" in entry]
        if len(shifts) < WINDOW:
            return
        fallen = -fmean(shifts[-WINDOW:])
        if self._stop_below is not None and fallen > self._stop_below:
            control.should_training_stop = True
            self._warned.append(
                f"Stopped at step {state.global_step}: the preferred replies' log-prob fell {fallen:.1f} nats"
                " below the reference. Lower learning_rate, or raise anchor."
            )
        elif fallen > WARN_BELOW and not self._warned:
            self._warned.append(
                f"From step {state.global_step} on, the preferred replies' log-prob is {fallen:.1f} nats or"
                " more below the reference (likelihood displacement): lower learning_rate, raise anchor,"
                " or set stop_below."
            )


def train_apo(
    base: str,
    lessons: Sequence[Lesson],
    recipe: Recipe,
    out: Path,
    *,
    data: str,
    watch: Watch,
    merged: bool = False,
) -> Trained:
    """Train a student to prefer each lesson's first reply to the others. ``base`` is policy's start and reference.

    Args:
        base, out, data, merged: as of ``sft.train_sft``; ``out`` gets ``reference.sqlite`` too.

    Raises:
        RequestError, ImageError, StorageError: as ``sft.train_sft``.
    """
    course = recipe.apo
    student = begin("apo", base, recipe, out, data)
    turns = preference_turns(lessons, epochs=course.epochs, seed=course.seed)
    dataset, arguments = course_of(student, lessons, turns, course, recipe.model, out)
    each = Turns(student.chat, lessons, whole_turns(lessons, range(len(lessons))), course.max_length)
    reference = reference_logps(student, each, out / "reference.sqlite", watch)
    trainer = ApoTrainer(student, dataset, reference, course, arguments, watch)
    return run(trainer, student, recipe, out, merged=merged)
