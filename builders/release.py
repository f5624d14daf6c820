"""Rows -> a release that Hugging Face loads. Same rows, same bytes.

``manifest.json`` is removed first and written last: where it is missing, the release is unfinished. Every number
of the manifest is counted from the shards (``tallies``); card and Croissant description are made of the manifest.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from cxr_max import __version__, prompts
from cxr_max.builders.card import card
from cxr_max.builders.croissant import croissant
from cxr_max.builders.sources.base import SourceInfo
from cxr_max.builders.tallies import PROMPT, Trajectories, counted
from cxr_max.builders.trajectories import trajectory_of
from cxr_max.errors import RequestError
from cxr_max.ledger import Ledger
from cxr_max.schemas import SCHEMA_VERSION, row_of, trajectory_schema
from cxr_max.shards import (
    canonical_json,
    disk_refusals_named,
    sha256_of,
    write_config,
    write_text,
)

CONFIG: Final = "trajectories"
DERIVABLE: Final = ("consensus", "preferences")
"""Configs that are made from the trajectories, and are stale as soon as these change."""
STAGING: Final = ".withdrawing"
"""Where a withdrawal makes the new shards, below the release (see ``withdraw``)."""


def write_release(
    ledger: Ledger,
    folder: Path,
    info: SourceInfo,
    settings: Mapping[str, Any],
    withdrawn: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Derive a release from the ledger alone, and return its manifest.

    Args:
        settings: what the run was asked for, without local paths, and the prices it was paid at.
        withdrawn: as ``write_rows`` takes it.

    Raises:
        StorageError: the disk refused; the ledger is untouched and the same command finishes the release.
    """
    planned = ledger.teacher_counts()
    about = {
        "source": asdict(info),
        "settings": dict(settings),
        "missing": {
            "gaps": len(ledger.gaps()),
            "failed": sum(rows - answered for rows, answered in planned.values()),
        },
        "recipients": ledger.recipients(),
        "withdrawn": list(withdrawn),
    }
    return write_rows(folder, ledger.split_counts(), lambda split: _rows(ledger, split), about)


def _rows(ledger: Ledger, split: str) -> Iterator[dict[str, Any]]:
    for question, answered in ledger.rows(split):
        yield row_of(trajectory_of(question, answered))


