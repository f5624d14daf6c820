"""Teachers asked about a generated picture: whether a build could ask them."""

import io
from pathlib import Path

from cxr_max.teachers import roster
from cxr_max.teachers.base import TeacherSpec
from cxr_max.teachers.check import Check, check
from cxr_max.teachers.prices import priced


def specs_of(roster_file: Path | None, wanted: str | None) -> tuple[TeacherSpec, ...]:
    """The teachers that are meant, with their prices.

    Args:
        wanted: as ``--teachers`` of a build; ``None`` for everybody in the roster.

    Raises:
        RequestError: the roster is wrong, or has no such teacher.
    """
    known = roster.load(roster_file)
    return roster.choose(known, wanted) if wanted is not None else tuple(map(priced, known.values()))


def check_with_phantom(specs: tuple[TeacherSpec, ...]) -> tuple[Check, ...]:
    """Ask every teacher one tiny question about a picture that shows no patient."""
    return check(specs, phantom_jpeg())


def phantom_jpeg() -> bytes:
    """A normal chest, generated; 256 x 256 pixels, without metadata."""
    from PIL import Image

    from cxr_max.builders.sources.phantom_image import draw

    jpeg = io.BytesIO()
    Image.fromarray(draw({}, seed=0, severity=1.0)).save(jpeg, format="JPEG", quality=95)
    return jpeg.getvalue()
