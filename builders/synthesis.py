"""A model writes the consensus: it sees the picture, the question and what every teacher replied.

This is the stage "compare" of arXiv 2510.04142. The model is a teacher asked with the ``consensus`` prompt: the
student itself, or any other of the roster. Replies go to a ledger beside the release, ``consensus.sqlite``: none
is asked for twice, and judging them anew costs nothing.
"""

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from cxr_max import prompts
from cxr_max.answers import last_heading
from cxr_max.builders.pixels import Pixels, open_pixels
from cxr_max.builders.questions import question_like
from cxr_max.builders.release import read_manifest
from cxr_max.builders.run_folder import RunFolder
from cxr_max.builders.sending import BURNED_IN, budget_for, send
from cxr_max.builders.trajectories import trajectory_of
from cxr_max.consensus import decided, takes_part
from cxr_max.data_use import Gate, load_attestations
from cxr_max.drift.conflict import says
from cxr_max.errors import ImageError, RequestError
from cxr_max.ledger import Gap, Ledger
from cxr_max.prompts import Prompt
from cxr_max.records import Consensus, Question, Trajectory
from cxr_max.teachers import roster
from cxr_max.teachers.asking import Batch, Picture
from cxr_max.teachers.base import TeacherSpec
from cxr_max.teachers.budget import require_limit

if TYPE_CHECKING:
    from cxr_max.builders.build import BuildWatch

Outcome = Literal[
    "kept", "no_reply", "no_image", "not_asked", "refused", "truncated", "filtered", "unparsed", "readers",
    "unsupported", "copy",
]  # fmt: skip
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
GRAM: Final = 5
COPIED: Final = 0.7
"""A text with one word in twenty replaced still shares 3/4 of its word 5-grams or more; with one in ten, half. Of
the simulated teachers, on one image, no two share more than 0.42."""
_READERS: Final = re.compile(r"\breaders?\b", re.IGNORECASE)

Vote = tuple[Consensus, Sequence[Trajectory]]
"""What was voted about one image set and prompt, and by which trajectories."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who puts votes into words, and all that asking takes."""

    spec: TeacherSpec
    keys: dict[str, str]
    """Its API key, under its name."""
    gate: Gate
    pixels: Pixels
    watch: "BuildWatch"
    max_cost_usd: float | None = None
    """What asking may have cost when it is done, earlier starts included; ``None`` for no limit."""


def writer_for(
    release: Path,
    watch: "BuildWatch",
    *,
    model: Path | None = None,
    teacher: str | None = None,
    roster_file: Path | None = None,
    images: str | None = None,
    attestation: Path | None = None,
    max_cost_usd: float | None = None,
) -> Writer:
    """Find the writer that a user means; nothing is sent.

    Args:
        model: a student's checkpoint folder; or else
        teacher: a name of the roster, as ``roster_file`` changes and extends it.
        images: the source of the release's images; by default the one of the run.
        attestation: what remote services guarantee.
        max_cost_usd: what may be spent on ``teacher``.

    Raises:
        RequestError: one of these is wrong, or not one of ``model`` and ``teacher`` is given.
        DataUseError: the images may not be sent to the writer.
    """
    spec = _spec(model, teacher, roster_file)
    manifest = read_manifest(release)
    attested = load_attestations(attestation, today=date.today()) if attestation else ()
    # The texts that are sent along were derived from the data, so its terms hold for them too.
    gate = Gate(manifest["source"]["name"], manifest["source"]["data_use"], attested)
    gate.check(spec.name, spec.endpoint, spec.place)
    _refuse_unaskable(manifest)
    if max_cost_usd is not None and model is not None:
        raise RequestError("--max-cost-usd is for a --teacher that is asked: a student costs nothing.")
    require_limit(max_cost_usd, (spec,))
    return Writer(spec, roster.keys_of((spec,)), gate, open_pixels(release, images), watch, max_cost_usd)


def _spec(model: Path | None, teacher: str | None, roster_file: Path | None) -> TeacherSpec:
    if (model is None) == (teacher is None):
        raise RequestError(
            "Say who writes the consensus: --model DIR for a student's checkpoint, or --teacher NAME for one of"
            " the roster, and not both."
        )
    if model is not None:
        return roster.student_spec(model)
    specs = roster.choose(roster.load(roster_file), teacher or "")
    if len(specs) != 1:
        raise RequestError(
            f"--teacher {teacher} means {len(specs)} teachers, and one writes the consensus: name one."
        )
    if specs[0].provider == "simulated":
        raise RequestError(
            f"{teacher} is simulated: it answers from the truth about generated images, which a release does not"
            " hold. Choose a real teacher or --model DIR."
        )
    return specs[0]


def _refuse_unaskable(manifest: dict[str, Any]) -> None:
    asked = manifest["prompts"]
    if not any(_question(entry["name"], entry["sha256"]) for entry in asked):
        raise RequestError(
            f"The consensus on {', '.join(entry['name'] for entry in asked) or 'nothing'} cannot be asked for: it"
            " takes trajectories of a prompt that this version ships, that asks for a structured answer and gives"
            " nothing away, such as diagnose."
        )


def _question(name: str, sha256: str) -> Prompt | None:
    """The prompt that trajectories answer, if a consensus on it can be asked for.

    A prompt that gives findings away was filled with more than a release holds.
    """
    prompt = prompts.load(name) if name in prompts.names() else None
    if prompt is None or prompt.sha256 != sha256:
        return None
    return prompt if prompt.given == "nothing" and prompt.structured_answer else None


