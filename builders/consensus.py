"""The trajectories of a sealed release -> its ``consensus`` and ``preferences`` configs, and the seal renewed.

What is agreed on is decided by vote. In words, the preferred text is what a model wrote, if one was asked
(``synthesis``) and its text stands; else the trajectory at the middle of those that say what the vote says; where
none does, a plain text composed from the vote. Everything but the pixels is read from the release and written into
it, so a release that was downloaded will do.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import fsum
from pathlib import Path
from typing import Any, Final, Literal

from cxr_max.builders.release import add_configs, read_manifest
from cxr_max.builders.synthesis import OUTCOMES, Outcome, Synthesis, Vote, Writer, opened
from cxr_max.consensus import Weights, decided, reliability, vote
from cxr_max.drift.conflict import conflict, says
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, STATES, Side, State
from cxr_max.records import SPLITS, Consensus, Preference, Trajectory
from cxr_max.schemas import (
    consensus_schema,
    preference_schema,
    read_consensus,
    read_questions,
    read_trajectories,
    row_of_consensus,
    row_of_preference,
)
from cxr_max.shards import write_config

Weighting = Literal["equal", "estimated"]
Watch = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""

_SEEN: Final[Mapping[State, str]] = {1: "seen", 0: "not seen", -1: "possible"}
_WHERE: Final[Mapping[Side, str]] = {
    "left": " on the left",
    "right": " on the right",
    "bilateral": " on both sides",
}
_WORDS: Final = {state: word for word, state in STATES.items()}


@dataclass(frozen=True, slots=True)
class Filled:
    """What was added to a release."""

    consensus: int
    preferences: int
    composed: int
    """Consensus texts that no trajectory said and no model wrote, so that they were composed."""
    undecided: int
    """Image sets without a vote on any finding: no text, and no preference."""
    student: Mapping[Outcome, int]
    """What became of the asked model's texts: how many are kept, and why the others are not. Empty by vote."""

    @property
    def complete(self) -> bool:
        """Whether every text that was to be written has been."""
        return not self.student.get("no_reply", 0) and not self.student.get("no_image", 0)


def fill(
    release: Path,
    *,
    weighting: Weighting = "equal",
    quorum: int = 2,
    writer: Writer | None = None,
    watch: Watch = lambda *_: None,
) -> Filled:
    """Add the ``consensus`` and ``preferences`` configs to a sealed release.

    Args:
        weighting: ``estimated`` weighs each teacher by how reliable its agreement with the others makes it look,
            finding by finding; no label is used.
        quorum: fewest teachers that must mention a finding.
        writer: the model that puts the votes into words; where its text does not stand, the vote's does.

    Raises:
        RequestError: the release is not sealed, or fewer than ``quorum`` teachers are in it.
        RunLockedError: a writer is to be asked, and another job is at work in the release's run.
        Interrupted: the user stopped the asking; the release is as it was, and all replies received are kept.
        StorageError: the disk refused.
    """
    manifest = read_manifest(release)
    teachers = manifest["counts"]["trajectories"]["by_teacher"]
    if len(teachers) < quorum:
        raise RequestError(
            f"{len(teachers)} teachers cannot reach a quorum of {quorum}: build with more teachers."
        )
    votes = _Votes(release, _estimated(release) if weighting == "estimated" else None, quorum)
    method = f"vote, quorum {quorum}, weights {weighting}"
    with opened(release, writer) if writer else nullcontext() as synthesis:
        if synthesis is not None:
            method = f"student {synthesis.writer.spec.model}, else {method}"
            synthesis.ask(each for split in SPLITS for each in votes.each(split))
        filling = _Filling(votes, synthesis, method, watch)
        sent_to = synthesis.ledger.recipients() if synthesis is not None else ()
        add_configs(release, {"consensus": filling.consensus, "preferences": filling.preferences}, sent_to)
    return filling.filled()


@dataclass(frozen=True, slots=True)
class _Votes:
    release: Path
    weights: Weights | None
    quorum: int

    def each(self, split: str) -> Iterator[Vote]:
        """Every image set's vote and trajectories, computed as they are read: memory holds one image set."""
        for group in groups_of(read_trajectories(self.release, split)):
            yield vote(group, quorum=self.quorum, weights=self.weights), group


