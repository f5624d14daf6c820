"""What of a release may leave the machine: its manifest's files, as sealed, under its source's terms."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from cxr_max.errors import RequestError
from cxr_max.records import DataUse
from cxr_max.shards import sha256_of

MANIFEST: Final = "manifest.json"
_KINDS: Final = (".parquet", ".md", ".json", ".cff", ".txt")
_STRICTEST: Final[tuple[DataUse, ...]] = ("credentialed", "registration", "open")
_BANNER: Final = "Credentialed data."
Watch = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


def sealed_files(folder: Path, manifest: Mapping[str, Any], watch: Watch) -> dict[str, Path]:
    """Every file that the manifest lists, by its path in the release, each held against its sha256.

    Raises:
        RequestError: a file is missing, changed, outside the release, or of a kind that no release holds.
    """
    files = {}
    for number, (name, sealed) in enumerate(sorted(manifest["files"].items())):
        watch("Checking the files", number, len(manifest["files"]))
        path = _inside(folder, name)
        if not path.is_file() or path.stat().st_size != sealed["bytes"] or sha256_of(path) != sealed["sha256"]:
            raise RequestError(
                f"{path} is not the file that was sealed: run the command that made the release again, which seals"
                " it anew."
            )
        files[name] = path
    watch("Checking the files", len(files), len(files))
    return files


def _inside(folder: Path, name: str) -> Path:
    inner = PurePosixPath(name)
    path = folder / name
    linked = any(step.is_symlink() for step in (path, *path.parents[: len(inner.parts) - 1]))
    if inner.is_absolute() or ".." in inner.parts or linked or inner.suffix not in _KINDS or name == MANIFEST:
        raise RequestError(f"The manifest lists {name}, which is no part of a release: build the release again.")
    return path


def data_use_of(files: Mapping[str, Path], manifest: Mapping[str, Any]) -> DataUse:
    """The strictest class that anything says: the manifest, the card, and the data sets that the rows name.

    Args:
        files: as ``sealed_files`` gives them.
    """
    known = _known()
    said: set[DataUse] = {manifest["source"]["data_use"]}
    said |= {known.get(name, "open") for name in {manifest["source"]["name"], *_sources(files)}}
    if "README.md" in files and _BANNER in files["README.md"].read_text("utf-8"):
        said.add("credentialed")
    return next((use for use in _STRICTEST if use in said), "credentialed")


def _known() -> dict[str, DataUse]:
    from cxr_max.builders.sources.mimic_cxr import MimicCxr
    from cxr_max.builders.sources.mimic_cxr_jpg import MimicCxrJpg

    return {source.info.name: source.info.data_use for source in (MimicCxr, MimicCxrJpg)}


def _sources(files: Mapping[str, Path]) -> Iterator[str]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for name, path in files.items():
        if name.startswith("data/trajectories/"):
            yield from pc.unique(pq.read_table(path, columns=["source"])["source"]).to_pylist()
