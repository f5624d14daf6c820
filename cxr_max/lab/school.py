"""A base that can see: the tiny student learns the phantoms' signs under code names, before any teacher speaks.

Like the real base it has eyes and no diagnosis: every painted finding has a code name here, and which code is
which finding it has to learn from the teachers. So what it knows cannot leak into the comparison of the arms.
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
from cxr_max.image_set import ImageSet
from cxr_max.lab.settings import PROMPT
from cxr_max.lab.world import source
from cxr_max.radiograph import rendering_id
from cxr_max.records import Study
from cxr_max.shards import canonical_json, sha256_of, write_text
from cxr_max.student.data import Lesson
from cxr_max.student.generation import Request, generate
from cxr_max.student.model import open_student
from cxr_max.student.settings import Recipe
from cxr_max.student.sft import train_sft
from cxr_max.student.tiny import write_tiny
from cxr_max.student.training import Watch

QUESTION: Final = "Which signs are in the picture?"
CODES: Final = ("alpha", "bravo", "carol", "delta", "echo", "fox", "golf", "hotel", "india")
SIGNS: Final = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Lung Lesion", "Pleural Effusion", "Pneumonia",
    "Pneumothorax", "Support Devices",
)  # fmt: skip
SEEN: Final = 200
"""Further phantoms on which it is tried whether the base sees."""
_AT_ONCE: Final = 50


def school(out: Path, count: int, texts: Sequence[str], recipe: Recipe, watch: Watch) -> None:
    """Write the base to ``out/student``, and what it sees to ``out/seen.json``.

    Two courses: to see, and to write. In the second, the eyes stay as they are, and signs alternate
    with texts about other pictures.

    Args:
        texts: the teachers', for the tokenizer, and to learn how one writes.
    """
    lessons = _lessons("school", count, out)
    course = {"learning_rate": 1e-3, "images_per_step": 8, "images_per_pass": 8}
    seeing = recipe.sft.model_copy(update={**course, "epochs": 5})
    blank = _blank(out, texts, lessons)
    whole = recipe.model_copy(update={"sft": seeing, "model": recipe.model.model_copy(update={"vision": True})})
    train_sft(str(blank), lessons, whole, out / "signs", data=source("school"), watch=watch)
    writing = recipe.sft.model_copy(update={**course, "epochs": 1})
    mixed = [*lessons[: count // 2], *_writing(lessons[: 3 * count // 5], texts)]
    train_sft(
        str(out / "signs" / "student"), mixed, recipe.model_copy(update={"sft": writing}), out,
        data=f"{source('school')} and texts", watch=watch,
    )  # fmt: skip
    seen = _seen(out / "student", _lessons("seen", min(SEEN, count), out))
    write_text(out / "seen.json", canonical_json(seen))


def _blank(out: Path, texts: Iterable[str], lessons: Sequence[Lesson]) -> Path:
    base = out / "blank"
    if not base.exists():
        partial = out / "blank.partial"
        shutil.rmtree(partial, ignore_errors=True)
        write_tiny(partial, seed=0, texts=[*texts, *(lesson.replies[0] for lesson in lessons[:50])])
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
    pairs = zip(CODES, SIGNS, strict=True)
    return "\n".join(f"{code} {'yes' if findings[name] == 1 else 'no'}" for code, name in pairs)


def _seen(student: Path, lessons: Sequence[Lesson]) -> dict[str, dict[str, float]]:
    """Of each sign, the greedy answer's accuracy and balanced accuracy on phantoms that it never saw."""
    opened = open_student(str(student))
    said: list[str] = []
    for start in range(0, len(lessons), _AT_ONCE):
        asked = [
            Request(tuple(i.jpeg for i in lesson.images.encoded()), lesson.prompt, None, None, 64, 0)
            for lesson in lessons[start : start + _AT_ONCE]
        ]
        said += [one.text for one in generate(opened, asked)]
    found = {}
    for code, name in zip(CODES, SIGNS, strict=True):
        truth = np.array([f"{code} yes" in lesson.replies[0] for lesson in lessons])
        claim = np.array([f"{code} yes" in text for text in said])
        rates = [
            float((claim == truth)[truth == state].mean()) for state in (True, False) if (truth == state).any()
        ]
        found[name] = {"accuracy": float((claim == truth).mean()), "balanced_accuracy": float(np.mean(rates))}
    return found
