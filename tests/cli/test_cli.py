"""The command line: exit codes, one clear sentence, and how soon it answers."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cxr_max.cli import main
from tests.background import background, roster_of
from tests.mimic_fixture import write_mimic
from tests.teachers.scripted import error


def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    """Run the command line in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["cxr-max", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def broken_table(folder: Path, change: Any) -> Path:
    _, jpg = write_mimic(folder)
    change(jpg)
    return jpg


def drop_column(jpg: Path) -> None:
    import gzip

    table = jpg / "mimic-cxr-2.0.0-metadata.csv.gz"
    text = gzip.decompress(table.read_bytes()).decode().replace("ViewPosition", "View", 1)
    table.write_bytes(gzip.compress(text.encode()))


BAD: list[tuple[str, list[str], str]] = [
    ("no option", ["build"], "Say --source"),
    ("unknown flag", ["build", "--sorce", "phantom"], "--sorce"),
    ("unknown command", ["biuld"], "biuld"),
    ("unknown source", ["build", "--source", "nih", "--teachers", "simulated", "--out", "OUT"],
     "no source 'nih': choose one of phantom"),
    ("source without path", ["build", "--source", "folder", "--teachers", "simulated", "--out", "OUT"],
     "folder:PATH"),
    ("absent path", ["build", "--source", "folder:/nowhere/at/all", "--teachers", "simulated", "--out", "OUT"],
     "/nowhere/at/all"),
    ("bad seed", ["build", "--source", "phantom:x", "--teachers", "simulated", "--out", "OUT"], "takes a seed"),
    ("unknown teacher", ["build", "--source", "phantom", "--teachers", "gtp-5", "--out", "OUT"],
     "no teacher 'gtp-5' in the roster"),
    ("missing key", ["build", "--source", "phantom", "--teachers", "all", "--out", "OUT"],
     "No API key in ANTHROPIC_API_KEY, DASHSCOPE_API_KEY"),
    ("unknown prompt", ["build", "--recipe", "demo", "--prompt", "x", "--out", "OUT"],
     "no prompt 'x': choose one of diagnose, diagnose_brief,"),
    ("bad number", ["build", "--source", "phantom", "--teachers", "simulated", "--studies", "0", "--out", "OUT"],
     "--studies"),
    ("voi of pictures", ["build", "--source", "phantom", "--rendering", "voi", "--teachers", "simulated",
                         "--out", "OUT"], "rendered already"),
    ("labels of phantoms", ["build", "--source", "phantom", "--labels", "x.csv", "--teachers", "simulated",
                            "--out", "OUT"], "leave --labels out"),
    ("absent recipe", ["build", "--recipe", "none-such", "--out", "OUT"], "recipe none-such cannot be read"),
    ("absent attestation", ["build", "--recipe", "demo", "--attestation", "no.toml", "--out", "OUT"],
     "attestation no.toml"),
    ("absent roster", ["build", "--recipe", "demo", "--roster", "no.toml", "--out", "OUT"], "roster no.toml"),
    ("prompt about replies", ["build", "--recipe", "demo", "--prompt", "consensus", "--out", "OUT"],
     "run cxr-max consensus --method student"),
    ("no writer", ["consensus", "OUT", "--method", "student"], "--model DIR"),
    ("two writers", ["consensus", "OUT", "--method", "student", "--model", "m", "--teacher", "grok-4"],
     "not both"),
    ("writers where one is wanted", ["consensus", "OUT", "--method", "student", "--teacher", "grok-4,gpt-5-nano"],
     "means 2 teachers"),
    ("simulated writer", ["consensus", "OUT", "--method", "student", "--teacher", "sim-grok-4"],
     "sim-grok-4 is simulated"),
    ("writer of a vote", ["consensus", "OUT", "--teacher", "grok-4", "--roster", "r.toml"],
     "--teacher, --roster means nothing: add --method student"),
    ("nothing to write about", ["consensus", "OUT", "--method", "student", "--teacher", "grok-4"],
     "no sealed release"),
    ("no run", ["status", "OUT"], "holds no run"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_wrong_request_is_one_sentence_and_exit_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    out = tmp_path / "out"
    code, printed, said = call(capsys, monkeypatch, *[str(out) if word == "OUT" else word for word in arguments])
    assert code == 2 and printed == ""
    assert message in said and said.startswith("cxr-max: ") and said.count("\n") == 1
    assert not out.exists(), "a wrong request leaves nothing behind"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda jpg: (jpg / "mimic-cxr-2.0.0-split.csv.gz").unlink(), "split"),
        (drop_column, "ViewPosition"),
    ],
    ids=["missing table", "missing column"],
)
def test_a_wrong_table_is_named(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: Any,
    message: str,
) -> None:
    jpg = broken_table(tmp_path / "mimic", change)
    code, _, said = call(
        capsys, monkeypatch, "build", "--source", f"mimic-cxr-jpg:{jpg}", "--teachers", "simulated",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 2 and message in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_json_is_one_object_with_the_promised_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = ["build", "--recipe", "demo", "--studies", "3", "--out", tmp_path / "out", "--json"]
    code, printed, said = call(capsys, monkeypatch, *arguments)
    result = json.loads(printed)
    assert code == 0 and printed.count("\n") == 1
    assert set(result) == {
        "release", "studies", "trajectories", "requests_sent", "replies_reused", "failed", "gaps", "cost_usd",
        "seconds",
    }  # fmt: skip
    assert result["trajectories"] == 21
    assert "Simulated teachers: no model answers" in said


def test_what_failed_is_said_and_fetched_by_the_same_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_KEY", "very-secret-0123456789")
    out = tmp_path / "out"
    with background(error(401, "Incorrect API key provided: very-secret-0123456789")) as server:
        roster = roster_of(tmp_path, server, "mine")
        roster.write_text(roster.read_text() + 'key = "MY_KEY"\n')
        arguments = ["build", "--source", "phantom", "--studies", "5", "--roster", roster]
        arguments += ["--teachers", "mine,sim-grok-4", "--out", out]
        code, printed, said = call(capsys, monkeypatch, *arguments)
        assert code == 3 and "5 trajectories" in printed and "5 failed" in printed
        assert "mine is out for this run: HTTP 401" in said and len(server.headers) <= 4
    code, printed, said = call(capsys, monkeypatch, "status", out)
    assert code == 0 and "0 of 5 answered" in printed and "HTTP 401" in printed
    for path in [*out.rglob("*")]:
        assert path.is_dir() or b"very-secret" not in path.read_bytes(), path
    assert "very-secret" not in printed + said


def test_flags_win_over_the_recipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'source = "phantom:5"\nteachers = "simulated"\nstudies = 9\nout = "{tmp_path / "out"}"\n')
    code, printed, _ = call(
        capsys, monkeypatch, "build", "--recipe", recipe, "--studies", 2, "--teachers", "sim-grok-4", "--json"
    )
    assert code == 0 and json.loads(printed)["trajectories"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stdies = 3", "option 'stdies'"),
        ('studies = "x"', "recipe"),
        ('views = "lateral"', "recipe"),
        ("x", "TOML"),
    ],
)
def test_a_wrong_recipe_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(text)
    code, _, said = call(capsys, monkeypatch, "build", "--recipe", recipe, "--out", tmp_path / "out")
    assert code == 2 and message in said and said.count("\n") == 1


