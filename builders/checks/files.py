"""What must hold for a release's files, before any row is read."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxr_max import __version__
from cxr_max.builders.checks.base import Defects
from cxr_max.builders.checks.texts import KEYS
from cxr_max.builders.release import STAGING, described
from cxr_max.records import SPLITS
from cxr_max.schemas import schema_of
from cxr_max.shards import sha256_of

if TYPE_CHECKING:
    import pyarrow as pa

_SHARD: Final = re.compile(rf"({'|'.join(SPLITS)})-(\d{{5}})-of-(\d{{5}})\.parquet")


def check_files(release: Path, files: Mapping[str, Mapping[str, Any]], defects: Defects) -> dict[str, str]:
    """Every file is as the manifest lists it, and none is there that it does not list.

    Hidden files, as git and the Hub's client keep them, are nobody's business.

    Returns:
        The sha256 of every listed file that is there.
    """
    hashes = {}
    for name, entry in files.items():
        path = release / name
        if not path.resolve().is_relative_to(release.resolve()) or not path.is_file():
            defects.add("missing file", name, "The manifest lists a file that is not there.")
            continue
        hashes[name] = sha256_of(path)
        if (path.stat().st_size, hashes[name]) != (entry["bytes"], entry["sha256"]):
            defects.add(
                "changed file", name, "The file is not the one that the manifest lists: its sha256 differs."
            )
    for path in sorted(release.rglob("*")):
        name = path.relative_to(release).as_posix()
        hidden = name.startswith(".") and not name.startswith(STAGING)
        if path.is_file() and not hidden and name not in {"manifest.json", *files}:
            defects.add("unlisted file", name, "The manifest does not list this file.")
    return hashes


def check_texts_of_files(release: Path, defects: Defects) -> None:
    """No key in card, description or manifest."""
    for name in ("README.md", "croissant.json", "manifest.json"):
        text = (release / name).read_text("utf-8", errors="replace") if (release / name).is_file() else ""
        if re.search(KEYS, text):
            defects.add("key", name, "The file holds what looks like a key.")


def check_description(
    release: Path, manifest: Mapping[str, Any], hashes: Mapping[str, str], defects: Defects
) -> None:
    """Card and Croissant description say what the manifest says.

    Those of another version of cxr-max were made by another template, so they are not made again.
    """
    if manifest["cxr_max_version"] != __version__:
        return
    shards = {name: entry for name, entry in manifest["files"].items() if name.endswith(".parquet")}
    try:
        texts = described(manifest, shards)
    except (KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
        message = f"No card can be made of the manifest: its counts are not as cxr-max writes them ({error!r})."
        defects.add("card", "manifest.json", message)
        return
    for name, text in texts.items():
        if name in hashes and (release / name).read_text("utf-8", errors="replace") != text:
            kind = "card" if name == "README.md" else "croissant"
            defects.add(
                kind, name, f"It says something else than the manifest: {_first_difference(release / name, text)}"
            )


def _first_difference(path: Path, text: str) -> str:
    said = path.read_text("utf-8", errors="replace").splitlines()
    for number, (ours, theirs) in enumerate(zip(text.splitlines(), said, strict=False), start=1):
        if ours != theirs:
            return f"line {number} is {theirs[:80]!r} and should be {ours[:80]!r}."
    return "one is longer than the other."


def check_shard_names(names: list[str], defects: Defects) -> None:
    """The splits are ours, and no shard of a split is lacking."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for name in names:
        folder, _, shard = name.rpartition("/")
        matched = _SHARD.fullmatch(shard)
        if matched is None:
            defects.add(
                "split name", name, "The name is not SPLIT-00000-of-00001.parquet of train, validation or test."
            )
        else:
            found.setdefault((folder, matched[1], matched[3]), set()).add(int(matched[2]))
    for (folder, split, total), numbers in sorted(found.items()):
        if numbers != set(range(int(total))):
            defects.add("split name", folder, f"Of {int(total)} shards of {split} {len(numbers)} are there.")


def has_schema(release: Path, name: str, config: str, version: int, defects: Defects) -> bool:
    """Whether a shard can be read, and has the columns of its config."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(release / name)
    except (OSError, pa.ArrowException) as error:
        defects.add("schema", name, f"The file cannot be read as Parquet ({' '.join(str(error).split())[:120]}).")
        return False
    expected = schema_of(config, version)
    named = schema.metadata is not None and schema.metadata.get(b"cxr_max_schema")
    if schema.equals(expected) and named == expected.metadata[b"cxr_max_schema"]:
        return True
    said = _said_of_schema(schema, expected) or "their order, or the name of the schema in the file, is another"
    defects.add("schema", name, f"The columns are not those of {config} in schema {version}: {said}.")
    return False


def _said_of_schema(schema: "pa.Schema", expected: "pa.Schema") -> str:
    common = [field.name for field in expected if field.name in schema.names]
    differing = {
        "it lacks": [field.name for field in expected if field.name not in schema.names],
        "it has beside them": [field.name for field in schema if field.name not in expected.names],
        "of another type are": [name for name in common if schema.field(name).type != expected.field(name).type],
    }
    return "; ".join(f"{what} {', '.join(names)}" for what, names in differing.items() if names)
