"""``cxr-max eval`` as it is typed: exit codes, one JSON object, one clear sentence."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cxr_max.eval import stored
from tests.background import background, committed, keys_received, roster_of
from tests.cli.test_cli import call
from tests.eval.data import ORIGINALS, QUESTIONS, TEACHERS, TINY, release
from tests.mimic_fixture import write_mimic
from tests.teachers.scripted import body, error

TEXT = "The heart is large.\n\nANSWER\nCardiomegaly: present\nPneumothorax: absent"
TEACHER = "sim-grok-4"
Eval = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run: Path, suite: Path) -> Eval:
    """Of the phantoms, by the tiny suite, unless said otherwise."""

    def go(*arguments: object, **options: object) -> tuple[int, str, str]:
        said = {"release": run, "suite": suite, **options}
        flags = [word for name, value in said.items() for word in (f"--{name.replace('_', '-')}", value)]
        return call(capsys, monkeypatch, "eval", *flags, *arguments)

    return go


def test_a_live_evaluation_from_end_to_end(evaluate: Eval, tmp_path: Path) -> None:
    out = tmp_path / "e"
    code, printed, said = evaluate(teacher=TEACHER, out=out)
    assert code == 0, said
    assert "Simulated teachers: no model answers" in said and "Asking 1 teacher about 8 studies" in said
    lines = printed.splitlines()
    assert re.fullmatch(r"tiny 1 \([0-9a-f]{12}\)", lines[0]) and lines[-1].endswith(f"scores in {out / 'result'}")
    assert any(line.strip().startswith("balanced accuracy") for line in lines)
    assert sum(line.startswith(("  uses the image:", "  robust:", "  unseen test set:")) for line in lines) == 3
    assert "None" not in printed and "nan" not in printed
    assert {path.name for path in (out / "result").iterdir()} == {
        "predictions.parquet", "reference.parquet", "peers.parquet", "scores.parquet", "result.json",
    }  # fmt: skip
    assert len(committed(out)) == QUESTIONS


def test_json_is_one_object_with_the_promised_keys(evaluate: Eval, tmp_path: Path) -> None:
    code, printed, said = evaluate("--stored", "--json", teacher=TEACHER, out=tmp_path / "e")
    result = json.loads(printed)
    assert code == 0 and printed.count("\n") == 1 and said == ""
    assert {"scores", "suite", "suite_sha256", "out"} <= set(result)
    assert result["suite"] == "tiny 1" and set(result["suite_sha256"]) == {"tiny 1"}
    assert {score["suite_sha256"] for score in result["scores"]} == set(result["suite_sha256"].values())
    import pyarrow.parquet as pq

    assert pq.read_table(Path(result["out"]) / "scores.parquet").to_pylist() == result["scores"]
    assert [flag["name"] for flag in result["flags"]["tiny 1"]] == ["uses the image", "robust", "unseen test set"]


def test_the_second_time_nothing_is_asked(evaluate: Eval, run: Path, suite: Path, tmp_path: Path) -> None:
    async def reply(_request: object) -> Any:
        return body("openai", TEXT)

    with background(reply) as server:
        who = {"teacher": "mine", "roster": roster_of(tmp_path, server, "mine"), "out": tmp_path / "e"}
        code, first, _ = evaluate("--json", **who)
        assert code == 0 and len(keys_received(server)) == len(set(keys_received(server))) == QUESTIONS
        code, second, _ = evaluate("--json", **who)
        assert code == 0 and len(keys_received(server)) == QUESTIONS and second == first


def test_failures_end_with_3_and_the_same_command_mends_them(evaluate: Eval, tmp_path: Path) -> None:
    with background(error(400, "the picture is too dull")) as server:
        who = {"teacher": "mine", "roster": roster_of(tmp_path, server, "mine"), "out": tmp_path / "e"}
        code, printed, said = evaluate(**who)
        assert code == 3
        assert "the picture is too dull" in said and "the same command asks them again" in printed
        assert "Traceback" not in said
        server.answers[:] = [body("openai", TEXT)]
        code, printed, _ = evaluate(**who)
        assert code == 0 and "have no reply" not in printed
        assert len(committed(tmp_path / "e")) == QUESTIONS


def test_failures_of_changed_pictures_end_with_3_too(evaluate: Eval, suite: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.toml"
    few.write_text(TINY.split("[consistency]")[0] + "[generalization]\n")
    with background(body("openai", TEXT)) as server:
        who = {"teacher": "mine", "roster": roster_of(tmp_path, server, "mine"), "out": tmp_path / "e"}
        code, _, said = evaluate(**who, suite=few)
        if (code, len(committed(tmp_path / "e"))) != (0, ORIGINALS):
            pytest.fail(said, pytrace=False)
        server.answers[:] = [error(400, "no")]
        code, _, _ = evaluate(**who)
    assert code == 3


def test_a_stop_ends_with_130_and_the_same_command_goes_on(
    evaluate: Eval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxr_max.cli.progress import ConsoleWatch

    def stop(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    with background() as server:
        who = {"teacher": "mine", "roster": roster_of(tmp_path, server, "mine"), "out": tmp_path / "e"}
        with monkeypatch.context() as patch:
            patch.setattr(ConsoleWatch, "stopping", lambda _: None)
            patch.setattr(ConsoleWatch, "answered", _once(stop))
            code, printed, said = evaluate(**who)
        there = committed(tmp_path / "e")
        assert code == 130 and printed == "" and "the same command goes on" in said
        assert there == set(keys_received(server)) and 0 < len(there) < QUESTIONS
        assert not (tmp_path / "e" / "result" / "result.json").exists()
        code, _, _ = evaluate(**who)
        assert code == 0 and len(keys_received(server)) == len(set(keys_received(server))) == QUESTIONS


def _once(act: Callable[..., None]) -> Callable[..., None]:
    """The second call does nothing, since a second stop would give up the replies in flight."""
    acts = [act]
    return lambda *arguments: acts.pop()(*arguments) if acts else None


def write_submission(run: Path, path: Path, rows: int = 100) -> Path:
    """A teacher's rows as CSV, as somebody else would write them."""
    import csv

    from cxr_max.findings import FINDINGS

    folder = run / "release"
    table = stored.stored_answers(folder, stored.prompt_of(folder, "diagnose"))[TEACHER].to_pylist()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["study_id", "image_ids", "status", *FINDINGS])
        for row in table[:rows]:
            states = [(row["findings"] or {}).get(name) for name in FINDINGS]
            writer.writerow([row["study_id"], " ".join(row["image_ids"]), row["status"], *states])
    return path


