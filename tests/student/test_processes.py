"""Several processes: the student that one would have made, one writer, and steps that are the same for all."""

import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from accelerate.commands.config.config_args import load_config_from_file
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from cxr_max.errors import RequestError
from cxr_max.student import launch
from cxr_max.student.critique import train_apo
from cxr_max.student.data import Turn, division, filled
from cxr_max.student.sft import train_sft
from tests.student.lessons import base, recipe, write_lessons

ROOT = Path(__file__).resolve().parents[2]
COMMON: dict[str, object] = {"images_per_step": 3, "epochs": 2}
"""Seven studies twice, three to a step: neither steps nor the course come out even on two processes."""


def quiet(what: str, done: int, total: int) -> None:
    pass


def settings(folder: Path, stage: str, lora: bool) -> tuple[Any, ...]:
    lessons = write_lessons(folder / "images", studies=7, preferences=stage == "apo")
    return base(folder / "base"), lessons, recipe(sft=COMMON, apo=COMMON, lora=lora)


def pair(stage: str, asked: tuple[Any, ...], folder: Path, *last: str) -> list[tuple[int, str]]:
    """Run a training in two processes, as a launcher starts them: exit code and stdout of each."""
    (folder / "asked.pickle").write_bytes(pickle.dumps(asked))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.student.child", stage, str(folder / "asked.pickle"), *last]
    started = [
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = [process.communicate(timeout=150)[0] for process in started]
    return [(process.returncode, out) for process, out in zip(started, said, strict=True)]


def history(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_same(one: Path, two: Path) -> None:
    """To the rounding of float32: sums over two processes are added in another order."""
    for a, b in zip(history(one), history(two), strict=True):
        assert a.keys() == b.keys()
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
    a, b = (load_file(next((out / "student").glob("*.safetensors"))) for out in (one, two))
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=2e-5)


def compare(tmp_path: Path, stage: str, lora: bool) -> None:
    *asked, how = settings(tmp_path, stage, lora)
    (train_sft if stage == "sft" else train_apo)(*asked, how, tmp_path / "one", data="d", watch=quiet)
    (main, told), (other, silent) = pair(stage, (*asked, how, tmp_path / "two"), tmp_path)
    assert (main, other) == (0, 0)
    assert "Training 5 5" in told and "Training" not in silent
    assert json.loads(told.splitlines()[-1])["metrics"] == json.loads(silent.splitlines()[-1])["metrics"]
    assert_same(tmp_path / "one", tmp_path / "two")
    assert not list((tmp_path / "two").rglob("*.partial"))


def test_two_processes_make_the_student_that_one_makes(tmp_path: Path) -> None:
    compare(tmp_path, "apo", lora=False)


@pytest.mark.slow
@pytest.mark.parametrize("stage, lora", [("sft", False), ("sft", True), ("apo", True)])
def test_two_processes_make_the_student_that_one_makes_in_both_stages(
    tmp_path: Path, stage: str, lora: bool
) -> None:
    compare(tmp_path, stage, lora)


@pytest.mark.slow
@pytest.mark.parametrize("stage, then", [("sft", 2), ("apo", 2), ("apo", 1)])
def test_two_processes_that_are_killed_go_on_as_two_or_as_one(tmp_path: Path, stage: str, then: int) -> None:
    train = train_sft if stage == "sft" else train_apo
    *asked, how = settings(tmp_path, stage, lora=stage == "apo")
    train(*asked, how, tmp_path / "whole", data="d", watch=quiet)
    cut = (*asked, how, tmp_path / "cut")
    (killed, _), (other, _) = pair(stage, cut, tmp_path, "3")
    assert killed == -signal.SIGKILL and other != 0
    assert not (tmp_path / "cut" / "student").exists()
    if then == 2:
        (main, told), (other, _) = pair(stage, cut, tmp_path)
        assert (main, other) == (0, 0) and "Training 3 5" in told and "Training 2 5" not in told
    else:
        train(*cut, data="d", watch=quiet)
    assert_same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_accelerate_launches_the_command(tmp_path: Path) -> None:
    """As the README says, on a small build; the file of settings for GPUs starts processes on a CPU too."""

    def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=170, check=True
        )

    build = str(tmp_path / "build")
    cli("cxr_max", "build", "--recipe", "demo", "--studies", "4", "--out", build)
    cli("cxr_max", "consensus", build)
    printed = cli("cxr_max.student.launch", "ddp").stdout.strip()
    launcher = ["accelerate.commands.launch", "--config_file", printed, "--num_processes", "2"]
    train = [*launcher, "--main_process_port", "0", "-m", "cxr_max", "train"]
    short = tmp_path / "short.toml"
    shipped = (ROOT / "cxr_max" / "student" / "recipes" / "tiny.toml").read_text()
    short.write_text(re.sub(r"^epochs = \d+", "epochs = 1", shipped, flags=re.MULTILINE))
    student = "tiny"
    for stage in ("sft", "apo"):
        out = tmp_path / stage
        done = cli(
            *train,
            stage,
            "--release",
            build,
            "--base",
            student,
            "--recipe",
            str(short),
            "--out",
            str(out),
            "--json",
        )
        (line,) = done.stdout.splitlines()
        student = json.loads(line)["checkpoint"]
        assert student == str(out / "student") and (out / "student" / "model.safetensors").exists()
        assert str(tmp_path) not in (out / "student" / "README.md").read_text()


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 16))
def test_a_step_is_divided_into_as_few_and_even_passes_as_may_be(step: int, most: int, processes: int) -> None:
    passes, each = division(step, most, processes)
    assert each <= most and passes * each * processes >= step
    assert (passes - 1) * most * processes < step
    assert passes * (each - 1) * processes < step


