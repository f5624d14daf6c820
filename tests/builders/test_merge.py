"""Runs of two machines become one, if they ask the same of the same source and nobody is at work."""

import json
from pathlib import Path

import pytest

from cxr_max.builders.merge import merge_runs
from cxr_max.builders.run_folder import RunFolder
from cxr_max.errors import CxrMaxError, RequestError, RunLockedError
from cxr_max.ledger import Ledger
from tests.cli.test_cli import call
from tests.ledgers import answered, dump, key_of, question, run


def fill(folder: Path, *studies: str, teacher: str = "a") -> Path:
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.plan([question(study, teacher) for study in studies])
        ledger.commit([answered(key_of(study, teacher)) for study in studies])
    return folder


def test_several_runs_become_one(tmp_path: Path) -> None:
    into = fill(run(tmp_path / "a", source="mimic-cxr-jpg:/data/one", labels="/data/l.csv"), "s1")
    second = fill(run(tmp_path / "b", source="mimic-cxr-jpg:/mnt/two", labels="/mnt/l.csv"), "s1", "s2")
    third = fill(run(tmp_path / "c", source="mimic-cxr-jpg:/x", labels="/x/l.csv"), "s3", teacher="b")
    merged = merge_runs(into, [second, third])
    assert [(one.folder, one.ledger.replies, one.ledger.known) for one in merged] == [
        (second, 1, 1),
        (third, 1, 0),
    ]
    with Ledger(into / "ledger.sqlite") as ledger:
        assert ledger.teacher_counts() == {"a": (2, 2), "b": (1, 1)}
    assert "mimic-cxr-jpg:/data/one" in (into / "run.toml").read_text()


def test_the_consensus_in_words_is_taken_over_too(tmp_path: Path) -> None:
    into, other = run(tmp_path / "a"), run(tmp_path / "b")
    with Ledger(other / "consensus.sqlite") as ledger:
        ledger.commit([answered("k")])
    (merged,) = merge_runs(into, [other])
    assert merged.consensus is not None and merged.consensus.replies == 1
    with Ledger(into / "consensus.sqlite") as ledger:
        assert ledger.answered() == {"k"}


@pytest.mark.parametrize(
    ("ours", "theirs", "named"),
    [
        ({"rendering": "mimic_jpg"}, {"rendering": "voi"}, "rendering = 'mimic_jpg'"),
        ({"views": "frontal"}, {"views": "study"}, "views = 'frontal'"),
        ({"source": "phantom:1"}, {"source": "phantom:2"}, "source = 'phantom:1'"),
        ({"source": "mimic-cxr:/a"}, {"source": "mimic-cxr-jpg:/a"}, "source = 'mimic-cxr:/a'"),
        ({"labels": "/l.csv"}, {"labels": ""}, "labels = '/l.csv'"),
        ({}, {"batch": "yes"}, "batch = None"),
    ],
)
def test_other_settings_are_refused_by_name(
    tmp_path: Path, ours: dict[str, str], theirs: dict[str, str], named: str
) -> None:
    into, other = fill(run(tmp_path / "a", **ours), "s1"), fill(run(tmp_path / "b", **theirs), "s2")
    before = dump(into / "ledger.sqlite")
    with pytest.raises(RequestError, match=named):
        merge_runs(into, [other])
    assert dump(into / "ledger.sqlite") == before


def test_a_wrong_folder_among_several_is_found_before_any_is_merged(tmp_path: Path) -> None:
    into, good = fill(run(tmp_path / "a"), "s1"), fill(run(tmp_path / "b"), "s2")
    before = dump(into / "ledger.sqlite")
    for wrong in (tmp_path / "absent", into, good):
        with pytest.raises(RequestError, match=r"holds no build's ledger|named twice"):
            merge_runs(into, [good, wrong])
    assert dump(into / "ledger.sqlite") == before and not (tmp_path / "absent").exists()


def test_an_evaluation_is_no_build(tmp_path: Path) -> None:
    into, other = run(tmp_path / "a"), run(tmp_path / "b")
    (other / "run.toml").write_text('release = "/r"\nmodel = "/m"\nteacher = ""\n')
    with pytest.raises(RequestError, match="holds no build's ledger"):
        merge_runs(into, [other])


@pytest.mark.parametrize("busy", ["a", "b"])
def test_a_run_at_work_is_left_alone(tmp_path: Path, busy: str) -> None:
    into, other = fill(run(tmp_path / "a"), "s1"), fill(run(tmp_path / "b"), "s2")
    with RunFolder(tmp_path / busy).locked(), pytest.raises(RunLockedError, match="at work"):
        merge_runs(into, [other])
    merge_runs(into, [other])


def test_an_empty_ledger_is_damaged_and_not_new(tmp_path: Path) -> None:
    into, other = fill(run(tmp_path / "a"), "s1"), run(tmp_path / "b")
    (other / "ledger.sqlite").write_bytes(b"")
    with pytest.raises(CxrMaxError, match="damaged"):
        merge_runs(into, [other])


def test_the_command_says_what_came_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    into, other = fill(run(tmp_path / "a"), "s1"), fill(run(tmp_path / "b"), "s1", "s2")
    code, printed, said = call(capsys, monkeypatch, "ledger", "merge", into, other, "--json")
    (entry,) = json.loads(printed)["merged"]
    assert code == 0 and said == "" and entry["folder"] == str(other)
    assert entry["ledger"] == {"replies": 1, "known": 1, "rows": 1, "differing": 0, "files": 0}
    code, printed, _ = call(capsys, monkeypatch, "ledger", "merge", into, other)
    assert code == 0 and "0 replies and 0 rows are new, 2 replies were there" in printed
    code, _, said = call(capsys, monkeypatch, "ledger", "merge", into, tmp_path / "none")
    assert code == 2 and "holds no build's ledger" in said and said.count("\n") == 1
