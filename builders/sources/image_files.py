"""Which image files a folder holds: told by names, one look per folder, never one per file."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

DICOM_SUFFIXES: Final = (".dcm", ".dcm.gz", ".dicom")
PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
IMAGE_SUFFIXES: Final = (*PICTURE_SUFFIXES, *DICOM_SUFFIXES)


def image_files(root: Path, *, linked: bool = False) -> Iterator[str]:
    """Relative POSIX paths of the images below ``root``; what is hidden is passed over.

    Args:
        linked: also look into linked folders, each once.
    """
    seen: set[tuple[int, int]] = set()
    top = len(str(root))
    for folder, folders, files in os.walk(root, followlinks=linked):
        if linked:
            status = os.stat(folder)  # noqa: PTH116 - a Path for each of 100,000 folders takes longer than the rest
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = folder[top:].strip(os.sep).replace(os.sep, "/")
        inside = f"{below}/" if below else ""
        for name in files:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield inside + name


class ImagePlaces:
    """Where each image of a copy lies, for sets whose file names are unique and whose folders vary by download.

    The folders are looked through once, when the first image is asked for.
    """

    def __init__(self, root: Path, usual: str) -> None:
        """
        Args:
            usual: the folder, from ``root``, where an image that is nowhere is said to be missing.
        """
        self._root = root
        self._usual = usual

    @cached_property
    def _folders(self) -> dict[str, str]:
        places: dict[str, str] = {}
        for file in image_files(self._root, linked=True):
            folder, _, name = file.rpartition("/")
            places.setdefault(name, folder)
        return places

    def file(self, *names: str) -> str:
        """The relative POSIX path of the first of these names that is there, or where the first would be."""
        for name in names:
            if (folder := self._folders.get(name)) is not None:
                return f"{folder}/{name}" if folder else name
        return f"{self._usual}/{names[0]}" if self._usual else names[0]

    def path(self, *names: str) -> Path:
        """As ``file``, absolute."""
        return self._root / self.file(*names)