def test_a_file_of_predictions_is_scored(evaluate: Eval, run: Path, tmp_path: Path) -> None:
    file = write_submission(run, tmp_path / "ours.csv")
    code, printed, said = evaluate("--json", predictions=file, out=tmp_path / "e")
    submitted = json.loads(printed)
    assert code == 0 and said == "" and not (tmp_path / "e" / "ledger.sqlite").exists()
    assert {score["model"] for score in submitted["scores"]} == {"ours"}
    code, printed, _ = evaluate("--json", "--stored", teacher=TEACHER, out=tmp_path / "s")

    def f1(result: dict[str, Any]) -> list[Any]:
        return [
            (s["finding"], s["value"], s["low"], s["high"])
            for s in result["scores"]
            if s["metric"] == "f1" and s["task"] == "generalization"
        ]

    assert f1(submitted) == f1(json.loads(printed)) and len(f1(submitted)) == 15


def test_a_name_is_what_the_model_is_called(evaluate: Eval, run: Path, tmp_path: Path) -> None:
    file = write_submission(run, tmp_path / "ours.csv")
    code, printed, _ = evaluate("--json", predictions=file, out=tmp_path / "e", name="A model, v2")
    assert code == 0 and {score["model"] for score in json.loads(printed)["scores"]} == {"A model, v2"}


