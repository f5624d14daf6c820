"""A suite's questions -> the model -> its predictions. Every reply goes through a ledger: nothing is bought twice.

Changed pictures are made of what the teachers were sent, and sent as JPEG of the same quality. What the run of the
release has in its ledger already is taken from there.
"""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain, groupby
from typing import TYPE_CHECKING, Final

from cxr_max import prompts
from cxr_max.builders.pixels import Pixels
from cxr_max.builders.questions import question_like
from cxr_max.builders.sending import BURNED_IN, send
from cxr_max.builders.trajectories import trajectory_of
from cxr_max.data_use import Gate
from cxr_max.errors import ImageError
from cxr_max.eval.conditions import MIRROR, ORIGINAL, REPORT, Change, Condition, parse
from cxr_max.eval.reference import Key, Reference
from cxr_max.eval.suite import Suite
from cxr_max.findings import Side
from cxr_max.ledger import Answered, Gap, Ledger
from cxr_max.radiograph import JPEG_QUALITY, EncodedImage
from cxr_max.records import Asked, Prediction, Question, Study
from cxr_max.teachers.asking import Batch, Picture
from cxr_max.teachers.base import TeacherSpec
from cxr_max.teachers.budget import Budget

if TYPE_CHECKING:
    from cxr_max.builders.build import BuildWatch
    from cxr_max.teachers.simulator import Simulator

_HARDER: Final = 1 / 6
"""Per severity, of the way from an image's difficulty to the greatest: a simulated teacher sees no picture, so a
corruption can only make it as unsure as a harder picture would."""

