"""Generated chest radiographs: no patient, no download, no end, and the truth about every one of them.

Study ``i`` of a seed is the same on every run. Its attributes are drawn first, without pixels, from random
streams of the study and of the subject; its picture is drawn when it is yielded, once.

The reference labels are known, not read: the nine drawn findings are 1 or 0. By CheXpert's rules (Irvin et
al. 2019), No Finding is 1 when nothing but Support Devices is present, and Lung Opacity is 1 with any of its
children, on their sides together (edema is on both). Enlarged Cardiomediastinum is 0 although CheXpert makes
it Cardiomegaly's parent: the mediastinum is never painted wide. Fracture and Pleural Other are never drawn,
so 0.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from uuid import uuid4

from cxr_max.builders.sources.base import SourceInfo
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, LATERAL, SIDES, Findings, Side, Sides, State, blank_sides
from cxr_max.records import Radiograph, Split, Study
from cxr_max.shards import disk_refusals_named

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray

VERSION: Final = 1
"""Of the pixels: raise it whenever a picture changes, so that no folder ever mixes two kinds."""

INFO: Final = SourceInfo(
    name="phantom",
    title="Chest radiograph phantoms",
    data_use="open",
    licence="cc0-1.0",
    citation="Generated images: chest radiograph phantoms computed by cxr-max; they show no patient.",
)

STUDIES_PER_SUBJECT: Final = 2
SPLIT_OF_TEN: Final[tuple[Split, ...]] = (
    "train",
    "train",
    "train",
    "validation",
    "train",
    "train",
    "train",
    "train",
    "test",
    "train",
)
HEALTHY: Final = 0.29
"""Share of studies in which no disease is drawn."""
DISEASES: Final = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Lung Lesion",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
)
DRAWN: Final = (*DISEASES, "Support Devices")
OPACITIES: Final = ("Atelectasis", "Consolidation", "Edema", "Lung Lesion", "Pneumonia")
"""CheXpert's children of Lung Opacity."""
BY_CHANCE: Final = 0.05
"""How often each further disease joins the first one."""
SHIFTED_HEALTHY: Final = 0.5
SHIFTED_AP: Final = 0.6
"""Added to the chance of an AP view: mostly portable films."""
SHIFTED_DETECTOR: Final = {"noise": 2.0, "latitude": 15.0}
"""An older detector: twice the noise, and a flatter display."""
ASKED: Final = ("Consolidation", "Edema", "Pleural Effusion", "Pneumonia", "Pneumothorax")
"""Of MS-CXR-T: what a population with a percentage is rich in."""
BESIDE: Final = ("Atelectasis", "Cardiomegaly")
"""Half as frequent there."""
PERCENT: Final = range(1, 51)
FIRST_DATE: Final = datetime(2150, 1, 1, 8)
"""Fictitious, and far off so that nobody takes it for a real one."""


