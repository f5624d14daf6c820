"""Where a user's own copy of a data set keeps an image.

For MIMIC's sets, folders and phantoms it is known from the identifiers alone: no table is read and no folder is
walked, so that 377,110 images cost nothing before one is looked at, and a copy of some of them does as well as a
whole one. The tables of the other, smaller sets are read when the first image is looked at.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from cxr_max.builders.sources.mimic_tables import study_folder
from cxr_max.builders.sources.registry import NAMES, open_source
from cxr_max.builders.sources.tables import existing_folder, version_folder
from cxr_max.errors import ImageError, RequestError
from cxr_max.records import Split

_SUFFIXES: Final = {"mimic-cxr-jpg": (".jpg",), "mimic-cxr": (".dcm", ".dcm.gz")}


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy of one data set."""

    name: str
    """The data set's, as in ``--source``."""
    root: Path
    """The folder of the copy; means nothing for phantoms, which are drawn."""

    def find(self, *, subject_id: str, study_id: str, image_id: str) -> Path:
        """The file of an image.

        Raises:
            ImageError: it is not there; the message names the image.
        """
        path = next((path for path in self._places(subject_id, study_id, image_id) if path.is_file()), None)
        if path is None:
            raise ImageError(
                f"Image {image_id} of study {study_id} is not in {self.root}: check that images names a copy of"
                f" {self.name} that holds it."
            )
        return path

    def _places(self, subject_id: str, study_id: str, image_id: str) -> tuple[Path, ...]:
        if self.name == "phantom":
            return (_phantom(study_id),)
        # Identifiers come from a file that somebody may have made by hand.
        if ".." in image_id.split("/") or image_id.startswith("/"):
            return ()
        if self.name == "folder":
            return (self.root / image_id,)
        if self.name not in _SUFFIXES:
            return _listed(self.name, self.root).get(image_id, ())
        if not (subject_id.isdecimal() and study_id.isdecimal()) or "/" in image_id:
            return ()
        folder = self.root / study_folder(int(subject_id), int(study_id))
        return tuple(folder / f"{image_id}{suffix}" for suffix in _SUFFIXES[self.name])


def open_copy(images: str | Path, name: str) -> Copy:
    """The copy that a user means.

    Args:
        images: ``NAME:PATH`` as for ``--source``, or a folder alone, which is taken for a copy of ``name``.
        name: the data set of the release.

    Raises:
        RequestError: it is another data set, or no folder.
    """
    given, _, path = str(images).partition(":")
    if given not in NAMES or (not path and Path(images).is_dir()):
        given, path = name, str(images)
    if given != name:
        raise RequestError(f"The release is of {name}, and images names {given}: give a copy of {name}.")
    if name == "phantom":
        return Copy(name, Path())
    if name not in NAMES:
        raise RequestError(
            f"Nothing is known about where {name} keeps its images: load the release without images."
        )
    root = existing_folder(Path(path), name)
    return Copy(name, version_folder(root) if name in _SUFFIXES else root)


@cache
def _listed(name: str, root: Path) -> dict[str, tuple[Path, ...]]:
    """The file of every image that the copy's tables list, by its identifier.

    Raises:
        RequestError: the tables are not as their owners ship them.
    """
    source = open_source(f"{name}:{root}", workspace=root)
    return {image.image_id: (image.path,) for study in source.studies() for image in study.radiographs}


def _phantom(study_id: str) -> Path:
    from cxr_max.builders.sources.phantom import PhantomSource

    try:
        return PhantomSource(directory=Path(_workspace().name)).study(study_id).radiographs[0].path
    except RequestError as error:
        raise ImageError(str(error)) from error


def phantom_place(image_id: str) -> tuple[str, str, Split | None] | None:
    """Study, subject and split of a phantom's image; ``None`` where there is no such image."""
    from cxr_max.builders.sources.phantom import case_of

    try:
        case = case_of(image_id.removesuffix("-1"))
    except RequestError:
        return None
    return case.study_id, case.subject.subject_id, case.subject.split


@cache
def _workspace() -> "TemporaryDirectory[str]":
    """Where phantoms are drawn; gone with the process."""
    return TemporaryDirectory(prefix="cxr-max-phantoms-")
