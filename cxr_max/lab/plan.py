"""Which stages a lab has, and what each needs. Names are ``what:which:seed``; order is the order of starting."""

from collections.abc import Iterator
from dataclasses import dataclass

from cxr_max.lab.settings import ARMS, CONTROLS, SELF, Settings
from cxr_max.teachers.simulator.personas import PERSONAS

_OWN_WORLD = ("three", "poisoned", "uncorrelated", "correlated", "drifting")
"""Ablations whose teachers are others, so that they have an SFT of their own."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the lab: a process of its own, done or not done."""

    name: str
    needs: tuple[str, ...] = ()
    weight: float = 1.0
    """Seconds on a quiet machine, about: for the time left."""


def stages(lab: Settings) -> tuple[Stage, ...]:
    """All stages, each after those that it needs."""
    return tuple(_stages(lab))


def _stages(lab: Settings) -> Iterator[Stage]:
    seeds = range(lab.seeds)
    base = ("school:base:0",) if lab.base == "tiny" else ()
    if base:
        yield Stage("eyes:base:0", weight=0.011 * lab.eyes)
    yield Stage("build:train:0", weight=_ask(lab.train))
    if base:
        yield Stage("school:base:0", ("eyes:base:0", "build:train:0"), weight=0.017 * lab.school)
    for which, studies in (("tune", lab.tune), ("test", lab.test), ("shifted", lab.shifted)):
        yield Stage(f"build:{which}:0", weight=_ask(studies))
    for seed in seeds:
        yield from _seed(lab, seed, base)
    asked = tuple(f"build:{where}:0" for where in ("tune", "test", "shifted"))
    yield Stage("eval:teachers:0", asked, 5 * len(PERSONAS))


def _seed(lab: Settings, seed: int, base: tuple[str, ...]) -> Iterator[Stage]:
    own = [which for which in lab.ablations if which in _OWN_WORLD]
    for which in ("train", "noise", "truth", *own):
        if (which, seed) != ("train", 0):
            share = {"truth": 1 / 7, "three": 3 / 7}.get(which, 1.0)
            yield Stage(f"build:{which}:{seed}", weight=_ask(lab.train * share))
    for which in ("train", "noise", *own):
        yield Stage(f"consensus:{which}:{seed}", (f"build:{which}:{seed}",), 2)
    learn, prefer = 0.12 * lab.train, 0.065 * lab.train
    yield Stage(f"train:sft-all:{seed}", (*base, f"build:train:{seed}"), learn)
    yield Stage(f"train:noise-sft:{seed}", (*base, f"build:noise:{seed}"), learn)
    yield Stage(f"train:sft-one:{seed}", (*base, f"build:train:{seed}"), learn / 3)
    yield Stage(f"train:truth-sft:{seed}", (*base, f"build:truth:{seed}"), learn / 3)
    after = (f"train:sft-all:{seed}", f"consensus:train:{seed}")
    apos = ["apo-anchor", "apo", "dpo", "apo-shuffled", *(arm for arm in lab.ablations if arm not in _OWN_WORLD)]
    for arm in apos:
        if arm == SELF:
            yield Stage(f"build:{arm}:{seed}", (f"train:sft-all:{seed}",), 0.03 * lab.train)
        also = (f"build:{arm}:{seed}",) if arm == SELF else ()
        yield Stage(f"train:{arm}:{seed}", (*after, *also), prefer)
    yield Stage(f"train:noise-apo:{seed}", (f"train:noise-sft:{seed}", f"consensus:noise:{seed}"), prefer)
    for which in own:
        yield Stage(f"train:{which}-sft:{seed}", (*base, f"build:{which}:{seed}"), learn)
        first = (f"train:{which}-sft:{seed}", f"consensus:{which}:{seed}")
        yield Stage(f"train:{which}-apo:{seed}", first, prefer)
    for arm in students(lab):
        needs = (f"train:{arm}:{seed}", "build:test:0", "build:shifted:0")
        yield Stage(f"eval:{arm}:{seed}", needs, 6 + 0.03 * (lab.test + lab.shifted))


def students(lab: Settings) -> tuple[str, ...]:
    """All students of one seed."""
    ablated = []
    for which in lab.ablations:
        ablated += [f"{which}-sft", f"{which}-apo"] if which in _OWN_WORLD else [which]
    return (*ARMS, *CONTROLS, *ablated)


def _ask(studies: float) -> float:
    return 4 + 0.04 * studies
