"""The suites as tasks of inspect_ai: ``inspect eval cxr_max/generalization -T release=DIR --model NAME``.

inspect asks and keeps the replies; this project shows the pictures, reads the replies and computes the numbers,
by the functions that ``cxr-max eval`` computes them by. What inspect has no reply to counts as failed, as there.

Pictures are made when a sample begins, after the data-use gate has let its model pass: a refused model costs no
rendering, and a suite of thousands of pictures need not fit into memory.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

from cxr_max import prompts
from cxr_max.builders.pixels import Pixels, open_pixels
from cxr_max.builders.release import read_manifest
from cxr_max.builders.run_folder import release_in
from cxr_max.data_use import Gate, load_attestations, place_of, proxy_of
from cxr_max.errors import DataUseError, ImageError, RequestError
from cxr_max.eval import stored
from cxr_max.eval.answers import Answers, by_condition
from cxr_max.eval.asking import Wanted, changed, wanted
from cxr_max.eval.bootstrap import estimate
from cxr_max.eval.conditions import ORIGINAL, REPORT
from cxr_max.eval.reference import Key, Reference
from cxr_max.eval.result import data_of
from cxr_max.eval.scored import Scored
from cxr_max.eval.scoring import score_all, tasks_of
from cxr_max.eval.suite import Suite, Task, read_suites
from cxr_max.eval.targets import image_sets_of, reference_of
from cxr_max.findings import FINDINGS, Findings
from cxr_max.radiograph import EncodedImage
from cxr_max.records import Asked, Ended, PredictionStatus, Sampling
from cxr_max.replies import read_reply
from cxr_max.teachers.base import TeacherSpec

try:
    import inspect_ai
    from anyio.to_thread import run_sync
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ChatMessageUser, ContentImage, ContentText, Model, ModelOutput, get_model
    from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, Value, metric, scorer
    from inspect_ai.solver import Generate, Solver, TaskState, generate, solver
except ImportError as error:
    raise RequestError(
        "The tasks for inspect need inspect_ai, which is not installed: pip install 'cxr-max[inspect]'."
    ) from error

_NOBODY: Final = TeacherSpec(
    name="inspect", provider="inspect", model="inspect", endpoint="inspect:", place="remote", wire="openai",
    key=None, sampling=Sampling(), concurrency=1, rpm=None, price=None,
)  # fmt: skip
"""Questions are listed for some teacher. inspect asks whom it likes, so nobody is asked through this one."""
_PROVIDERS: Final = "inspect_ai.model._providers."
_IN_PROCESS: Final = frozenset(_PROVIDERS + name for name in ("hf", "mockllm", "none", "transformer_lens"))
"""Modules whose models are computed in this process: nothing leaves it."""
_FORWARDING: Final = _PROVIDERS + "litellm_proxy"
"""Its address is a proxy's, and says nothing about where the pictures go."""
_GIVEN: Final = frozenset(_PROVIDERS + name for name in ("google", "vllm", "vllm_completions"))
"""Modules whose models show no client before they are asked, and ask at the base URL that they are given. Others
may pass it over."""
_PICTURES_KEPT: Final = 16
"""Image sets whose pictures are kept for their other conditions: more than are usually asked about at once."""
_REASONS: Final[Mapping[PredictionStatus, str]] = {
    "refused": "refusal",
    "filtered": "refusal",
    "truncated": "invalid_response_format",
    "unparsed": "invalid_response_format",
    "failed": "no_response",
}
"""inspect's words for our statuses."""


# The tasks.


@inspect_ai.task
def generalization(
    release: str, images: str | None = None, suite: str = "generalization", attestation: str | None = None
) -> inspect_ai.Task:
    """How good is the model, finding by finding?

    Args:
        release: the folder of a release, or of the run that built it.
        images: its source, ``NAME[:PATH]``; by default the one that the run beside it names.
        suite: a shipped suite's name, or a TOML file; it is asked and scored as a whole.
        attestation: a TOML of attestations, for credentialed data and a remote model.

    Raises:
        RequestError: a part is wrong or missing; nothing was sent.
    """
    return _task("generalization", release, images, suite, attestation)