def test_nobody_asks_for_the_missing_rows_of_a_file(evaluate: Eval, run: Path, tmp_path: Path) -> None:
    """A submission's own failed rows are not to be had by the same command."""
    file = write_submission(run, tmp_path / "ours.csv")
    header, *lines = file.read_text().splitlines()
    failed = [",".join([*line.split(",")[:2], "failed", *[""] * 14]) for line in lines]
    file.write_text("\n".join([header, *failed]) + "\n")
    _, printed, _ = evaluate(predictions=file, out=tmp_path / "e")
    assert "the same command asks them again" not in printed


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("nobody", {}, "Say who is evaluated: --model DIR"),
    ("two", {"teacher": TEACHER, "predictions": "FILE"}, "one of them"),
    ("model and predictions", {"model": "m", "predictions": "FILE"}, "one of them"),
    ("unknown teacher", {"teacher": "grok-9"}, "no teacher 'grok-9' in the roster"),
    ("unknown suite", {"teacher": TEACHER, "suite": "robusness"}, "no suite 'robusness': choose from consistency"),
    ("absent predictions", {"predictions": "/nowhere/p.csv"}, "/nowhere/p.csv"),
    ("absent release", {"teacher": TEACHER, "release": "/nowhere"}, "/nowhere holds no sealed release"),
    ("missing key", {"teacher": "gpt-5-nano"}, "OPENAI_API_KEY"),
    ("missing rows", {"predictions": "FILE"}, "has no row of the condition original for"),
]


@pytest.mark.parametrize(("who", "message"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_request_is_one_sentence_and_exit_2(
    evaluate: Eval, run: Path, tmp_path: Path, who: dict[str, Any], message: str
) -> None:
    file = write_submission(run, tmp_path / "few.csv", rows=3)
    given = {name: file if value == "FILE" else value for name, value in who.items()}
    code, printed, said = evaluate(out=tmp_path / "e", **given)
    assert code == 2 and printed == ""
    assert message in said and said.startswith("cxr-max: ") and said.count("\n") == 1


@pytest.mark.parametrize("who", [{"teacher": "grok-9"}, {"teacher": TEACHER, "suite": "no-suite"}])
def test_a_wrong_request_leaves_nothing_behind(evaluate: Eval, tmp_path: Path, who: dict[str, Any]) -> None:
    """As ``cxr-max build`` leaves nothing: else the corrected command is refused for the slip of the first."""
    code, _, _ = evaluate(out=tmp_path / "e", **who)
    assert code == 2 and not (tmp_path / "e").exists()


@pytest.mark.parametrize("extra", [["--stored", "--predictions", "FILE"], ["--stored", "--model", "m"]])
def test_stored_rows_are_a_teachers(evaluate: Eval, run: Path, tmp_path: Path, extra: list[str]) -> None:
    file = write_submission(run, tmp_path / "ours.csv")
    code, _, said = evaluate(*[file if word == "FILE" else word for word in extra], out=tmp_path / "e")
    assert code == 2 and "--teacher NAME for one of the roster (with --stored" in said


def test_another_model_in_the_same_folder_is_one_sentence(evaluate: Eval, tmp_path: Path) -> None:
    assert evaluate("--stored", teacher=TEACHER, out=tmp_path / "e")[0] == 0
    code, printed, said = evaluate("--stored", teacher=TEACHERS[0], out=tmp_path / "e")
    assert code == 2 and printed == "" and said.count("\n") == 1
    assert "was begun with teacher = 'sim-grok-4'" in said and "another --out" in said


def test_two_evaluations_keep_out_of_each_others_folder(evaluate: Eval, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "e").mkdir()
    with FileLock(tmp_path / "e" / ".lock"):
        code, _, said = evaluate("--stored", teacher=TEACHER, out=tmp_path / "e")
    assert code == 2 and "at work in" in said and said.count("\n") == 1


def test_a_release_without_test_studies_is_named(evaluate: Eval, tmp_path: Path) -> None:
    from tests.builders.test_build import built

    built("phantom", tmp_path / "run", TEACHER, studies=2)
    code, _, said = evaluate("--stored", teacher=TEACHER, release=tmp_path / "run", out=tmp_path / "e")
    assert code == 2 and "has nothing in the split test" in said and said.count("\n") == 1


def test_credentialed_pictures_are_sent_to_nobody(
    evaluate: Eval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.builders.test_build import built

    _, jpg = write_mimic(tmp_path / "mimic")
    built(f"mimic-cxr-jpg:{jpg}", tmp_path / "run", TEACHER, split="test")
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret-0123456789")
    code, printed, said = evaluate(release=tmp_path / "run", teacher="gpt-5-nano", out=tmp_path / "e")
    assert code == 2 and printed == "" and "api.openai.com" in said and said.count("\n") == 1
    assert "very-secret" not in said and not committed(tmp_path / "e")
