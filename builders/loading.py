"""A release, loaded: plain or streamed, from a folder or the Hub, with the user's own images if wished.

The rows hold no pictures. ``images`` adds a column that finds, checks and renders them when a row is looked at.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from cxr_max.builders.image_column import REFERENCE, Radiographs
from cxr_max.builders.release import read_manifest
from cxr_max.builders.run_folder import release_in
from cxr_max.builders.sources.copies import open_copy
from cxr_max.errors import RequestError
from cxr_max.records import SPLITS

COLUMN: Final = "images"
_ASKED: Final = ("subject_id", "study_id", "image_ids", "source_sha256", "image_sha256", "rendering")
_ROWS: Final = 1_000
References = Callable[[Mapping[str, Any]], list[dict[str, Any]]]
"""From a row to what its column ``images`` stores."""


def load(
    path_or_repo: str | Path,
    config: str = "trajectories",
    split: str | None = None,
    images: str | Path | None = None,
    *,
    streaming: bool = False,
    revision: str | None = None,
) -> Any:
    """Load a release with ``datasets``. See ``cxr_max.load``, which is the name that users have for it."""
    from datasets import load_dataset

    place, manifest = _find(path_or_repo, revision)
    _refuse_absent(manifest, config, split)
    options: dict[str, Any] = {"streaming": streaming, "revision": revision}
    loaded = load_dataset(place, config, split=split, **options)
    if images is None:
        return loaded
    copy = open_copy(images, manifest["source"]["name"])
    references = _of_row if config == "trajectories" else _Looked(_index(place, revision))
    feature = Radiographs(copy.name, str(copy.root))
    join = _join_stream if streaming else _join_table
    if split is not None:
        return join(loaded, references, feature)
    return type(loaded)({name: join(part, references, feature) for name, part in loaded.items()})


def _find(path_or_repo: str | Path, revision: str | None) -> tuple[str, dict[str, Any]]:
    """What ``load_dataset`` shall load, and its manifest."""
    path = Path(path_or_repo).expanduser()
    if path.is_dir():
        folder = release_in(path)
        return str(folder), read_manifest(folder)
    name = str(path_or_repo)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise RequestError(f"{name} is neither the folder of a release nor a repository ORG/NAME of the Hub.")
    return name, _manifest_on_hub(name, revision)


def _manifest_on_hub(repo: str, revision: str | None) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(hf_hub_download(repo, "manifest.json", repo_type="dataset", revision=revision))
    except LocalEntryNotFoundError as error:
        raise RequestError(
            f"There is no folder {repo}, and the Hub cannot be reached: check the connection."
        ) from error
    except (HfHubHTTPError, EntryNotFoundError) as error:
        raise RequestError(
            f"{repo} holds no sealed release on the Hub, or it is private and HF_TOKEN does not open it: check the"
            " name, the revision and the token."
        ) from error
    return read_manifest(path.parent)


def _refuse_absent(manifest: Mapping[str, Any], config: str, split: str | None) -> None:
    counts = manifest["counts"]
    if config not in counts:
        raise RequestError(f"The release has no config {config!r}: choose one of {', '.join(sorted(counts))}.")
    there = counts[config]["by_split"]
    if split in SPLITS and split not in there:
        raise RequestError(f"{config} has no rows of the split {split}: choose one of {', '.join(there)}.")


def _of_row(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A trajectory names its images itself."""
    number = len(row["image_ids"])
    shared = (row["subject_id"], row["study_id"])
    sources, sent = (row[name] or [None] * number for name in ("source_sha256", "image_sha256"))
    return [
        dict(zip(REFERENCE, (*shared, *one, row["rendering"]), strict=True))
        for one in zip(row["image_ids"], sources, sent, strict=True)
    ]


class _Looked:
    """Consensus and preferences name what was sent; the trajectories about it name the files."""

    def __init__(self, index: Mapping[tuple[str, ...], list[dict[str, Any]]]) -> None:
        self._index = index

    def __call__(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self._index[(row["study_id"], *row["image_sha256"])]


def _index(place: str, revision: str | None) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """The references of every image set of a release. No text is read."""
    from datasets import load_dataset

    index: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    options = {"streaming": True, "revision": revision, "columns": list(_ASKED)}
    for part in load_dataset(place, "trajectories", **options).values():
        for batch in part.with_format("arrow").iter(_ROWS):
            for row in batch.select(list(_ASKED)).to_pylist():
                found = _of_row(row)
                known = index.setdefault((row["study_id"], *row["image_sha256"]), found)
                if None in row["image_sha256"] and known != found:
                    raise RequestError(
                        f"Study {row['study_id']} has several image sets whose hashes nobody kept, so nothing says"
                        " which of them a consensus is about: load trajectories with images, or this without."
                    )
    return index


def _join_table(table: Any, references: References, feature: Radiographs) -> Any:
    import pyarrow as pa

    needed = [name for name in _ASKED if name in table.column_names]
    plain = table.select_columns(needed).with_format("arrow")
    chunks = [
        pa.array([references(row) for row in batch.to_pylist()], feature.pa_type) for batch in plain.iter(_ROWS)
    ]
    return table.add_column(COLUMN, pa.chunked_array(chunks, feature.pa_type), feature=feature)


def _join_stream(stream: Any, references: References, feature: Radiographs) -> Any:
    from datasets import Features

    features = Features({**(stream.features or stream._resolve_features().features), COLUMN: feature})
    # Given to `map`, the features would count as decoded already.
    return stream.map(_Added(references)).cast(features)


class _Added:
    """A function that workers can be given."""

    def __init__(self, references: References) -> None:
        self._references = references

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {COLUMN: self._references(row)}
