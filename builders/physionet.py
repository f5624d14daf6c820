"""A credentialed release -> the folder of a PhysioNet submission: derived text only, and every file summed.

PhysioNet (24 April 2024): what is derived from credentialed data is shared on PhysioNet under the same agreement,
with "Ext" in a name that uses MIMIC.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from string import Template
from typing import Any, Final

from cxr_max import prompts
from cxr_max.builders.published import MANIFEST, Watch, data_use_of, sealed_files
from cxr_max.builders.release import read_manifest
from cxr_max.data_use import check_outlet
from cxr_max.errors import DataUseError, RequestError
from cxr_max.records import STATUSES
from cxr_max.shards import canonical_json, disk_refusals_named, sha256_of, write_text

SUMS: Final = "SHA256SUMS.txt"
_LICENCE: Final = (
    "PhysioNet Credentialed Health Data License Version 1.5.0\n\n"
    "This folder is submitted for release under the licence named above, with the PhysioNet Credentialed Health\n"
    "Data Use Agreement 1.5.0, as the data it was derived from are. The licence's text is PhysioNet's and is\n"
    "attached by PhysioNet at publication: https://physionet.org/about/licenses/\n"
)
_PRIVATE: Final = frozenset({"account", "path", "host", "labels", "endpoint"})
"""Names under which a manifest may hold what concerns the authors' machines and contracts only."""


@dataclass(frozen=True, slots=True)
class Packaged:
    """What was written."""

    out: str
    title: str
    files: dict[str, int]
    """Bytes, by path in the folder."""
    for_authors: int
    """Passages that only the authors can write."""


def package(release: Path, out: Path, watch: Watch = lambda *_: None) -> Packaged:
    """Prepare a submission; the same release gives the same bytes.

    Raises:
        DataUseError: the release is of open data, or has what must not be passed on.
        RequestError: the release is not sealed or not whole, or ``out`` holds something else.
        StorageError: the disk refused.
    """
    manifest = read_manifest(release)
    sealed = sealed_files(release, manifest, watch)
    check_outlet(manifest["source"]["title"], data_use_of(sealed, manifest), "physionet")
    _refuse_reports(sealed)
    shards = {name: path for name, path in sealed.items() if name.endswith(".parquet")}
    written = {**dict.fromkeys(("README.md", "LICENSE.txt", MANIFEST, SUMS)), **shards}
    _refuse_strangers(out, set(written))
    readme = _front_matter(release) + _readme(manifest, shards)
    kept = _kept(manifest) | {"files": {name: manifest["files"][name] for name in shards}}
    text = canonical_json(kept)
    _refuse_paths(text)
    with disk_refusals_named(out):
        (out / SUMS).unlink(missing_ok=True)
        for number, (name, path) in enumerate(shards.items()):
            watch("Copying the shards", number, len(shards))
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / name)
        watch("Copying the shards", len(shards), len(shards))
    for name, content in (("README.md", readme), ("LICENSE.txt", _LICENCE), (MANIFEST, text)):
        write_text(out / name, content)
    listed = sorted(set(written) - {SUMS})
    write_text(out / SUMS, "".join(f"{sha256_of(out / name)}  {name}\n" for name in listed))
    _read_again(out, manifest, set(written))
    sizes = {name: (out / name).stat().st_size for name in sorted(written)}
    return Packaged(str(out), _title(manifest), sizes, readme.count("**[Authors"))


def _refuse_reports(sealed: Mapping[str, Path]) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for name, path in sealed.items():
        if not name.startswith("data/trajectories/"):
            continue
        given = set(pc.unique(pq.read_table(path, columns=["prompt_given"])["prompt_given"]).to_pylist())
        if "report" in given:
            raise DataUseError(
                f"{name} has replies to prompts that gave the report, and such replies repeat it: package a"
                " release of other prompts, since no report may be in the folder."
            )


def _refuse_strangers(out: Path, expected: set[str]) -> None:
    if out.is_file():
        raise RequestError(f"{out} is a file: choose a folder for --out.")
    stranger = next((name for name in _listed(out) if name not in expected), None)
    if stranger is not None:
        raise RequestError(f"{out} holds {stranger}, which is no part of the package: choose an empty folder.")


def _listed(out: Path) -> Iterator[str]:
    return (path.relative_to(out).as_posix() for path in sorted(out.rglob("*")) if not path.is_dir())


