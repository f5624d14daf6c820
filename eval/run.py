"""``cxr-max eval``: a release, a model and suites -> predictions, scores and a sealed result.

In steps, so that whoever calls can show each in its own way: ``prepare`` finds everything and refuses what is
wrong before anything is written or sent; then come, inside ``Prepared.opened``, ``look_for_leaks``, ``ask`` and
``finish``.
"""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from cxr_max import labeler
from cxr_max.builders.pixels import Pixels, open_pixels
from cxr_max.builders.release import read_manifest
from cxr_max.builders.run_folder import RunFolder, release_in
from cxr_max.builders.sending import budget_for
from cxr_max.costs import Spent, total
from cxr_max.data_use import Gate, load_attestations
from cxr_max.errors import RequestError
from cxr_max.eval import result as files
from cxr_max.eval import stored
from cxr_max.eval.asking import Model, Wanted, ask, predictions, wanted
from cxr_max.eval.board import Flag
from cxr_max.eval.flags import flags
from cxr_max.eval.hashing import Watch, hashed_images
from cxr_max.eval.leaks import LeakReport, find_leaks
from cxr_max.eval.reference import Reference, write_reference
from cxr_max.eval.result import Result
from cxr_max.eval.scoring import score_all
from cxr_max.eval.spending import by_itself
from cxr_max.eval.subject import Given, Subject, find, refuse_incomplete
from cxr_max.eval.suite import DEFAULT, Suite, read_suites
from cxr_max.eval.targets import image_sets_of, reference_of, split_of
from cxr_max.ledger import Gap, Ledger
from cxr_max.records import Asked, Score
from cxr_max.teachers.base import TeacherSpec
from cxr_max.teachers.budget import require_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from cxr_max.builders.build import BuildWatch

_PUBLIC: Final = "Its pictures can be downloaded: a model may have been trained on them."
_TERMS: Final = "Its terms hold for predictions and pages too: pass them on only to those who may see the data."


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """What a user asks of ``cxr-max eval``."""

    release: Path
    out: Path
    who: Given
    suites: str = DEFAULT
    images: str | None = None
    trained_on: Path | None = None
    """The release that leaks are looked for in; by default the evaluated one."""
    attestation: Path | None = None
    max_cost_usd: float | None = None
    """What the evaluation may have cost when it is done, earlier starts of it included; ``None`` for no limit."""
    spent_elsewhere: Spent = (0.0, 0)
    """By other runs that are under the same limit."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation came to."""

    out: Path
    suites: tuple[Suite, ...]
    scores: tuple[Score, ...]
    flags: Mapping[str, tuple[Flag, ...]]
    """By the suite's title."""
    failed: int
    """Questions without a reply."""
    gaps: tuple[Gap, ...]