@contextmanager
def opened(release: Path, writer: Writer) -> Iterator["Synthesis"]:
    """A synthesis for one release, with its ledger beside it; nobody else works in that folder meanwhile.

    Raises:
        RunLockedError: another job is at work in the folder.
        StorageError: the folder cannot be written.
    """
    folder = RunFolder(release.resolve().parent)
    with folder.locked(), Ledger(folder.root / "consensus.sqlite") as ledger:
        yield Synthesis(writer, ledger, read_manifest(release)["counts"]["trajectories"]["studies"])


@dataclass(slots=True)
class Synthesis:
    """Asks for the consensus in words, and judges what comes back."""

    writer: Writer
    ledger: Ledger
    studies: int
    """How many the release has."""
    _gaps: dict[str, Gap] = field(default_factory=dict)
    """By request: image sets that could not be had in this run."""
    _burned_in: int = 0

    def ask(self, votes: Iterable[Vote]) -> None:
        """Ask about every image set that was decided by vote and has no reply yet.

        Raises:
            Interrupted: the user stopped it; all replies received are kept.
            StorageError: the disk refused.
        """
        writer, watch = self.writer, self.writer.watch
        watch.started((writer.spec,), self.studies)
        with closing(self._batches(votes)) as batches:
            first = next(batches, None)
            if first is not None:
                budget = budget_for(writer.max_cost_usd, (writer.spec,), watch, self.ledger.spent)
                send(
                    chain([first], batches), [writer.spec], writer.keys, writer.gate, self.ledger, watch,
                    watch.stopping, budget=budget,
                )  # fmt: skip
        if self._burned_in:
            watch.warned(BURNED_IN.format(self._burned_in))
        watch.sealing(tuple(self._gaps.values()))

    def word(self, agreed: Consensus, group: Sequence[Trajectory]) -> tuple[Outcome, str | None]:
        """What became of one image set's text, and the text if it is kept.

        It is kept if it is whole and in the form that was asked for, reasons before it answers and never speaks of
        readers; if its findings and sides say what the vote says; and if it is no copy of one trajectory.
        """
        planned = self._planned(group)
        if planned is None:
            return "not_asked", None
        question, _ = planned
        answered = self.ledger.reply(question.request_sha256)
        if answered is None:
            return "no_image" if question.request_sha256 in self._gaps else "no_reply", None
        written = trajectory_of(question, answered)
        outcome = judge(written, agreed, group)
        return outcome, written.text if outcome == "kept" else None

    def _batches(self, votes: Iterable[Vote]) -> Generator[Batch, None, None]:
        watch, name = self.writer.watch, self.writer.spec.name
        settled, study = self.ledger.answered(), None
        for agreed, group in votes:
            if agreed.study_id != study:
                study = agreed.study_id
                watch.study()
            planned = self._planned(group) if decided(agreed) else None
            if planned is None:
                continue
            key = planned[0].request_sha256
            pictures = () if key in settled else self._pictures(key, group[0])
            if pictures is None:
                continue
            watch.planned(name, key in settled)
            settled.add(key)
            if pictures:
                yield Batch(pictures, (planned,))

    def _pictures(self, key: str, trajectory: Trajectory) -> tuple[Picture, ...] | None:
        try:
            images = self.writer.pixels.encoded(trajectory)
        except ImageError as error:
            self._gaps[key] = Gap(trajectory.study_id, trajectory.image_ids, str(error))
            return None
        self._burned_in += sum(image.burned_in for image in images)
        return tuple(Picture(image.jpeg, image.sha256) for image in images)

    def _planned(self, group: Sequence[Trajectory]) -> tuple[Question, str] | None:
        """The question about one image set with its filled-in prompt; ``None`` where it cannot be put."""
        first, spec, prompt = group[0], self.writer.spec, prompts.load("consensus")
        asked = _question(first.prompt_name, first.prompt_sha256)
        if asked is None:
            return None
        text = prompt.fill_trajectories(asked, [t for t in group if takes_part(t)])
        return question_like(first, spec, prompt, text), text


def judge(written: Trajectory, agreed: Consensus, group: Iterable[Trajectory]) -> Outcome:
    """Whether a text may stand for the vote, or why not; the first reason found."""
    if written.status != "ok":
        return written.status
    reasoning = _reasoning(written.text)
    if not reasoning:
        return "unparsed"
    if _READERS.search(written.text):
        return "readers"
    if not says(written, agreed):
        return "unsupported"
    return "copy" if any(copied(written.text, t.text) > COPIED for t in group if takes_part(t)) else "kept"


def copied(text: str, of: str) -> float:
    """The share of a text's distinct word 5-grams that another holds too, 0 to 1.

    Case, punctuation and everything from the structured answer on are left out; a text of fewer than five words
    counts as one gram.
    """
    grams = _grams(text)
    return len(grams & _grams(of)) / len(grams)


def _grams(text: str) -> set[tuple[str, ...]]:
    words = _reasoning(text)
    return {tuple(words[start : start + GRAM]) for start in range(max(1, len(words) - GRAM + 1))}


def _reasoning(text: str) -> list[str]:
    """The words before the structured answer."""
    heading = last_heading(text)
    return re.findall(r"\w+", (text[: heading.start()] if heading else text).lower())
