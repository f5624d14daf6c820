"""Several data sets, each with its suites: a TOML beside the suites, with a ``[[part]]`` for each.

A part is a release of its own, built with the teacher that is evaluated, and a result of its own.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cxr_max.builders.build import BuildRequest
from cxr_max.builders.run_folder import RunFolder
from cxr_max.costs import Spent
from cxr_max.errors import RequestError
from cxr_max.eval.run import EvalRequest
from cxr_max.eval.spending import by_others
from cxr_max.eval.suite import read_suites
from cxr_max.records import Split

ABSENT: Final = "no --data {0}:PATH was given"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Part(_Strict):
    """One data set and the suites that are asked about it."""

    name: str
    """Of its folder."""
    data: str
    """A source."""
    suites: str
    """With commas between; they ask one prompt."""
    views: Literal["frontal", "study"] = "frontal"
    split: Split | None = None
    """What is built; ``None`` for all."""


class Collection(_Strict):
    """Parts with one name and version."""

    name: str
    version: int
    part: tuple[Part, ...] = Field(strict=False)

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"


@cache
def collections() -> Mapping[str, Collection]:
    """Those that come with the package, by name."""
    folder = files("cxr_max.eval") / "suites"
    read = (tomllib.loads(entry.read_text("utf-8")) for entry in folder.iterdir())
    found = [Collection.model_validate(said) for said in read if "part" in said]
    return {one.name: one for one in found}


def given(collection: Collection, data: Sequence[str]) -> dict[str, str]:
    """From a part's data set to the source that the user names for it.

    Raises:
        RequestError: a source is of no part, named twice or without a path; or there is none.
    """
    wanted = dict.fromkeys(part.data for part in collection.part)
    found: dict[str, str] = {}
    for spec in data:
        name, _, path = spec.partition(":")
        if name not in wanted or not path or name in found:
            raise RequestError(
                f"--data {spec} is none of what {collection.name} needs, or given twice: give NAME:PATH, once each"
                f" of {', '.join(wanted)}."
            )
        found[name] = spec
    if not found:
        raise RequestError(
            f"The suite {collection.name} needs data: give --data NAME:PATH of {', '.join(wanted)}."
        )
    return found


def to_build(part: Part, source: str, pattern: EvalRequest, parts: Collection) -> BuildRequest:
    """The build of a part's release.

    Args:
        pattern: who is evaluated, and with what; its ``out`` is the folder of all parts, and its limit is theirs
            together: what the others have spent until now counts.
    """
    who = pattern.who
    assert who.teacher is not None
    folder, prompt = RunFolder(pattern.out / part.name), read_suites(part.suites)[0].prompt
    return BuildRequest(
        source, who.teacher, folder.root, prompt=prompt, split=part.split, views=part.views, roster=who.roster,
        attestation=pattern.attestation, max_cost_usd=pattern.max_cost_usd,
        spent_elsewhere=_elsewhere(pattern, parts, folder),
    )  # fmt: skip


def to_evaluate(part: Part, pattern: EvalRequest, parts: Collection) -> EvalRequest:
    """The evaluation on a part's release, once it is built; the arguments are those of ``to_build``."""
    built, folder = pattern.out / part.name, RunFolder(pattern.out / part.name / "eval")
    spent = _elsewhere(pattern, parts, folder)
    return replace(pattern, release=built, out=folder.root, suites=part.suites, spent_elsewhere=spent)


def _elsewhere(pattern: EvalRequest, parts: Collection, own: RunFolder) -> Spent:
    if pattern.max_cost_usd is None:
        return 0.0, 0
    return by_others([pattern.out / part.name for part in parts.part], own)


def refuse_other_than_a_teacher(request: EvalRequest, release: Path | None) -> None:
    """
    Raises:
        RequestError: the options say more than which teacher of the roster is evaluated.
    """
    who = request.who
    if who.teacher is None or who.model or who.predictions or who.stored or release or request.images:
        raise RequestError(
            "A suite of several data sets builds its own releases: give --teacher NAME and --data NAME:PATH, and"
            " leave --release, --images, --model, --predictions and --stored out. A student is a teacher of your"
            " --roster."
        )