@dataclass(slots=True)
class Prepared:
    """A request whose every part was found right; nothing has been written or sent."""

    request: EvalRequest
    release: Path
    manifest: Mapping[str, Any]
    suites: tuple[Suite, ...]
    reference: Reference
    image_sets: dict[tuple[str, tuple[str, ...]], Asked]
    trained_on: Path
    """A release."""
    gate: Gate
    pixels: Pixels
    peers: "dict[str, pa.Table]"
    who: Subject
    leaks: LeakReport | None = None
    gaps: tuple[Gap, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether a model is to be asked."""
        return self.who.spec is not None

    @property
    def folder(self) -> RunFolder:
        """Of the evaluation."""
        return RunFolder(self.request.out)

    @contextmanager
    def opened(self) -> "Iterator[None]":
        """Keep others out of the evaluation's folder, and see that it is about one model and one release.

        Raises:
            RequestError: it was begun with others.
            RunLockedError: another job is at work in it.
            StorageError: it cannot be written.
        """
        who = self.request.who
        with self.folder.locked():
            self.folder.settle({
                "release": str(self.release.resolve()),
                "model": str(who.model.expanduser().resolve()) if who.model else "",
                "teacher": who.teacher or "",
                "predictions": str(who.predictions.expanduser().resolve()) if who.predictions else "",
            })  # fmt: skip
            yield

    def look_for_leaks(self, watch: Watch) -> None:
        """Compare the pictures that are scored with the training split, whatever that release was asked.

        Raises:
            StorageError: the disk refused.
        """
        same = self.trained_on.resolve() == self.release.resolve()
        theirs = self.pixels if same else open_pixels(self.trained_on, None)
        training = [one for one in stored.asked_about(self.trained_on) if one.split == "train"]
        scored = [one for one in self.image_sets.values() if split_of(one) == self.suites[0].split]
        cache = self.request.out / "hashes.sqlite"
        self.leaks = find_leaks(
            hashed_images(scored, self.pixels, cache, "hashing the test images", watch),
            hashed_images(training, theirs, cache, "hashing the training images", watch),
        )
        self.reference = self.reference.marked(self.leaks.leaked_studies)

    def ask(self, watch: "BuildWatch") -> None:
        """Ask what has no reply yet.

        Raises:
            Interrupted: the user stopped it; all replies received are kept.
            StorageError: the disk refused.
        """
        assert self.who.spec is not None
        model = Model(self.who.spec, self.who.keys, self.gate, self.pixels)
        beside = RunFolder(self.release.resolve().parent).ledger
        with ExitStack() as stack:
            ledger = stack.enter_context(Ledger(self.folder.ledger))
            known = stack.enter_context(Ledger(beside)) if beside.is_file() else None
            budget = budget_for(
                self.request.max_cost_usd, (self.who.spec,), watch,
                lambda: total(by_itself(ledger, known), self.request.spent_elsewhere),
            )  # fmt: skip
            self.gaps = ask(self.questions(), model, ledger, known, watch, budget)

    def questions(self) -> list[Wanted]:
        """Every question of the suites; those that are scored first."""
        assert self.who.spec is not None
        return wanted(self.reference, self.image_sets, self.suites, self.who.spec)

    def finish(self, watch: Watch) -> Evaluation:
        """Write predictions, score them, and seal the result.

        Raises:
            StorageError: the disk refused.
        """
        folder = self.folder.root / "result"
        (folder / files.RESULT).unlink(missing_ok=True)
        write_reference(folder / files.REFERENCE, self.reference)
        files.write_peers(folder / files.PEERS, self.peers)
        settings = self._write_predictions(folder / files.PREDICTIONS)
        data = files.read_data(folder, self.who.teacher is not None)
        scores: list[Score] = []
        judged = {}
        for number, suite in enumerate(self.suites):
            watch("scoring", number, len(self.suites))
            found = [
                scored.score(self.who.name, self.manifest["source"]["title"], task, suite)
                for task, scored in score_all(data, suite)
            ]
            judged[suite.title] = flags(found, suite, _leaks(self.leaks))
            scores += found
        watch("scoring", len(self.suites), len(self.suites))
        result = self._result(settings)
        files.write_result(folder, result, scores)
        failed = _failed(folder / files.PREDICTIONS)
        return Evaluation(folder, self.suites, tuple(scores), judged, failed, self.gaps)

    def _write_predictions(self, path: Path) -> dict[str, str]:
        """Also what was asked and how, for a page."""
        import pyarrow.parquet as pq

        from cxr_max.eval.predictions import write_predictions
        from cxr_max.shards import disk_refusals_named

        if self.who.table is not None:
            with disk_refusals_named(path):
                pq.write_table(self.who.table, path, compression="zstd")
            return {
                "asked": "nobody: stored rows" if self.who.teacher is not None else "nobody: a file of predictions"
            }
        with Ledger(self.folder.ledger) as ledger:
            questions = self.questions()
            write_predictions(path, predictions(questions, ledger))
            return _settings(questions, ledger, self.who.spec)

    def _result(self, settings: Mapping[str, str]) -> Result:
        source = self.manifest["source"]
        training = read_manifest(self.trained_on)
        return Result(
            model=self.who.name,
            member=self.who.teacher is not None,
            settings=settings,
            notes=_notes(self.who, settings),
            dataset=source["title"],
            source=source["name"],
            data_use=source["data_use"],
            dataset_notes=(
                *_dataset_notes(source["name"], source["data_use"], self.reference, self.suites[0].split),
                *_overlap(source, training["source"]),
            ),
            release_digest=self.manifest["trajectories_digest"],
            trained_on=training["trajectories_digest"] if self.leaks else None,
            leaks=_leaks(self.leaks),
            suites=self.suites,
            files={},
        )


def prepare(request: EvalRequest) -> Prepared:
    """Find everything that the request names; nothing is written or sent.

    Raises:
        RequestError: a part is wrong or missing; nothing was sent.
        DataUseError: the images may not be sent to the model.
    """
    suites = read_suites(request.suites)
    release = release_in(request.release)
    manifest = read_manifest(release)
    prompt = stored.prompt_of(release, suites[0].prompt)
    source = manifest["source"]
    attested = load_attestations(request.attestation, today=date.today()) if request.attestation else ()
    gate = Gate(source["name"], source["data_use"], attested)
    answers = stored.stored_answers(release, prompt)
    split = suites[0].split
    asked = image_sets_of(release, prompt, split)
    who = find(request.who, release, prompt, tuple(answers), gate)
    _require_limit(request, who)
    reports = any(suite.report is not None for suite in suites)
    pixels = open_pixels(release, request.images, reports=reports)
    trained = release_in(request.trained_on) if request.trained_on else release
    reference = reference_of(asked, pixels)
    if request.who.predictions is not None and who.table is not None:
        refuse_incomplete(request.who.predictions, who.table, reference, split, stored.asked_about(release))
    peers = {name: stored.original(table) for name, table in answers.items() if name != who.teacher}
    by_key = {(one.study_id, one.image_ids): one for one in asked}
    read_manifest(trained)
    return Prepared(request, release, manifest, suites, reference, by_key, trained, gate, pixels, peers, who)


def _require_limit(request: EvalRequest, who: Subject) -> None:
    if request.max_cost_usd is not None and (who.spec is None or request.who.model is not None):
        raise RequestError("--max-cost-usd is for a --teacher that is asked: nothing else costs anything.")
    require_limit(request.max_cost_usd, (who.spec,) if who.spec is not None else ())


def _leaks(report: LeakReport | None) -> dict[str, Any]:
    """For ``result.json``; empty where nobody looked."""
    if report is None:
        return {}
    said = asdict(report)
    said["leaks"] = [asdict(leak) for leak in report.leaks[:100]]
    return said


def _failed(path: Path) -> int:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    return int(pc.sum(pc.equal(pq.read_table(path, columns=["status"])["status"], "failed")).as_py() or 0)


def _settings(questions: list[Wanted], ledger: Ledger, spec: TeacherSpec | None) -> dict[str, str]:
    assert spec is not None
    answered = [ledger.reply(one.question.request_sha256) for one in questions]
    replies = [one for one in answered if one is not None]
    reported = sorted({one.reply.model_reported for one in replies if one.reply.model_reported})
    costs = [one.cost_usd for one in replies]
    prompts = dict.fromkeys(f"{q.prompt_name} {q.prompt_version}" for q in (one.question for one in questions))
    sampling = {name: value for name, value in asdict(spec.sampling).items() if value is not None}
    return {
        "provider": spec.provider,
        "model": spec.model,
        "model reported": ", ".join(reported) or "nothing",
        "prompts": ", ".join(prompts),
        "sampling": json.dumps(sampling, sort_keys=True),
        "labeler": labeler.VERSION,
        "replies": str(len(replies)),
        "cost": "unknown" if any(cost is None for cost in costs) else f"${sum(cost or 0 for cost in costs):.2f}",
        "median latency": f"{median([one.latency_s for one in replies]):.2f} s" if replies else "none",
        "renderings": ", ".join(Counter(one.asked.rendering for one in questions)),
    }


def _notes(who: Subject, settings: Mapping[str, str]) -> tuple[str, ...]:
    if who.provider == "simulated":
        return ("Simulated: no model answered, and no number here is about any model.",)
    reported = settings.get("model reported", "nothing")
    if who.spec is not None and who.provider != "student" and reported not in ("nothing", who.spec.model):
        return (f"The service says that {reported} answered, where {who.spec.model} was asked for.",)
    return ()


def _overlap(source: Mapping[str, Any], training: Mapping[str, Any]) -> tuple[str, ...]:
    """A warning where the owners say that the two sets have pictures or patients in common."""
    if training["name"] not in source.get("overlaps", ()):
        return ()
    return (f"It has pictures or patients in common with {training['title']}, which the training release is of.",)


def _dataset_notes(source: str, data_use: str, reference: Reference, split: str) -> tuple[str, ...]:
    rows = [row for row in reference.rows if row.split == split]
    patients = len({row.subject_id for row in rows})
    notes = [f"{len(rows)} image sets of {patients} patients, split {split}."]
    if source == "phantom":
        notes.append("Generated pictures: they show no patient.")
    elif data_use == "open":
        notes.append(_PUBLIC)
    if data_use != "open":
        notes.append(_TERMS)
    return tuple(notes)
