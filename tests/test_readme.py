"""Every command and every piece of code that the README shows is run.

The network is off, so the services are played by the simulator and the data sets by a fixture; the commands stay
as they are printed, but for the paths of the data and a roster file that says where the services are.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from cxr_max.builders.sources.mimic_cxr import MimicCxr
from cxr_max.builders.sources.mimic_cxr_jpg import MimicCxrJpg
from cxr_max.radiograph import encode
from cxr_max.teachers.simulator import Simulator, Truth
from tests.mimic_fixture import write_mimic

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The lines of the ``sh`` blocks, continued lines joined."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder in which the README's paths exist, and a simulator behind its teachers."""
    folder = tmp_path_factory.mktemp("readme")
    write_mimic(folder / "data")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "cxr-max").symlink_to(Path(sys.executable).with_name("cxr-max"))
    with Simulator() as simulator:
        teach(simulator, folder / "data")
        write_attestation(folder)
        write_rosters(folder, simulator.address)
        yield folder, {"OPENAI_API_KEY": "key-a", "ANTHROPIC_API_KEY": "key-b"}


def teach(simulator: Simulator, data: Path) -> None:
    for source, rendering in (
        (MimicCxrJpg(data / "mimic-cxr-jpg" / "2.1.0"), "mimic_jpg"),
        (MimicCxr(data / "mimic-cxr" / "2.1.0"), "voi"),
    ):
        for study in source.studies():
            truth = Truth(study.reference_findings, study.reference_sides, None)
            for image in study.radiographs:
                simulator.learn(encode(image.path, rendering, 1024).sha256, truth)  # type: ignore[arg-type]


def write_attestation(folder: Path) -> None:
    """As printed, but for the dates, which must not decide when this test starts to fail."""
    (text,) = (block for block in blocks("toml") if "[[attestation]]" in block)
    today = date.today()
    text = re.sub(r"^date = \S+", f"date = {today - timedelta(days=9)}", text, flags=re.MULTILINE)
    text = re.sub(r"^expiry = \S+", f"expiry = {today + timedelta(days=9)}", text, flags=re.MULTILINE)
    (folder / "attestation.toml").write_text(text)


def write_rosters(folder: Path, address: str) -> None:
    (printed,) = (block for block in blocks("toml") if "[qwen-local]" in block)
    local = printed.replace("http://127.0.0.1:8000/v1", f"{address}/openai/v1")
    (folder / "my-teachers.toml").write_text(local.replace("Qwen/Qwen2.5-VL-7B-Instruct", "sim-qwen-vl-max"))
    (folder / "services.toml").write_text(
        f'[gpt-5-nano]\nmodel = "sim-gpt-5-nano"\nendpoint = "{address}/openai/v1"\n'
        f'[claude-sonnet-4]\nmodel = "sim-claude-sonnet-4"\nendpoint = "{address}/anthropic"\n'
    )


def run(command: str, folder: Path, **environment: str) -> str:
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_the_readme_shows_commands() -> None:
    assert commands()[:2] == ["make build-cxrmax", "make test"] and len(commands()) == 16


def test_the_first_command_and_the_python_after_it(tmp_path: Path) -> None:
    """With the installation that runs this test: what is installed is the packager's test, below."""
    marks = prepared(tmp_path / "venv")
    out = tmp_path / "build" / "cxr-max"
    said = run(f"{commands()[0]} VENV={marks} OUT={out}", ROOT)
    assert "448 trajectories of 64 studies" in said and "no model answers" in said
    printed = run(
        f"{sys.executable} - <<'EOF'\n{blocks('python')[0]}\nEOF", tmp_path, HF_HOME=str(tmp_path / "hf")
    )
    assert "sim-" in printed and "ANSWER" in printed
    consensus, drift = (line.replace(".venv/bin/cxr-max", f"{marks}/bin/cxr-max") for line in commands()[7:9])
    assert "64 consensus rows" in run(consensus, tmp_path)
    run(drift, tmp_path)
    assert (tmp_path / "build" / "drift" / "index.html").exists()
    evaluate, verify, export = (
        commands()[at].replace(".venv/bin/cxr-max", f"{marks}/bin/cxr-max") for at in (11, 14, 15)
    )
    assert "balanced accuracy" in run(evaluate, tmp_path)
    assert "clean" in run(verify, tmp_path)
    run(export, tmp_path)
    assert len(list((tmp_path / "build" / "swift").glob("*.jsonl"))) == 7
    shown = run(f"{sys.executable} - <<'EOF'\n{blocks('python')[2]}\nEOF", tmp_path, HF_HOME=str(tmp_path / "hf"))
    assert "(256, 256)" in shown


