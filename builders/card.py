"""The card of a release: every number comes from the manifest, none is typed."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from cxr_max import prompts
from cxr_max.builders.sources.base import SourceInfo
from cxr_max.records import SPLITS, STATUSES
from cxr_max.schemas import trajectory_schema

_SIMULATED = (
    "> **Simulated teachers.** Rows with `provider = simulated` were written by the project's loopback"
    " simulator: no model answered. They show how a release looks and works. They are not data about any"
    " model.\n\n"
)

_CREDENTIALED = (
    "> **Credentialed data.** These texts were derived from credentialed data, so they are sensitive too:"
    " PhysioNet (24 April 2024) asks that they be shared on PhysioNet under the same agreement, not on a public"
    " hub.\n\n"
)

_PREFERENCES = (
    "A preference's `conflicts` count opposed findings only. Where `agreeing` is true, the dispreferred text"
    " claims exactly what the consensus claims: other words, but no negative."
)


def card(manifest: Mapping[str, Any], splits: Mapping[str, Collection[str]]) -> str:
    """README.md of a release: front matter for the Hub, then the text for people.

    Args:
        splits: the splits of every config that has rows.
    """
    info = SourceInfo(**manifest["source"])
    counts = manifest["counts"]["trajectories"]
    template = Template((files("cxr_max.data_cards") / "release.md").read_text("utf-8"))
    text = template.substitute(
        title="CXR-MAX reasoning trajectories" + (" (simulated demo)" if manifest["simulated"] else ""),
        banner=_banner(manifest),
        trajectories=f"{counts['rows']:,}",
        teachers=len(counts["by_teacher"]),
        studies=f"{counts['studies']:,}",
        subjects=f"{counts['subjects']:,}",
        source_title=info.title,
        status_table=_status_table(counts["by_teacher"]),
        split_table=_table(["split", "rows"], [[split, n] for split, n in counts["by_split"].items()]),
        renderings=" and ".join(f"`{name}`" for name in counts["renderings"]) or "nothing",
        prompts="\n\n".join(map(_prompt, manifest["prompts"])),
        derived=_derived(manifest),
        columns=_columns(),
        gaps=_gaps(manifest),
        citation=info.citation,
        licence=info.licence,
    )
    return _front_matter(manifest, splits) + text


def _front_matter(manifest: Mapping[str, Any], splits: Mapping[str, Collection[str]]) -> str:
    """The Hub's dataset card metadata. Only configs that are there are listed."""
    from huggingface_hub import DatasetCardData

    rows = manifest["counts"]["trajectories"]["rows"]
    tags = ["medical", "radiology", "chest-x-ray", "reasoning", *(["simulated"] if manifest["simulated"] else [])]
    data = DatasetCardData(
        configs=[_config(name, present, manifest) for name, present in splits.items()],
        license=manifest["source"]["licence"],
        language="en",
        size_categories=_size_category(rows),
        tags=tags,
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _config(name: str, present: Collection[str], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """One config of the front matter.

    ``datasets`` caches what it loads under the folder's name and this entry, not under the files' contents:
    without the digest, every release in a folder called ``release`` would load as the first one that ever was.
    """
    made = manifest["derived"].get(name, {}).get("method", "asked")
    return {
        "config_name": name,
        "description": f"{name}, {made}, digest {manifest['trajectories_digest']}",
        "data_files": [
            {"split": split, "path": f"data/{name}/{split}-*.parquet"} for split in SPLITS if split in present
        ],
        **({"default": True} if name == "trajectories" else {}),
    }


def _size_category(rows: int) -> str:
    limits = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for limit, name in limits if rows < limit), "1M<n<10M")


def _status_table(by_teacher: Mapping[str, Mapping[str, int]]) -> str:
    rows = [
        [teacher, *(counts.get(status, 0) for status in STATUSES), sum(counts.values())]
        for teacher, counts in by_teacher.items()
    ]
    return _table(["teacher", *STATUSES, "rows"], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _prompt(entry: Mapping[str, str]) -> str:
    title = f"Prompt `{entry['name']}` version {entry['version']} (gives away: {entry['given']})"
    shipped = prompts.load(entry["name"])
    if shipped.sha256 != entry["sha256"]:
        return f"{title}: sha256 `{entry['sha256']}`, a text that this version no longer ships."
    return f"{title}:\n\n```text\n{shipped.text}\n```"


def _columns() -> str:
    described = [
        [f"`{field.name}`", f"`{field.type}`", field.metadata[b"description"].decode()]
        for field in trajectory_schema()
    ]
    shortened = [
        [name, "`struct of 14`" if "Pneumothorax" in kind else kind, text] for name, kind, text in described
    ]
    return _table(["column", "type", "meaning"], shortened)


def _banner(manifest: Mapping[str, Any]) -> str:
    credentialed = manifest["source"]["data_use"] == "credentialed"
    return (_SIMULATED if manifest["simulated"] else "") + (_CREDENTIALED if credentialed else "")


def _derived(manifest: Mapping[str, Any]) -> str:
    if not manifest["derived"]:
        return "This release has no consensus yet: `cxr-max consensus` adds one."
    lines = [
        f"- `{config}`: {manifest['counts'][config]['rows']:,} rows, made by {entry['method']}"
        for config, entry in manifest["derived"].items()
    ]
    written = _written(manifest["counts"]["consensus"].get("student", {}))
    return "\n".join(lines) + f"\n\n{written}{_PREFERENCES}"


def _written(outcomes: Mapping[str, int]) -> str:
    """What became of the texts that a model was asked for."""
    if not outcomes:
        return ""
    reasons = [f"{count:,} {name}" for name, count in outcomes.items() if count and name != "kept"]
    others = f" Of the others the vote's text stands: {', '.join(reasons)}." if reasons else ""
    return (
        f"A model was asked for the consensus in words, and {outcomes['kept']:,} of its texts are kept: they are"
        " whole and in the form that was asked for, claim what the vote claims, copy no trajectory and mention no"
        f" readers.{others}\n\n"
    )


def _gaps(manifest: Mapping[str, Any]) -> str:
    missing = manifest["missing"]
    if not missing["gaps"] and not missing["failed"]:
        return "Every image that was planned was asked about, and every request has its reply."
    return (
        f"Missing: {missing['gaps']} image sets could not be asked about, and {missing['failed']} requests have no"
        " reply yet."
    )
