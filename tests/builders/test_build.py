"""The main job, end to end: real formats in, a release out that everybody reads alike."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr_max.builders.build import BuildRequest, BuildResult, build
from cxr_max.errors import DataUseError, RequestError
from cxr_max.findings import FINDINGS
from cxr_max.ledger import Gap, Ledger
from cxr_max.shards import sha256_of
from tests.background import contents
from tests.mimic_fixture import write_mimic


class Quiet:
    """A watch that only remembers the gaps and the warnings."""

    def __init__(self) -> None:
        self.gaps: Sequence[Gap] = ()
        self.warnings: list[str] = []

    def warned(self, message: str) -> None:
        self.warnings.append(message)

    def sealing(self, gaps: Sequence[Gap]) -> None:
        self.gaps = gaps

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def built(source: str, out: Path, teachers: str = "simulated", **options: Any) -> tuple[BuildResult, Quiet]:
    watch = Quiet()
    return build(BuildRequest(source=source, teachers=teachers, out=out, **options), watch), watch


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo, once for all tests that only look at it."""
    out = tmp_path_factory.mktemp("demo")
    result, _ = built("phantom", out)
    assert (result.studies, result.trajectories, result.requests_sent) == (64, 448, 448)
    assert result.complete and result.cost_usd == 0.0
    return out


@pytest.fixture(scope="module")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_mimic(tmp_path_factory.mktemp("mimic"))


