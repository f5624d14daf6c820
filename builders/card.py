"""The card of a release: every number comes from the manifest, none is typed."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from cxr_max.builders.croissant import title_of
from cxr_max.builders.sources.base import SourceInfo
from cxr_max.findings import FINDINGS
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
        title=title_of(manifest),
        banner=_banner(manifest),
        trajectories=f"{counts['rows']:,}",
        teachers=len(counts["by_teacher"]),
        studies=f"{counts['studies']:,}",
        subjects=f"{counts['subjects']:,}",
        source_title=info.title,
        split_table=_split_table(manifest["counts"]),
        split_note=_split_note(counts["by_split"]),
        status_table=_status_table(counts["by_teacher"]),
        gaps=_gaps(manifest),
        findings_table=_findings_table(counts),
        derived=_derived(manifest),
        usage_table=_usage_table(counts),
        cost=_cost(manifest),
        sent=_sent(manifest),
        prompts="\n\n".join(map(_prompt, manifest["prompts"])),
        recipients=_recipients(manifest.get("recipients", ())),
        columns=_columns(),
        labelers=" and ".join(f"`{name}`" for name in manifest["labelers"]) or "nothing was read",
        citation=info.citation or f"{info.title}: cite whoever made the images.",
        licence=info.licence,
        withdrawn=_withdrawn(manifest.get("withdrawn", ())),
    )
    return _front_matter(manifest, splits) + text


def _front_matter(manifest: Mapping[str, Any], splits: Mapping[str, Collection[str]]) -> str:
    """The Hub's dataset card metadata. Only configs that are there are listed."""
    from huggingface_hub import DatasetCardData

    rows = manifest["counts"]["trajectories"]["rows"]
    tags = ["medical", "radiology", "chest-x-ray", "reasoning", *(["simulated"] if manifest["simulated"] else [])]
    data = DatasetCardData(
        configs=[_config(name, present, manifest) for name, present in splits.items()],
        pretty_name=title_of(manifest),
        license=manifest["source"]["licence"],
        language=["en"],
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated"],
        task_categories=["image-text-to-text"],
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


def _split_table(counts: Mapping[str, Mapping[str, Any]]) -> str:
    present = [split for split in SPLITS if any(split in said["by_split"] for said in counts.values())]
    rows = [
        [f"`{config}`", *(f"{said['by_split'].get(split, 0):,}" for split in present), f"{said['rows']:,}"]
        for config, said in counts.items()
    ]
    return _table(["config", *present, "rows"], rows)


def _split_note(by_split: Mapping[str, int]) -> str:
    if set(by_split) == {"train"}:
        return "There is one file set, `train`: rows whose `split` is null are of a data set that is not divided."
    return "The splits are those of the image set's owners; no subject should be in two."


def _status_table(by_teacher: Mapping[str, Mapping[str, int]]) -> str:
    rows = [
        [teacher, *(f"{counts.get(status, 0):,}" for status in STATUSES), f"{sum(counts.values()):,}"]
        for teacher, counts in by_teacher.items()
    ]
    return _table(["teacher", *STATUSES, "rows"], rows)


def _findings_table(counts: Mapping[str, Any]) -> str:
    """Findings down, teachers across."""
    teachers = [teacher for teacher, read in counts["read"].items() if read]
    if not teachers:
        return "Nothing was read from these texts."
    rows = [[name, *(_claimed(counts, teacher, name) for teacher in teachers)] for name in FINDINGS]
    return _table(["finding", *teachers], [*rows, ["replies read", *(f"{counts['read'][t]:,}" for t in teachers)]])


def _claimed(counts: Mapping[str, Any], teacher: str, finding: str) -> str:
    said, read = counts["findings"][teacher][finding], counts["read"][teacher]
    return f"{said.get('present', 0) / read:.1%} ({said.get('uncertain', 0) / read:.1%})".replace("%", "")


def _usage_table(counts: Mapping[str, Any]) -> str:
    rows = []
    for teacher, used in counts["usage"].items():
        reported = ", ".join(f"`{model}`" for model in counts["models_reported"].get(teacher, ()))
        answered = sum(counts["by_teacher"][teacher].values())
        tokens = (
            _known(f"{used[name]:,}", answered, used["rows_without_tokens"])
            for name in ("input_tokens", "output_tokens")
        )
        dollars = _known(f"{used['cost_usd']:,.2f}", answered, used["rows_without_cost"])
        rows.append([teacher, reported or "not reported", *tokens, dollars])
    return _table(["teacher", "model as reported", "input tokens", "output tokens", "US dollars"], rows)


def _known(text: str, rows: int, unknown: int) -> str:
    """A sum over the rows that say, and of how many do not."""
    if unknown == rows:
        return "unknown"
    return f"{text} ({unknown:,} rows do not say)" if unknown else text


def _cost(manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]["trajectories"]
    cost = manifest["cost_usd"]
    price = "an unknown sum, because some rows have no known price" if cost is None else f"{cost:,.2f} US dollars"
    when = (
        f" They were asked between {counts['first_reply'][:10]} and {counts['last_reply'][:10]}."
        if counts["first_reply"]
        else ""
    )
    return f"All rows together cost {price}.{when}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _sent(manifest: Mapping[str, Any]) -> str:
    if "imported" in manifest:
        return (
            "These replies were had elsewhere and imported: what the models were sent beside the prompt, how"
            " images were rendered and who received them is not known here, and null in the rows."
        )
    renderings = " and ".join(f"`{name}`" for name in manifest["counts"]["trajectories"]["renderings"])
    return (
        f"One JPEG per image, without metadata, rendered as {renderings or 'nothing'}. No identifier was sent,"
        " and no report unless the prompt below gives it away; text that is burned into an image's pixels, if"
        " there is any, went with it."
    )


def _prompt(entry: Mapping[str, Any]) -> str:
    title = f"Prompt `{entry['name']}` version {entry['version']} (gives away: {entry['given']})"
    if entry["text"] is None:
        return f"{title}: sha256 `{entry['sha256']}`; its text is not known here."
    # More marks than the text has in a row, so that it cannot end its own block.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", entry["text"])), default=0))
    return f"{title}, sha256 `{entry['sha256']}`:\n\n{fence}text\n{entry['text']}\n{fence}"


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
    counts = manifest["counts"]
    lines = [
        f"- `{config}`: {counts[config]['rows']:,} rows, made by {entry['method']}"
        for config, entry in sorted(manifest["derived"].items())
    ]
    written = _written(counts["consensus"].get("student", {}))
    return "\n\n".join([
        "\n".join(lines),
        "Image sets by what the vote says of a finding, and the share of the teachers that mention it which say"
        " what the vote says. The voters' own votes are in it, so it is an upper bound of their agreement with"
        " each other.",
        _agreement_table(counts["consensus"]),
        "How far each teacher's dispreferred texts are from the consensus: the mean conflict (0: no finding"
        " opposed, 1: all opposed), and how many of the texts claim exactly what the consensus claims."
        " `cxr-max drift` has the whole picture.",
        _drift_table(counts["preferences"]["rejected"]),
        f"{written}{_PREFERENCES}",
    ])  # fmt: skip


def _agreement_table(said: Mapping[str, Any]) -> str:
    rows = []
    for name in FINDINGS:
        states, support = said["findings"][name], said["support"][name]
        share = f"{100 * support['votes'] / support['voters']:.1f}" if support["voters"] else ""
        rows.append([name, *(f"{states.get(word, 0):,}" for word in ("present", "uncertain", "absent")), share])
    return _table(["finding", "present", "uncertain", "absent", "teachers in agreement, %"], rows)


def _drift_table(rejected: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [
            teacher,
            f"{said['texts']:,}",
            "" if said["mean_conflict"] is None else f"{said['mean_conflict']:.3f}",
            f"{said['agreeing']:,}",
        ]
        for teacher, said in rejected.items()
    ]
    return _table(["teacher", "dispreferred texts", "mean conflict", "of them agreeing"], rows)


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


def _recipients(recipients: Sequence[Mapping[str, Any]]) -> str:
    """Whom the data-use gate let the images be sent to, and what it believed."""
    if not recipients:
        return ""
    rows = [
        [entry["teacher"], entry["host"] or "", entry["place"], _attested(entry["attestation"])]
        for entry in recipients
    ]
    return (
        "### Who was sent them\n\n"
        + _table(["teacher", "host", "place", "what its service guarantees, as attested"], rows)
        + "\n\n"
    )


def _attested(attestation: Mapping[str, Any] | None) -> str:
    if attestation is None:
        return ""
    promises = (name.replace("_", " ") for name, value in attestation.items() if value is True)
    return f"{', '.join(promises)} (account {attestation['account']}, {attestation['date']})"


def _withdrawn(records: Sequence[Mapping[str, Any]]) -> str:
    """What was taken out since; never whom it was about."""
    if not records:
        return ""
    rows = [
        [record["date"], f"{record['subjects']:,}", f"{record['rows']['trajectories']:,}", record["reason"]]
        for record in records
    ]
    return (
        "\n## Withdrawn\n\nTaken out of this release after it was made; please drop older copies.\n\n"
        + _table(["date", "subjects", "trajectories", "reason"], rows)
        + "\n"
    )
