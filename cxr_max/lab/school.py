"""A base that speaks of what it sees: it names the phantoms' signs in code, and learns how one writes.

Like the real base it has eyes and words, and no diagnosis: which sign is which finding it has to learn from the
teachers. So what it knows cannot leak into the comparison of the arms.
"""

import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from cxr_max import prompts
from cxr_max.builders.sources.registry import open_source
from cxr_max.eval.metrics.classification import balanced_accuracy
from cxr_max.image_set import ImageSet
from cxr_max.lab.eyes import STUDENT
from cxr_max.lab.settings import PROMPT
from cxr_max.lab.world import source
from cxr_max.radiograph import rendering_id
from cxr_max.records import Study
from cxr_max.shards import canonical_json, sha256_of, write_text
from cxr_max.student.data import Lesson
from cxr_max.student.eyes import give_eyes
from cxr_max.student.generation import Request, generate
from cxr_max.student.model import open_student
from cxr_max.student.settings import Recipe
from cxr_max.student.sft import train_sft
from cxr_max.student.tiny import write_tiny
from cxr_max.student.training import Watch

QUESTION: Final = "Which signs are in the picture?"
CODES: Final = {
    "Pneumonia": "alpha", "Support Devices": "bravo", "Consolidation": "carol", "Atelectasis": "delta",
    "Edema": "echo", "Cardiomegaly": "fox", "Pneumothorax": "golf", "Pleural Effusion": "hotel",
}  # fmt: skip
"""In this order, in which no finding has the place that it has in an answer: the place too would tell."""
SEEN: Final = 200
"""Further phantoms on which it is tried whether the base says what it sees."""
WRITING: Final = 0.4
"""Texts, of the pictures."""
_AT_ONCE: Final = 50


def school(out: Path, eyes: Path, count: int, texts: Sequence[str], recipe: Recipe, watch: Watch) -> None:
    """Write the base to ``out/student``, and how well it says what it sees to ``out/seen.json``.

    Signs under code names alternate with texts that belong to other pictures. The eyes stay as they are.

    Args:
        eyes: the folder of ``lab.eyes``.
        texts: the teachers', for the tokenizer, and to learn how one writes.
    """
    lessons = _lessons("school", count, out)
    mixed = [*lessons, *_writing(lessons[: round(WRITING * count)], texts)]
    course = {"learning_rate": 3e-3, "images_per_step": 16, "images_per_pass": 16, "epochs": 1}
    schooling = recipe.model_copy(update={"sft": recipe.sft.model_copy(update=course)})
    blank = _blank(out, eyes, texts, lessons)
    train_sft(str(blank), mixed, schooling, out, data=f"{source('school')} and texts", watch=watch)
    seen = _seen(out / "student", _lessons("seen", min(SEEN, count), out))
    write_text(out / "seen.json", canonical_json(seen))


def _blank(out: Path, eyes: Path, texts: Iterable[str], lessons: Sequence[Lesson]) -> Path:
    base = out / "blank"
    if not base.exists():
        partial = out / "blank.partial"
        shutil.rmtree(partial, ignore_errors=True)
        write_tiny(
            partial, texts=[*texts, *(lesson.replies[0] for lesson in lessons[:50]), QUESTION], size=STUDENT
        )
        give_eyes(partial, eyes)
        partial.replace(base)
    return base


def _writing(lessons: Sequence[Lesson], texts: Sequence[str]) -> list[Lesson]:
    """A text by lot for every picture: how one writes can be learnt from it, and nothing about the picture."""
    chance, prompt = random.Random(0), prompts.load(PROMPT).text
    return [replace(lesson, prompt=prompt, replies=(chance.choice(texts),)) for lesson in lessons]


def _lessons(which: str, count: int, workspace: Path) -> list[Lesson]:
    studies = open_source(source(which), workspace=workspace).studies()
    return [_lesson(study) for study in islice(studies, count)]


def _lesson(study: Study) -> Lesson:
    path = study.radiographs[0].path
    images = ImageSet((path,), (sha256_of(path),), rendering_id(path, "mimic_jpg"))
    return Lesson(study.study_id, images, QUESTION, (_signs(study),), ("truth",))


def _signs(study: Study) -> str:
    findings = study.reference_findings or {}
    return "\n".join(f"{code}: {'yes' if findings[name] == 1 else 'no'}" for name, code in CODES.items())


def _seen(student: Path, lessons: Sequence[Lesson]) -> dict[str, float | None]:
    """Of each sign, the greedy answer's balanced accuracy on phantoms that it never saw."""
    opened = open_student(str(student))
    said: list[str] = []
    for start in range(0, len(lessons), _AT_ONCE):
        asked = [
            Request(tuple(i.jpeg for i in lesson.images.encoded()), lesson.prompt, None, None, 64, 0)
            for lesson in lessons[start : start + _AT_ONCE]
        ]
        said += [one.text for one in generate(opened, asked)]
    found = {}
    for name, code in CODES.items():
        truth = np.array([f"{code}: yes" in lesson.replies[0] for lesson in lessons])
        claim = np.array([f"{code}: yes" in text for text in said])
        found[name] = balanced_accuracy(truth, claim).measured().value
    return found
