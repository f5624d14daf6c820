"""Named, versioned, hashed prompts. Their texts stand in ``prompt_texts/``, one TOML file each."""

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cxr_max import progression
from cxr_max.errors import RequestError
from cxr_max.findings import positives
from cxr_max.records import Given, Study, Trajectory


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt template, and what it gives away about the study it asks about."""

    name: str
    version: str
    text: str
    """With ``{findings}`` where the study's diagnoses go, if they are given; with ``{question}`` and
    ``{trajectories}`` where the prompt gives what others replied to another prompt."""
    given: Given
    structured_answer: bool
    """Whether the reply is asked to end in a block that ``answers.read`` understands."""

    @property
    def sha256(self) -> str:
        """Of the template's text, so that a changed word is another prompt."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def compares(self) -> bool:
        """Whether it asks how findings changed between two pictures, and not what is in one."""
        return progression.asked_in(self.text)

    def gives_away(self, study: Study) -> tuple[str, ...]:
        """The diagnoses of ``study`` that the prompt tells the teacher."""
        return positives(study.reference_findings or {}) if self.given == "findings" else ()

    def fill(self, study: Study) -> str | None:
        """The text that is sent about ``study``; ``None`` where the study lacks what the prompt gives."""
        names = self.gives_away(study)
        if self.given != "nothing" and not names:
            return None
        return self.text.replace("{findings}", ", ".join(names))

    def fill_trajectories(self, question: "Prompt", trajectories: Sequence[Trajectory]) -> str:
        """The text that is sent about what was replied to ``question``.

        The replies are numbered and bear no names, so that no teacher is favoured by its own, and their order is
        drawn by a hash of study, images and trajectory, so that none is favoured by its place. The order in
        which they are given here does not matter.
        """
        drawn = sorted(trajectories, key=_lot)
        replies = [f"Reader {number}:\n\n{t.text.strip()}" for number, t in enumerate(drawn, start=1)]
        # The replies last: nothing that stands in one may be taken for a place to be filled.
        return self.text.replace("{question}", question.text).replace("{trajectories}", "\n\n".join(replies))


def _lot(trajectory: Trajectory) -> str:
    parts = [trajectory.study_id, trajectory.image_sha256, trajectory.trajectory_id]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def names() -> tuple[str, ...]:
    """Every prompt there is."""
    texts = files("cxr_max") / "prompt_texts"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in texts.iterdir()))


def compares(name: str) -> bool:
    """Whether a prompt of this name asks for changes; one that is not shipped is taken to ask for findings."""
    return name in names() and load(name).compares


@cache
def load(name: str) -> Prompt:
    """The prompt called ``name``.

    Raises:
        RequestError: there is none.
    """
    if name not in names():
        asked = [known for known in names() if load(known).given != "trajectories"]
        raise RequestError(f"There is no prompt {name!r}: choose one of {', '.join(asked)}.")
    table = tomllib.loads((files("cxr_max") / "prompt_texts" / f"{name}.toml").read_text("utf-8"))
    return Prompt(name, table["version"], table["text"].strip(), table["given"], table["structured_answer"])
