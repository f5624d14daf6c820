"""Study x Teacher -> ledger -> release: the main job, from a checked request to a sealed release."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from cxr_max import prompts
from cxr_max.builders.batches import (
    Parties,
    at_batch_price,
    only,
    refuse_unbatched,
    send_in_batches,
    simulator_for,
)
from cxr_max.builders.plan import Planner, PlanWatch, Wanted, Work
from cxr_max.builders.prices_paid import keep_price, read_prices
from cxr_max.builders.release import write_release
from cxr_max.builders.rendering import rendered_ahead
from cxr_max.builders.run_folder import RunFolder
from cxr_max.builders.selection import Selection, Views, read_subjects
from cxr_max.builders.sending import BURNED_IN, budget_for, send
from cxr_max.builders.sources.base import Source
from cxr_max.builders.sources.registry import canonical, open_source
from cxr_max.builders.withdraw import withdrawn_of
from cxr_max.costs import Spent, add_cost, total
from cxr_max.data_use import Gate, load_attestations
from cxr_max.errors import ImageError, RequestError
from cxr_max.image_cache import user_cache
from cxr_max.ledger import Gap, Ledger
from cxr_max.radiograph import EncodedImage, Rendering
from cxr_max.records import Question, Split, Status
from cxr_max.shards import sha256_of
from cxr_max.teachers import roster
from cxr_max.teachers.asking import Batch, Picture, Watch
from cxr_max.teachers.base import TeacherSpec
from cxr_max.teachers.budget import Budget, require_limit

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
    image_sets: int | None = None
    """Exactly so many image sets, drawn by ``seed``."""
    seed: int = 0
    exclude_subjects: Path | None = None
    """A table of subjects that are left out."""
    views: Views = "frontal"
    rendering: Rendering = "mimic_jpg"
    labels: Path | None = None
    attestation: Path | None = None
    roster: Path | None = None
    concurrency: int | None = None
    batch: bool = False
    """Through the services' batch interfaces: half the price, within a day."""
    max_cost_usd: float | None = None
    """What the run may have cost when it is done, earlier builds of it included; ``None`` for no limit."""
    spent_elsewhere: Spent = (0.0, 0)
    """By other runs that are under the same limit."""


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

    def batches(self, state: str) -> None:
        """What is at the services now, in a sentence."""

    def sealing(self, gaps: Sequence[Gap]) -> None:
        """All is asked, but for ``gaps``; the release is being written."""


