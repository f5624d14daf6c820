"""Named, versioned, hashed prompts. Their texts stand in ``prompt_texts/``, one TOML file each."""

import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cxr_max.errors import RequestError
from cxr_max.findings import positives
from cxr_max.records import Given, Study


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt template, and what it gives away about the study it asks about."""

    name: str
    version: str
    text: str
    """With ``{findings}`` where the study's diagnoses go, if they are given."""
    given: Given
    structured_answer: bool
    """Whether the reply is asked to end in a block that ``answers.read`` understands."""

    @property
    def sha256(self) -> str:
        """Of the template's text, so that a changed word is another prompt."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def gives_away(self, study: Study) -> tuple[str, ...]:
        """The diagnoses of ``study`` that the prompt tells the teacher."""
        return positives(study.reference_findings or {}) if self.given == "findings" else ()

    def fill(self, study: Study) -> str | None:
        """The text that is sent about ``study``; ``None`` where the study lacks what the prompt gives."""
        names = self.gives_away(study)
        if self.given != "nothing" and not names:
            return None
        return self.text.replace("{findings}", ", ".join(names))


def names() -> tuple[str, ...]:
    """Every prompt there is."""
    texts = files("cxr_max") / "prompt_texts"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in texts.iterdir()))


@cache
def load(name: str) -> Prompt:
    """The prompt called ``name``.

    Raises:
        RequestError: there is none.
    """
    if name not in names():
        raise RequestError(f"There is no prompt {name!r}: choose one of {', '.join(names())}.")
    table = tomllib.loads((files("cxr_max") / "prompt_texts" / f"{name}.toml").read_text("utf-8"))
    return Prompt(name, table["version"], table["text"].strip(), table["given"], table["structured_answer"])