@inspect_ai.task
def consistency(
    release: str, images: str | None = None, suite: str = "consistency", attestation: str | None = None
) -> inspect_ai.Task:
    """Does the model say the same when it should, and something else when it should? See ``generalization``."""
    return _task("consistency", release, images, suite, attestation)


@inspect_ai.task
def robustness(
    release: str, images: str | None = None, suite: str = "robustness", attestation: str | None = None
) -> inspect_ai.Task:
    """How much worse does the model get on worse pictures, and for whom? See ``generalization``."""
    return _task("robustness", release, images, suite, attestation)


def _task(task: Task, release: str, images: str | None, suite: str, attestation: str | None) -> inspect_ai.Task:
    opened = _open(release, images, suite)
    if task not in tasks_of(opened.suite):
        raise RequestError(f"The suite {suite} has no [{task}]: give one that has, or leave the suite out.")
    said = opened.manifest
    return inspect_ai.Task(
        dataset=MemoryDataset(opened.samples(), name=said["source"]["title"]),
        setup=pictures(release, images, suite, attestation),
        solver=generate(),
        scorer=reading(),
        metrics=[numbers(release, images, suite)],
        version=opened.suite.version,
        metadata={
            "suite": opened.suite.title,
            "suite_sha256": opened.suite.sha256,
            "release_digest": said["trajectories_digest"],
            "data_use": said["source"]["data_use"],
        },
    )


# The release.


