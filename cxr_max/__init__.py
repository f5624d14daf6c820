"""Chest radiographs in, reasoning trajectories of many teachers out, a student trained and scored on them."""

from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(
    path_or_repo: str | Path,
    config: str = "trajectories",
    split: str | None = None,
    images: str | Path | None = None,
    *,
    streaming: bool = False,
    revision: str | None = None,
) -> Any:
    """Load a release, with pictures from your own copy of the data set if you name one.

    Args:
        path_or_repo: the release's folder, its run's, or ``ORG/NAME`` on the Hub.
        config: trajectories, consensus or preferences.
        split: train, validation or test; ``None`` loads all that there are.
        images: ``mimic-cxr-jpg:PATH``, as for ``--source``, or the folder alone. Adds a column ``images``: per row
            a list of PIL images (mode L, 0 black), in the order of ``image_ids``, found and rendered when the row
            is looked at. The file's sha256 is held against ``source_sha256``, and the picture is rendered as the
            row says; where this version renders otherwise than the teachers saw, a ``PictureWarning`` says so.
        streaming: read rows as they are iterated over.
        revision: a tag, branch or commit on the Hub.

    Returns:
        A ``datasets.Dataset`` or ``IterableDataset`` of one split, or a dictionary of all splits. What is stored
        is text and the path of your copy, so that saving saves no picture; look at ``images`` in a collator or in
        ``with_transform``, since what ``map`` looks at, ``datasets`` stores.

    Raises:
        RequestError: no sealed release is there, or no such config or split, or ``images`` is another data set.
        ImageError: when a row is looked at and an image is missing, or is another file than the teachers saw.
    """
    # By name, so that importing the package costs nothing, and none of its layers stands below this one.
    loading = import_module("cxr_max.builders.loading")
    return loading.load(path_or_repo, config, split, images, streaming=streaming, revision=revision)
