"""A suite: which tasks, on which questions, with which settings. A TOML with a version.

Its hash is in every score. Anything that may change a number changes the hash: the settings, and the versions of
the definitions and of the corruptions. Scores of different hashes never share a table.
"""

import hashlib
import json
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cxr_max.errors import RequestError
from cxr_max.eval import conditions
from cxr_max.eval.bootstrap import RESAMPLES
from cxr_max.eval.corruptions.severities import CORRUPTIONS, SEVERITIES
from cxr_max.eval.corruptions.severities import VERSION as CORRUPTIONS_VERSION
from cxr_max.eval.definitions import VERSION as DEFINITIONS_VERSION
from cxr_max.eval.metrics.thresholds import Rule
from cxr_max.records import Split

DEFAULT: Final = "consistency,robustness,generalization"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _once(values: Sequence[object]) -> None:
    if len(set(values)) < len(values):
        raise ValueError("a value stands there twice")


class Consistency(_Strict):
    """Does it say the same when it should, and something else when it should?"""

    image_sets: int = Field(default=200, gt=0)
    """At most so many, chosen by hash: whatever else is in the release, the same ones."""
    samples: int = Field(default=2, ge=0)
    """Further ones, besides the original."""
    paraphrases: list[str] = Field(default_factory=lambda: list(conditions.PARAPHRASES))
    mirror: bool = True
    blank: bool = True

    @model_validator(mode="after")
    def _known(self) -> "Consistency":
        _once(self.paraphrases)
        for name in self.paraphrases:
            if name not in conditions.PARAPHRASES:
                raise ValueError(f"there is no paraphrase {name!r}")
        return self


class Robustness(_Strict):
    """How much worse does it get on worse pictures, for whom, and with worse teachers?"""

    image_sets: int = Field(default=100, gt=0)
    corruptions: list[str] = Field(default_factory=lambda: list(CORRUPTIONS))
    severities: list[int] = Field(default_factory=lambda: list(SEVERITIES))
    blank: bool = True
    """Whether it answers rightly about blank pictures too, which no loss would show."""
    age_bands: list[int] = Field(default_factory=lambda: [40, 65])
    """Years at which a new band begins."""
    largest_loss: float = Field(default=0.05, gt=0, lt=1)
    """Of balanced accuracy at severity 3: whoever may lose more is not called robust."""

    @model_validator(mode="after")
    def _known(self) -> "Robustness":
        for values in (self.corruptions, self.severities, self.age_bands):
            _once(values)
        for name in self.corruptions:
            if name not in CORRUPTIONS:
                raise ValueError(f"there is no corruption {name!r}")
        if not set(self.severities) <= set(SEVERITIES):
            raise ValueError("severities are 1 to 5")
        return self


class Generalization(_Strict):
    """How good is it, finding by finding?"""

    specificity: float = Field(default=0.9, gt=0, lt=1)
    """At which sensitivity is given."""
    threshold: Rule = "youden"
    """How the threshold of scores is chosen, on the validation split."""


class Report(_Strict):
    """How near do its reports come to the radiologists'?"""

    image_sets: int = Field(default=200, gt=0)


class Progression(_Strict):
    """Does it see how findings changed between two pictures? MS-CXR-T as its owners score it."""


class PresenceTop1(_Strict):
    """Does it see whether they are there? MS-CXR-T as arXiv 2510.04142 seems to score it."""


class Suite(_Strict):
    """Tasks with one name, version and hash."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    version: int = Field(gt=0)
    prompt: str = "diagnose"
    split: Split = "test"
    seed: int = 0
    resamples: int = Field(default=RESAMPLES, ge=100)
    consistency: Consistency | None = None
    robustness: Robustness | None = None
    generalization: Generalization | None = None
    report: Report | None = None
    progression: Progression | None = None
    presence_top1: PresenceTop1 | None = None

    @property
    def sha256(self) -> str:
        """Of everything that may change a number."""
        said: dict[str, Any] = {
            "suite": {name: value for name, value in self.model_dump().items() if name not in self._unasked},
            "definitions": DEFINITIONS_VERSION,
            "corruptions": CORRUPTIONS_VERSION if self.robustness else None,
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    @property
    def _unasked(self) -> set[str]:
        """Tasks that suites of this form did not always know, and that this one has not: no part of its hash."""
        return {name for name in ("progression", "presence_top1") if getattr(self, name) is None}

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"

    def wanted(self) -> dict[str, int | None]:
        """The conditions that are asked, and of how many image sets each; ``None`` means all."""
        asked: dict[str, int | None] = {conditions.ORIGINAL: None}
        if self.consistency:
            asked |= dict.fromkeys(_consistency(self.consistency), self.consistency.image_sets)
        if self.robustness:
            worse = [conditions.BLANK] * self.robustness.blank + _corruptions(self.robustness)
            for name in worse:
                asked[name] = max(asked.get(name) or 0, self.robustness.image_sets)
        if self.report:
            asked[conditions.REPORT] = self.report.image_sets
        return asked


def _consistency(task: Consistency) -> list[str]:
    changes = [conditions.MIRROR] * task.mirror + [conditions.BLANK] * task.blank
    samples = [conditions.sample(number) for number in range(1, task.samples + 1)]
    return [*samples, *map(conditions.paraphrase, task.paraphrases), *changes]


def _corruptions(task: Robustness) -> list[str]:
    return [conditions.corruption(name, severity) for name in task.corruptions for severity in task.severities]


def shipped() -> tuple[str, ...]:
    """The names of the suites that come with the package; those of several data sets are in ``collection``."""
    folder = files("cxr_max.eval") / "suites"
    single = (entry for entry in folder.iterdir() if "part" not in tomllib.loads(entry.read_text("utf-8")))
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in single))


def read_suites(wanted: str) -> tuple[Suite, ...]:
    """The suites of ``--suite``: shipped names, or TOML files, with commas between.

    Raises:
        RequestError: one is unknown or wrong, or two have one name or ask different questions.
    """
    names = [part.strip() for part in wanted.split(",") if part.strip()]
    if not names:
        raise RequestError(f"No suite is named: choose from {', '.join(shipped())}, or give a TOML file.")
    suites = tuple(_read(name) for name in names)
    if len({suite.name for suite in suites}) < len(suites):
        raise RequestError(f"Two of the suites {wanted} have one name: give each once.")
    if len({(suite.prompt, suite.split) for suite in suites}) > 1:
        raise RequestError(f"The suites {wanted} ask different prompts or splits: run them one by one.")
    return suites


def _read(name: str) -> Suite:
    if name in shipped():
        text = (files("cxr_max.eval") / "suites" / f"{name}.toml").read_text("utf-8")
    else:
        path = Path(name).expanduser()
        if path.suffix != ".toml" or not path.is_file():
            raise RequestError(
                f"There is no suite {name!r}: choose from {', '.join(shipped())}, or give a TOML file."
            )
        text = path.read_text("utf-8", errors="replace")
    return parse_suite(text, name)


def parse_suite(text: str, name: str) -> Suite:
    """A suite's TOML.

    Raises:
        RequestError: it is wrong; the message names the place.
    """
    try:
        suite = Suite.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"The suite {name} is no TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its top"
        raise RequestError(f"The suite {name} is wrong at {where}: {first['msg']}.") from error
    if all(getattr(suite, name) is None for name in get_args(Task)):
        raise RequestError(f"The suite {name} has no task: add [consistency], [generalization] and so on.")
    return suite


Task = Literal["consistency", "robustness", "generalization", "report", "progression", "presence_top1"]
