"""A release -> a student: finds the pixels, makes the lessons, and hands them to the trainer."""

import shutil
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from cxr_max.builders.lessons import apo_lessons, sft_lessons
from cxr_max.builders.pixels import open_pixels
from cxr_max.builders.release import read_manifest
from cxr_max.builders.run_folder import release_in
from cxr_max.student import processes
from cxr_max.student.critique import train_apo
from cxr_max.student.data import Lesson
from cxr_max.student.settings import Recipe, Stage
from cxr_max.student.sft import train_sft
from cxr_max.student.tiny import write_tiny
from cxr_max.student.training import Trained, Watch


def train(
    stage: Stage,
    release: Path,
    base: str,
    recipe: Recipe,
    out: Path,
    images: str | None,
    merged: bool,
    watch: Watch,
) -> Trained:
    """Train a student on a sealed release. Under ``accelerate launch`` every process calls this.

    Args:
        base: a name on the Hub, a folder, or ``tiny``, which is written to ``out/base`` first.
        images: the source of the images, where the run's own is not at hand.

    Raises:
        RequestError, ImageError, StorageError: see ``train_sft`` and ``builders.lessons``.
    """
    folder = release_in(release)
    pixels = open_pixels(folder, images)
    data = read_manifest(folder)["trajectories_digest"]
    if stage == "sft":
        lessons = sft_lessons(folder, pixels, refusals=recipe.sft.refusals)
        base = _tiny(out, lessons, recipe.sft.seed) if base == "tiny" else base
        return train_sft(base, lessons, recipe, out, data=data, watch=watch, merged=merged)
    lessons = apo_lessons(folder, pixels)
    base = _tiny(out, lessons, recipe.apo.seed) if base == "tiny" else base
    return train_apo(base, lessons, recipe, out, data=data, watch=watch, merged=merged)


def _tiny(out: Path, lessons: Sequence[Lesson], seed: int) -> str:
    """The tiny model's folder; its tokenizer knows the lessons' words."""
    folder = (out / "base").resolve()
    if processes.is_main() and not folder.exists():
        partial = folder.with_name("base.partial")
        shutil.rmtree(partial, ignore_errors=True)
        write_tiny(partial, seed=seed, texts=chain.from_iterable(lesson.replies for lesson in lessons))
        partial.replace(folder)
    processes.wait()
    return str(folder)
