"""What a build would send, take and cost, before anything is sent: ``cxr-max build --dry-run``.

It plans as the build does, under the same request keys, but renders nothing, writes nothing into the run's folder
and needs no API key. An image's size comes from the source's table, else from the file's header. A file is hashed
only where something was asked about its image before: nothing else can have been answered. Two studies with the
same file are counted twice, although they are asked about once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from cxr_max.builders.build import BuildRequest, Prepared, prepare, settings_of
from cxr_max.builders.plan import file_identity, question_of
from cxr_max.builders.run_folder import RunFolder
from cxr_max.costs import Price, usd
from cxr_max.errors import DataUseError, ImageError, RequestError
from cxr_max.image_file import fitted
from cxr_max.image_tokens import image_tokens
from cxr_max.ledger import Ledger, Usage
from cxr_max.radiograph import read_header, rendering_id
from cxr_max.records import Radiograph, Study
from cxr_max.teachers import roster
from cxr_max.teachers.base import TeacherSpec
from cxr_max.teachers.budget import prompt_tokens

LONG_SIDE: Final = 1024
"""Pixels of the longer side of what is sent."""
MEASURED: Final = 20
"""Replies of a teacher to the same prompt from which on their mean is taken for what the next ones take."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one teacher would be asked, and what that would take."""

    teacher: str
    model: str
    requests: int
    reused: int
    """Rows whose reply is there, or on its way in a batch: they cost nothing more."""
    input_tokens: int
    output_tokens: int
    """Every reply as long as ``max_tokens`` allows, unless ``measured``."""
    cost_usd: float | None
    """``None`` where the price is unknown."""
    seconds: float | None
    """Until the last reply; ``None`` where neither a latency nor a rate limit is known."""
    price: Price | None
    measured: bool
    """Tokens and latency are the mean of replies to this prompt: a total is a number times a mean."""
    documented: bool
    """Images are counted by the service's own formula."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a build would do."""

    teachers: tuple[Forecast, ...]
    studies: int
    gaps: int
    """Image sets that could not be asked about."""
    spent_usd: float
    """By earlier builds of the run; batches at the services count as the most that they can cost."""
    notes: tuple[str, ...]
    """What stands in the way of sending, and what the user should know: one sentence each."""

    @property
    def requests(self) -> int:
        """Of all teachers."""
        return sum(teacher.requests for teacher in self.teachers)

    @property
    def known_cost_usd(self) -> float:
        """Of the teachers whose price is known."""
        return sum(teacher.cost_usd or 0.0 for teacher in self.teachers)

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Teachers that would be asked and whose price is unknown, so that the whole costs more than is known."""
        return tuple(teacher.teacher for teacher in self.teachers if teacher.cost_usd is None)

    @property
    def seconds(self) -> float | None:
        """Teachers work side by side, so this is the slowest one's time; ``None`` where one is unknown."""
        times = [teacher.seconds for teacher in self.teachers]
        known = [seconds for seconds in times if seconds is not None]
        return max(known, default=0.0) if len(known) == len(times) else None


@dataclass(slots=True)
class _Count:
    """One teacher's requests so far."""

    requests: int = 0
    reused: int = 0
    image_tokens: int = 0
    prompt_tokens: int = 0
    documented: bool = True


def estimate(request: BuildRequest, watch: Callable[[int, int | None], None]) -> Estimate:
    """Plan a build without doing it.

    Args:
        watch: told how many studies are looked at, and of how many if that is known.

    Raises:
        RequestError: something in the request is wrong. A missing key or attestation is a note only.
    """
    folder = RunFolder(request.out)
    with ExitStack() as stack:
        # Phantoms are drawn when they are looked at: never into a folder that is no run yet.
        workspace = request.out if request.out.is_dir() else Path(stack.enter_context(TemporaryDirectory()))
        prepared = prepare(request, workspace)
        ledger = None
        if folder.ledger.exists():
            folder.settle(settings_of(request))
            ledger = stack.enter_context(Ledger(folder.ledger))
        found = _Estimating(prepared, ledger, watch).run()
    if request.batch:
        # A day at most, the services say; how soon depends on nothing that is known here.
        waited = tuple(replace(one, seconds=None if one.requests else 0.0) for one in found.teachers)
        found = replace(found, teachers=waited, notes=(*found.notes, "Batches are answered within a day."))
    limit, most = request.max_cost_usd, found.spent_usd + found.known_cost_usd
    if limit is not None and most > limit:
        note = (
            f"All of it may cost {usd(most)}, what is spent included: --max-cost-usd {limit:g} may stop it before."
        )
        return replace(found, notes=(*found.notes, note))
    return found


