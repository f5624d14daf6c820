"""A second build of the same images decodes nothing, and sends the same bytes."""

from pathlib import Path

import pytest

from cxr_max import image_cache
from cxr_max.builders.build import BuildRequest, build
from tests.builders.test_build import Quiet
from tests.mimic_fixture import write_mimic


def test_a_second_build_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CXR_MAX_CACHE_GB", "1")
    dicom, _ = write_mimic(tmp_path / "mimic")

    def built(name: str) -> dict[str, bytes]:
        out = tmp_path / name
        request = BuildRequest(source=f"mimic-cxr:{dicom}", teachers="sim-grok-4", out=out)
        assert build(request, Quiet()).complete
        return {path.name: path.read_bytes() for path in (out / "release").rglob("*.parquet")}

    first = built("one")
    assert list((tmp_path / "cache").rglob("*.image"))

    def refuse(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(image_cache, "encode", refuse)
    second = built("two")
    assert first.keys() == second.keys() and len(first) >= 1
    assert _images(tmp_path / "one") == _images(tmp_path / "two")


def _images(out: Path) -> list[tuple[str, str]]:
    import pyarrow.parquet as pq

    table = pq.read_table(next((out / "release" / "data" / "trajectories").glob("train*.parquet")))
    return [(row["study_id"], str(row["image_sha256"])) for row in table.to_pylist()]
