"""The trajectories of a sealed release -> its ``consensus`` and ``preferences`` configs, and the seal renewed.

By vote: the preferred text is the trajectory at the middle of those that say what the vote says; where none does,
a plain text is composed from the vote. Everything is read from the release and written into it, so a release that
was downloaded will do.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal

from cxr_max.builders.release import add_configs, read_manifest
from cxr_max.consensus import Weights, reliability, takes_part, vote
from cxr_max.drift.conflict import conflict
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, STATES
from cxr_max.records import SPLITS, Consensus, Preference, Trajectory
from cxr_max.schemas import (
    consensus_schema,
    preference_schema,
    read_trajectories,
    row_of_consensus,
    row_of_preference,
)
from cxr_max.shards import write_config

Config = Literal["consensus", "preferences"]
Weighting = Literal["equal", "estimated"]

CONFIGS: Final[tuple[Config, ...]] = ("consensus", "preferences")
_SCHEMAS: Final = {"consensus": consensus_schema, "preferences": preference_schema}
_WORDS: Final = {state: word for word, state in STATES.items()}


@dataclass(frozen=True, slots=True)
class Filled:
    """What was added to a release."""

    consensus: int
    preferences: int
    composed: int
    """Consensus texts that no trajectory said, so that they were composed."""
    undecided: int
    """Image sets without a vote on any finding: no text, and no preference."""


def fill(release: Path, *, weighting: Weighting = "equal", quorum: int = 2) -> Filled:
    """Add the ``consensus`` and ``preferences`` configs to a sealed release.

    Args:
        weighting: ``estimated`` weighs each teacher by how reliable its agreement with the others makes it look,
            finding by finding; no label is used.
        quorum: fewest teachers that must mention a finding.

    Raises:
        RequestError: the release is not sealed, or fewer than ``quorum`` teachers are in it.
        StorageError: the disk refused.
    """
    manifest = read_manifest(release)
    teachers = manifest["counts"]["trajectories"]["by_teacher"]
    if len(teachers) < quorum:
        raise RequestError(
            f"{len(teachers)} teachers cannot reach a quorum of {quorum}: build with more teachers."
        )
    weights = _estimated(release) if weighting == "estimated" else None
    made = _Made(release, weights, quorum)
    counts: dict[str, Counter[str]] = {split: made.count(split) for split in SPLITS}
    method = f"vote, quorum {quorum}, weights {weighting}"

    def write(config: Config) -> dict[str, Any]:
        per_split = {split: count[config] for split, count in counts.items() if count[config]}
        write_config(
            release / "data" / config, per_split, lambda split: made.rows(split, config), _SCHEMAS[config]()
        )
        return {"counts": {"rows": sum(per_split.values()), "by_split": per_split}, "method": method}

    add_configs(release, {config: partial(write, config) for config in CONFIGS})
    total = sum(counts.values(), Counter[str]())
    return Filled(total["consensus"], total["preferences"], total["composed"], total["undecided"])


@dataclass(frozen=True, slots=True)
class _Made:
    """Consensus and preference of every image set, computed as they are read: memory holds one image set."""

    release: Path
    weights: Weights | None
    quorum: int

    def each(self, split: str) -> Iterator[tuple[Consensus, Preference | None, bool]]:
        for group in groups_of(read_trajectories(self.release, split)):
            agreed = vote(group, quorum=self.quorum, weights=self.weights)
            yield settle(agreed, group)

    def count(self, split: str) -> Counter[str]:
        counts: Counter[str] = Counter()
        for agreed, preference, composed in self.each(split):
            counts["consensus"] += 1
            counts["preferences"] += preference is not None
            counts["composed"] += composed
            counts["undecided"] += agreed.text is None
        return counts

    def rows(self, split: str, config: Config) -> Iterator[dict[str, Any]]:
        for agreed, preference, _ in self.each(split):
            if config == "consensus":
                yield row_of_consensus(agreed)
            elif preference is not None:
                yield row_of_preference(preference)


def groups_of(trajectories: Iterable[Trajectory]) -> Iterator[list[Trajectory]]:
    """The trajectories of one image set and prompt at a time.

    A release is sorted by study and images, so that a group's rows stand near each other.
    """
    for _, images in groupby(trajectories, key=lambda t: (t.study_id, t.image_sha256)):
        prompts: dict[str, list[Trajectory]] = {}
        for trajectory in images:
            prompts.setdefault(trajectory.prompt_sha256, []).append(trajectory)
        yield from prompts.values()


def settle(agreed: Consensus, group: Sequence[Trajectory]) -> tuple[Consensus, Preference | None, bool]:
    """Put a vote into words: the consensus with its text, the preference, and whether the text was composed.

    The preferred text is the medoid of the trajectories that say what the vote says; it is taken out of the
    dispreferred ones. There is no preference where nothing was decided or nobody else answered.
    """
    if not any(state is not None for state in agreed.findings.values()):
        return agreed, None, False
    saying = [t for t in group if takes_part(t) and _says(t, agreed)]
    chosen = medoid(saying)
    text = compose(agreed) if chosen is None else chosen.text
    worded = replace(agreed, text=text)
    rejected = [t for t in group if t.status == "ok" and t is not chosen]
    if not rejected:
        return worded, None, chosen is None
    preference = Preference(
        study_id=agreed.study_id,
        image_sha256=agreed.image_sha256,
        prompt_sha256=agreed.prompt_sha256,
        chosen=text,
        rejected=tuple(t.text for t in rejected),
        rejected_teachers=tuple(t.teacher for t in rejected),
        conflicts=tuple(conflict(t.findings or {}, t.sides, agreed).score for t in rejected),
    )
    return worded, preference, chosen is None


def _says(trajectory: Trajectory, agreed: Consensus) -> bool:
    """Whether a trajectory claims exactly what the vote claims; what is absent may go unmentioned."""
    held = conflict(trajectory.findings or {}, trajectory.sides, agreed)
    return not {"contradict", "side", "hedged", "unsupported", "missed"} & set(held.relations.values())


def medoid(trajectories: Sequence[Trajectory]) -> Trajectory | None:
    """The trajectory whose words overlap most with the others': the Jaccard index of word sets, summed.

    Ties go to the first; ``None`` of none.
    """
    words = [set(re.findall(r"\w+", t.text.lower())) for t in trajectories]
    overlap = [sum(len(a & b) / len(a | b) for b in words if a | b) for a in words]
    return trajectories[overlap.index(max(overlap))] if overlap else None


def compose(agreed: Consensus) -> str:
    """A plain text that says what the vote says, in the form that the ``diagnose`` prompt asks for."""
    wording = {1: "There is {}.", -1: "{} is possible.", 0: "There is no {}."}
    sentences, lines = [], []
    for name in FINDINGS:
        state, side = agreed.findings[name], agreed.sides[name]
        if state is None:
            continue
        lines.append(f"{name}: {_WORDS[state]}{f', {side}' if side else ''}")
        if name != "No Finding":
            noun = f"{side} {name.lower()}" if side else name.lower()
            sentence = wording[state].format(noun)
            sentences.append(sentence[0].upper() + sentence[1:])
    return "\n".join([" ".join(sentences), "", "ANSWER", *lines])


def _estimated(release: Path) -> Weights:
    """Label-free weights from all splits together: no reference label is looked at."""
    groups = [
        [replace(t, text="", reasoning=None) for t in group]
        for split in SPLITS
        for group in groups_of(read_trajectories(release, split))
    ]
    return reliability(groups).weights