def write_rows(
    folder: Path,
    counts: Mapping[str, int],
    rows_of: Callable[[str], Iterable[Mapping[str, Any]]],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the trajectories of a release, seal it, and return its manifest.

    The consensus and preferences configs are kept if the trajectories they came from are the same still.

    Args:
        counts: rows per split.
        rows_of: from a split to its rows, sorted by study_id, image_ids, teacher, prompt_name, prompt_sha256 and
            sample_index.
        about: what no row says: ``source`` (the fields of ``SourceInfo``), ``settings`` and ``missing``
            (``gaps`` and ``failed``); where there are any, ``withdrawn`` (a record per withdrawal),
            ``recipients``, ``imported`` and ``prompts`` (with the ``text`` of those that are not shipped).

    Raises:
        StorageError: the disk refused.
    """
    before = _manifest_of(folder) or {}
    break_seal(folder)
    with disk_refusals_named(folder):
        shutil.rmtree(folder / STAGING, ignore_errors=True)
        (folder / "data" / CONFIG).mkdir(parents=True, exist_ok=True)
    write_config(folder / "data" / CONFIG, dict(sorted(counts.items())), rows_of, trajectory_schema())
    derived = before.get("derived", {})
    said = {config: before["counts"][config] for config in derived}
    return seal(folder, {**about, "derived": derived, "counts": said})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a sealed release.

    Raises:
        RequestError: there is none, so the release is unfinished or no release at all; or it has a schema that
            only a newer version of cxr-max reads.
    """
    manifest = _manifest_of(folder)
    if manifest is None and (folder / STAGING).exists():
        raise RequestError(f"A withdrawal from {folder} was interrupted: run the same cxr-max withdraw again.")
    if manifest is None:
        raise RequestError(f"{folder} holds no sealed release: give the release of a finished cxr-max build.")
    version = manifest.get("schema_version", SCHEMA_VERSION)
    if version > SCHEMA_VERSION:
        raise RequestError(
            f"{folder} has release schema {version}, and this version of cxr-max reads up to {SCHEMA_VERSION}:"
            " install the version that its manifest names."
        )
    return manifest


def add_configs(
    folder: Path, configs: Mapping[str, Callable[[], Mapping[str, Any]]], recipients: Sequence[Any] = ()
) -> dict[str, Any]:
    """Write configs that were derived from the trajectories, and renew the seal.

    Args:
        configs: by name, what writes its shards and returns what the manifest shall say of it: ``method``, and
            ``counts`` with what the shards do not tell.
        recipients: to whom trajectories and images were sent for it, as ``Ledger.recipients`` says.

    Raises:
        RequestError: the release is not sealed.
        StorageError: the disk refused.
    """
    manifest = read_manifest(folder)
    break_seal(folder)
    for config, write in configs.items():
        made = write()
        manifest["counts"][config] = made["counts"]
        manifest["derived"][config] = {"method": made["method"], "from": manifest["trajectories_digest"]}
        if recipients:
            manifest["derived"][config]["recipients"] = list(recipients)
    return seal(folder, manifest)


def _manifest_of(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def break_seal(folder: Path) -> None:
    """Say that the release is being worked on.

    Raises:
        StorageError: the disk refused.
    """
    with disk_refusals_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").unlink(missing_ok=True)


def seal(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what no longer belongs, count, describe, hash every file, and write the manifest last.

    Args:
        about: as ``write_rows`` takes it, with ``derived`` (by config its ``method``, and the digest of the
            trajectories that it is ``from``) and ``counts`` (by config what the shards do not tell); or a
            manifest, to be renewed.

    Raises:
        StorageError: the disk refused.
    """
    hashes = {shard: sha256_of(shard) for shard in shards_of(folder, CONFIG)}
    digest = digest_of(hashes)
    derived = {config: made for config, made in about["derived"].items() if made["from"] == digest}
    for stale in set(DERIVABLE) - set(derived):
        shutil.rmtree(folder / "data" / stale, ignore_errors=True)
    shards = {config: shards_of(folder, config) for config in (CONFIG, *derived)}
    hashes |= {shard: sha256_of(shard) for config in derived for shard in shards[config]}
    manifest = manifest_of({**about, "derived": derived, "trajectories_digest": digest}, shards)
    entries = {shard.relative_to(folder).as_posix(): _entry(shard, sha256) for shard, sha256 in hashes.items()}
    texts = described(manifest, entries)
    for name, text in texts.items():
        write_text(folder / name, text)
        entries[name] = _entry(folder / name, sha256_of(folder / name))
    manifest["files"] = dict(sorted(entries.items()))
    write_text(folder / "manifest.json", canonical_json(manifest))
    return manifest


def shards_of(folder: Path, config: str) -> list[Path]:
    """The Parquet files of one config, in order."""
    return sorted((folder / "data" / config).glob("*-of-*.parquet"))


def digest_of(hashes: Mapping[Path, str]) -> str:
    """What tells the trajectories of two releases apart, from each shard's sha256.

    Of all that a row holds: another labeler makes other trajectories of the same replies.
    """
    named = {shard.name: sha256 for shard, sha256 in hashes.items()}
    return hashlib.sha256(canonical_json(named).encode()).hexdigest()


def described(manifest: Mapping[str, Any], shards: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The files of a release that are made of its manifest, by name.

    Args:
        shards: ``bytes`` and ``sha256`` of every Parquet file, by its path in the release.
    """
    # As it is read back, so that they can be made again from the written one.
    read = json.loads(canonical_json(manifest))
    read["counts"] = {
        config: read["counts"][config] for config in (CONFIG, *DERIVABLE) if config in read["counts"]
    }
    splits = {config: set(said["by_split"]) for config, said in read["counts"].items() if said["by_split"]}
    return {
        "README.md": card(read, splits),
        "croissant.json": canonical_json(croissant(read, shards)),
    }


def _entry(file: Path, sha256: str) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": sha256}


def manifest_of(about: Mapping[str, Any], shards: Mapping[str, list[Path]]) -> dict[str, Any]:
    """The manifest but for its list of files: what is known, and what the shards hold."""
    tallies = {config: counted(config, paths) for config, paths in shards.items()}
    rows = tallies[CONFIG]
    assert isinstance(rows, Trajectories)
    said = about["counts"]
    return {
        **about,
        "schema_version": SCHEMA_VERSION,
        "cxr_max_version": __version__,
        "simulated": "simulated" in rows.providers,
        "prompts": prompts_of(rows, about.get("prompts", ())),
        "labelers": sorted(rows.labelers),
        "counts": {config: {**said.get(config, {}), **tally.counts()} for config, tally in tallies.items()},
        "cost_usd": rows.cost_usd,
    }


def prompts_of(rows: Trajectories, known: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The prompts that the rows name, each with its text: as shipped, or as ``known``; else null."""
    texts = {entry["sha256"]: entry.get("text") for entry in known}
    for name in prompts.names():
        texts[prompts.load(name).sha256] = prompts.load(name).text
    entries = (dict(zip(PROMPT, prompt, strict=True)) for prompt in sorted(rows.prompts, key=str))
    return [{**entry, "text": texts.get(entry["sha256"])} for entry in entries]