@dataclass(frozen=True, slots=True)
class Population:
    """Whose radiographs these are, and what is found in them. A study's identifier names it."""

    shifted: bool = False
    """Another hospital: another detector, mostly AP views, fewer sick."""
    percent: int | None = None
    """Of the studies, that have each finding of ``ASKED``, half as many each of ``BESIDE``, all independently, and
    no lesion; in ``PERCENT``. ``None``: one finding and its company in most studies."""

    @property
    def prefix(self) -> str:
        """Of the identifiers of its studies."""
        rich = "" if self.percent is None else f"{self.percent}percent-"
        return f"phantom-{'shifted-' if self.shifted else ''}{rich}"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom the studies of one subject share."""

    subject_id: str
    split: Split
    sex: Literal["M", "F"]
    born: datetime
    first_seen: datetime
    anatomy: int
    """Seed of the build of the chest."""


@dataclass(frozen=True, slots=True)
class Case:
    """Everything about one study but its pixels."""

    study_id: str
    population: Population
    subject: Subject
    acquired_at: datetime
    view: Literal["PA", "AP"]
    findings: dict[str, Side | None]
    """The drawn ones that are present, with their sides."""
    difficulty: float
    seed: int
    """Of the pixels."""

    @property
    def severity(self) -> float:
        """0.35 to 1, or 0.5 to 1 in a population with a percentage, where findings lie over each other.

        Linear in the difficulty, which is uniform over the population.
        """
        return 1 - (0.65 if self.population.percent is None else 0.5) * self.difficulty


class PhantomSource:
    """An endless ``Source``. Pictures are kept under ``directory``; those already there are not drawn again.

    Raises:
        RequestError: the seed, the size or the percentage is out of range.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        directory: Path,
        size: int = 256,
        population: Population = Population(),
        split: Split | None = None,
    ) -> None:
        """
        Args:
            split: of every study, in place of the usual eight, one and one of ten subjects.
        """
        if seed < 0:
            raise RequestError(f"The seed of the phantoms is {seed}: choose 0 or more.")
        if size < 64 or size % 2:
            raise RequestError(f"The size of the phantoms is {size} pixels: choose an even number from 64 up.")
        if population.percent is not None and population.percent not in PERCENT:
            raise RequestError(
                f"{population.percent}% of the phantoms are to have each finding: choose"
                f" {PERCENT[0]}% to {PERCENT[-1]}%."
            )
        self.info = INFO
        self.total: int | None = None
        self.prerendered = True
        self.warnings: tuple[str, ...] = ()
        self._seed = seed
        self._size = size
        self._population, self._split = population, split
        self._folder = directory / f"{size}px-v{VERSION}{'-shifted' if population.shifted else ''}"

    def studies(self) -> Iterator[Study]:
        """Study 0, 1, 2 and so on; each one's picture is on disk when it is yielded.

        Raises:
            StorageError: the picture cannot be written, as on a full disk.
        """
        yield from map(self._drawn, cases(self._seed, self._population, split=self._split))

    def study(self, study_id: str) -> Study:
        """The study with this identifier, whatever its seed.

        Raises:
            RequestError: no phantom has such an identifier.
            StorageError: the picture cannot be written.
        """
        return self._drawn(case_of(study_id))

    def _drawn(self, one: Case) -> Study:
        path = self._folder / f"{one.study_id}.png"
        with disk_refusals_named(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            if not _is_whole(path):
                _write(one, path, self._size)
        return _study(one, path, self._size)


def cases(seed: int, population: Population = Population(), split: Split | None = None) -> Iterator[Case]:
    """The attributes of every study, in order, without drawing any."""
    number = 0
    while True:
        subject = _subject(seed, number)
        if split is not None:
            subject = replace(subject, split=split)
        for visit in range(STUDIES_PER_SUBJECT):
            yield _case(seed, number * STUDIES_PER_SUBJECT + visit, subject, visit, population)
        number += 1


def case_of(study_id: str) -> Case:
    """The attributes of one study, by its identifier.

    Raises:
        RequestError: no phantom has such an identifier.
    """
    named = re.fullmatch(r"phantom-(shifted-)?(?:(\d+)percent-)?(\d+)-(\d{7,})", study_id)
    if named is None:
        raise RequestError(f"No phantom is called {study_id}: give an identifier as the release has it.")
    population = Population(named[1] is not None, int(named[2]) if named[2] else None)
    seed, index = int(named[3]), int(named[4])
    number, visit = divmod(index, STUDIES_PER_SUBJECT)
    return _case(seed, index, _subject(seed, number), visit, population)


def _rng(*key: int) -> "Generator":
    """A stream of its own for each key, the same in every process."""
    from numpy.random import default_rng

    return default_rng(key)


def _subject(seed: int, number: int) -> Subject:
    rng = _rng(seed, 0, number)
    first_seen = FIRST_DATE + timedelta(days=int(rng.integers(3650)), minutes=int(rng.integers(600)))
    return Subject(
        subject_id=f"phantom-{seed}-p{number:07d}",
        split=SPLIT_OF_TEN[number % len(SPLIT_OF_TEN)],
        sex="F" if rng.random() < 0.47 else "M",
        born=first_seen - timedelta(days=365.25 * min(max(rng.normal(60, 16), 18), 95)),
        first_seen=first_seen,
        anatomy=int(rng.integers(2**32)),
    )


def _case(seed: int, index: int, subject: Subject, visit: int, population: Population) -> Case:
    rng = _rng(seed, 1, index)
    difficulty = float(rng.random())
    diseases = _diseases(rng, population)
    bedridden = 0.14 + 0.15 * len(diseases) + SHIFTED_AP * population.shifted
    view: Literal["PA", "AP"] = "AP" if rng.random() < bedridden else "PA"
    present = diseases | _devices(rng, view)
    return Case(
        study_id=f"{population.prefix}{seed}-{index:07d}",
        population=population,
        subject=subject,
        acquired_at=subject.first_seen + visit * timedelta(days=int(rng.integers(60, 400)), minutes=index % 60),
        view=view,
        findings={name: _side(name, present, rng) for name in DRAWN if name in present},
        difficulty=difficulty,
        seed=int(rng.integers(2**32)),
    )


def _diseases(rng: "Generator", population: Population) -> set[str]:
    """None, or one and its company: a failing heart is large, and leaks into lungs and pleura."""
    if population.percent is not None:
        often = dict.fromkeys(ASKED, population.percent / 100) | dict.fromkeys(BESIDE, population.percent / 200)
        return {name for name, chance in often.items() if rng.random() < chance}
    if rng.random() < (SHIFTED_HEALTHY if population.shifted else HEALTHY):
        return set()
    diseases = {DISEASES[int(rng.integers(len(DISEASES)))]}
    diseases |= {
        name for name, chance in zip(DISEASES, rng.random(len(DISEASES)), strict=True) if chance < BY_CHANCE
    }
    if "Edema" in diseases:
        companions = {"Cardiomegaly": 0.5, "Pleural Effusion": 0.4}
        diseases |= {name for name, chance in companions.items() if rng.random() < chance}
    return diseases


def _devices(rng: "Generator", view: str) -> set[str]:
    """The bedridden, who are filmed AP, have more tubes than walking patients have pacemakers."""
    return {"Support Devices"} if rng.random() < (0.45 if view == "AP" else 0.08) else set()


def _side(name: str, present: set[str], rng: "Generator") -> Side | None:
    """``None`` for what has no side. The effusions of a failing heart are mostly bilateral."""
    chances = (0.2, 0.2, 0.6) if name == "Pleural Effusion" and "Edema" in present else (0.42, 0.42, 0.16)
    side = SIDES[int(rng.choice(len(SIDES), p=chances))]
    return side if name in LATERAL else None


def _reference(present: dict[str, Side | None]) -> tuple[Findings, Sides]:
    findings: dict[str, State | None] = {name: 1 if name in present else 0 for name in FINDINGS}
    sides = blank_sides() | present
    opacities = [present[name] for name in OPACITIES if name in present]
    if opacities:
        findings["Lung Opacity"] = 1
        sides["Lung Opacity"] = _union(opacities)
    if not present.keys() & set(DISEASES):
        findings["No Finding"] = 1
    return findings, sides


def _union(sides: list[Side | None]) -> Side:
    """The side of findings taken together. One without a side is on both, as edema is."""
    first = sides[0]
    return first if first is not None and all(side == first for side in sides) else "bilateral"


def _study(case: Case, path: Path, size: int) -> Study:
    findings, sides = _reference(case.findings)
    return Study(
        study_id=case.study_id,
        subject_id=case.subject.subject_id,
        source=INFO.name,
        split=case.subject.split,
        radiographs=(Radiograph(f"{case.study_id}-1", path, case.view, "MONOCHROME2", size, size),),
        acquired_at=case.acquired_at,
        reference_findings=findings,
        reference_sides=sides,
        sex=case.subject.sex,
        age=float((case.acquired_at - case.subject.born).days * 100 // 36525),
        difficulty=case.difficulty,
    )


def _is_whole(path: Path) -> bool:
    """A machine that lost power may have kept the name of a picture but none of its bytes."""
    return path.exists() and path.stat().st_size > 0


def drawn(case: Case, size: int) -> "NDArray[np.uint8]":
    """The picture of a study: (size, size), 0 to 255, MONOCHROME2."""
    from cxr_max.builders.sources import phantom_image

    return phantom_image.draw(
        case.findings,
        seed=case.seed,
        size=size,
        severity=case.severity,
        view=case.view,
        anatomy=case.subject.anatomy,
        sex=case.subject.sex,
        **(SHIFTED_DETECTOR if case.population.shifted else {}),
    )


def _write(case: Case, path: Path, size: int) -> None:
    """Draw, and let the picture appear under its name only once it is complete."""
    from PIL import Image

    unfinished = path.with_name(f".{path.stem}.{uuid4().hex}.tmp")
    try:
        Image.fromarray(drawn(case, size)).save(unfinished, format="PNG", compress_level=1)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
