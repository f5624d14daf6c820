"""A contact sheet: the first images of a data set as teachers are sent them, so that a person sees them too."""

from __future__ import annotations

import textwrap
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from cxr_max.builders.rendering import rendered_ahead
from cxr_max.builders.sources.registry import open_source
from cxr_max.errors import ImageError, RequestError
from cxr_max.image_cache import user_cache
from cxr_max.radiograph import EncodedImage, Rendering, read_header
from cxr_max.records import Radiograph, Study
from cxr_max.shards import disk_refusals_named

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

_COLUMNS: Final = 6
_CELL: Final = 264
_PICTURE: Final = 256
_LINES: Final = 4
_LINE: Final = 16
_MARGIN: Final = 8
_TEXT_WIDTH: Final = 42
"""Characters in a cell's width."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One cell of the sheet."""

    number: int
    study: Study
    radiograph: Radiograph
    refused: str | None
    """Why there is no picture."""


@dataclass(frozen=True, slots=True)
class _Picture:
    image: EncodedImage
    rows: int
    columns: int
    """Of the file."""


def write_sheet(
    spec: str,
    out: Path,
    *,
    studies: int = 12,
    rendering: Rendering = "mimic_jpg",
    labels: Path | None = None,
) -> tuple[Shown, ...]:
    """Draw all images of a source's first studies into one PNG, and say which is which.

    Args:
        spec: the source, ``NAME[:PATH]``.
        labels: as for ``open_source``.

    Raises:
        RequestError: the source cannot be opened, or has no image or not this rendering.
        StorageError: the disk refuses ``out``.
    """
    with TemporaryDirectory() as workspace:
        source = open_source(spec, workspace=Path(workspace), labels=labels)
        pairs = [(study, image) for study in islice(source.studies(), studies) for image in study.radiographs]
        if not pairs:
            raise RequestError(f"{spec} has no image to show: check its path.")
        sheet, shown = _drawn(pairs, rendering)
    with disk_refusals_named(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out, "PNG")
    return shown


def _drawn(pairs: list[tuple[Study, Radiograph]], rendering: Rendering) -> tuple[Image, tuple[Shown, ...]]:
    from PIL import Image as pillow
    from PIL import ImageDraw

    height = _PICTURE + _LINES * _LINE + 2 * _MARGIN
    columns = min(_COLUMNS, len(pairs))
    sheet = pillow.new("L", (columns * _CELL, -(-len(pairs) // columns) * height), 255)
    draw = ImageDraw.Draw(sheet)
    shown = []
    with closing(_pictures(pairs, rendering)) as pictures:
        for index, (study, radiograph, made) in enumerate(pictures):
            corner = (index % columns * _CELL + (_CELL - _PICTURE) // 2, index // columns * height + _MARGIN)
            cell = _cell(sheet, draw, corner, Shown(index + 1, study, radiograph, None), made)
            shown.append(cell)
    return sheet, tuple(shown)


def _pictures(
    pairs: list[tuple[Study, Radiograph]], rendering: Rendering
) -> Generator[tuple[Study, Radiograph, Future[_Picture]], None, None]:
    cache = user_cache()

    def picture(pair: tuple[Study, Radiograph]) -> _Picture:
        header = read_header(pair[1].path)
        return _Picture(cache.encoded(pair[1].path, rendering), header.rows, header.columns)

    with closing(rendered_ahead(pairs, picture)) as made:
        for (study, radiograph), future in made:
            yield study, radiograph, future


def _cell(sheet: Image, draw: ImageDraw, corner: tuple[int, int], shown: Shown, made: Future[_Picture]) -> Shown:
    """Draw one picture or the reason for none, and what is known of it underneath."""
    from PIL import Image as pillow
    from PIL import ImageFont

    font = ImageFont.load_default(12)
    left, top = corner
    try:
        picture = made.result()
    except ImageError as error:
        draw.rectangle((left, top, left + _PICTURE - 1, top + _PICTURE - 1), fill=225)
        reason = textwrap.wrap(str(error), _TEXT_WIDTH - 4, max_lines=_PICTURE // _LINE - 2)
        draw.multiline_text((left + _MARGIN, top + _MARGIN), "\n".join(reason), fill=0, font=font)
        lines = [f"{shown.number}  {_view(shown.radiograph)}, refused"]
        shown = Shown(shown.number, shown.study, shown.radiograph, str(error))
    else:
        with pillow.open(BytesIO(picture.image.jpeg)) as image:
            image.thumbnail((_PICTURE, _PICTURE))
            sheet.paste(image, (left + (_PICTURE - image.width) // 2, top + (_PICTURE - image.height) // 2))
        lines = _facts(shown, picture)
    lines += textwrap.wrap(_labels(shown.study), _TEXT_WIDTH)
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], lines[_LINES - 1] + " ..."]
    for index, line in enumerate(lines):
        draw.text((left, top + _PICTURE + 2 + index * _LINE), line, fill=0, font=font)
    return shown


def _facts(shown: Shown, picture: _Picture) -> list[str]:
    image = picture.image
    rendering = image.rendering.partition("-")[0]
    lines = [
        f"{shown.number}  {_view(shown.radiograph)}  {picture.columns} x {picture.rows} px",
        f"sent as {image.width} x {image.height}, {rendering}",
    ]
    return [*lines, "declares burned-in text"] if image.burned_in else lines


def _view(radiograph: Radiograph) -> str:
    return "view unknown" if radiograph.view == "unknown" else radiograph.view


def _labels(study: Study) -> str:
    """Reference findings that are present, and with a question mark the uncertain ones."""
    if study.reference_findings is None:
        return "no labels"
    named = [
        f"{finding}?" if state == -1 else finding
        for finding, state in study.reference_findings.items()
        if state in {1, -1}
    ]
    return ", ".join(named) or "labels name nothing present"