def rows(out: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    files = sorted((out / "release" / "data" / "trajectories").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_the_demo_is_said_to_be_simulated_everywhere(demo: Path) -> None:
    assert {row["provider"] for row in rows(demo)} == {"simulated"}
    card = (demo / "release" / "README.md").read_text()
    assert "Simulated teachers" in card.split("\n\n")[2] and "- simulated" in card
    assert json.loads((demo / "release" / "manifest.json").read_text())["simulated"] is True


def test_every_row_exactly_once_and_whole(demo: Path) -> None:
    found = rows(demo)
    keys = Counter(
        (r["study_id"], *r["image_ids"], r["teacher"], r["prompt_sha256"], r["sample_index"]) for r in found
    )
    assert len(keys) == 448 and set(keys.values()) == {1}
    for row in found:
        assert len(row["image_ids"]) == len(row["source_sha256"]) == len(row["image_sha256"]) == 1
        assert (row["findings"] is None) == (row["status"] != "ok") == (row["labeler"] is None)
        assert row["findings"] is None or set(row["findings"].values()) <= {1, 0, -1, None}
    assert Counter(row["status"] for row in found)["ok"] > 400


def test_run_again_sends_nothing_and_changes_no_byte(demo: Path) -> None:
    before = contents(demo / "release")
    result, _ = built("phantom", demo)
    assert (result.requests_sent, result.replies_reused) == (0, 448)
    shutil.rmtree(demo / "release")
    built("phantom", demo, concurrency=1)
    assert contents(demo / "release") == before


def test_the_manifest_holds_every_file(demo: Path) -> None:
    release = demo / "release"
    manifest = json.loads((release / "manifest.json").read_text())
    assert set(manifest["files"]) | {"manifest.json"} == set(contents(release))
    for name, entry in manifest["files"].items():
        assert sha256_of(release / name) == entry["sha256"] and (release / name).stat().st_size == entry["bytes"]
    counts = manifest["counts"]["trajectories"]
    assert counts["rows"] == 448 == sum(counts["by_split"].values())
    assert sum(sum(teacher.values()) for teacher in counts["by_teacher"].values()) == 448


def test_a_broken_off_release_has_no_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built("phantom", tmp_path, "sim-grok-4", studies=3)
    whole = contents(tmp_path / "release")

    def break_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cxr_max.builders.release.card", break_off)
        built("phantom", tmp_path, "sim-grok-4", studies=3)
    assert not (tmp_path / "release" / "manifest.json").exists()
    built("phantom", tmp_path, "sim-grok-4", studies=3)
    assert contents(tmp_path / "release") == whole


def test_a_run_grows(tmp_path: Path) -> None:
    built("phantom", tmp_path, "sim-grok-4", studies=5)
    more, _ = built("phantom", tmp_path, "sim-grok-4,sim-gpt-5-nano", studies=8, samples=2)
    assert (more.replies_reused, more.requests_sent, more.trajectories) == (5, 27, 32)


def test_samples_of_one_question_differ(tmp_path: Path) -> None:
    built("phantom", tmp_path, "sim-gpt-5-nano", studies=4, samples=3)
    texts: dict[str, set[str]] = {}
    for row in rows(tmp_path):
        texts.setdefault(row["study_id"], set()).add(row["text"])
    assert all(len(variants) == 3 for variants in texts.values())


def test_a_simulated_teacher_sees_the_image(tmp_path: Path) -> None:
    """What the best persona says about pneumothorax is right only if it was told the right image's truth."""
    from itertools import islice

    from cxr_max.builders.sources.phantom import cases

    built("phantom", tmp_path, "sim-grok-4", studies=60)
    truth = [dict(case.findings) for case in islice(cases(0), 60)]
    right = [
        (row["findings"]["Pneumothorax"] == 1)
        == ("Pneumothorax" in truth[int(row["study_id"].rpartition("-")[2])])
        for row in rows(tmp_path)
        if row["status"] == "ok" and row["findings"]["Pneumothorax"] is not None
    ]
    assert len(right) > 20 and np.mean(right) > 0.9


def test_dicom_and_jpg_give_the_same_studies(tmp_path: Path, mimic: tuple[Path, Path]) -> None:
    dicom, jpg = mimic
    one, _ = built(f"mimic-cxr:{dicom}", tmp_path / "dicom", "sim-grok-4")
    two, _ = built(f"mimic-cxr-jpg:{jpg}", tmp_path / "jpg", "sim-grok-4")
    assert one.complete and two.complete and one.studies == two.studies > 10
    same = ("study_id", "subject_id", "split", "image_ids", "teacher", "prompt_sha256")
    first, second = rows(tmp_path / "dicom"), rows(tmp_path / "jpg")
    assert [[row[name] for name in same] for row in first] == [[row[name] for name in same] for row in second]
    assert {row["rendering"] for row in first} == {"mimic_jpg-2@1024"}
    assert {row["rendering"] for row in second} == {"as_is-1@1024"}
    assert {row["split"] for row in first} == {"train", "validation", "test"}


def test_real_images(tmp_path: Path, shared: Path) -> None:
    folder, _ = built(f"folder:{shared / 'cxr'}", tmp_path / "f")
    assert folder.complete and (folder.studies, folder.trajectories) == (76, 532)
    tree, _ = built(f"mimic-cxr:{shared / 'mimic-fixture' / 'mimic-cxr' / '2.1.0'}", tmp_path / "m")
    assert tree.complete and (tree.studies, tree.trajectories) == (15, 105)


def test_rationale(tmp_path: Path, mimic: tuple[Path, Path]) -> None:
    result, watch = built(f"mimic-cxr-jpg:{mimic[1]}", tmp_path, "sim-glm-4.5v", prompt="rationale")
    found = rows(tmp_path)
    assert found and all(row["prompt_given"] == "findings" for row in found)
    read = [row for row in found if row["status"] == "ok"]
    assert read and all(row["findings"] is not None for row in read)
    assert result.gaps == len(watch.gaps) > 0 and not result.complete
    assert all("needs a reference finding" in gap.reason for gap in watch.gaps)


def test_whole_studies_in_one_prompt(tmp_path: Path, mimic: tuple[Path, Path]) -> None:
    built(f"mimic-cxr-jpg:{mimic[1]}", tmp_path, "sim-grok-4", views="study")
    numbers = Counter(len(row["image_ids"]) for row in rows(tmp_path))
    assert numbers[1] > 0 and numbers[2] > 0


def test_one_split_only(tmp_path: Path, mimic: tuple[Path, Path]) -> None:
    built(f"mimic-cxr-jpg:{mimic[1]}", tmp_path, "sim-grok-4", split="test")
    assert {row["split"] for row in rows(tmp_path)} == {"test"}
    assert [p.name for p in (tmp_path / "release" / "data" / "trajectories").iterdir()] == [
        "test-00000-of-00001.parquet"
    ]


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, Path, list[str]]:
    """Both trees with a truncated DICOM, an empty JPEG and an absent image."""
    dicom, jpg = write_mimic(tmp_path / "damaged")
    frontal = [row["image_ids"][0] for row in _planned(jpg, tmp_path / "plan")]
    for tree, suffix in ((dicom, "dcm"), (jpg, "jpg")):
        truncated, empty, absent = (next(tree.rglob(f"{name}.{suffix}*")) for name in frontal[:3])
        truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
        empty.write_bytes(b"")
        absent.unlink()
    return dicom, jpg, frontal


def _planned(jpg: Path, out: Path) -> list[dict[str, Any]]:
    built(f"mimic-cxr-jpg:{jpg}", out, "sim-grok-4")
    return rows(out)


@pytest.mark.parametrize("tree", [0, 1], ids=["dicom", "jpg"])
def test_broken_images_are_named_gaps(tmp_path: Path, damaged: tuple[Path, Path, list[str]], tree: int) -> None:
    name = ("mimic-cxr", "mimic-cxr-jpg")[tree]
    result, watch = built(f"{name}:{damaged[tree]}", tmp_path / "out", "sim-grok-4")
    frontal = damaged[2]
    assert not result.complete and (result.gaps, result.failed) == (3, 0)
    card = (tmp_path / "out" / "release" / "README.md").read_text()
    assert "3 image sets could not be asked about, and 0 requests" in card and "Credentialed data" in card
    assert {image for gap in watch.gaps for image in gap.image_ids} == set(frontal[:3])
    assert all(gap.study_id and gap.reason for gap in watch.gaps)
    assert {row["image_ids"][0] for row in rows(tmp_path / "out")} == set(frontal[3:])
    with Ledger(tmp_path / "out" / "ledger.sqlite") as ledger:
        assert len(ledger.gaps()) == 3


def test_studies_without_a_frontal_image_are_told(tmp_path: Path) -> None:
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    for name in ("one", "two"):
        Image.new("L", (64, 64), 90).save(images / f"{name}.png")
    (images / "labels.csv").write_text("file,view,patient_id\none.png,PA,1\ntwo.png,LATERAL,2\n")
    result, watch = built(f"folder:{images}", tmp_path / "out", "sim-grok-4")
    assert (result.studies, result.gaps) == (1, 0)
    assert any(text.startswith("1 studies have no image of the wanted view") for text in watch.warnings)


def test_equal_files_are_bought_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    for name in ("one", "two"):
        Image.new("L", (64, 64), 90).save(images / f"{name}.png")
    result, _ = built(f"folder:{images}", tmp_path / "out", "sim-grok-4")
    assert (result.trajectories, result.requests_sent) == (2, 1)
    assert len({row["request_sha256"] for row in rows(tmp_path / "out")}) == 1


def test_a_run_keeps_its_source(tmp_path: Path) -> None:
    built("phantom", tmp_path, "sim-grok-4", studies=2)
    with pytest.raises(RequestError, match=r"begun with source = 'phantom'.*another --out"):
        built("phantom:1", tmp_path, "sim-grok-4", studies=2)


def test_a_damaged_settings_file_is_named(tmp_path: Path) -> None:
    built("phantom", tmp_path, "sim-grok-4", studies=2)
    (tmp_path / "run.toml").write_text("x [")
    with pytest.raises(RequestError, match=r"run\.toml cannot be read"):
        built("phantom", tmp_path, "sim-grok-4", studies=2)


def test_a_run_without_its_settings_is_not_guessed_at(tmp_path: Path) -> None:
    built("phantom", tmp_path, "sim-grok-4", studies=2)
    (tmp_path / "run.toml").unlink()
    with pytest.raises(RequestError, match=r"run\.toml is missing"):
        built("phantom:9", tmp_path, "sim-grok-4", studies=2)


def test_odd_names_are_kept(tmp_path: Path) -> None:
    from PIL import Image

    images = tmp_path / 'im 😀 é "quoted"'
    images.mkdir()
    Image.new("L", (64, 64), 90).save(images / "one.png")
    for _ in range(2):
        result, _ = built(f"folder:{images}", tmp_path / "out 😀", "sim-grok-4")
    assert (result.trajectories, result.requests_sent) == (1, 0)


def test_burned_in_text_is_warned_of(tmp_path: Path) -> None:
    import pydicom

    from tests.mimic_fixture import write_mimic

    dicom, _ = write_mimic(tmp_path / "mimic")
    images = tmp_path / "images"
    images.mkdir()
    dataset = pydicom.dcmread(next(dicom.rglob("*.dcm")))
    dataset.BurnedInAnnotation = "YES"
    dataset.save_as(images / "one.dcm")
    _, watch = built(f"folder:{images}", tmp_path / "out", "sim-grok-4")
    assert any("1 of the images sent declare text burned into their pixels" in text for text in watch.warnings)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    built("phantom", tmp_path, "sim-grok-4", studies=2)
    others = [tmp_path / "release" / "data" / "trajectories" / "mine.txt", tmp_path / "release" / "data" / "mine"]
    others[0].touch()
    others[1].mkdir()
    built("phantom", tmp_path, "sim-grok-4", studies=3)
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_way_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="a file is in the way"):
        built("phantom", tmp_path / place, "sim-grok-4", studies=2)


