"""What may be changed about a picture or a question, and what each change is called in every file.

====================  =========================================================================================
``original``          nothing
``sample-2``          asked again: the second further sample
``paraphrase-brief``  asked in other words: the prompt ``diagnose_brief``
``mirror``            left and right of the picture exchanged
``blank``             a picture without anything in it
``noise-3``           a corruption of ``eval.corruptions`` and its severity, 1 to 5
``report``            asked for a report instead: the prompt ``report``
====================  =========================================================================================

There is no condition for another patient's picture: the answer about that one is the other patient's ``original``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from cxr_max.errors import RequestError
from cxr_max.eval.corruptions.severities import CORRUPTIONS, SEVERITIES, VERSION

if TYPE_CHECKING:
    from cxr_max.image_file import Grey

ORIGINAL: Final = "original"
MIRROR: Final = "mirror"
BLANK: Final = "blank"
REPORT: Final = "report"
PARAPHRASES: Final = ("brief", "list", "clinical")
"""Their prompts are ``diagnose_brief`` and so on: the same question and the same form of answer."""
Kind = Literal["original", "sample", "paraphrase", "mirror", "blank", "corruption", "report"]
Change = Callable[["Grey", str], "Grey"]
"""A picture and its sha256 -> the changed picture."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition, taken apart."""

    kind: Kind
    name: str = ""
    """Of the corruption or the paraphrase."""
    number: int = 0
    """Of the sample, or the severity."""

    def __str__(self) -> str:
        match self.kind:
            case "sample":
                return sample(self.number)
            case "paraphrase":
                return paraphrase(self.name)
            case "corruption":
                return corruption(self.name, self.number)
        return self.kind

    def prompt(self, asked: str) -> str:
        """The prompt's name, where that of the original is ``asked``."""
        if self.kind == "paraphrase":
            return f"{asked}_{self.name}"
        return REPORT if self.kind == "report" else asked

    @property
    def change(self) -> Change | None:
        """What is done to the picture; ``None`` where nothing is."""
        if self.kind == "corruption":
            return partial(_corrupted, name=self.name, severity=self.number)
        return {"mirror": _mirrored, "blank": _blank}.get(self.kind)

    @property
    def rendering(self) -> str:
        """What a changed picture's rendering is called besides its own name, such as ``+noise-3.1``."""
        if self.kind == "corruption":
            return f"+{self}.{VERSION}"
        return f"+{self.kind}" if self.kind in (MIRROR, BLANK) else ""


def sample(number: int) -> str:
    """The condition of a further sample, counted from 1."""
    return f"sample-{number}"


def paraphrase(name: str) -> str:
    """The condition of a paraphrase."""
    return f"paraphrase-{name}"


def corruption(name: str, severity: int) -> str:
    """The condition of a corruption."""
    return f"{name}-{severity}"


def parse(text: str) -> Condition:
    """The inverse of ``str``.

    Raises:
        RequestError: there is no such condition.
    """
    if text in (ORIGINAL, MIRROR, BLANK, REPORT):
        return Condition(text)  # type: ignore[arg-type]
    name, _, last = text.rpartition("-")
    number = int(last) if re.fullmatch("[1-9][0-9]{0,17}", last) else 0
    if name == "sample" and number > 0:
        return Condition("sample", number=number)
    if name == "paraphrase" and last in PARAPHRASES:
        return Condition("paraphrase", last)
    if name in CORRUPTIONS and number in SEVERITIES:
        return Condition("corruption", name, number)
    raise RequestError(
        f"There is no condition {text!r}: it is original, mirror, blank, report, sample-1 and so on,"
        f" paraphrase-{' or -'.join(PARAPHRASES)}, or a corruption and its severity, as {CORRUPTIONS[0]}-3."
    )


def _corrupted(image: "Grey", sha256: str, name: str, severity: int) -> "Grey":
    from cxr_max.eval.corruptions import corrupt

    return corrupt(image, name, severity, sha256)


def _mirrored(image: "Grey", _sha256: str) -> "Grey":
    from cxr_max.eval.corruptions import mirror

    return mirror(image)


def _blank(image: "Grey", _sha256: str) -> "Grey":
    from cxr_max.eval.corruptions import blank

    rows, columns = image.shape
    return blank((rows, columns))