def test_listings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, printed, _ = call(capsys, monkeypatch, "sources", "--json")
    specs = [entry["spec"] for entry in json.loads(printed)["sources"]]
    assert code == 0 and specs[:3] == ["phantom[:SEED]", "mimic-cxr-jpg:PATH", "mimic-cxr:PATH"]
    assert len(specs) == 12 and specs[-1] == "folder:PATH"
    monkeypatch.setenv("XAI_API_KEY", "value-of-the-key")
    code, printed, _ = call(capsys, monkeypatch, "teachers")
    assert code == 0 and "XAI_API_KEY set" in printed and "value-of-the-key" not in printed
    code, printed, _ = call(capsys, monkeypatch, "--version")
    assert code == 0 and re.fullmatch(r"\d+\.\d+\.\d+\n", printed)


@pytest.mark.parametrize("statement", ["import cxr_max", "import cxr_max.cli"])
def test_starting_loads_nothing_heavy(statement: str) -> None:
    """What makes `cxr-max --help` quick: a test of causes, because no test asserts a time."""
    heavy = "{'numpy', 'pandas', 'pyarrow', 'pydicom', 'cv2', 'PIL', 'openai', 'anthropic', 'google'," \
            " 'datasets', 'aiohttp', 'pydantic', 'huggingface_hub', 'torch'}"  # fmt: skip
    code = f"{statement}; import sys; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)
