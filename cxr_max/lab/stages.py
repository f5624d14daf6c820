"""What each stage does, in a process of its own: ``python -m cxr_max.lab.stages OUT STAGE``.

Progress goes to stdout, one JSON object a line. All work is that of the builders, the student and eval.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cxr_max.builders.build import BuildRequest, build
from cxr_max.builders.lessons import apo_lessons, sft_lessons
from cxr_max.builders.pixels import open_pixels
from cxr_max.builders.release import read_manifest
from cxr_max.lab.own_words import in_own_words
from cxr_max.lab.settings import ARMS, PROMPT, RECIPE, SELF, SINGLE, Settings, read_settings
from cxr_max.lab.world import source, teachers, write_roster
from cxr_max.shards import write_text
from cxr_max.student.data import Lesson
from cxr_max.student.settings import Recipe, read_recipe
from cxr_max.teachers.simulator.personas import PERSONAS

ANCHOR: Final = 2.0
STRONG: Final = 10.0
PAPER_RATIO: Final = 1 / 200
"""Preference training's learning rate over SFT's, in the paper: 5e-7 over 1e-4."""
SHUFFLED: Final = "apo-shuffled"
_EVERY_S: Final = 1.0


class Told:
    """Passes progress on, at most once a second; also the watch of whoever asks."""

    def __init__(self, total: int = 0) -> None:
        self._said, self._done, self._total = 0.0, 0, total

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said >= _EVERY_S or done == total:
            self._said = now
            print(json.dumps({"what": what, "done": done, "total": total}), flush=True)

    def started(self, teachers: Sequence[Any], studies: int | None) -> None:
        self._total = self._total or len(teachers) * (studies or 0)

    def answered(self, *_: Any) -> None:
        self._done += 1
        self("Asking", min(self._done, self._total), self._total)

    def planned(self, *_: Any) -> None:
        pass

    study = warned = failed = stopped = stopping = batches = sealing = planned


def run(out: Path, lab: Settings, name: str) -> None:
    """Do one stage; everything that it needs is there."""
    what, which, seed = name.split(":")
    {"build": _build, "eyes": _eyes, "school": _school, "consensus": _consensus, "train": _train, "eval": _eval}[
        what
    ](out, lab, which, int(seed))


def folder(out: Path, what: str, which: str, seed: int) -> Path:
    """Where a stage's work goes."""
    return out / what / f"{which}-{seed}"


def _build(out: Path, lab: Settings, which: str, seed: int) -> None:
    place = folder(out, "build", which, seed)
    place.mkdir(parents=True, exist_ok=True)
    if which == SELF:
        write_text(place / "roster.toml", _student_table(which, folder(out, "train", "sft-all", seed) / "student"))
    else:
        write_roster(place / "roster.toml", which, seed)
    studies = {"tune": lab.tune, "test": lab.test, "shifted": lab.shifted}.get(which, lab.train)
    asked = BuildRequest(
        source(which, seed),
        teachers(which),
        place,
        prompt=PROMPT,
        studies=studies,
        roster=place / "roster.toml",
    )
    result = build(asked, Told())
    if not result.complete:
        raise SystemExit(f"{result.failed} replies are missing: the same command asks for them again.")


def _consensus(out: Path, lab: Settings, which: str, seed: int) -> None:
    from cxr_max.builders.consensus import fill

    fill(folder(out, "build", which, seed) / "release", watch=Told())


def recipe_of(lab: Settings, seed: int) -> Recipe:
    """The lab's for the tiny base, the paper's for any other."""
    recipe = read_recipe(str(RECIPE) if lab.base == "tiny" else "paper")
    seeded = {stage: getattr(recipe, stage).model_copy(update={"seed": seed}) for stage in ("sft", "apo")}
    return recipe.model_copy(update=seeded)


def _eyes(out: Path, lab: Settings, which: str, seed: int) -> None:
    from cxr_max.lab.eyes import eyes

    eyes(folder(out, "eyes", which, seed), lab.eyes, Told())


def preferring(arm: str, recipe: Recipe) -> Recipe:
    """Without an anchor as in the paper, with its ratio of learning rates; with one, as the recipe says."""
    if arm in ("apo", "dpo"):
        update = {"anchor": 0.0, "learning_rate": recipe.sft.learning_rate * PAPER_RATIO}
    else:
        update = {"anchor": STRONG if arm == "strong-anchor" else ANCHOR}
    return recipe.model_copy(update={"apo": recipe.apo.model_copy(update=update)})


def _school(out: Path, lab: Settings, which: str, seed: int) -> None:
    from cxr_max.lab.school import school

    release = folder(out, "build", "train", 0) / "release"
    texts = [reply for lesson in sft_lessons(release, open_pixels(release)) for reply in lesson.replies]
    seeing = folder(out, "eyes", which, seed)
    school(folder(out, "school", which, seed), seeing, lab.school, texts, recipe_of(lab, 0), Told())


def _base(out: Path, lab: Settings) -> str:
    return str(folder(out, "school", "base", 0) / "student") if lab.base == "tiny" else lab.base


