"""What a student learns from: image sets with a question and replies to it, and the order in which they come."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

from cxr_max.image_set import ImageSet


@dataclass(frozen=True, slots=True)
class Lesson:
    """One image set, one question, and replies to it.

    For supervised training the replies are the teachers'; for preferences the first is the preferred one and the
    others are dispreferred.
    """

    study_id: str
    images: ImageSet
    prompt: str
    """As it was filled in and sent."""
    replies: tuple[str, ...]
    teachers: tuple[str, ...]
    """Who wrote each reply; ``consensus`` for a preferred one."""
    agreeing: tuple[bool, ...] = ()
    """Of preferences, for each reply: whether it claims exactly what the first one claims."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A lesson's turn in training: which of its replies are learnt from. A reply may stand here twice."""

    lesson: int
    replies: tuple[int, ...]
    idle: bool = False
    """Fills a pass up and counts for nothing: no loss, no gradient, no number."""


def sft_turns(lessons: Sequence[Lesson], *, smoothing: float, epochs: int, seed: int) -> list[Turn]:
    """Every epoch, all image sets in a new order, with draws of replies smoothed over teachers.

    Of T replies, n_u by teacher u of N, teacher u is drawn (1 - s) n_u / T + s / N of the time: each of its
    replies c_u = that times T / n_u times per epoch on average, floor(c_u) times for certain and once more by
    chance. Where all teachers wrote equally many, every reply comes exactly once. The paper (arXiv 2510.04142)
    gives no formula.

    Args:
        smoothing: s, 0 to 1.
    """
    written = Counter(teacher for lesson in lessons for teacher in lesson.teachers)
    total = sum(written.values())
    times = {
        teacher: (1 - smoothing) + smoothing * total / (len(written) * count) for teacher, count in written.items()
    }
    turns = []
    for epoch in range(epochs):
        chance = random.Random(f"{seed} {epoch}")
        for index in chance.sample(range(len(lessons)), len(lessons)):
            drawn = [
                reply
                for reply, teacher in enumerate(lessons[index].teachers)
                for _ in range(_times(times[teacher], chance))
            ]
            if drawn:
                turns.append(Turn(index, tuple(drawn)))
    return turns


def _times(expected: float, chance: random.Random) -> int:
    whole = floor(expected)
    return whole + (chance.random() < expected - whole)


def preference_turns(lessons: Sequence[Lesson], *, epochs: int, seed: int) -> list[Turn]:
    """Every epoch, all preferences in a new order, each with all its replies."""
    turns = []
    for epoch in range(epochs):
        order = random.Random(f"{seed} {epoch}").sample(range(len(lessons)), len(lessons))
        turns += whole_turns(lessons, order)
    return turns


def whole_turns(lessons: Sequence[Lesson], order: Sequence[int]) -> list[Turn]:
    """Lessons in this order, each with all its replies."""
    return [Turn(index, tuple(range(len(lessons[index].replies)))) for index in order]


def division(per_step: int, per_pass: int, processes: int) -> tuple[int, int]:
    """How the image sets of an optimizer step are divided.

    Args:
        per_step: image sets of all processes together.
        per_pass: image sets that one process passes through the model at once, at most.

    Returns:
        Passes of each process, and image sets in a pass: as few passes as may be, and as even as may be.
    """
    passes = ceil(per_step / (per_pass * processes))
    return passes, ceil(per_step / (passes * processes))


def filled(turns: Sequence[Turn], per_step: int, together: int) -> list[Turn]:
    """All turns, each step's followed by so many idle ones that all processes have equally many passes.

    So a step holds the same image sets whatever the number of processes, and none waits for another in vain.

    Args:
        together: image sets in one pass of all processes.
    """
    steps = [turns[start : start + per_step] for start in range(0, len(turns), per_step)]
    idle = [[replace(step[0], idle=True)] * (-len(step) % together) for step in steps]
    return [turn for step, more in zip(steps, idle, strict=True) for turn in (*step, *more)]