@pytest.mark.timeout(900)
def test_the_student_learns_from_a_small_build_of_the_same_kind(tmp_path: Path) -> None:
    """The commands as printed, but for a recipe of one epoch: the demo's 64 studies would take minutes."""
    pytest.importorskip("torch")
    marks = prepared(tmp_path / "venv")
    out = tmp_path / "build" / "cxr-max"
    run(f"{commands()[0]} VENV={marks} STUDIES=18 OUT={out}", ROOT)
    consensus, sft, apo, teacher, student, leaderboard = (
        line.replace(".venv/bin/cxr-max", f"{marks}/bin/cxr-max") for line in (commands()[7], *commands()[9:14])
    )
    run(consensus, tmp_path)
    tiny = (ROOT / "cxr_max" / "student" / "recipes" / "tiny.toml").read_text("utf-8")
    (tmp_path / "short.toml").write_text(re.sub(r"(?m)^epochs = \d+", "epochs = 1", tiny))
    assert "build/sft/student after" in run(f"{sft} --recipe short.toml", tmp_path)
    assert "build/apo/student after" in run(apo.replace("--recipe tiny", "--recipe short.toml"), tmp_path)
    assert (tmp_path / "build" / "apo" / "student" / "config.json").exists()
    run(teacher, tmp_path)
    assert "image gain" in run(student, tmp_path)
    assert "2 entries on 1 boards" in run(leaderboard, tmp_path)
    assert (tmp_path / "build" / "site" / "index.html").exists()


def test_the_python_about_the_labeler() -> None:
    exec(blocks("python")[1])


def test_the_second_command(tmp_path: Path) -> None:
    """On one quick file: running all tests from a test would not end."""
    said = run(f"{commands()[1]} VENV={prepared(tmp_path / 'venv')} ARGS='tests/test_findings.py -q'", ROOT)
    assert " passed" in said


def prepared(venv: Path) -> Path:
    """A folder that make takes for a finished installation: the one that runs this test."""
    (venv / "bin").mkdir(parents=True)
    for name in ("python", "cxr-max"):
        script = venv / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{Path(sys.executable).with_name(name)}" "$@"\n')
        script.chmod(0o755)
    for mark in (".base", ".dev"):
        (venv / mark).touch()
    return venv


def test_the_real_example(world: tuple[Path, dict[str, str]]) -> None:
    folder, keys = world
    export, teachers, build, status = commands()[2:6]
    assert export.startswith("export OPENAI_API_KEY=")
    assert "OPENAI_API_KEY set" in run(f"{export}; {teachers}", folder)
    build = build.replace("/data/", f"{folder}/data/") + " --roster services.toml"
    said = run(build, folder, **keys)
    assert " 0 failed, 0 gaps" in said and (folder / "runs" / "mimic" / "release" / "manifest.json").exists()
    assert "release sealed" in run(status, folder)


def test_the_local_example(world: tuple[Path, dict[str, str]]) -> None:
    folder, _ = world
    said = run(commands()[6].replace("/data/", f"{folder}/data/"), folder)
    assert " 0 failed, 0 gaps" in said


def test_the_wheel_holds_every_module_roster_and_prompt(tmp_path: Path) -> None:
    """Built from a copy, so that nothing of this test stays in the tree."""
    import zipfile

    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__", ".*_cache", "runs")
    shutil.copytree(ROOT, tree, symlinks=True, ignore=ignored)
    run(f"{sys.executable} -m build --no-isolation --outdir {tmp_path} {tree}", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("cxr_max", "teachers", "builders", "eval", "data_cards"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".toml", ".md", ".html"} and not path.is_symlink():
                name = path.relative_to(ROOT).as_posix()
                parts = name.split("/")
                if parts[0] == "cxr_max" and parts[1] in {"teachers", "builders", "eval", "data_cards"}:
                    continue
                assert (name if parts[0] == "cxr_max" else f"cxr_max/{name}") in inside
    assert not any(name.split("/")[0] in {"teachers", "builders", "eval", "tests"} for name in inside)
