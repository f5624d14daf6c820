"""push, package, import and export as commands: exit codes, one sentence, one object."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.test_build import built
from tests.cli.test_cli import call
from tests.hub import serving_hub

TOKEN = "hf_aVerySecretTokenThatNobodyMaySee"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    built("phantom", out, "sim-grok-4", studies=4)
    return out


def command(home: Path, hub: str, *arguments: object, token: str = TOKEN) -> "subprocess.CompletedProcess[str]":
    """A process of its own, whose Hub is the stand-in."""
    told = {"HF_ENDPOINT": hub, "HF_TOKEN": token, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | told
    program = [sys.executable, *map(str, arguments)]
    return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60)


def test_push_says_where_the_release_is_and_never_the_token(run: Path, tmp_path: Path) -> None:
    with serving_hub() as hub:
        pushed = command(
            tmp_path, hub.address, "-m", "cxr_max", "push", run, "--repo", "lab/demo", "--tag", "v1.0", "--json"
        )
        result = json.loads(pushed.stdout)
        assert pushed.returncode == 0 and result["url"] == f"{hub.address}/datasets/lab/demo"
        assert "Simulated teachers" in pushed.stderr
        # The client's first request is its own affair, and asks for nothing of ours.
        hub.fail_at = len(hub.seen) + 2
        again = command(tmp_path, hub.address, "-m", "cxr_max", "push", run, "--repo", "lab/demo")
        assert again.returncode == 3 and "same command again" in again.stderr and again.stderr.count("\n") == 1
        hub.fail_at, hub.status = len(hub.seen) + 3, 403
        refused = command(tmp_path, hub.address, "-m", "cxr_max", "push", run, "--repo", "lab/demo")
        assert refused.returncode == 2 and "does not let this token write" in refused.stderr
        for said in (pushed, again, refused):
            assert TOKEN not in said.stdout + said.stderr
        sent = len(hub.seen)
        nobody = command(tmp_path, hub.address, "-m", "cxr_max", "push", run, "--repo", "lab/demo", token="")
        assert nobody.returncode == 2 and "hf auth login" in nobody.stderr and len(hub.seen) == sent
    gone = command(tmp_path, hub.address, "-m", "cxr_max", "push", run, "--repo", "lab/demo")
    assert gone.returncode == 3 and "connection to the Hub broke" in gone.stderr and "Traceback" not in gone.stderr


LOADING = """
import cxr_max, sys
for streaming in (False, True):
    rows = cxr_max.load("lab/demo", split="train", images="phantom", streaming=streaming, revision="v1.0")
    row = next(iter(rows))
    print(row["teacher"], row["images"][0].size)
"""


def test_a_release_is_loaded_from_where_it_was_pushed(run: Path, tmp_path: Path) -> None:
    with serving_hub() as hub:
        assert not command(
            tmp_path, hub.address, "-m", "cxr_max", "push", run, "--repo", "lab/demo", "--tag", "v1.0"
        ).returncode
        loaded = command(tmp_path, hub.address, "-c", LOADING)
        assert loaded.stdout == "sim-grok-4 (256, 256)\n" * 2, loaded.stderr


def test_import_and_export_tell_what_they_did(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run: Path, tmp_path: Path
) -> None:
    code, printed, _ = call(
        capsys, monkeypatch, "export", run, "--form", "ms-swift", "--out", tmp_path / "swift", "--json"
    )
    assert code == 0 and json.loads(printed)["files"] == {"sim-grok-4.jsonl": 4}
    code, printed, _ = call(
        capsys, monkeypatch, "import", "--teacher", f"grok={tmp_path / 'swift' / 'sim-grok-4.jsonl'}",
        "--source", "phantom", "--out", tmp_path / "ours", "--json",
    )  # fmt: skip
    result = json.loads(printed)
    assert code == 0 and result["trajectories"] == 4 and result["teachers"] == ["grok"]
    assert "latency_s" in result["unknown"]


BAD = [
    (["import", "--out", "OUT"], "Name the files to import"),
    (["import", "a/x.json", "b/x.json", "--out", "OUT", "--name", "y"], "Two files are of one teacher"),
    (["import", "--teacher", "x.json", "--out", "OUT"], "write --teacher NAME=FILE"),
    (["import", "none.json", "--out", "OUT", "--name", "y"], "none.json is empty or no file"),
    (["export", "OUT", "--form", "llava", "--out", "OUT"], "no sealed release"),
    (["push", "OUT", "--repo", "a/b"], "no sealed release"),
    (["push", "OUT", "--repo", "ab"], "--repo ORG/NAME"),
    (["package", "OUT", "--out", "OUT"], "no sealed release"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(case[0][:2]) for case in BAD])
def test_a_wrong_request_is_one_sentence_and_exit_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str],
    message: str,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    code, printed, said = call(capsys, monkeypatch, *[str(out) if word == "OUT" else word for word in arguments])
    assert code == 2 and printed == "" and message in said and said.count("\n") == 1 and not out.exists()
