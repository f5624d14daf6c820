"""A release loaded with the user's own images: found, checked and rendered row by row, and fed to what trains."""

import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import cxr_max
from cxr_max import radiograph
from cxr_max.builders import image_column, loading
from cxr_max.builders.consensus import fill
from cxr_max.builders.pixels import open_pixels
from cxr_max.builders.sources.copies import Copy, open_copy
from cxr_max.builders.sources.registry import open_source
from cxr_max.errors import ImageError, RequestError
from cxr_max.schemas import read_trajectories
from tests.builders.test_build import built
from tests.mimic_fixture import copy_mimic, write_mimic
from tests.source_fixtures import chestxray14

TWO = "sim-grok-4,sim-gpt-5-nano"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of ``datasets`` goes to the user's cache, and everything is said again in every test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    image_column._say.cache_clear()
    yield


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight studies: train and validation; with consensus and preferences."""
    out = tmp_path_factory.mktemp("phantoms")
    built("phantom", out, TWO, studies=8)
    fill(out / "release", weighting="equal", quorum=1)
    return out / "release"


@pytest.fixture(scope="module")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_mimic(tmp_path_factory.mktemp("mimic"))


@pytest.fixture(scope="module")
def jpg_release(mimic: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("jpg")
    built(f"mimic-cxr-jpg:{mimic[1]}", out, "sim-grok-4")
    return out / "release"


@pytest.fixture(scope="module")
def dicom_release(mimic: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dicom")
    built(f"mimic-cxr:{mimic[0]}", out, "sim-grok-4", views="study")
    return out / "release"


def sent(release: Path, split: str) -> list[list[tuple[int, int]]]:
    """The sizes of the pictures of every trajectory, found by the way that training takes."""
    pixels = open_pixels(release)
    return [
        [(image.width, image.height) for image in pixels.encoded(row)] for row in read_trajectories(release, split)
    ]


def sizes(rows: Any) -> list[list[tuple[int, int]]]:
    return [[picture.size for picture in row["images"]] for row in rows]


@pytest.mark.parametrize("streaming", [False, True])
def test_pictures_are_those_that_the_teachers_were_sent(phantoms: Path, streaming: bool) -> None:
    import numpy as np
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", image_column.PictureWarning)
        loaded = cxr_max.load(phantoms, split="train", images="phantom", streaming=streaming)
        rows = list(loaded)
    trajectories = list(read_trajectories(phantoms, "train"))
    pixels = open_pixels(phantoms)
    assert [row["trajectory_id"] for row in rows] == [one.trajectory_id for one in trajectories]
    for row, trajectory in zip(rows, trajectories, strict=True):
        (expected,) = pixels.encoded(trajectory)
        assert sha256(expected.jpeg).hexdigest() == row["image_sha256"][0]
        (picture,) = row["images"]
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), np.asarray(Image.open(BytesIO(expected.jpeg))))


def test_without_images_there_is_only_text(phantoms: Path) -> None:
    loaded = cxr_max.load(phantoms.parent)
    assert set(loaded) == {"train", "validation"} and "images" not in loaded["train"].column_names


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("config", ["consensus", "preferences"])
def test_configs_that_name_no_file_find_their_pictures(phantoms: Path, config: str, streaming: bool) -> None:
    loaded = cxr_max.load(phantoms, config, images="phantom", streaming=streaming)
    for part in loaded.values():
        rows = list(part)
        assert rows and sizes(rows) == [[(256, 256)]] * len(rows)


@pytest.mark.parametrize("streaming", [False, True])
def test_dicom_and_several_images_a_row(dicom_release: Path, mimic: tuple[Path, Path], streaming: bool) -> None:
    loaded = cxr_max.load(dicom_release, split="train", images=f"mimic-cxr:{mimic[0]}", streaming=streaming)
    found = sizes(loaded)
    assert found == sent(dicom_release, "train") and {len(row) for row in found} == {1, 2}


def test_a_bare_folder_without_any_table_does(jpg_release: Path, mimic: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(mimic[1] / "files", tmp_path / "2.1.0" / "files")
    for images in (tmp_path, tmp_path / "2.1.0", str(tmp_path)):
        assert sizes(cxr_max.load(jpg_release, split="test", images=images)) == sent(jpg_release, "test")


def test_nothing_is_looked_for_before_a_row_is_looked_at(
    jpg_release: Path, mimic: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> Path:
        raise AssertionError("an image was looked for")

    monkeypatch.setattr(Copy, "find", forbidden)
    for streaming in (False, True):
        cxr_max.load(jpg_release, images=mimic[1], streaming=streaming)


def test_every_source_keeps_its_images_where_a_copy_looks(mimic: tuple[Path, Path], tmp_path: Path) -> None:
    """The short way and the way through the tables end at the same files."""
    (tmp_path / "images" / "a").mkdir(parents=True)
    shutil.copy(next(mimic[1].rglob("*.jpg")), tmp_path / "images" / "a" / "one.jpg")
    for spec in (f"mimic-cxr:{mimic[0]}", f"mimic-cxr-jpg:{mimic[1]}", f"folder:{tmp_path / 'images'}"):
        copy = open_copy(spec, spec.partition(":")[0])
        studies = list(open_source(spec, workspace=tmp_path).studies())
        for study in studies:
            for image in study.radiographs:
                found = copy.find(subject_id=study.subject_id, study_id=study.study_id, image_id=image.image_id)
                assert found.samefile(image.path)
        assert studies


def test_phantoms_are_found_by_their_identifier(tmp_path: Path) -> None:
    from itertools import islice

    from cxr_max.builders.sources.phantom import PhantomSource

    there = PhantomSource(3, directory=tmp_path / "a")
    for study in islice(there.studies(), 5):
        again = PhantomSource(directory=tmp_path / "b").study(study.study_id)
        assert again.radiographs[0].path.read_bytes() == study.radiographs[0].path.read_bytes()
        assert (again.subject_id, again.split) == (study.subject_id, study.split)


def test_a_missing_or_other_file_is_named(jpg_release: Path, mimic: tuple[Path, Path], tmp_path: Path) -> None:
    _, jpg = copy_mimic(mimic, tmp_path)
    loaded = cxr_max.load(jpg_release, split="test", images=jpg)
    assert len(loaded) > 1
    image = loaded["image_ids"][0][0]
    (path,) = jpg.rglob(f"{image}.jpg")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ImageError, match=rf"Image {image} of study \d+: .*not the file that the teachers saw"):
        loaded[0]
    path.unlink()
    with pytest.raises(ImageError, match=rf"Image {image} of study \d+ is not in "):
        loaded[0]
    assert loaded[1]["images"], "the other rows stand"


def test_an_identifier_never_leaves_the_copy(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    copy = open_copy(tmp_path / "copy", "folder")
    for image_id in ("../secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(ImageError, match="is not in"):
            copy.find(subject_id="s", study_id="s", image_id=image_id)
    (tmp_path / "copy" / "files").mkdir()
    mimic = open_copy(tmp_path / "copy", "mimic-cxr-jpg")
    for ids in (("../..", "1", "secret"), ("1", "1", "../secret"), ("", "", "")):
        with pytest.raises(ImageError, match="is not in"):
            mimic.find(**dict(zip(("subject_id", "study_id", "image_id"), ids, strict=True)))


def test_another_version_of_the_rendering_is_said_once(phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(radiograph.VERSIONS, "as_is", 9)
    loaded = cxr_max.load(phantoms, split="train", images="phantom")
    with pytest.warns(image_column.PictureWarning, match="The teachers saw as_is-1.*renders as_is-9") as said:
        assert loaded[0]["images"] and loaded[1]["images"]
    assert len(said) == 1


def test_other_bytes_of_the_same_rendering_are_said(phantoms: Path) -> None:
    reference = loading._of_row(cxr_max.load(phantoms, split="train")[0])[0]
    feature = image_column.Radiographs("phantom", ".")
    with pytest.warns(image_column.PictureWarning, match="Other bytes"):
        feature.decode_example([{**reference, "image_sha256": "0" * 64}])
    with pytest.warns(image_column.PictureWarning, match="no hash"):
        feature.decode_example([{**reference, "source_sha256": None, "rendering": None, "image_sha256": None}])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"config": "answers"}, "no config 'answers': choose one of consensus, preferences, trajectories"),
    ({"split": "test"}, "no rows of the split test"),
    ({"images": "mimic-cxr:/data"}, "is of phantom, and images names mimic-cxr"),
    ({"path_or_repo": "no-such-folder"}, "neither the folder of a release nor a repository"),
    ({"path_or_repo": "org/name"}, "HF_TOKEN|cannot be reached"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[next(iter(change)) for change, _ in WRONG])
def test_a_wrong_request_is_one_sentence(phantoms: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        cxr_max.load(**{"path_or_repo": phantoms, **change})


def test_an_unfinished_release_and_one_of_the_future_are_refused(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, tmp_path / "release")
    manifest = tmp_path / "release" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(RequestError, match="release schema 99"):
        cxr_max.load(tmp_path / "release")
    manifest.unlink()
    with pytest.raises(RequestError, match="no sealed release"):
        cxr_max.load(tmp_path / "release")


def test_a_folder_that_is_none_is_refused(jpg_release: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not a folder"):
        cxr_max.load(jpg_release, images=tmp_path / "nowhere")


def test_what_people_do_with_data_sets_works(phantoms: Path, tmp_path: Path) -> None:
    import datasets

    loaded = cxr_max.load(phantoms, split="train", images="phantom")
    changed = (
        loaded.map(lambda row: {"side": len(row["text"])})
        .filter(lambda row: row["status"] == "ok")
        .shuffle(seed=1)
        .select_columns(["images", "side"])
    )
    assert changed[0]["side"] > 0 and changed[-1]["images"][0].size == (256, 256)
    again = pickle.loads(pickle.dumps(loaded))
    assert sizes([again[0]]) == [[(256, 256)]]
    loaded.save_to_disk(tmp_path / "saved")
    assert sizes([datasets.load_from_disk(str(tmp_path / "saved"))[0]]) == [[(256, 256)]]
    with pytest.raises(RequestError, match="never pictures"):
        loaded.features["images"].encode_example(loaded[0]["images"])


def test_what_people_do_with_streams_works(phantoms: Path) -> None:
    stream = cxr_max.load(phantoms, split="train", images="phantom", streaming=True)
    changed = (
        stream.map(lambda row: {"side": row["images"][0].size[0]}).filter(lambda row: row["side"] == 256).take(3)
    )
    assert [row["side"] for row in changed] == [256] * 3
    again = pickle.loads(pickle.dumps(stream))
    assert sizes(again.shuffle(seed=1, buffer_size=4).take(2)) == [[(256, 256)]] * 2


def _collate(rows: list[dict[str, Any]]) -> list[tuple[str, tuple[int, int]]]:
    return [(row["trajectory_id"], row["images"][0].size) for row in rows]


@pytest.mark.parametrize("streaming", [False, True])
def test_workers_find_the_pictures_too(phantoms: Path, streaming: bool) -> None:
    from torch.utils.data import DataLoader

    loaded = cxr_max.load(phantoms, split="train", images="phantom", streaming=streaming)
    batches = DataLoader(loaded, batch_size=3, num_workers=2, collate_fn=_collate)
    seen = [row for batch in batches for row in batch]
    expected = [one.trajectory_id for one in read_trajectories(phantoms, "train")]
    assert sorted(name for name, _ in seen) == sorted(expected) and {size for _, size in seen} == {(256, 256)}


@pytest.mark.parametrize("streaming", [False, True])
def test_torch_gets_tensors(phantoms: Path, streaming: bool) -> None:
    import torch

    loaded = cxr_max.load(phantoms, "preferences", split="train", images="phantom", streaming=streaming)
    row = next(iter(loaded.with_format("torch")))
    picture = row["images"][0]
    assert isinstance(picture, torch.Tensor) and picture.dtype == torch.uint8 and picture.shape == (1, 256, 256)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_student_processor_takes_a_row(phantoms: Path, streaming: bool, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    from cxr_max.student.tiny import write_tiny

    write_tiny(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    row = next(iter(cxr_max.load(phantoms, split="train", images="phantom", streaming=streaming)))
    ready = processor(images=row["images"], return_tensors="pt")
    assert ready["pixel_values"].ndim == 2 and ready["image_grid_thw"].shape == (1, 3)


def test_importing_the_package_loads_nothing() -> None:
    program = (
        "import cxr_max, sys; cxr_max.load; print({'datasets', 'pyarrow', 'numpy', 'PIL'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert printed.stdout == "set()\n"


def test_pictures_of_a_set_that_is_found_by_its_tables(tmp_path: Path) -> None:
    root = tmp_path / "nih"
    chestxray14.write(root)
    built(f"chestxray14:{root}", tmp_path / "run", "sim-grok-4")
    rows = cxr_max.load(tmp_path / "run" / "release", images=f"chestxray14:{root}")
    shown = [row for split in rows.values() for row in split]
    assert shown and all(row["images"][0].size[0] > 0 for row in shown)
