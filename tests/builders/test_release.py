"""What others read of a release: its card, its Croissant description, its Parquet files, and ``load_dataset``."""

import json
import os
import random
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cxr_max.builders.build import BuildRequest, build
from cxr_max.builders.card import card
from cxr_max.builders.release import described, read_manifest, seal, shards_of
from cxr_max.builders.release_check import check_release
from cxr_max.builders.withdraw import withdraw
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS
from cxr_max.schemas import SCHEMA_VERSION, read_consensus, read_preferences, read_trajectories, schema_of
from cxr_max.shards import ROWS_PER_GROUP, canonical_json, write_shard
from tests.background import contents
from tests.builders.made_releases import Quiet, make_run, manifest_of, rows_of

OLD = Path(__file__).parent / "releases" / "schema-1"
"""A release of schema 1 as it was written once; never changed."""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run")) / "release"


# Croissant.


@pytest.fixture(scope="module")
def croissant(release: Path) -> Any:
    import mlcroissant

    return mlcroissant.Dataset(str(release / "croissant.json"))


def test_mlcroissant_has_nothing_to_say(croissant: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert not croissant.metadata.ctx.issues.errors and not croissant.metadata.ctx.issues.warnings
    assert [version.value for version in [croissant.metadata.ctx.conforms_to]] == [
        "http://mlcommons.org/croissant/1.0"
    ]
    metadata = croissant.metadata
    for name in (
        "data_collection", "data_biases", "data_limitations", "data_use_cases", "personal_sensitive_information",
        "data_social_impact", "data_annotation_protocol", "data_release_maintenance_plan", "cite_as",
        "date_published",
    ):  # fmt: skip
        assert getattr(metadata, name), name


def test_croissant_lists_every_shard_with_its_hash(release: Path) -> None:
    said = json.loads((release / "croissant.json").read_text())
    files = {entry["@id"]: entry["sha256"] for entry in said["distribution"] if entry["@type"] == "cr:FileObject"}
    listed = manifest_of(release)["files"]
    assert files == {name: entry["sha256"] for name, entry in listed.items() if name.endswith(".parquet")}
    assert "croissant.json" in listed


@pytest.mark.parametrize("config", ["trajectories", "consensus", "preferences"])
def test_records_load_through_mlcroissant(release: Path, croissant: Any, config: str) -> None:
    records = list(croissant.records(config))
    expected = rows_of(release, config)
    assert len(records) == len(expected)
    for record, row in zip(records, expected, strict=True):
        assert record[f"{config}/study_id"].decode() == row["study_id"]
        if config == "trajectories":
            assert record["trajectories/text"].decode() == row["text"]
        if "findings" in row:
            found = {name: record[f"{config}/findings"][f"{config}/findings/{name.replace(' ', '_')}"]
                     for name in FINDINGS}  # fmt: skip
            assert found == (row["findings"] or dict.fromkeys(FINDINGS))


# The card.


def test_the_hub_reads_the_front_matter(release: Path) -> None:
    """By huggingface_hub's own parser, and by what the Hub's documentation allows in each field."""
    from huggingface_hub import DatasetCard

    data = DatasetCard.load(release / "README.md").data
    configs = {config["config_name"]: config for config in data.configs}
    assert list(configs) == ["trajectories", "consensus", "preferences"]
    assert [name for name, config in configs.items() if config.get("default")] == ["trajectories"]
    for name, config in configs.items():
        for entry in config["data_files"]:
            assert entry["split"] in {"train", "validation", "test"}
            assert list(release.glob(entry["path"])), (name, entry)
    assert (data.license, data.language, data.size_categories) == ("cc0-1.0", ["en"], "n<1K")
    assert data.annotations_creators == ["machine-generated"] and data.task_categories == ["image-text-to-text"]
    assert all(isinstance(tag, str) for tag in data.tags) and "simulated" in data.tags


def test_every_number_of_the_card_is_the_manifests(release: Path) -> None:
    manifest = manifest_of(release)
    shards = {name: entry for name, entry in manifest["files"].items() if name.endswith(".parquet")}
    assert described(manifest, shards)["README.md"] == (release / "README.md").read_text()
    text = (release / "README.md").read_text()
    rows = rows_of(release)
    read = [row for row in rows if row["teacher"] == "sim-grok-4" and row["findings"]]
    present = sum(row["findings"]["Pneumothorax"] == 1 for row in read)
    line = next(line for line in text.splitlines() if line.startswith("| Pneumothorax | ") and "(" in line)
    assert line.split("|")[3].split()[0] == f"{100 * present / len(read):.1f}"
    tokens = sum(row["output_tokens"] for row in rows if row["teacher"] == "sim-grok-4")
    assert f"| {tokens:,} | 0.00 |" in text
    assert "Read the chest radiograph" in text or manifest["prompts"][0]["text"] in text


def test_what_the_votes_say_is_the_shards(release: Path) -> None:
    """The agreement of one finding, counted by hand."""
    rows = [row for row in rows_of(release, "consensus") if row["findings"]["Edema"] is not None]
    support = manifest_of(release)["counts"]["consensus"]["support"]["Edema"]
    assert support == {
        "votes": sum(row["support"]["Edema"]["votes"] for row in rows),
        "voters": sum(row["support"]["Edema"]["voters"] for row in rows),
    }
    rejected = manifest_of(release)["counts"]["preferences"]["rejected"]["sim-gpt-5-nano"]
    pairs = [
        conflict
        for row in rows_of(release, "preferences")
        for teacher, conflict in zip(row["rejected_teachers"], row["conflicts"], strict=True)
        if teacher == "sim-gpt-5-nano" and conflict is not None
    ]
    assert rejected["mean_conflict"] == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_a_card_says_who_was_sent_the_images_and_what_was_taken_out(release: Path) -> None:
    promises = dict.fromkeys(("zero_retention", "no_training", "no_human_review"), True)
    attestation = {"provider": "api.openai.com", "account": "our lab", "date": "2026-01-15", **promises}
    manifest = manifest_of(release)
    manifest["recipients"] = [
        {"teacher": "gpt-5-nano", "place": "remote", "host": "api.openai.com", "attestation": attestation},
        {"teacher": "qwen", "place": "local", "host": None, "attestation": None},
    ]
    text = card(manifest, {"trajectories": {"train"}})
    promised = "zero retention, no training, no human review (account our lab, 2026-01-15)"
    assert f"| gpt-5-nano | api.openai.com | remote | {promised} |" in text and "| qwen |  | local |  |" in text


def test_a_prompt_cannot_end_its_own_block(release: Path) -> None:
    manifest = manifest_of(release)
    manifest["prompts"] = [
        {"name": "mine", "version": "1", "sha256": "0" * 64, "given": "nothing", "text": "a\n```\nb"}
    ]
    assert "````text\na\n```\nb\n````" in card(manifest, {"trajectories": {"train"}})


# Parquet, and who loads it.


def test_shards_are_as_viewers_like_them(release: Path, tmp_path: Path) -> None:
    rows = rows_of(release) * 60
    write_shard(tmp_path / "a.parquet", rows, schema_of("trajectories", SCHEMA_VERSION))
    write_shard(tmp_path / "b.parquet", rows, schema_of("trajectories", SCHEMA_VERSION))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        assert sizes == [ROWS_PER_GROUP, ROWS_PER_GROUP, len(rows) - 2 * ROWS_PER_GROUP]
        column = file.metadata.row_group(0).column(file.schema_arrow.get_field_index("study_id"))
        assert column.has_column_index and column.has_offset_index and column.compression == "ZSTD"
        assert all(field.metadata[b"description"] for field in file.schema_arrow)


def test_a_row_taken_out_changes_few_chunks(release: Path, tmp_path: Path) -> None:
    """Content-defined chunking: of a file that lost a row, half of all windows are found in the one before."""
    draw, row = random.Random(0), rows_of(release)[0]
    words = row["text"].split()
    rows = [{**row, "text": " ".join(draw.choices(words, k=300))} for _ in range(2500)]
    schema = schema_of("trajectories", SCHEMA_VERSION)
    write_shard(tmp_path / "all.parquet", rows, schema)
    write_shard(tmp_path / "less.parquet", rows[:10] + rows[11:], schema)
    whole, less = ((tmp_path / name).read_bytes() for name in ("all.parquet", "less.parquet"))
    windows = [less[at : at + 64] for at in range(0, len(less) - 64, 2048)]
    assert sum(window in whole for window in windows) > len(windows) / 2


SCRIPT = """
import json, socket, sys
def refuse(*_): raise AssertionError("the network was reached for")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
import datasets
release, cache = sys.argv[1:]
found = {}
for config in datasets.get_dataset_config_names(release):
    plain = datasets.load_dataset(release, config, cache_dir=cache)
    streamed = datasets.load_dataset(release, config, streaming=True, cache_dir=cache)
    assert set(plain) == set(streamed)
    for split in plain:
        assert list(plain[split]) == list(streamed[split])
        assert list(datasets.load_dataset(release, config, split=split, cache_dir=cache)) == list(plain[split])
    found[config] = {split: len(rows) for split, rows in plain.items()}
print(json.dumps(found))
"""


def loaded(release: Path, cache: Path) -> dict[str, dict[str, int]]:
    """Rows by config and split, as a fresh process without a network loads them."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(cache)}
    command = [sys.executable, "-c", SCRIPT, str(release), str(cache)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found: dict[str, dict[str, int]] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_every_config_and_split_loads_without_a_network(release: Path, tmp_path: Path) -> None:
    counts = manifest_of(release)["counts"]
    assert loaded(release, tmp_path) == {config: said["by_split"] for config, said in counts.items()}


@pytest.mark.slow
def test_a_split_that_was_emptied_is_no_longer_named(release: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(release, tmp_path / "release"))
    withdraw(copy, {"phantom-0-p0000008"}, "consent withdrawn", today=date(2026, 1, 1))
    sizes = {"train": 16, "validation": 2}
    assert loaded(copy, tmp_path / "cache") == {
        "trajectories": {"train": 32, "validation": 4},
        "consensus": sizes,
        "preferences": sizes,
    }


@pytest.mark.slow
def test_configs_without_a_split_of_their_own(tmp_path: Path) -> None:
    """One split only, and no consensus."""
    build(BuildRequest(source="phantom", teachers="sim-grok-4", out=tmp_path, studies=4), Quiet())
    assert loaded(tmp_path / "release", tmp_path / "cache") == {"trajectories": {"train": 4}}
    assert check_release(tmp_path / "release").clean


# Schema versions.


def test_an_older_release_still_loads(tmp_path: Path) -> None:
    """Frozen when schema 1 was settled: later versions of cxr-max must read it."""
    manifest = read_manifest(OLD)
    assert manifest["schema_version"] == 1
    rows = {
        "trajectories": sum(1 for split in ("train", "test") for _ in read_trajectories(OLD, split)),
        "consensus": sum(1 for split in ("train", "test") for _ in read_consensus(OLD, split)),
        "preferences": sum(1 for split in ("train", "test") for _ in read_preferences(OLD, split)),
    }
    assert rows == {config: said["rows"] for config, said in manifest["counts"].items()}
    for config in rows:
        for shard in shards_of(OLD, config):
            assert pq.read_schema(shard).names == schema_of(config, 1).names
    files = {name for name in contents(OLD) if name != "manifest.json"}
    assert files == set(manifest["files"])


def test_a_newer_release_is_refused_in_a_sentence(release: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(release, tmp_path / "release"))
    manifest = {**manifest_of(copy), "schema_version": SCHEMA_VERSION + 1}
    (copy / "manifest.json").write_text(canonical_json(manifest))
    with pytest.raises(RequestError, match="reads up to 1: install the version"):
        read_manifest(copy)


def test_sealing_again_changes_no_byte(release: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(release, tmp_path / "release"))
    before = contents(copy)
    seal(copy, manifest_of(copy))
    assert contents(copy) == before
