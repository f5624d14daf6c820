"""Stage 1, "learn": supervised fine-tuning of the student on all teachers' trajectories (arXiv 2510.04142)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cxr_max.student.batches import NOT_COUNTED, collate_sft
from cxr_max.student.data import Lesson, sft_turns
from cxr_max.student.logps import token_logps
from cxr_max.student.settings import Recipe
from cxr_max.student.training import StudentTrainer, Trained, Watch, begin, course_of, run


class SftTrainer(StudentTrainer):
    """Mean negative log-likelihood per reply token; prompt and image are not learnt."""

    def pack_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Summed over reply tokens, in nats."""
        learnt = inputs["labels"] != NOT_COUNTED
        return -token_logps(model, inputs["pack"])[learnt].sum()


def train_sft(
    base: str,
    lessons: Sequence[Lesson],
    recipe: Recipe,
    out: Path,
    *,
    data: str,
    watch: Watch,
    merged: bool = False,
) -> Trained:
    """Train a student on what the teachers wrote.

    Args:
        base: the model's name on the Hub, or its folder.
        out: gets ``checkpoints``, ``metrics.jsonl``, ``curves.png`` and ``student``; the same call goes on
            after an interruption. Under ``accelerate launch`` every process calls, and the main one writes.
        data: the digest of the trajectories.
        merged: write whole weights, not the adapter.

    Raises:
        RequestError: the model or a setting is wrong.
        ImageError: an image is not what the teachers saw.
        StorageError: the disk refused.
    """
    course = recipe.sft
    student = begin("sft", base, recipe, out, data)
    turns = sft_turns(lessons, smoothing=course.teacher_smoothing, epochs=course.epochs, seed=course.seed)
    dataset, arguments = course_of(student, lessons, turns, course, recipe.model, out)
    trainer = SftTrainer(student, dataset, collate_sft, arguments, watch)
    return run(trainer, student, recipe, out, merged=merged)