_SWAPPED: Final[Mapping[Side | None, Side | None]] = {
    "left": "right", "right": "left", "bilateral": "bilateral", None: None,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """One question of the suite."""

    asked: Asked
    condition: Condition
    question: Question
    prompt: str


@dataclass(frozen=True, slots=True)
class Model:
    """Who is asked, and all that asking takes."""

    spec: TeacherSpec
    keys: Mapping[str, str]
    gate: Gate
    pixels: Pixels


def wanted(
    reference: Reference, image_sets: Mapping[Key, Asked], suites: Sequence[Suite], spec: TeacherSpec
) -> list[Wanted]:
    """Every question, image set by image set: those of the suites' split first, in the reference's order.

    The others, on which thresholds are chosen, are asked as they are only. A report is asked for where there is
    one to hold it against.
    """
    rows = sorted(reference.rows, key=lambda row: row.split != suites[0].split)
    scored = sum(row.split == suites[0].split for row in rows)
    chosen: dict[str, set[int]] = {}
    for suite in suites:
        for name, limit in suite.wanted().items():
            places = [place for place in range(scored) if name != REPORT or rows[place].report]
            chosen[name] = chosen.get(name, set()) | set(places[:limit])
    chosen[ORIGINAL] = set(range(len(rows)))
    conditions = [(parse(name), places) for name, places in chosen.items()]
    return [
        _wanted(image_sets[row.key], condition, suites[0].prompt, spec)
        for place, row in enumerate(rows)
        for condition, places in conditions
        if place in places
    ]


def _wanted(asked: Asked, condition: Condition, prompt_name: str, spec: TeacherSpec) -> Wanted:
    prompt = prompts.load(condition.prompt(prompt_name))
    question = question_like(
        asked, spec, prompt, prompt.text, changed=condition.rendering,
        sample_index=condition.number if condition.kind == "sample" else 0,
    )  # fmt: skip
    return Wanted(asked, condition, question, prompt.text)


def ask(
    questions: Sequence[Wanted],
    model: Model,
    ledger: Ledger,
    known: Ledger | None,
    watch: "BuildWatch",
    budget: Budget | None = None,
) -> tuple[Gap, ...]:
    """Ask what has no reply yet; afterwards all replies are in ``ledger``.

    Args:
        known: another ledger, whose replies to the same requests are taken over.
        budget: what may be spent.

    Returns:
        The image sets whose pictures could not be had.

    Raises:
        Interrupted: the user stopped it; all replies received are kept.
        StorageError: the disk refused.
    """
    if known is not None:
        _take_over(questions, ledger, known)
    ledger.plan([one.question for one in questions])
    gaps: list[Gap] = []
    watch.started((model.spec,), len({one.asked.study_id for one in questions}))
    simulated = model.spec.provider == "simulated"
    with (
        _simulator() if simulated else nullcontext() as simulator,
        closing(_batches(questions, model, ledger, gaps, watch, simulator)) as batches,
    ):
        first = next(batches, None)
        if first is not None:
            send(
                chain([first], batches), [model.spec], model.keys, model.gate, ledger, watch, watch.stopping,
                simulator.address if simulator else None, budget,
            )  # fmt: skip
    watch.sealing(gaps)
    return tuple(gaps)


def predictions(questions: Iterable[Wanted], ledger: Ledger) -> Iterator[Prediction]:
    """What the replies say, a row for every question; one without a reply has failed."""
    for one in questions:
        answered = ledger.reply(one.question.request_sha256)
        if answered is None:
            yield _blank(one)
            continue
        row = trajectory_of(one.question, answered)
        yield Prediction(
            study_id=row.study_id,
            image_ids=row.image_ids,
            condition=str(one.condition),
            status=row.status,
            findings=row.findings,
            sides=row.sides,
            scores=_scores(one, ledger) if row.status == "ok" else None,
            contradictions=row.contradictions if row.findings is not None else None,
            text=row.text,
        )


def _scores(one: Wanted, ledger: Ledger) -> dict[str, float] | None:
    """What a student's reply came with; a reply that was not scored, or by an older version, has none."""
    raw = ledger.raw(one.question.request_sha256) if one.question.provider == "student" else None
    scores: dict[str, float] | None = json.loads(raw)["finding_scores"] if raw else None
    return scores


def _blank(one: Wanted) -> Prediction:
    asked = one.asked
    return Prediction(asked.study_id, asked.image_ids, str(one.condition), "failed", None, None, None, None, None)


def _take_over(questions: Iterable[Wanted], ledger: Ledger, known: Ledger) -> None:
    there = ledger.answered()
    elsewhere = known.answered()
    keys = dict.fromkeys(one.question.request_sha256 for one in questions)
    found = (known.reply(key) for key in keys if key in elsewhere and key not in there)
    ledger.commit([_with_raw(answered, known) for answered in found if answered is not None])


def _with_raw(answered: Answered, ledger: Ledger) -> Answered:
    return replace(answered, reply=replace(answered.reply, raw=ledger.raw(answered.request_sha256) or ""))


def _batches(
    questions: Sequence[Wanted],
    model: Model,
    ledger: Ledger,
    gaps: list[Gap],
    watch: "BuildWatch",
    simulator: "Simulator | None",
) -> Generator[Batch, None, None]:
    settled, burned_in = ledger.answered(), 0
    for _, several in _by_image_set(questions):
        watch.study()
        open_ = [one for one in several if one.question.request_sha256 not in settled]
        for one in several:
            watch.planned(model.spec.name, one.question.request_sha256 in settled)
        if not open_:
            continue
        asked = several[0].asked
        try:
            images = model.pixels.encoded(asked)
            study = model.pixels.study(asked)
        except ImageError as error:
            gaps.append(Gap(asked.study_id, asked.image_ids, str(error)))
            continue
        burned_in += sum(image.burned_in for image in images)
        for one in open_:
            settled.add(one.question.request_sha256)
            pictures = tuple(changed(image, one.condition.change) for image in images)
            if simulator is not None:
                _teach(simulator, study, pictures, one.condition)
            yield Batch(pictures, ((one.question, one.prompt),))
    if burned_in:
        watch.warned(BURNED_IN.format(burned_in))


def _by_image_set(questions: Iterable[Wanted]) -> Iterator[tuple[Asked, list[Wanted]]]:

    for asked, several in groupby(questions, key=lambda one: one.asked):
        yield asked, list(several)


def changed(image: EncodedImage, change: Change | None) -> Picture:
    """What is sent of a picture that is changed first: a JPEG of the quality of all others."""
    if change is None:
        return Picture(image.jpeg, image.sha256)
    import cv2
    import numpy as np

    grey = np.asarray(cv2.imdecode(np.frombuffer(image.jpeg, dtype=np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)
    _, buffer = cv2.imencode(".jpg", change(grey, image.sha256), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    jpeg = buffer.tobytes()
    return Picture(jpeg, sha256(jpeg).hexdigest())


def _simulator() -> "Simulator":
    from cxr_max.teachers.simulator import Simulator

    return Simulator()


def _teach(simulator: "Simulator", study: Study, pictures: Iterable[Picture], condition: Condition) -> None:
    """Hand the simulator the truth about what it is shown: of a blank picture, nothing."""
    from cxr_max.teachers.simulator import Truth

    truth = Truth.of(study)
    if condition.kind == "blank":
        truth = Truth(None)
    elif condition.kind == MIRROR and truth.sides is not None:
        truth = replace(truth, sides={name: _SWAPPED[side] for name, side in truth.sides.items()})
    elif condition.kind == "corruption":
        easy = 0.5 if truth.difficulty is None else truth.difficulty
        truth = replace(truth, difficulty=easy + (1 - easy) * condition.number * _HARDER)
    simulator.learn([picture.sha256 for picture in pictures], truth)