def test_credentialed_images_reach_no_remote_teacher(
    tmp_path: Path, mimic: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(DataUseError, match=r"api\.openai\.com"):
        built(f"mimic-cxr-jpg:{mimic[1]}", tmp_path / "out", "gpt-5-nano,sim-grok-4")
    assert not (tmp_path / "out").exists()


def test_nothing_local_is_published(demo: Path, tmp_path: Path, mimic: tuple[Path, Path]) -> None:
    built(f"mimic-cxr-jpg:{mimic[1]}", tmp_path / "out", "sim-grok-4")
    for release in (demo / "release", tmp_path / "out" / "release"):
        for name, content in contents(release).items():
            assert str(tmp_path).encode() not in content and str(demo).encode() not in content, name


def readers(files: list[str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    import duckdb
    import pandas as pd
    import polars as pl

    yield "polars", [row for file in files for row in pl.read_parquet(file).to_dicts()]
    frames = [pd.read_parquet(file, dtype_backend="pyarrow") for file in files]
    yield "pandas", [row for frame in frames for row in frame.to_dict("records")]  # type: ignore[misc]
    yield "duckdb", duckdb.sql(f"SELECT * FROM read_parquet({files})").to_arrow_table().to_pylist()


def test_every_reader_reads_the_same(demo: Path) -> None:
    files = sorted(str(file) for file in (demo / "release" / "data" / "trajectories").glob("*.parquet"))
    expected = sorted(rows(demo), key=lambda row: row["trajectory_id"])
    for reader, found in readers(files):
        found.sort(key=lambda row: row["trajectory_id"])
        assert len(found) == 448, reader
        for row, other in zip(expected, found, strict=True):
            for name in ("study_id", "status", "text", "sample_index", "findings", "sides"):
                value = other[name]
                assert (dict(value) if isinstance(value, dict) else value) == row[name], (reader, name)
            assert list(other["image_ids"]) == row["image_ids"], reader


def test_datasets_caches_no_other_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cache goes by the folder's name and the front matter: a rebuilt release must not load as it was."""
    import datasets

    for studies in (3, 5):
        built("phantom", tmp_path, "sim-grok-4", studies=studies)
        for streaming in (False, True):
            loaded = datasets.load_dataset(
                str(tmp_path / "release"), "trajectories", streaming=streaming, cache_dir=str(tmp_path / "cache")
            )
            assert sum(1 for split in loaded.values() for _ in split) == studies


def test_datasets_loads_it_plain_and_streaming(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    release = str(demo / "release")
    plain = datasets.load_dataset(release, "trajectories", cache_dir=str(tmp_path))
    assert set(plain) == {"train", "validation", "test"} and sum(len(split) for split in plain.values()) == 448
    streamed = datasets.load_dataset(release, "trajectories", streaming=True, cache_dir=str(tmp_path))
    for name, split in plain.items():
        assert list(split) == list(streamed[name])
    features = plain["train"].features
    assert {features["findings"][name].dtype for name in FINDINGS} == {"int8"}
    by_id = {row["trajectory_id"]: row for row in rows(demo)}
    for row in plain["test"]:
        assert row == by_id[row["trajectory_id"]]


def test_a_split_that_the_set_does_not_have_is_refused(tmp_path: Path) -> None:
    _, jpg = write_mimic(tmp_path / "data")
    for table in jpg.glob("*-split.csv.gz"):
        frame = pd.read_csv(table, dtype=str)
        frame["split"] = "train"
        frame.to_csv(table, index=False)
    with pytest.raises(RequestError, match="No study of mimic-cxr-jpg is in the split test"):
        built(f"mimic-cxr-jpg:{jpg}", tmp_path / "run", split="test")
    assert not (tmp_path / "run" / "release").exists()