class _Counted:
    """Passes everything on to the watch, and counts what the result needs."""

    def __init__(self, watch: BuildWatch, heard: Callable[[str], None]) -> None:
        """
        Args:
            heard: told of every teacher that replies, once.
        """
        self._watch = watch
        self._heard = heard
        self._teachers: set[str] = set()
        self.sent = 0
        self.cost_usd: float | None = 0.0

    def planned(self, teacher: str, settled: bool) -> None:
        self._watch.planned(teacher, settled)

    def study(self) -> None:
        self._watch.study()

    def answered(self, teacher: str, status: Status, cost_usd: float | None) -> None:
        if teacher not in self._teachers:
            self._teachers.add(teacher)
            self._heard(teacher)
        self.sent += 1
        self.cost_usd = add_cost(self.cost_usd, cost_usd)
        self._watch.answered(teacher, status, cost_usd)

    def failed(self, teacher: str, message: str) -> None:
        self.sent += 1
        self._watch.failed(teacher, message)

    def stopped(self, teacher: str, message: str) -> None:
        self._watch.stopped(teacher, message)

    def warned(self, message: str) -> None:
        self._watch.warned(message)

    def batches(self, state: str) -> None:
        self._watch.batches(state)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose parts are right and fit together, before anything was written or sent."""

    source: Source
    wanted: Wanted
    gate: Gate
    """Not asked yet."""


@dataclass(frozen=True, slots=True)
class _Checked(Prepared):
    """And it may be sent."""

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
        folder.settle(settings_of(request))
        gone, records = withdrawn_of(folder)
        checked = replace(checked, wanted=replace(checked.wanted, without=gone))
        with Ledger(folder.ledger) as ledger:
            ledger.forget(gone)
            for warning in source.warnings:
                watch.warned(warning)
            watch.started(checked.wanted.teachers, _expected(source, checked.wanted.selection))
            prices, specs = folder.root / "prices.json", {spec.name: spec for spec in checked.wanted.teachers}
            read_prices(prices)
            counted = _Counted(watch, lambda teacher: keep_price(prices, specs[teacher]))
            planner = Planner(checked.wanted, ledger, counted)
            budget = _budget(request, checked.wanted, ledger, watch)
            ask = _ask_in_batches if request.batch else _ask_all
            ask(checked, planner, ledger, counted, watch, budget)
            _refuse_nothing(planner, checked.wanted.selection, source)
            ledger.record_gaps(planner.gaps)
            if planner.skipped:
                watch.warned(
                    f"{planner.skipped} studies have no image of the wanted view, so they were not asked about."
                )
            if planner.burned_in:
                watch.warned(BURNED_IN.format(planner.burned_in))
            watch.sealing(planner.gaps)
            published = {**_published(request), "prices": read_prices(prices)}
            manifest = write_release(ledger, folder.release, source.info, published, records)
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


def prepare(request: BuildRequest, workspace: Path) -> Prepared:
    """Read everything that a request names but API keys; nothing is sent.

    Args:
        workspace: where the phantom source draws its pictures.

    Raises:
        RequestError: something in the request is wrong.
    """
    specs = roster.choose(roster.load(request.roster), request.teachers)
    if request.concurrency is not None:
        specs = tuple(replace(spec, concurrency=request.concurrency) for spec in specs)
    prompt = prompts.load(request.prompt)
    if prompt.given == "trajectories":
        raise RequestError(
            f"The prompt {prompt.name} is about replies that are there already: build with diagnose, then run"
            " cxr-max consensus --method student."
        )
    if prompt.compares and request.views != "study":
        raise RequestError(f"The prompt {prompt.name} compares the pictures of a study: add --views study.")
    attested = load_attestations(request.attestation, today=date.today()) if request.attestation else ()
    source = open_source(request.source, workspace=workspace, labels=request.labels)
    if source.prerendered and request.rendering != "mimic_jpg":
        raise RequestError(
            f"{request.source} holds pictures that are rendered already, so {request.rendering} cannot be chosen:"
            " leave --rendering out, and they are sent as they are."
        )
    wanted = Wanted(specs, prompt, request.samples, request.rendering, _selection(request, source))
    gate = Gate(source.info.name, source.info.data_use, attested)
    if request.batch:
        refuse_unbatched(specs, gate)
        wanted = replace(wanted, teachers=at_batch_price(specs))
    return Prepared(source, wanted, gate)


def _selection(request: BuildRequest, source: Source) -> Selection:
    endless = source.info.name == "phantom"
    if request.image_sets is not None and (endless or request.studies is not None):
        other = "the phantom source, which never ends" if endless else "--studies"
        raise RequestError(f"--image-sets draws from all studies, so it does not go with {other}: leave one out.")
    excluded = read_subjects(request.exclude_subjects.expanduser()) if request.exclude_subjects else frozenset()
    return Selection(
        views=request.views,
        split=request.split,
        studies=PHANTOM_STUDIES if endless and request.studies is None else request.studies,
        image_sets=request.image_sets,
        seed=request.seed,
        excluded=excluded,
    )


def _check(request: BuildRequest) -> _Checked:
    prepared = prepare(request, request.out)
    for spec in prepared.wanted.teachers:
        prepared.gate.check(spec.name, spec.endpoint, spec.place)
    keys = roster.keys_of(prepared.wanted.teachers)
    require_limit(request.max_cost_usd, prepared.wanted.teachers)
    return _Checked(prepared.source, prepared.wanted, prepared.gate, keys)


def settings_of(request: BuildRequest) -> dict[str, str]:
    """What all builds of one run have in common. Local paths: never published."""
    labels = str(request.labels.expanduser().resolve()) if request.labels else ""
    return {"source": canonical(request.source), "labels": labels, **_published(request)}


def _published(request: BuildRequest) -> dict[str, str]:
    """What was chosen and how it was rendered; blank where nothing was said."""
    drawn, table = request.image_sets, request.exclude_subjects
    return {
        "rendering": request.rendering,
        "views": request.views,
        "image_sets": "" if drawn is None else f"{drawn} by seed {request.seed}",
        "excluded_subjects": "" if table is None else f"{table.name}, sha256 {sha256_of(table.expanduser())}",
    }


def _expected(source: Source, selection: Selection) -> int | None:
    if selection.split is not None or selection.image_sets is not None or source.total is None:
        return selection.studies
    return source.total if selection.studies is None else min(source.total, selection.studies)


def _refuse_nothing(planner: Planner, selection: Selection, source: Source) -> None:
    if selection.split is not None and planner.studies == planner.skipped == 0:
        raise RequestError(
            f"No study of {source.info.name} is in the split {selection.split}: leave --split out where its owners"
            " do not divide the set, or name another."
        )


def _budget(request: BuildRequest, wanted: Wanted, ledger: Ledger, watch: BuildWatch) -> Budget | None:
    def spent() -> Spent:
        # Otherwise batches are collected by another command, and may cost as much until then.
        waiting = (0.0, 0) if request.batch else ledger.most_in_batches()
        return total(ledger.spent(), waiting, request.spent_elsewhere)

    return budget_for(request.max_cost_usd, wanted.teachers, watch, spent)


def _ask_all(
    checked: _Checked,
    planner: Planner,
    ledger: Ledger,
    counted: _Counted,
    watch: BuildWatch,
    budget: Budget | None,
) -> None:
    """Run the loop to its end; nothing is started where nothing is left to ask.

    Raises:
        Interrupted: a stop was asked for.
    """
    busy = ledger.requests_in_batches()
    if busy:
        watch.warned(
            f"{len(busy)} requests are in batches at the services and are not asked again: add --batch to collect"
            " them."
        )
    work = only(planner.work(checked.source), lambda question: question.request_sha256 not in busy)
    first = next(work, None)
    if first is None:
        return
    with (
        closing(work),
        simulator_for(checked.wanted.teachers) as simulator,
        closing(_batches(chain([first], work), planner, simulator)) as batches,
    ):
        send(
            batches, checked.wanted.teachers, checked.keys, checked.gate, ledger, counted, watch.stopping,
            simulator.address if simulator else None, budget,
        )  # fmt: skip


class _Unwatched:
    """Rows that are planned again were shown before."""

    def planned(self, teacher: str, settled: bool) -> None:
        pass

    def study(self) -> None:
        pass


def _ask_in_batches(
    checked: _Checked,
    planner: Planner,
    ledger: Ledger,
    counted: _Counted,
    watch: BuildWatch,
    budget: Budget | None,
) -> None:
    """Collect what is at the services, ask the rest, and wait for it.

    Raises:
        Interrupted: a stop was asked for; the batches stay at the services.
    """
    with simulator_for(checked.wanted.teachers) as simulator:

        @contextmanager
        def open_round(wanted: Callable[[Question], bool], number: int) -> Iterator[Iterator[Batch]]:
            asked = planner if number == 0 else Planner(checked.wanted, ledger, _Unwatched())
            with (
                closing(only(asked.work(checked.source), wanted)) as work,
                closing(_batches(work, asked, simulator)) as batches,
            ):
                yield batches

        address = simulator.address if simulator else None
        parties = Parties(checked.wanted.teachers, checked.keys, checked.gate, address)
        send_in_batches(open_round, parties, ledger, counted, watch.stopping, budget)


def _batches(
    planned: Iterable[Work], planner: Planner, simulator: "Simulator | None"
) -> Generator[Batch, None, None]:
    """Render every planned image set once, in order, ahead of who asks about it."""
    cache = user_cache()

    def encoded(work: Work) -> tuple[EncodedImage, ...]:
        return tuple(cache.encoded(image.path, planner.wanted.rendering) for image in work.images)

    with closing(rendered_ahead(planned, encoded)) as rendered:
        for work, images in rendered:
            yield from _batch(work, images, encoded, planner, simulator)


def _batch(
    work: Work,
    rendered: "Future[tuple[EncodedImage, ...]]",
    encoded: Callable[[Work], tuple[EncodedImage, ...]],
    planner: Planner,
    simulator: "Simulator | None",
) -> Iterator[Batch]:
    try:
        images = rendered.result()
    except ImageError as error:
        planner.withdraw(work, str(error))
        return
    planner.burned_in += sum(image.burned_in for image in images)
    if simulator is not None:
        _teach(simulator, work, images)
    yield Batch(_pictures(images), work.questions, again=lambda: _pictures(encoded(work)))


def _pictures(images: Iterable[EncodedImage]) -> tuple[Picture, ...]:
    return tuple(Picture(image.jpeg, image.sha256) for image in images)


def _teach(simulator: "Simulator", work: Work, images: tuple[EncodedImage, ...]) -> None:
    """Hand the simulator the truth about an image set: it knows nothing else."""
    from cxr_max.teachers.simulator import Truth

    simulator.learn([image.sha256 for image in images], Truth.of(work.study))
