"""Study x Teacher -> ledger -> release: the main job, from a checked request to a sealed release."""

import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from cxr_max import prompts
from cxr_max.builders.plan import Planner, PlanWatch, Views, Wanted, Work
from cxr_max.builders.release import write_release
from cxr_max.builders.run_folder import RunFolder
from cxr_max.builders.sending import BURNED_IN, send
from cxr_max.builders.sources.base import Source
from cxr_max.builders.sources.registry import canonical, open_source
from cxr_max.costs import add_cost
from cxr_max.data_use import Gate, load_attestations
from cxr_max.errors import ImageError, RequestError
from cxr_max.ledger import Gap, Ledger
from cxr_max.radiograph import EncodedImage, Rendering, encode
from cxr_max.records import Split, Status
from cxr_max.teachers import roster
from cxr_max.teachers.asking import Batch, Picture, Watch
from cxr_max.teachers.base import TeacherSpec

if TYPE_CHECKING:
    from cxr_max.teachers.simulator import Simulator

PHANTOM_STUDIES: Final = 64
"""How many studies of the endless phantom source are built when nothing is said."""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What a user asks of ``cxr-max build``."""

    source: str
    teachers: str
    out: Path
    prompt: str = "diagnose"
    studies: int | None = None
    samples: int = 1
    split: Split | None = None
    views: Views = "frontal"
    rendering: Rendering = "mimic_jpg"
    labels: Path | None = None
    attestation: Path | None = None
    roster: Path | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build did. ``failed`` counts planned rows without a reply."""

    release: str
    studies: int
    trajectories: int
    requests_sent: int
    replies_reused: int
    failed: int
    gaps: int
    cost_usd: float | None
    """US dollars of this run; ``None`` where a price is unknown."""
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every planned row is there."""
        return self.failed == 0 and self.gaps == 0


class BuildWatch(Watch, PlanWatch, Protocol):
    """Who looks on: progress bars, or nobody."""

    def started(self, teachers: tuple[TeacherSpec, ...], studies: int | None) -> None:
        """The request is allowed and work begins; ``studies`` is ``None`` if their number is not known."""

    def warned(self, message: str) -> None:
        """Something the user should know."""

    def stopping(self) -> None:
        """A stop was asked for: replies in flight are awaited."""

    def sealing(self, gaps: Sequence[Gap]) -> None:
        """All is asked, but for ``gaps``; the release is being written."""


class _Counted:
    """Passes everything on to the watch, and counts what the result needs."""

    def __init__(self, watch: BuildWatch) -> None:
        self._watch = watch
        self.sent = 0
        self.cost_usd: float | None = 0.0

    def planned(self, teacher: str, settled: bool) -> None:
        self._watch.planned(teacher, settled)

    def study(self) -> None:
        self._watch.study()

    def answered(self, teacher: str, status: Status, cost_usd: float | None) -> None:
        self.sent += 1
        self.cost_usd = add_cost(self.cost_usd, cost_usd)
        self._watch.answered(teacher, status, cost_usd)

    def failed(self, teacher: str, message: str) -> None:
        self.sent += 1
        self._watch.failed(teacher, message)

    def stopped(self, teacher: str, message: str) -> None:
        self._watch.stopped(teacher, message)


@dataclass(frozen=True, slots=True)
class _Checked:
    """A request whose every part was found right, before anything was written or sent."""

    source: Source
    wanted: Wanted
    gate: Gate
    keys: Mapping[str, str]
    """API keys, by teacher."""


def build(request: BuildRequest, watch: BuildWatch) -> BuildResult:
    """Ask every teacher about every image, keep every reply, and seal the release.

    Raises:
        RequestError: something in the request is wrong or not allowed; nothing was sent.
        StorageError: the disk refused a write.
        Interrupted: the user stopped it; all replies received are kept.
    """
    started = time.monotonic()
    folder = RunFolder(request.out)
    checked = _check(request)
    source = checked.source
    with folder.locked():
        folder.settle(_settings(request))
        with Ledger(folder.ledger) as ledger:
            for warning in source.warnings:
                watch.warned(warning)
            watch.started(checked.wanted.teachers, _expected(source, checked.wanted))
            counted = _Counted(watch)
            planner = Planner(checked.wanted, ledger, counted)
            _ask_all(checked, planner, ledger, counted, watch)
            ledger.record_gaps(planner.gaps)
            if planner.skipped:
                watch.warned(
                    f"{planner.skipped} studies have no image of the wanted view, so they were not asked about."
                )
            if planner.burned_in:
                watch.warned(BURNED_IN.format(planner.burned_in))
            watch.sealing(planner.gaps)
            manifest = write_release(ledger, folder.release, source.info, _published(request))
            failed = planner.unanswered()
    return BuildResult(
        release=str(folder.release),
        studies=planner.studies,
        trajectories=manifest["counts"]["trajectories"]["rows"],
        requests_sent=counted.sent,
        replies_reused=planner.reused,
        failed=failed,
        gaps=len(planner.gaps),
        cost_usd=counted.cost_usd,
        seconds=round(time.monotonic() - started, 2),
    )


def _check(request: BuildRequest) -> _Checked:
    specs = roster.choose(roster.load(request.roster), request.teachers)
    if request.concurrency is not None:
        specs = tuple(replace(spec, concurrency=request.concurrency) for spec in specs)
    prompt = prompts.load(request.prompt)
    if prompt.given == "trajectories":
        raise RequestError(
            f"The prompt {prompt.name} is about replies that are there already: build with diagnose, then run"
            " cxr-max consensus --method student."
        )
    keys = roster.keys_of(specs)
    attested = load_attestations(request.attestation, today=date.today()) if request.attestation else ()
    source = open_source(request.source, workspace=request.out, labels=request.labels)
    gate = Gate(source.info.name, source.info.data_use, attested)
    for spec in specs:
        gate.check(spec.name, spec.endpoint, spec.place)
    if source.prerendered and request.rendering != "mimic_jpg":
        raise RequestError(
            f"{request.source} holds pictures that are rendered already, so {request.rendering} cannot be chosen:"
            " leave --rendering out, and they are sent as they are."
        )
    studies = request.studies
    if studies is None and source.info.name == "phantom":
        studies = PHANTOM_STUDIES
    wanted = Wanted(specs, prompt, request.samples, request.rendering, request.views, request.split, studies)
    return _Checked(source, wanted, gate, keys)


def _settings(request: BuildRequest) -> dict[str, str]:
    """What all builds of one run have in common. Local paths: never published."""
    labels = str(request.labels.expanduser().resolve()) if request.labels else ""
    return {"source": canonical(request.source), "labels": labels, **_published(request)}


def _published(request: BuildRequest) -> dict[str, str]:
    return {"rendering": request.rendering, "views": request.views}


def _expected(source: Source, wanted: Wanted) -> int | None:
    if wanted.split is not None or source.total is None:
        return wanted.studies
    return source.total if wanted.studies is None else min(source.total, wanted.studies)


def _ask_all(checked: _Checked, planner: Planner, ledger: Ledger, counted: _Counted, watch: BuildWatch) -> None:
    """Run the loop to its end; nothing is started where nothing is left to ask.

    Raises:
        Interrupted: a stop was asked for.
    """
    work = planner.work(checked.source)
    first = next(work, None)
    if first is None:
        return
    simulated = any(spec.provider == "simulated" for spec in checked.wanted.teachers)
    with (
        closing(work),
        _simulator() if simulated else nullcontext() as simulator,
        closing(_batches(chain([first], work), planner, simulator)) as batches,
    ):
        send(
            batches, checked.wanted.teachers, checked.keys, checked.gate, ledger, counted, watch.stopping,
            simulator.address if simulator else None,
        )  # fmt: skip


def _simulator() -> "Simulator":
    from cxr_max.teachers.simulator import Simulator

    return Simulator()


def _batches(
    planned: Iterable[Work], planner: Planner, simulator: "Simulator | None"
) -> Generator[Batch, None, None]:
    """Render every planned image set once, in order, as many at a time as there are cores."""
    workers = os.cpu_count() or 1
    waiting: deque[tuple[Work, Future[tuple[EncodedImage, ...]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="render") as pool:
        try:
            for work in planned:
                waiting.append((work, pool.submit(_encode, work, planner.wanted.rendering)))
                if len(waiting) > 2 * workers:
                    yield from _batch(*waiting.popleft(), planner, simulator)
            while waiting:
                yield from _batch(*waiting.popleft(), planner, simulator)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _encode(work: Work, rendering: Rendering) -> tuple[EncodedImage, ...]:
    return tuple(encode(image.path, rendering) for image in work.images)


def _batch(
    work: Work, rendered: "Future[tuple[EncodedImage, ...]]", planner: Planner, simulator: "Simulator | None"
) -> Iterator[Batch]:
    try:
        images = rendered.result()
    except ImageError as error:
        planner.withdraw(work, str(error))
        return
    planner.burned_in += sum(image.burned_in for image in images)
    if simulator is not None:
        _teach(simulator, work, images)
    yield Batch(tuple(Picture(image.jpeg, image.sha256) for image in images), work.questions)


def _teach(simulator: "Simulator", work: Work, images: tuple[EncodedImage, ...]) -> None:
    """Hand the simulator the truth about an image: it knows nothing else."""
    from cxr_max.teachers.simulator import Truth

    study = work.study
    truth = Truth(study.reference_findings, study.reference_sides, study.difficulty)
    for image in images:
        simulator.learn(image.sha256, truth)