@dataclass(slots=True)
class _Estimating:
    prepared: Prepared
    ledger: Ledger | None
    watch: Callable[[int, int | None], None]
    studies: int = 0
    gaps: int = 0
    counts: dict[str, _Count] = field(default_factory=dict)
    _answered: set[str] = field(default_factory=set)
    _images_asked: set[tuple[str, ...]] = field(default_factory=set)

    def run(self) -> Estimate:
        wanted, source = self.prepared.wanted, self.prepared.source
        self.counts = {spec.name: _Count() for spec in wanted.teachers}
        usage: dict[str, Usage] = {}
        spent, unpriced = 0.0, 0
        if self.ledger is not None:
            on_their_way = self.ledger.requests_in_batches()
            self._answered = self.ledger.answered() | on_their_way.keys()
            self._images_asked = self.ledger.images_asked()
            usage = self.ledger.usage(wanted.prompt.sha256)
            spent, unpriced = self.ledger.spent()
            spent += sum(most or 0.0 for most in on_their_way.values())
        for study, sets in wanted.selection.chosen(source, wanted.askable):
            self.studies += 1
            for images in sets:
                self._count(study, images)
            self.watch(self.studies, wanted.selection.studies or source.total)
        forecasts = tuple(
            _forecast(spec, self.counts[spec.name], usage.get(spec.name)) for spec in wanted.teachers
        )
        notes = [*source.warnings, *_obstacles(self.prepared)]
        if unpriced:
            notes.append(f"{unpriced} earlier replies have no known cost and are not counted as spent.")
        return Estimate(forecasts, self.studies, self.gaps, spent, tuple(notes))

    def _count(self, study: Study, images: tuple[Radiograph, ...]) -> None:
        prompt_text = self.prepared.wanted.prompt.fill(study)
        try:
            if prompt_text is None:
                raise ImageError("The prompt has nothing to say about this study.")
            sizes = [_sent_size(image) for image in images]
            hashed = self._hashed(images)
        except ImageError:
            self.gaps += 1
            return
        for spec in self.prepared.wanted.teachers:
            count = self.counts[spec.name]
            reused = self._reused(study, images, hashed, prompt_text, spec)
            requests = self.prepared.wanted.samples - reused
            count.reused += reused
            count.requests += requests
            count.prompt_tokens += requests * prompt_tokens(prompt_text)
            for width, height in sizes:
                found = image_tokens(width, height, endpoint=spec.endpoint, wire=spec.wire, model=spec.model)
                count.image_tokens += requests * found.tokens
                count.documented &= found.documented

    def _hashed(self, images: Sequence[Radiograph]) -> list[tuple[str, str]]:
        """As ``question_of`` wants it; nothing where nothing was ever asked about these images."""
        if self.ledger is None or tuple(image.image_id for image in images) not in self._images_asked:
            return []
        rendering = self.prepared.wanted.rendering
        return [
            (file_identity(image.path, self.ledger)[0].source_sha256, rendering_id(image.path, rendering))
            for image in images
        ]

    def _reused(
        self,
        study: Study,
        images: Sequence[Radiograph],
        hashed: Sequence[tuple[str, str]],
        prompt_text: str,
        spec: TeacherSpec,
    ) -> int:
        if not hashed:
            return 0
        wanted = self.prepared.wanted
        questions = (
            question_of(study, images, hashed, wanted.prompt, prompt_text, spec, sample)
            for sample in range(wanted.samples)
        )
        return sum(question.request_sha256 in self._answered for question in questions)


def _sent_size(image: Radiograph) -> tuple[int, int]:
    """Width and height of what would be sent.

    Raises:
        ImageError: the file is absent or no picture.
    """
    rows, columns = image.rows, image.columns
    if not rows or not columns:
        header = read_header(image.path)
        rows, columns = header.rows, header.columns
    elif not image.path.is_file():
        raise ImageError(f"{image.path.name} is absent.")
    return fitted(columns, rows, LONG_SIDE)


def _forecast(spec: TeacherSpec, count: _Count, usage: Usage | None) -> Forecast:
    inputs, outputs = count.image_tokens + count.prompt_tokens, count.requests * spec.sampling.max_tokens
    measured = usage is not None and usage.replies >= MEASURED
    latency = None
    if usage is not None and measured:
        latency = usage.latency_s
        inputs = inputs if usage.input_tokens is None else round(count.requests * usage.input_tokens)
        outputs = outputs if usage.output_tokens is None else round(count.requests * usage.output_tokens)
    cost = None if spec.price is None else (inputs * spec.price.input + outputs * spec.price.output) / 1e6
    return Forecast(
        teacher=spec.name,
        model=spec.model,
        requests=count.requests,
        reused=count.reused,
        input_tokens=inputs,
        output_tokens=outputs,
        cost_usd=0.0 if count.requests == 0 else cost,
        seconds=_seconds(spec, count.requests, inputs + outputs, latency),
        price=spec.price,
        measured=measured,
        documented=count.documented,
    )


def _seconds(spec: TeacherSpec, requests: int, tokens: int, latency: float | None) -> float | None:
    """The tightest of what is known: requests in flight, requests and tokens per minute."""
    if requests == 0:
        return 0.0
    bounds = [
        latency and max(latency, requests * latency / spec.concurrency),
        spec.rpm and requests * 60 / spec.rpm,
        spec.tpm and tokens * 60 / spec.tpm,
    ]
    return max((bound for bound in bounds if bound), default=None)


def _obstacles(prepared: Prepared) -> Iterator[str]:
    """What the build itself would refuse."""
    specs = prepared.wanted.teachers
    try:
        roster.keys_of(specs)
    except RequestError as error:
        yield str(error)
    refused: dict[str, str] = {}
    for spec in specs:
        try:
            prepared.gate.check(spec.name, spec.endpoint, spec.place)
        except DataUseError as error:
            refused[spec.name] = str(error)
    if refused:
        (_, why), *others = refused.items()
        yield why + (f" The same holds for {', '.join(name for name, _ in others)}." if others else "")