@given(st.integers(1, 50), st.integers(1, 8), st.integers(1, 3), st.integers(1, 4))
def test_every_process_has_as_many_passes_and_every_step_the_same_turns(
    count: int, step: int, most: int, processes: int
) -> None:
    turns = [Turn(index, (0,)) for index in range(count)]
    passes, each = division(step, most, processes)
    dealt = filled(turns, step, each * processes)
    assert [turn for turn in dealt if not turn.idle] == turns
    assert len(dealt) % (each * processes) == 0
    slots = passes * each * processes
    steps = [dealt[start : start + slots] for start in range(0, len(dealt), slots)]
    assert [sum(not turn.idle for turn in these) for these in steps] == [
        min(step, count - start) for start in range(0, count, step)
    ]


@pytest.mark.parametrize("stage", ["sft", "apo"])
def test_idle_turns_change_nothing(tmp_path: Path, stage: str) -> None:
    """Three image sets in two passes of two: one place is idle."""
    train = train_sft if stage == "sft" else train_apo
    model, lessons, _ = settings(tmp_path, stage, lora=False)
    for name, per_pass in (("one", 1), ("two", 2)):
        how = {**COMMON, "images_per_pass": per_pass}
        train(model, lessons, recipe(sft=how, apo=how), tmp_path / name, data="d", watch=quiet)
    assert_same(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("name, kind", [("ddp", "MULTI_GPU"), ("fsdp", "FSDP"), ("zero2", "DEEPSPEED")])
def test_the_shipped_configurations_are_accelerates(name: str, kind: str) -> None:
    found = load_config_from_file(str(launch.config(name)))
    assert found.distributed_type.value == kind and found.mixed_precision == "no"


def test_an_unknown_configuration_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["ddp"]) == 0 and capsys.readouterr().out.endswith("ddp.yaml\n")
    assert launch.main(["zero9"]) == 2 and "choose ddp, fsdp or zero2" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_sharding_without_a_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """accelerate would go on without it, and say nothing."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    with pytest.raises(RequestError, match="launch with ddp"):
        train_sft("nowhere", [], recipe(), tmp_path / "o", data="d", watch=quiet)


@pytest.mark.parametrize("file, kind", [("pytorch_model_fsdp.bin", "FSDP"), ("global_step2", "DeepSpeed")])
def test_another_launchers_checkpoint_is_refused(tmp_path: Path, file: str, kind: str) -> None:
    asked = (*settings(tmp_path, "sft", lora=False), tmp_path / "o")
    train_sft(*asked, data="d", watch=quiet)
    for checkpoint in (tmp_path / "o" / "checkpoints").iterdir():
        (checkpoint / file).touch()
    with pytest.raises(RequestError, match=f"written under {kind}.*as it was begun"):
        train_sft(*asked, data="d", watch=quiet)
