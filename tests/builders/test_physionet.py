"""The folder for PhysioNet: what is in it, what is not, and who may make one."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import cxr_max
from cxr_max.builders.consensus import fill
from cxr_max.builders.physionet import package
from cxr_max.errors import DataUseError, RequestError
from cxr_max.shards import sha256_of
from tests.builders.test_build import built
from tests.mimic_fixture import EXAMS, write_mimic


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mimic")
    _, jpg = write_mimic(folder)
    built(f"mimic-cxr-jpg:{jpg}", folder / "run", "sim-grok-4,sim-gpt-5-nano")
    fill(folder / "run" / "release", weighting="equal", quorum=1)
    return folder / "run" / "release"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_folder_holds_what_a_submission_needs_and_nothing_else(sealed: Path, tmp_path: Path) -> None:
    done = package(sealed, tmp_path / "pkg")
    found = contents(tmp_path / "pkg")
    shards = {name for name in contents(sealed) if name.endswith(".parquet")}
    assert (
        set(found) == {"README.md", "LICENSE.txt", "SHA256SUMS.txt", "manifest.json", *shards} == set(done.files)
    )
    subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS.txt"], cwd=tmp_path / "pkg", check=True)
    summed = {line.split("  ")[1] for line in found["SHA256SUMS.txt"].decode().splitlines()}
    assert summed == set(found) - {"SHA256SUMS.txt"}
    everything = b"".join(content for name, content in found.items() if not name.endswith(".parquet"))
    for private in (str(sealed.parents[1]), "/tmp", "ledger", "run.toml", "\xff\xd8\xff"):
        assert private.encode("latin-1") not in everything
    assert not any(exam.findings.encode() in everything for exam in EXAMS)


def test_the_readme_has_every_section_and_numbers_of_the_manifest(sealed: Path, tmp_path: Path) -> None:
    package(sealed, tmp_path / "pkg")
    readme = (tmp_path / "pkg" / "README.md").read_text()
    sections = [line[3:] for line in readme.splitlines() if line.startswith("## ")]
    assert sections == [
        "Abstract", "Background", "Methods", "Data Description", "Usage Notes", "Release Notes", "Ethics",
        "Acknowledgements", "Conflicts of Interest", "References",
    ]  # fmt: skip
    title = next(line for line in readme.splitlines() if line.startswith("# "))
    assert "MIMIC-CXR-Ext" in title and "simulated" in title
    counts = json.loads((sealed / "manifest.json").read_text())["counts"]["trajectories"]
    assert f"{counts['rows']:,} reasoning trajectories" in readme and "$" not in readme
    assert "ANSWER" in readme and "10.13026/jsn5-t979" in readme
    assert "Credentialed Health Data License" in (tmp_path / "pkg" / "LICENSE.txt").read_text()


def test_it_loads_as_the_release_does(sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    package(sealed, tmp_path / "pkg")
    jpg = sealed.parents[1] / "mimic-cxr-jpg"
    for config in ("trajectories", "preferences"):
        ours = cxr_max.load(sealed, config, split="train")
        theirs = cxr_max.load(tmp_path / "pkg", config, split="train", images=jpg)
        assert theirs.remove_columns("images").to_list() == ours.to_list() and theirs[0]["images"]


def test_the_same_release_gives_the_same_folder(sealed: Path, tmp_path: Path) -> None:
    package(sealed, tmp_path / "one")
    first = contents(tmp_path / "one")
    package(sealed, tmp_path / "one")
    assert contents(tmp_path / "one") == first


def test_open_data_is_sent_to_the_hub_instead(tmp_path: Path) -> None:
    built("phantom", tmp_path, "sim-grok-4", studies=2)
    with pytest.raises(DataUseError, match="cxr-max push"):
        package(tmp_path / "release", tmp_path / "pkg")
    assert not (tmp_path / "pkg").exists()


def test_a_stranger_in_the_folder_is_refused(sealed: Path, tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "patients.csv").write_text("x")
    with pytest.raises(RequestError, match=r"holds patients\.csv"):
        package(sealed, tmp_path / "pkg")


def test_what_concerns_the_authors_alone_stays_with_them(sealed: Path, tmp_path: Path) -> None:
    release = spoilt(sealed, tmp_path, lambda said: said["settings"].update(
        attestation=[{"provider": "api.openai.com", "account": "org-secret", "date": "2026-01-01"}]))  # fmt: skip
    package(release, tmp_path / "pkg")
    manifest = (tmp_path / "pkg" / "manifest.json").read_text()
    assert "org-secret" not in manifest and "api.openai.com" in manifest


def test_a_local_path_is_refused(sealed: Path, tmp_path: Path) -> None:
    release = spoilt(sealed, tmp_path, lambda said: said["settings"].update(roster=["/home/jane/roster.toml"]))
    with pytest.raises(RequestError, match="names a path of this machine"):
        package(release, tmp_path / "pkg")
    assert not (tmp_path / "pkg").exists()


def spoilt(sealed: Path, folder: Path, change: Any) -> Path:
    release = folder / "release"
    shutil.copytree(sealed, release)
    said = json.loads((release / "manifest.json").read_text())
    change(said)
    (release / "manifest.json").write_text(json.dumps(said))
    return release


def test_replies_to_prompts_that_gave_the_report_are_refused(sealed: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = "data/trajectories/test-00000-of-00001.parquet"

    def change(said: dict[str, Any]) -> None:
        path = tmp_path / "release" / name
        table = pq.read_table(path)
        given = pa.array(["report"] * len(table))
        index = table.column_names.index("prompt_given")
        pq.write_table(table.set_column(index, "prompt_given", given), path)
        said["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}

    with pytest.raises(DataUseError, match="gave the report"):
        package(spoilt(sealed, tmp_path, change), tmp_path / "pkg")