@dataclass(eq=False)
class _Opened:
    """A release beside a suite: what is asked, and what answers are held against."""

    release: Path
    manifest: Mapping[str, Any]
    suite: Suite
    pixels: Pixels
    asked: Mapping[Key, Asked]
    reference: Reference

    @cached_property
    def questions(self) -> tuple[Wanted, ...]:
        """First those that are scored, image set by image set, so that a limit leaves the first ones whole."""
        return tuple(wanted(self.reference, self.asked, [self.suite], _NOBODY))

    @cached_property
    def by_id(self) -> dict[str, Wanted]:
        """The questions by their sample's identifier."""
        return {_identity(one): one for one in self.questions}

    @cached_property
    def peers(self) -> dict[str, Answers]:
        """What the release's teachers answered."""
        tables = stored.stored_answers(self.release, stored.prompt_of(self.release, self.suite.prompt))
        return {
            name: by_condition(stored.original(table), self.reference)[ORIGINAL] for name, table in tables.items()
        }

    def samples(self) -> list[Sample]:
        """One for each question."""
        rows = {row.key: row for row in self.reference.rows}
        made = []
        for identity, one in self.by_id.items():
            row = rows[one.asked.study_id, one.asked.image_ids]
            about = {
                "study": row.study_id,
                "images": list(row.image_ids),
                "subject": row.subject_id,
                "condition": str(one.condition),
                "split": row.split,
                "prompt": one.question.prompt_name,
            }
            target = json.dumps(None if row.findings is None else dict(row.findings))
            made.append(Sample(input=one.prompt, target=target, id=identity, metadata=about))
        return made

    def numbers(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
        """Means over findings, and numbers without findings: ``TASK/METRIC``, then condition and group if any.

        Args:
            rows: predictions, as columns of ``predictions.prediction_schema``.
        """
        import pyarrow as pa

        from cxr_max.eval.predictions import prediction_schema

        table = pa.Table.from_pylist(list(rows), schema=prediction_schema())
        data = data_of(table, self.reference, self.peers, member=False)
        found: dict[str, float | None] = {}
        for task, scored in score_all(data, self.suite):
            if scored.finding is None:
                found |= _named(task, scored)
        return found


def _open(release: str, images: str | None, suite: str) -> _Opened:
    """Opened once for all parts of a task, as long as neither release nor suite changes.

    Raises:
        RequestError: a part is wrong or missing.
    """
    folder = release_in(Path(release).expanduser())
    return _opened(folder, images, suite, read_manifest(folder)["trajectories_digest"], _suite(suite).sha256)


@lru_cache(maxsize=4)
def _opened(folder: Path, images: str | None, suite: str, _digest: str, _suite_sha256: str) -> _Opened:
    read = _suite(suite)
    pixels = open_pixels(folder, images)
    asked = image_sets_of(folder, stored.prompt_of(folder, read.prompt), read.split)
    reference = reference_of(asked, pixels)
    by_key = {(one.study_id, one.image_ids): one for one in asked}
    return _Opened(folder, read_manifest(folder), read, pixels, by_key, reference)


def _suite(name: str) -> Suite:
    suites = read_suites(name)
    if len(suites) != 1:
        raise RequestError(f"A task of inspect has one suite, and {name} are {len(suites)}: name one.")
    return suites[0]


def _identity(one: Wanted) -> str:
    return "/".join((one.asked.study_id, "+".join(one.asked.image_ids), str(one.condition)))


# The pictures.


@solver
def pictures(
    release: str, images: str | None = None, suite: str = "generalization", attestation: str | None = None
) -> Solver:
    """Put a sample's pictures before its prompt, as ``cxr-max eval`` sends them, if its model may see them.

    A sample whose pictures cannot be had is not asked about, and fails.

    Raises:
        RequestError: a part is wrong or missing.
        DataUseError: when a sample begins: the terms forbid it.
    """
    opened = _open(release, images, suite)
    gate = _gate(opened.manifest["source"], attestation)
    encoded = lru_cache(maxsize=_PICTURES_KEPT)(opened.pixels.encoded)

    async def show(state: TaskState, generate: Generate) -> TaskState:
        if state.epoch > 1:
            raise RequestError("Further samples are conditions of the suite: leave --epochs out.")
        permit(gate, get_model())
        one = opened.by_id[str(state.sample_id)]
        try:
            urls = await run_sync(_data_urls, encoded, one)
        except ImageError as gap:
            state.metadata["gap"] = str(gap)
            state.completed = True
            return state
        shown = [ContentImage(image=url) for url in urls]
        state.messages = [ChatMessageUser(content=[*shown, ContentText(text=one.prompt)])]
        return state

    return show


def _data_urls(encoded: Callable[[Asked], tuple[EncodedImage, ...]], one: Wanted) -> list[str]:
    import base64

    made = [changed(image, one.condition.change) for image in encoded(one.asked)]
    return [f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}" for picture in made]


def _gate(source: Mapping[str, Any], attestation: str | None) -> Gate:
    path = Path(attestation).expanduser() if attestation else None
    attested = load_attestations(path, today=date.today()) if path else ()
    return Gate(source["name"], source["data_use"], attested)


def permit(gate: Gate, model: Model) -> None:
    """Let a model see the pictures, or refuse.

    Raises:
        DataUseError: the terms forbid it, or nobody can tell where the pictures would go.
    """
    if type(model.api).__module__ in _IN_PROCESS:
        return
    endpoint = endpoint_of(model)
    if endpoint is None and gate.data_use == "credentialed":
        raise DataUseError(
            f"{gate.source} is credentialed data, and nobody can tell where inspect sends what {model} is shown:"
            " ask through a provider that says so (openai, anthropic, openai-api; google and vllm with"
            " --model-base-url)."
        )
    place = place_of(endpoint or "")
    gate.check(str(model), endpoint or "", place)
    if gate.data_use == "credentialed" and place == "local" and (proxy := proxy_of(endpoint or "")):
        raise DataUseError(
            f"{gate.source} is credentialed data, and inspect would ask {model} through the proxy {proxy}, which"
            " the environment names: set NO_PROXY to its host."
        )
    _follow_nobody(model)


def _follow_nobody(model: Model) -> None:
    """A redirect could turn a local model into a remote one; the SDKs' clients follow them unless told."""
    http = getattr(getattr(model.api, "client", None), "_client", None)
    if http is not None and hasattr(http, "follow_redirects"):
        http.follow_redirects = False


def endpoint_of(model: Model) -> str | None:
    """The URL of the service that a model of inspect's is asked at; ``None`` where nobody can tell."""
    module = type(model.api).__module__
    if module == _FORWARDING:
        return None
    # The client knows best: environment variables and defaults have gone into it.
    found = getattr(getattr(model.api, "client", None), "base_url", None)
    if not found and module in _GIVEN:
        found = model.api.base_url or model.explicit_base_url
    return str(found) if found else None


# The replies.


@scorer(metrics=[])
def reading() -> Scorer:
    """Read a reply as a teacher's is read: ``value`` has the status and the 14 findings, 1 / 0 / -1 / ``None``.

    ``metadata`` has sides and contradictions, and the text of a report.
    """

    async def score(state: TaskState, target: Target) -> Score:
        if not state.output.choices:
            return Score(
                value=_value("failed", {}), reason=_REASONS["failed"], explanation=state.metadata.get("gap")
            )
        return _read(state.output, state.metadata)

    return score


def _read(output: ModelOutput, about: Mapping[str, Any]) -> Score:
    text = output.completion
    structured = prompts.load(about["prompt"]).structured_answer
    status, labels = read_reply(text, _ended(output), structured_answer=structured)
    kept: dict[str, Any] = {"text": text} if about["condition"] == REPORT else {}
    if labels is not None:
        kept |= {"sides": dict(labels.sides), "contradictions": list(labels.contradictions)}
    return Score(value=_value(status, labels.states if labels else {}), reason=_REASONS.get(status), metadata=kept)


def _value(status: PredictionStatus, states: Findings) -> dict[str, str | int | float | bool | None]:
    return {"status": status, **{name: states.get(name) for name in FINDINGS}}


def _ended(output: ModelOutput) -> Ended:
    content = output.message.content
    if not isinstance(content, str) and any(isinstance(part, ContentText) and part.refusal for part in content):
        return "refused"
    match output.stop_reason:
        case "max_tokens" | "model_length":
            return "length"
        case "content_filter":
            return "filtered"
    return "stop"


# The numbers.


@metric(scores="unreduced")
def numbers(release: str, images: str | None = None, suite: str = "generalization") -> Metric:
    """All numbers of the suite that are not about one finding, as ``_Opened.numbers`` names them.

    Raises:
        RequestError: a part is wrong or missing.
    """
    opened = _open(release, images, suite)

    def compute(scores: list[SampleScore]) -> Value:
        # inspect asks for a first display before there is any score.
        return opened.numbers(map(_row, scores)) if scores else {}

    return compute


def _row(one: SampleScore) -> dict[str, Any]:
    """A prediction."""
    about, kept, value = one.sample_metadata or {}, one.score.metadata or {}, one.score.as_dict()
    ok = value["status"] == "ok"
    return {
        "study_id": about["study"],
        "image_ids": about["images"],
        "condition": about["condition"],
        "status": value["status"],
        "findings": {name: value[name] for name in FINDINGS} if ok else None,
        "sides": kept.get("sides"),
        "contradictions": kept.get("contradictions"),
        "text": kept.get("text"),
    }


def _named(task: Task, scored: Scored) -> dict[str, float | None]:
    """A number without a value is left out by inspect."""
    parts: Sequence[str | None] = (task, scored.metric, scored.condition, scored.group)
    name = "/".join(part for part in parts if part)
    found = estimate(scored.drawn)
    return {name: found.value, f"{name}/low": found.low, f"{name}/high": found.high}
