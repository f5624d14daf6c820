"""How an image was taken: the many spellings of a view, and which images of a study are frontal."""

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxr_max.errors import ImageError
from cxr_max.records import FRONTAL, Radiograph, View

if TYPE_CHECKING:
    from cxr_max.image_file import Header

VIEW_ORDER: Final[dict[View, int]] = {"PA": 0, "AP": 1, "LATERAL": 2, "LL": 3, "other": 4, "unknown": 5}
"""Frontal first: the order of a study's images that were taken at the same time."""

_PHRASES: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"POSTER(O|IOR)[\W_]*ANTERIOR"), " PA "),
    (re.compile(r"ANTER(O|IOR)[\W_]*POSTERIOR"), " AP "),
    (re.compile(r"((LEFT|RIGHT|L|R)[\W_]+)?LAT(ERAL)?[\W_]+DECUB[A-Z]*"), " DECUBITUS "),
    (re.compile(r"LEFT[\W_]+LAT(ERAL)?\b"), " LL "),
)
_NAMES: Final[dict[str, View]] = {
    "PA": "PA",
    "AP": "AP",
    "LATERAL": "LATERAL",
    "LAT": "LATERAL",
    "RL": "LATERAL",
    "LL": "LL",
}
_OBLIQUE: Final = re.compile(r"LAO|RAO|LPO|RPO|OBL[A-Z]*|SWIMMERS?")
_SAYS_NOTHING: Final = frozenset(
    {
        *("UNKNOWN", "UNK", "UNSPECIFIED", "NONE", "NAN", "NA", "N", "A", "CHEST", "VIEW", "FRONTAL", "PORTABLE"),
        *("ERECT", "UPRIGHT", "STANDING", "SITTING", "SEMI", "SUPINE", "RECUMBENT"),
    }
)
"""How the patient was placed, or that a view is not known: neither names one."""
_MORE_THAN_ONE: Final = re.compile(r"LAT[A-Z]*|LL|DECUB[A-Z]*|VIEWS|OBL[A-Z]*|LAO|RAO|LPO|RPO")


def frontal_first(image: Radiograph) -> tuple[bool, int, str]:
    """Sorts a study's images where the views that are not named are frontal ones, as in sets that tell only these
    from lateral ones."""
    return image.view not in (*FRONTAL, "unknown"), VIEW_ORDER[image.view], image.image_id


@lru_cache(maxsize=4096)
def normalise_view(view_position: str | None, code_meaning: str | None, procedure: str | None) -> View:
    """Read the view of an image from what its header or its data set's table says of it.

    Args:
        view_position: DICOM View Position (0018,5101), which decides wherever it says anything:
            "AP Supine", "AP AXIAL" and "ap lld" are AP, "XTABLE", "SWIMMERS" and "LAO" are ``other``.
        code_meaning: meaning of the View Code Sequence (0054,0220): "postero-anterior", "left lateral".
        procedure: Performed Procedure Step Description, believed only where it names one frontal
            projection and nothing else: "CHEST (PORTABLE AP)", but not "CHEST (PA AND LAT)".

    Returns:
        ``other`` where a view is named that is neither frontal nor lateral; ``unknown`` where none is named,
        or more than one.
    """
    for text in (view_position, code_meaning):
        words = _words(text)
        named = {_NAMES[word] for word in words if word in _NAMES}
        if any(_OBLIQUE.fullmatch(word) for word in words):
            return "other"
        if named:
            return named.pop() if len(named) == 1 else "unknown"
        if text is view_position and not _SAYS_NOTHING.issuperset(words):
            return "other"
    return _single_frontal(procedure)


def _words(text: str | None) -> list[str]:
    upper = (text or "").upper()
    for pattern, short in _PHRASES:
        upper = pattern.sub(short, upper)
    return re.findall(r"[A-Z]+", upper)


def only_frontal_named(text: str) -> View:
    """The one frontal projection that a text names, whatever else it names: PA for "PA and lateral views".

    Returns:
        ``unknown`` where it names none, or both.
    """
    named = {_NAMES[word] for word in _words(text) if word in _NAMES} & FRONTAL
    return named.pop() if len(named) == 1 else "unknown"


def _single_frontal(procedure: str | None) -> View:
    words = _words(procedure)
    named = {_NAMES[word] for word in words if word in _NAMES}
    if len(named) != 1 or not named <= FRONTAL or any(_MORE_THAN_ONE.fullmatch(word) for word in words):
        return "unknown"
    return named.pop()


def frontal(radiographs: Iterable[Radiograph]) -> tuple[Radiograph, ...]:
    """The images of a study that a teacher is asked about, in the order given: every AP and PA one but priors.

    An image of ``unknown`` view counts only where the study has no image known to be frontal; one whose
    view is ``other``, LATERAL or LL never does.
    """
    images = tuple(image for image in radiographs if not image.prior)
    known = tuple(image for image in images if image.view in FRONTAL)
    return known or tuple(image for image in images if image.view == "unknown")


def from_header(image: Radiograph) -> tuple[Radiograph, datetime | None]:
    """Fill in what the DICOM header of an image knows, and when it was acquired.

    What is known already is kept. A file that is absent or has no readable header is returned as it came:
    rendering it will fail and name the gap.
    """
    header = header_of(image.path)
    return (image, None) if header is None else (described(image, header), header.acquired_at)


def header_of(path: Path) -> "Header | None":
    """What the header of an image file says; ``None`` where it is absent or has none that can be read."""
    from cxr_max.radiograph import read_header

    try:
        return read_header(path)
    except (ImageError, OSError):
        return None


def described(image: Radiograph, header: "Header") -> Radiograph:
    """An image with what its header knows; what is known already is kept."""
    view = image.view if image.view != "unknown" else normalise_view(header.view_position, None, None)
    return replace(
        image,
        view=view,
        photometric_interpretation=header.photometric_interpretation,
        rows=header.rows,
        columns=header.columns,
        pixel_spacing_mm=header.pixel_spacing_mm,
    )
