"""Small lessons, a small model and small settings, for tests of training."""

import random
from pathlib import Path

import numpy as np
from PIL import Image

from cxr_max.image_set import ImageSet
from cxr_max.shards import sha256_of
from cxr_max.student.data import Lesson
from cxr_max.student.settings import Apo, Lora, Model, Recipe, Sft
from cxr_max.student.tiny import TinySize, write_tiny

SMALL = TinySize(
    hidden=32,
    layers=1,
    heads=2,
    key_value_heads=1,
    vision_hidden=16,
    vision_layers=1,
    vision_heads=2,
    vocabulary=400,
)
TEACHERS = ("ada", "bea", "cyd")


def write_lessons(folder: Path, studies: int = 6, preferences: bool = False) -> list[Lesson]:
    """Noise with a grey level, and replies that name it; of preferences the first reply is the right one."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(3)
    lessons = []
    for index in range(studies):
        path = folder / f"{index}.png"
        bright = index % 2
        grey = np.random.default_rng(index).normal(90 + 70 * bright, 20, (84, 84))
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(path)
        right, wrong = ("bright", "dark") if bright else ("dark", "bright")
        replies = [f"The film is {chance.choice((right, wrong))}, says {name}." for name in TEACHERS]
        teachers = TEACHERS
        if preferences:
            replies, teachers = [f"The film is {right}.", *replies], ("consensus", *TEACHERS)
        same = tuple(right in reply for reply in replies) if preferences else ()
        images = ImageSet((path,), (sha256_of(path),), "as_is-1@1024")
        lessons.append(Lesson(str(index), images, "How is the film?", tuple(replies), teachers, same))
    return lessons


def base(folder: Path) -> str:
    """A small model on disk."""
    write_tiny(folder, seed=1, texts=["The film is bright, says ada. The film is dark."] * 20, size=SMALL)
    return str(folder)


def recipe(
    sft: dict[str, object] | None = None, apo: dict[str, object] | None = None, lora: bool = False
) -> Recipe:
    """Six lessons in three steps an epoch."""
    common = {"max_length": 200, "images_per_step": 2, "save_every": 2}
    return Recipe(
        model=Model(lora=Lora(rank=4, alpha=8) if lora else None, dtype="float32", max_pixels=84 * 84),
        sft=Sft(**{**common, "learning_rate": 3e-3, "epochs": 3, **(sft or {})}),
        apo=Apo(**{**common, "learning_rate": 1e-3, "epochs": 3, **(apo or {})}),
    )
