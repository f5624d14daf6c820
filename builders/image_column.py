"""A column of pictures that a release does not hold: references, and pixels only when somebody looks.

It is a feature of ``datasets``, as its own ``Image`` is, so that it works in tables and streams, in formats such
as ``with_format("torch")`` and in workers. What is stored is text; saving such a data set saves no picture.
(A function given to ``map`` that looks at the pictures makes ``datasets`` keep them as bytes: give it to
``with_transform`` or a collator instead.)
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pyarrow as pa

from cxr_max.builders.sources.copies import Copy
from cxr_max.errors import ImageError, RequestError
from cxr_max.image_set import parts_of, rendered_again, require_source
from cxr_max.radiograph import VERSIONS

if TYPE_CHECKING:
    from PIL.Image import Image

REFERENCE: Final = ("subject_id", "study_id", "image_id", "source_sha256", "image_sha256", "rendering")
"""What is stored of every picture; the last three are null where nothing says."""
_UNSAID: Final = ("mimic_jpg", "", 1024)


class PictureWarning(UserWarning):
    """A picture cannot be shown to be the one that the teachers saw."""


@dataclass
class Radiographs:
    """The pictures of a row: PIL images, mode L, 0 black, in the order of ``image_ids``."""

    source: str
    """The data set."""
    root: str
    """Where the user's copy of it is."""
    decode: bool = True
    """False gives the references instead of the pictures."""
    id: str | None = field(default=None, repr=False)
    dtype: ClassVar[str] = "list<PIL.Image.Image>"
    pa_type: ClassVar[pa.DataType] = pa.list_(pa.struct([(name, pa.string()) for name in REFERENCE]))
    _type: str = field(default="Radiographs", init=False, repr=False)

    def __call__(self) -> pa.DataType:
        return self.pa_type

    def encode_example(self, value: Sequence[dict[str, str | None]]) -> Sequence[dict[str, str | None]]:
        """References as they are.

        Raises:
            RequestError: pictures are to be stored, which the column never does.
        """
        if not all(isinstance(one, dict) for one in value):
            raise RequestError(
                "The column images holds references to a copy of the data set, never pictures: give pictures that"
                " you made another column's name."
            )
        return value

    def decode_example(
        self, value: Sequence[dict[str, str | None]], token_per_repo_id: object = None
    ) -> "list[Image]":
        """The pictures of a row.

        Raises:
            ImageError: a file is missing, unreadable, or another than the teachers saw.
        """
        copy = Copy(self.source, Path(self.root))
        return [_picture(copy, reference) for reference in value]


def _picture(copy: Copy, reference: dict[str, Any]) -> "Image":
    from PIL import Image

    image_id = reference["image_id"]
    path = copy.find(**{name: reference[name] or "" for name in REFERENCE[:3]})
    try:
        if reference["source_sha256"] is None:
            _say("The release has no hash of its images' files, so nothing shows that these are the same.")
        else:
            require_source(path, reference["source_sha256"])
        kind, version, long_side = parts_of(reference["rendering"]) if reference["rendering"] else _UNSAID
        encoded = rendered_again(path, kind, long_side)
    except ImageError as error:
        message = str(error).replace("--images", "images")
        raise ImageError(f"Image {image_id} of study {reference['study_id']}: {message}") from error
    if version and version != str(VERSIONS.get(kind)):
        _say(
            f"The teachers saw {kind}-{version}, and this cxr-max renders {kind}-{VERSIONS.get(kind)}: the"
            " pictures are like those they saw, and not the same."
        )
    elif reference["image_sha256"] not in (None, encoded.sha256):
        _say(
            f"Other bytes than the teachers were sent come out of {reference['rendering']} here, as of another"
            " version of the JPEG encoder: the pictures are those they saw but for its rounding."
        )
    picture = Image.open(BytesIO(encoded.jpeg))
    picture.load()
    return picture


@cache
def _say(sentence: str) -> None:
    """Once per process."""
    warnings.warn(sentence, PictureWarning, stacklevel=2)


def register() -> None:
    """Make the feature known to ``datasets``, which reads its name from the metadata of tables."""
    from datasets.features import features

    if Radiographs.__name__ not in features._FEATURE_TYPES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            features.register_feature(Radiographs, Radiographs.__name__)


register()