def _train(out: Path, lab: Settings, arm: str, seed: int) -> None:
    place, recipe = folder(out, "train", arm, seed), recipe_of(lab, seed)
    if arm.endswith("-sft") or arm.startswith("sft-"):
        from cxr_max.student.sft import train_sft

        world = "train" if arm.startswith("sft-") else arm.removesuffix("-sft")
        release = folder(out, "build", world, seed) / "release"
        lessons = sft_lessons(release, open_pixels(release))
        if arm == "sft-one":
            lessons = of_one(lessons, SINGLE)
        data = f"{read_manifest(release)['trajectories_digest']} {arm}"
        train_sft(_base(out, lab), lessons, recipe, place, data=data, watch=Told())
        return
    from cxr_max.student.critique import train_apo

    own = arm.endswith("-apo")
    world, first = (arm.removesuffix("-apo"), f"{arm.removesuffix('-apo')}-sft") if own else ("train", "sft-all")
    release = folder(out, "build", world, seed) / "release"
    lessons = taught(arm, apo_lessons(release, open_pixels(release)), seed)
    if arm == SELF:
        lessons = in_own_words(lessons, release, folder(out, "build", SELF, seed) / "release")
    recipe = preferring(arm, recipe)
    train_apo(
        str(folder(out, "train", first, seed) / "student"),
        lessons,
        recipe,
        place,
        data=f"{read_manifest(release)['trajectories_digest']} {arm}",
        watch=Told(),
    )


def of_one(lessons: Sequence[Lesson], teacher: str) -> list[Lesson]:
    """What one of the teachers wrote."""
    chosen = []
    for lesson in lessons:
        replies = tuple(reply for reply, by in zip(lesson.replies, lesson.teachers, strict=True) if by == teacher)
        if replies:
            chosen.append(replace(lesson, replies=replies, teachers=(teacher,) * len(replies)))
    return chosen


def taught(arm: str, lessons: Sequence[Lesson], seed: int) -> list[Lesson]:
    """The preferences as an arm learns from them: all, one negative each, or another study's consensus."""
    chance = random.Random(f"{arm} {seed}")
    if arm == "dpo":
        return [_one_negative(lesson, chance) for lesson in lessons]
    if arm == SHUFFLED:
        order = deranged(len(lessons), chance)
        return [
            replace(
                lesson,
                replies=(lessons[other].replies[0], *lesson.replies[1:]),
                agreeing=(True, *(False for _ in lesson.replies[1:])),
            )
            for lesson, other in zip(lessons, order, strict=True)
        ]
    return list(lessons)


def _one_negative(lesson: Lesson, chance: random.Random) -> Lesson:
    """One that says something else than the consensus, if there is one."""
    places = [n for n in range(1, len(lesson.replies)) if not lesson.agreeing[n]] or [1]
    kept = (0, chance.choice(places))
    return replace(
        lesson,
        replies=tuple(lesson.replies[n] for n in kept),
        teachers=tuple(lesson.teachers[n] for n in kept),
        agreeing=tuple(lesson.agreeing[n] for n in kept),
    )


def deranged(count: int, chance: random.Random) -> list[int]:
    """An order in which nobody keeps its place: all in one circle."""
    ring = chance.sample(range(count), count)
    following = dict(zip(ring, [*ring[1:], *ring[:1]], strict=True))
    return [following[place] for place in range(count)]


def suite_text(where: str, unlike: int, full: bool) -> str:
    """The TOML of a suite of the lab."""
    split = "validation" if where == "tune" else "test"
    head = f'name = "lab-{where}"\nversion = 1\nprompt = "{PROMPT}"\nsplit = "{split}"\nresamples = 1000\n'
    if not full or where != "test":
        return f"{head}[generalization]\n"
    return (
        f"{head}[generalization]\n[consistency]\nimage_sets = {unlike}\nsamples = 1\nparaphrases = []\n"
        f'[robustness]\nimage_sets = {unlike}\ncorruptions = ["noise", "contrast"]\nseverities = [3]\n'
    )


def evaluated(out: Path, lab: Settings, who: str, seed: int) -> dict[str, Path]:
    """By test set, the folders in which one student's or teacher's evaluations are."""
    wheres = ["tune", "test", "shifted"] if who in PERSONAS else ["test"] + ["shifted"] * (who in ARMS)
    return {where: out / "eval" / f"{who}-on-{where}-{seed}" for where in wheres}


def _eval(out: Path, lab: Settings, which: str, seed: int) -> None:
    for who in PERSONAS if which == "teachers" else [which]:
        for where, place in evaluated(out, lab, who, seed).items():
            _eval_one(out, lab, who, seed, where, place)


def _eval_one(out: Path, lab: Settings, who: str, seed: int, where: str, place: Path) -> None:
    from cxr_max.eval.run import EvalRequest, prepare
    from cxr_max.eval.subject import Given

    place.mkdir(parents=True, exist_ok=True)
    known = who in PERSONAS
    suite, roster = place / "suite.toml", place / "roster.toml"
    write_text(suite, suite_text(where, lab.unlike, known or who in ARMS))
    if known:
        write_roster(roster, where)
    else:
        write_text(roster, _student_table(who, folder(out, "train", who, seed) / "student"))
    given = Given(teacher=who, roster=roster, name=who)
    prepared = prepare(EvalRequest(folder(out, "build", where, 0), place, given, str(suite)))
    told = Told(len(prepared.questions()))
    with prepared.opened():
        prepared.ask(told)
        prepared.finish(told)


def _student_table(name: str, student: Path) -> str:
    return (
        f'[{json.dumps(name)}]\nprovider = "student"\nmodel = {json.dumps(str(student.resolve()))}\n'
        "concurrency = 64\nsampling = { temperature = 0.0, max_tokens = 220 }\n"
    )


def _end_with(parent: int) -> None:
    """A lab that was killed leaves nobody behind, who would be at work beside the next start's."""
    while os.getppid() == parent:
        time.sleep(_EVERY_S)
    os._exit(1)


def main(arguments: Sequence[str]) -> None:
    """Do one stage in this process, which ends with the one that started it."""
    # A shell that starts something in the background has it ignore Ctrl-C, and what that starts as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    out, name = Path(arguments[0]), arguments[1]
    lab = read_settings(json.loads((out / "lab.json").read_text("utf-8")))
    run(out, lab, name)


if __name__ == "__main__":
    main(sys.argv[1:])