def _refuse_paths(text: str) -> None:
    def strings(value: object) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from (one for inner in value.values() for one in strings(inner))
        elif isinstance(value, list):
            yield from (one for inner in value for one in strings(inner))

    local = next((one for one in strings(json.loads(text)) if one.startswith(("/", "~", "file:"))), None)
    if local is not None:
        raise RequestError(f"The manifest names a path of this machine, {local}: build the release again.")


def _kept(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _kept(inner) for name, inner in value.items() if name not in _PRIVATE}
    return [_kept(inner) for inner in value] if isinstance(value, list) else value


def _read_again(out: Path, manifest: Mapping[str, Any], expected: set[str]) -> None:
    """What stands on the disk now, not what was meant to."""
    found = set(_listed(out))
    broken = [name for name, one in manifest["files"].items()
              if name.endswith(".parquet") and sha256_of(out / name) != one["sha256"]]  # fmt: skip
    if found != expected or broken:
        odd = sorted((found ^ expected) | set(broken))
        raise RequestError(f"{out} came out otherwise than planned ({odd[0]}): run the same command again.")


def _title(manifest: Mapping[str, Any]) -> str:
    simulated = " (simulated models)" if manifest["simulated"] else ""
    if manifest["source"]["name"].startswith("mimic-cxr"):
        return f"MIMIC-CXR-Ext-MAX: reasoning trajectories of several models over chest radiographs{simulated}"
    return f"Reasoning trajectories of several models over {manifest['source']['title']}{simulated}"


def _front_matter(release: Path) -> str:
    """Of the card's front matter what ``datasets`` needs to know the configs."""
    from huggingface_hub import DatasetCard, DatasetCardData

    configs = DatasetCard.load(release / "README.md").data.to_dict()["configs"]
    return f"---\n{DatasetCardData(configs=configs).to_yaml()}\n---\n\n"


def _readme(manifest: Mapping[str, Any], shards: Mapping[str, Path]) -> str:
    counts = manifest["counts"]["trajectories"]
    simulated = manifest["simulated"]
    template = Template((resources("cxr_max.data_cards") / "physionet.md").read_text("utf-8"))
    derived = [f"`{name}` ({manifest['counts'][name]['rows']:,} rows, {one['method']})"
               for name, one in manifest["derived"].items()]  # fmt: skip
    return template.substitute(
        title=_title(manifest),
        trajectories=f"{counts['rows']:,}",
        teachers=len(counts["by_teacher"]),
        studies=f"{counts['studies']:,}",
        subjects=f"{counts['subjects']:,}",
        source_title=manifest["source"]["title"],
        renderings=" and ".join(f"`{one}`" for one in counts["renderings"]) or "nothing says how",
        labelers=" and ".join(f"`{one}`" for one in manifest["labelers"]) or "nothing",
        service_sentence="The models were simulated: no model answered; nothing here is data about any model."
        if simulated else "Which service answered, and as which model version, stands in every row.",
        service_ethics="No image was sent to a service, since the models were simulated."
        if simulated else "**[Authors: where each model ran; for every online service, that zero retention, no"
        " training and no human review were verified, as PhysioNet asks.]**",
        prompt_table=_table(("prompt", "version", "gives away", "sha256"), [
            (one["name"], one["version"], one["given"], one["sha256"][:12]) for one in manifest["prompts"]
        ]) + _texts(manifest["prompts"]),
        file_table=_table(("file", "bytes"), [(f"`{n}`", f"{manifest['files'][n]['bytes']:,}") for n in shards]),
        status_table=_table(("model", *STATUSES), [
            (teacher, *(by.get(status, 0) for status in STATUSES)) for teacher, by in counts["by_teacher"].items()
        ]),
        split_table=_table(("split", "rows"), list(counts["by_split"].items())),
        derived_sentence=f"Derived from the trajectories: {', '.join(derived)}." if derived else "",
        limits="What the prompts of imported rows gave away is unknown. " if "imported" in manifest else "",
        digest=manifest["trajectories_digest"],
        citation=manifest["source"]["citation"] or "**[Authors: the data set.]**",
    )  # fmt: skip


def _texts(asked: list[dict[str, str]]) -> str:
    """The prompts in full, as far as this version ships them."""
    shipped = [prompts.load(one["name"]) for one in asked]
    return "".join(f"\n\n`{one.name}`:\n\n```text\n{one.text}\n```" for one in shipped)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
