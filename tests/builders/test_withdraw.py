"""A subject's rows leave a release, in every config, and never come back; a kill leaves no sealed half."""

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from cxr_max.builders import withdraw as module
from cxr_max.builders.build import BuildRequest, build
from cxr_max.builders.merge import merge_runs
from cxr_max.builders.release import STAGING, read_manifest
from cxr_max.builders.release_check import check_release
from cxr_max.builders.run_folder import RunFolder
from cxr_max.builders.status import status_of_run
from cxr_max.builders.withdraw import withdraw, withdrawn_of
from cxr_max.errors import RequestError
from cxr_max.ledger import Ledger
from tests.background import contents
from tests.builders.made_releases import TEACHERS, Quiet, make_run, manifest_of, rows_of

GONE = "phantom-0-p0000008"
"""The only subject of the test split."""
TODAY = date(2026, 3, 4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def again(run: Path) -> Any:
    return build(BuildRequest(source="phantom", teachers=TEACHERS, out=run, studies=20), Quiet())


def without_subject(run: Path) -> None:
    release = run / "release"
    assert GONE not in {row["subject_id"] for row in rows_of(release)}
    studies = {row["study_id"] for config in ("consensus", "preferences") for row in rows_of(release, config)}
    assert not studies & {"phantom-0-0000016", "phantom-0-0000017"} and len(studies) == 18
    assert all(GONE.encode() not in content for content in contents(release).values())
    assert check_release(release).clean


def test_every_config_loses_the_rows_and_the_manifest_says_how_many(run: Path) -> None:
    done = withdraw(run / "release", {GONE}, "consent withdrawn", today=TODAY)
    rows = {"trajectories": 4, "consensus": 2, "preferences": 2}
    assert (done.subjects, done.rows, done.finished) == (1, rows, False)
    manifest = manifest_of(run / "release")
    assert manifest["withdrawn"] == [
        {"date": "2026-03-04", "reason": "consent withdrawn", "subjects": 1, "rows": rows}
    ]
    assert manifest["counts"]["trajectories"]["by_split"] == {"train": 32, "validation": 4}
    assert "| 2026-03-04 | 1 | 4 | consent withdrawn |" in (run / "release" / "README.md").read_text()
    without_subject(run)


def test_a_rebuild_asks_nothing_and_makes_the_same_bytes(run: Path) -> None:
    withdraw(run / "release", {GONE}, "consent withdrawn", today=TODAY)
    before = contents(run / "release")
    assert again(run).requests_sent == 0
    assert contents(run / "release") == before
    shutil.rmtree(run / "release" / "data")
    again(run)
    assert GONE not in {row["subject_id"] for row in rows_of(run / "release")}
    assert len(manifest_of(run / "release")["withdrawn"]) == 1
    with Ledger(run / "ledger.sqlite") as ledger:
        assert len(ledger.answered()) == 40, "the replies that were paid for stay"


def test_what_is_withdrawn_is_not_stale(run: Path) -> None:
    from datetime import UTC, datetime

    withdraw(run / "release", {GONE}, "consent withdrawn", today=TODAY)
    assert status_of_run(run, datetime.now(UTC)).seal == "sealed"


def test_a_second_withdrawal_is_a_second_record(run: Path) -> None:
    withdraw(run / "release", {GONE}, "consent withdrawn", today=TODAY)
    withdraw(run / "release", {GONE, "phantom-0-p0000000"}, "wrong images", today=TODAY)
    records = manifest_of(run / "release")["withdrawn"]
    assert [record["subjects"] for record in records] == [1, 1]
    assert withdrawn_of(RunFolder(run))[0] == {GONE, "phantom-0-p0000000"}
    assert again(run).requests_sent == 0
    assert manifest_of(run / "release")["withdrawn"] == records and check_release(run / "release").clean


def test_a_release_without_its_run_will_do(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "downloaded"
    (run / "release").rename(alone)
    (alone / ".gitattributes").touch()
    withdraw(alone, {GONE}, "consent withdrawn", today=TODAY)
    assert check_release(alone).clean and (alone / ".gitattributes").exists()
    assert not (tmp_path / "withdrawn.json").exists()


def test_everybody_may_go(run: Path) -> None:
    everybody = {row["subject_id"] for row in rows_of(run / "release")}
    withdraw(run / "release", everybody, "consent withdrawn", today=TODAY)
    assert rows_of(run / "release") == [] and check_release(run / "release").clean


@pytest.mark.parametrize(
    ("subjects", "reason", "said"),
    [
        ({"nobody"}, "x", "no row about this subject"),
        ({"nobody", "none"}, "x", "any of these subjects"),
        (set(), "x", "Nobody is named"),
        ({GONE}, " ", "needs a --reason"),
        ({GONE}, "a\nb", "one line"),
        ({GONE}, f"{GONE} asked", "names a subject"),
    ],
)
def test_what_cannot_be_withdrawn_changes_nothing(run: Path, subjects: set[str], reason: str, said: str) -> None:
    before = contents(run / "release")
    with pytest.raises(RequestError, match=said):
        withdraw(run / "release", subjects, reason, today=TODAY)
    assert contents(run / "release") == before and not (run / "withdrawn.json").exists()


def test_what_was_changed_is_not_sealed_again(run: Path) -> None:
    shard = next((run / "release").rglob("train-*.parquet"))
    shard.write_bytes(shard.read_bytes() + b"x")
    with pytest.raises(RequestError, match="not the file that the manifest lists"):
        withdraw(run / "release", {GONE}, "consent withdrawn", today=TODAY)


POINTS = [
    "shutil.rmtree", "_filter", "digest_of", "_remember", "write_text", "break_seal", "shutil.copyfile", "seal",
]  # fmt: skip


DAILY = {("_remember", 1), ("write_text", 2), ("shutil.copyfile", 2), ("seal", 1)}


class Killed(BaseException):
    """Nothing may catch it: what stands on the disk is what a kill leaves."""


@pytest.mark.parametrize(
    ("point", "call"),
    [
        pytest.param(point, call, marks=() if (point, call) in DAILY else pytest.mark.slow)
        for point in POINTS
        for call in (1, 2, 3)
    ],
)
def test_a_kill_anywhere_leaves_no_sealed_half(
    run: Path, point: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step the release is whole as it was, or unsealed; the same command, or a build, ends it."""
    release, before = run / "release", contents(run / "release")
    original = module
    for name in point.split(".")[:-1]:
        original = getattr(original, name)
    real, calls = getattr(original, point.split(".")[-1]), iter(range(1, 100))

    def killed(*arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(original, point.split(".")[-1], killed)
        try:
            withdraw(release, {GONE}, "consent withdrawn", today=TODAY)
        except Killed:
            if (release / "manifest.json").exists():
                here = {name: content for name, content in contents(release).items() if STAGING not in name}
                assert here == before or GONE not in {row["subject_id"] for row in rows_of(release)}
            else:
                with pytest.raises(RequestError, match=r"withdrawal .* interrupted|no sealed release"):
                    read_manifest(release)
    if (run / "withdrawn.json").exists():
        aside = Path(shutil.copytree(run, run.with_name("rebuilt")))
        again(aside)
        assert GONE not in {row["subject_id"] for row in rows_of(aside / "release")}, "a build brought them back"
    try:
        withdraw(release, {GONE}, "consent withdrawn", today=TODAY)
    except RequestError as error:
        assert "no row about" in str(error), "it was done already"
    assert not (release / STAGING).exists()
    assert [record["subjects"] for record in manifest_of(release)["withdrawn"]] == [1]
    without_subject(run)
    again(run)
    without_subject(run)


def test_a_merge_takes_the_list_over(made: Path, run: Path, tmp_path: Path) -> None:
    withdraw(run / "release", {GONE}, "consent withdrawn", today=TODAY)
    for into, other in ((made, run), (run, made)):
        target = Path(shutil.copytree(into, tmp_path / f"into-{into.parent.name}"))
        merge_runs(target, [other])
        again(target)
        assert GONE not in {row["subject_id"] for row in rows_of(target / "release")}
        assert len(manifest_of(target / "release")["withdrawn"]) == 1


def test_a_damaged_list_stops_a_build(run: Path) -> None:
    (run / "withdrawn.json").write_text(json.dumps({"subjects": 3}))
    with pytest.raises(RequestError, match="nobody knows who was withdrawn"):
        again(run)