@dataclass(slots=True)
class _Filling:
    """Writes the two configs, one after the other: the second reads the consensus that the first wrote."""

    votes: _Votes
    synthesis: Synthesis | None
    method: str
    watch: Watch
    _made: Counter[str] = field(default_factory=Counter)
    _student: Counter[Outcome] = field(default_factory=Counter)
    _preferences: Counter[str] = field(default_factory=Counter)
    """By split."""

    def consensus(self) -> dict[str, Any]:
        sizes = {split: sum(1 for _ in _questions(self.votes.release, split)) for split in SPLITS}
        counts: dict[str, int] = {split: size for split, size in sizes.items() if size}
        total = sum(counts.values())

        def rows(split: str) -> Iterator[dict[str, Any]]:
            for agreed, group in self.votes.each(split):
                worded = self._word(agreed, group)
                self._preferences[split] += bool(_rejected(worded, group))
                self._made["rows"] += 1
                self.watch("Voting", self._made["rows"], total)
                yield row_of_consensus(worded)

        write_config(self._folder("consensus"), counts, rows, consensus_schema())
        student = {"student": self._outcomes()} if self.synthesis else {}
        return {"counts": {"rows": total, "by_split": counts, **student}, "method": self.method}

    def preferences(self) -> dict[str, Any]:
        counts: dict[str, int] = {split: self._preferences[split] for split in SPLITS if self._preferences[split]}
        total = sum(counts.values())
        written = Counter[str]()

        def rows(split: str) -> Iterator[dict[str, Any]]:
            groups = groups_of(read_trajectories(self.votes.release, split))
            for agreed, group in zip(read_consensus(self.votes.release, split), groups, strict=True):
                preference = prefer(agreed, group)
                if preference is not None:
                    written["rows"] += 1
                    self.watch("Writing preferences", written["rows"], total)
                    yield row_of_preference(preference)

        write_config(self._folder("preferences"), counts, rows, preference_schema())
        return {"counts": {"rows": total, "by_split": counts}, "method": self.method}

    def filled(self) -> Filled:
        made = self._made
        student = self._outcomes() if self.synthesis else {}
        return Filled(made["rows"], self._preferences.total(), made["composed"], made["undecided"], student)

    def _word(self, agreed: Consensus, group: Sequence[Trajectory]) -> Consensus:
        if not decided(agreed):
            self._made["undecided"] += 1
            return agreed
        if self.synthesis is not None:
            outcome, text = self.synthesis.word(agreed, group)
            self._student[outcome] += 1
            if text is not None:
                method = f"student {self.synthesis.writer.spec.model}, findings by {agreed.method}"
                return replace(agreed, text=text, method=method)
        worded, composed = word(agreed, group)
        self._made["composed"] += composed
        return worded

    def _outcomes(self) -> dict[Outcome, int]:
        return {outcome: self._student[outcome] for outcome in OUTCOMES}

    def _folder(self, config: str) -> Path:
        return self.votes.release / "data" / config


def groups_of(trajectories: Iterable[Trajectory]) -> Iterator[list[Trajectory]]:
    """The trajectories of one image set and prompt at a time.

    A release is sorted by study and images, so that a group's rows stand near each other.
    """
    for _, images in groupby(trajectories, key=lambda t: (t.study_id, t.image_sha256)):
        prompts: dict[str, list[Trajectory]] = {}
        for trajectory in images:
            prompts.setdefault(trajectory.prompt_sha256, []).append(trajectory)
        yield from prompts.values()


def _questions(release: Path, split: str) -> Iterator[str]:
    """One prompt for every group that ``groups_of`` makes of a split, without reading the texts."""
    for _, rows in groupby(read_questions(release, split), key=lambda row: row[:2]):
        yield from {prompt for *_, prompt in rows}


def word(agreed: Consensus, group: Sequence[Trajectory]) -> tuple[Consensus, bool]:
    """Put a vote that decided something into words, and say whether they were composed.

    The text is the medoid of the trajectories that say what the vote says; where none does, it is composed.
    """
    chosen = medoid([t for t in group if says(t, agreed)])
    return replace(agreed, text=compose(agreed) if chosen is None else chosen.text), chosen is None


def prefer(agreed: Consensus, group: Sequence[Trajectory]) -> Preference | None:
    """The consensus in words against all other texts; ``None`` without a text, or where nobody else answered."""
    rejected = _rejected(agreed, group)
    if agreed.text is None or not rejected:
        return None
    return Preference(
        study_id=agreed.study_id,
        image_sha256=agreed.image_sha256,
        prompt_sha256=agreed.prompt_sha256,
        chosen=agreed.text,
        rejected=tuple(t.text for t in rejected),
        rejected_teachers=tuple(t.teacher for t in rejected),
        conflicts=tuple(conflict(t.findings or {}, t.sides, agreed).score for t in rejected),
        agreeing=tuple(says(t, agreed) for t in rejected),
    )


def _rejected(agreed: Consensus, group: Sequence[Trajectory]) -> list[Trajectory]:
    """What stands against the consensus's text: every whole reply that is not that text itself."""
    return [t for t in group if t.status == "ok" and t.text != agreed.text] if agreed.text is not None else []


def medoid(trajectories: Sequence[Trajectory]) -> Trajectory | None:
    """The trajectory whose words overlap most with the others': the Jaccard index of word sets, summed.

    Ties go to the first; ``None`` of none.
    """
    words = [set(re.findall(r"\w+", t.text.lower())) for t in trajectories]
    # fsum: rounded once, so that a tie is one whatever the order of the terms.
    overlap = [fsum(len(a & b) / len(a | b) for b in words if a | b) for a in words]
    return trajectories[overlap.index(max(overlap))] if overlap else None


def compose(agreed: Consensus) -> str:
    """A plain text that says what the vote says: a line on each finding, and the ``diagnose`` prompt's answer."""
    lines, answers = [], []
    for name in FINDINGS:
        state, side = agreed.findings[name], agreed.sides[name]
        if state is None:
            continue
        answers.append(f"{name}: {_WORDS[state]}{f', {side}' if side else ''}")
        if name != "No Finding":
            lines.append(f"{name}: {_SEEN[state]}{_WHERE[side] if side else ''}.")
    return "\n".join([*lines, "", "ANSWER", *answers])


def _estimated(release: Path) -> Weights:
    """Label-free weights from all splits together: no reference label is looked at."""
    groups = [
        [replace(t, text="", reasoning=None) for t in group]
        for split in SPLITS
        for group in groups_of(read_trajectories(release, split))
    ]
    return reliability(groups).weights
