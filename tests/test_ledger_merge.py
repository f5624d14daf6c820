"""Two ledgers become one: no reply lost, none doubled, none overwritten."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_max.errors import RequestError, StorageError
from cxr_max.ledger import FileIdentity, Gap, Ledger
from cxr_max.ledger_batches import Member, SentBatch
from cxr_max.ledger_merge import Merged, merge
from tests.ledgers import answered, dump, failure, key_of, question


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return tmp_path / "ours.sqlite"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    return tmp_path / "theirs.sqlite"


def test_replies_and_rows_of_both_are_there(ours: Path, theirs: Path) -> None:
    with Ledger(ours) as here, Ledger(theirs) as there:
        here.plan([question("s1", "a"), question("s2", "a")])
        here.commit([answered(key_of("s1", "a"), "ours"), answered(key_of("s2", "a"), "both, ours")])
        there.plan([question("s2", "a"), question("s1", "b"), question("s3", "b")])
        there.commit([answered(key_of("s2", "a"), "both, theirs"), answered(key_of("s1", "b"), "theirs")])
    assert merge(ours, theirs) == Merged(replies=1, known=1, rows=2, differing=0, files=0)
    with Ledger(ours) as merged:
        texts = {(q.study_id, q.teacher): a.reply.text for q, a in merged.rows()}
        assert texts == {("s1", "a"): "ours", ("s1", "b"): "theirs", ("s2", "a"): "both, ours"}
        assert merged.teacher_counts() == {"a": (2, 2), "b": (2, 1)}


def test_merging_again_changes_nothing_and_the_other_is_only_read(ours: Path, theirs: Path) -> None:
    with Ledger(ours) as here, Ledger(theirs) as there:
        here.plan([question("s1", "a"), question("s4", "a")])
        here.record_gaps([Gap("s4", ("s4-1",), "absent")])
        there.plan([question(study, "a") for study in ("s1", "s2", "s3", "s4")])
        there.commit([answered(key_of("s2", "a"))], [failure(key_of("s3", "a"), "a")])
        there.record_gaps([Gap("s5", ("s5-1",), "damaged")])
    before = dump(theirs)
    merge(ours, theirs)
    once = dump(ours)
    assert merge(ours, theirs) == Merged(replies=0, known=1, rows=0, differing=0, files=0)
    assert dump(ours) == once and dump(theirs) == before


def test_a_reply_that_is_there_is_never_overwritten_not_even_its_raw_body(ours: Path, theirs: Path) -> None:
    with Ledger(ours) as here, Ledger(theirs) as there:
        here.commit([answered("k", "first", cost=1.0)])
        there.commit([answered("k", "second", cost=None)])
    rows = dump(ours)["replies"]
    merge(ours, theirs)
    assert dump(ours)["replies"] == rows


def test_of_a_row_asked_by_two_requests_the_answered_one_stays(ours: Path, theirs: Path) -> None:
    with Ledger(ours) as here, Ledger(theirs) as there:
        here.plan([question(study, "a", f"{study} hot") for study in ("s1", "s2", "s3")])
        there.plan([question(study, "a", f"{study} cold") for study in ("s1", "s2", "s3")])
        here.commit([answered("s2 hot"), answered("s3 hot")])
        there.commit([answered("s1 cold"), answered("s3 cold")])
    assert merge(ours, theirs).differing == 3
    with Ledger(ours) as merged:
        assert [q.request_sha256 for q, _ in merged.rows()] == ["s1 cold", "s2 hot", "s3 hot"]
        assert merged.answered() == {"s2 hot", "s3 hot", "s1 cold", "s3 cold"}, "what was paid for is kept"


def test_failures_that_have_a_reply_by_now_are_dropped_and_of_two_the_later_stays(
    ours: Path, theirs: Path
) -> None:
    with Ledger(ours) as here, Ledger(theirs) as there:
        here.commit([answered("k1")], [failure("k2", "a"), failure("k3", "a", "old"), failure("k4", "a", "new")])
        there.commit([answered("k2")], [failure("k1", "a"), failure("k5", "a")])
        there.commit([], [failure("k3", "a", "new", minutes_ago=1), failure("k4", "a", "old", minutes_ago=900)])
    merge(ours, theirs)
    with Ledger(ours) as merged:
        found = {one.request_sha256: one.message for one in merged.failures()}
        assert found == {"k3": "new", "k4": "new", "k5": "HTTP 500"}


def test_a_gap_here_that_was_asked_about_there_is_none(ours: Path, theirs: Path) -> None:
    with Ledger(ours) as here, Ledger(theirs) as there:
        here.record_gaps([Gap("s1", ("s1-1",), "absent"), Gap("s2", ("s2-1",), "absent")])
        here.plan([question("s3", "a")])
        here.commit([answered(key_of("s3", "a"))])
        there.plan([question("s1", "a")])
        there.commit([answered(key_of("s1", "a"))])
        there.record_gaps([Gap("s3", ("s3-1",), "damaged"), Gap("s4", ("s4-1",), "damaged")])
    merge(ours, theirs)
    with Ledger(ours) as merged:
        assert [gap.study_id for gap in merged.gaps()] == ["s2", "s4"]


def test_only_hashes_of_files_that_lie_here_unchanged_are_taken_over(
    ours: Path, theirs: Path, tmp_path: Path
) -> None:
    same, changed = tmp_path / "same.jpg", tmp_path / "changed.jpg"
    for file in (same, changed):
        file.write_bytes(b"picture")
        os.utime(file, ns=(7, 7))
    with Ledger(theirs) as there:
        identities = [FileIdentity(same, 7, 7, "a"), FileIdentity(changed, 7, 8, "b")]
        there.plan([], [*identities, FileIdentity(Path("/of/the/other/machine.jpg"), 7, 7, "c")])
    Ledger(ours).close()
    assert merge(ours, theirs).files == 1
    assert dump(ours)["files"] == [(str(same), 7, 7, "a")]


def test_a_ledger_of_the_first_schema_is_read_as_it_is(ours: Path, theirs: Path) -> None:
    with Ledger(theirs) as there:
        there.plan([question("s1", "a")])
        there.commit([answered(key_of("s1", "a"))])
    with closing(sqlite3.connect(theirs)) as db:
        db.executescript("DROP TABLE batch_members; DROP TABLE batches; PRAGMA user_version = 1;")
    Ledger(ours).close()
    assert merge(ours, theirs).replies == 1
    with closing(sqlite3.connect(theirs)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)


@pytest.mark.parametrize("which", ["ours", "theirs"])
def test_a_newer_ledger_is_refused(ours: Path, theirs: Path, which: str) -> None:
    for path in (ours, theirs):
        Ledger(path).close()
    with closing(sqlite3.connect(ours if which == "ours" else theirs)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(RequestError, match="schema 99"):
        merge(ours, theirs)


def damage(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.plan([question(f"s{number}", "a") for number in range(300)])
        ledger.commit([answered(key_of(f"s{number}", "a"), "word " * 100) for number in range(300)])
    content = bytearray(path.read_bytes())
    for place in range(4096 * 2, len(content), 977):
        content[place] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("which", ["ours", "theirs"])
def test_a_damaged_ledger_is_refused_and_nothing_is_merged(ours: Path, theirs: Path, which: str) -> None:
    whole, damaged = (theirs, ours) if which == "ours" else (ours, theirs)
    with Ledger(whole) as ledger:
        ledger.commit([answered("k")])
    damage(damaged)
    before = dump(whole)
    with pytest.raises(StorageError, match=r"damaged"):
        merge(ours, theirs)
    assert dump(whole) == before


@pytest.mark.parametrize("content", [b"", b"something else entirely" * 50])
def test_what_is_no_ledger_is_refused(ours: Path, theirs: Path, content: bytes) -> None:
    Ledger(ours).close()
    theirs.write_bytes(content)
    with pytest.raises((RequestError, StorageError), match=r"damaged|not a ledger"):
        merge(ours, theirs)


def test_an_absent_ledger_is_refused_and_not_made(ours: Path, theirs: Path) -> None:
    Ledger(ours).close()
    with pytest.raises(RequestError, match="There is no ledger"):
        merge(ours, theirs)
    assert not theirs.exists()


def test_replies_that_a_service_still_holds_are_to_be_collected_first(ours: Path, theirs: Path) -> None:
    Ledger(ours).close()
    with Ledger(theirs) as there:
        sent = SentBatch("b1", "a", "https://api", datetime.now(UTC), 1)
        there.begin_batch(sent, [Member("k", ("j",), True)])
    with pytest.raises(RequestError, match=r"1 batches at a service.*collect them there first"):
        merge(ours, theirs)
    with Ledger(theirs) as there:
        there.batch_is("b1", "ended")
    merge(ours, theirs)


def test_another_copy_of_the_data_is_refused(ours: Path, theirs: Path) -> None:
    with Ledger(ours) as here, Ledger(theirs) as there:
        here.plan([question("s1", "a"), question("s2", "a")])
        there.plan([question("s1", "b"), question("s2", "b", source_sha256="other bytes")])
        there.commit([answered(key_of("s1", "b"))])
    before = dump(ours)
    with pytest.raises(RequestError, match=r"different copies of the data.*study s2"):
        merge(ours, theirs)
    assert dump(ours) == before


def test_a_refused_write_leaves_the_ledger_as_it_was(
    ours: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(ours) as here, Ledger(theirs) as there:
        here.commit([answered("k")])
        there.commit([answered("l")], [failure("m", "a")])
    before = dump(ours)
    with monkeypatch.context() as patch:
        patch.setattr("cxr_max.ledger_merge._merge_gaps", lambda db: db.execute("INSERT INTO nothing VALUES (1)"))
        with pytest.raises(StorageError, match="nothing"):
            merge(ours, theirs)
    assert dump(ours) == before
    assert merge(ours, theirs).replies == 1


STUDIES = st.lists(
    st.tuples(st.sampled_from(["s1", "s2", "s3"]), st.sampled_from("ab"), st.sampled_from(["hot", "cold"]),
              st.sampled_from(["planned", "answered", "failed"])),
    max_size=8,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(mine=STUDIES, other=STUDIES)
def test_whatever_is_merged_every_purchase_is_kept_once(
    tmp_path_factory: pytest.TempPathFactory, mine: list[tuple[str, ...]], other: list[tuple[str, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    paid: set[str] = set()
    for name, rows in (("ours", mine), ("theirs", other)):
        with Ledger(folder / name) as ledger:
            for study, teacher, sampling, what in rows:
                key = key_of(study, teacher, sampling)
                ledger.plan([question(study, teacher, key)])
                if what == "answered":
                    ledger.commit([answered(key, name)])
                    paid.add(key)
                elif what == "failed" and key not in ledger.answered():
                    ledger.commit([], [failure(key, teacher)])
    with Ledger(folder / "ours") as before:
        ours = before.answered()
    merge(folder / "ours", folder / "theirs")
    with Ledger(folder / "ours") as merged:
        assert merged.answered() == paid
        assert not paid & {one.request_sha256 for one in merged.failures()}
        rows = {(study, teacher) for study, teacher, *_ in (*mine, *other)}
        counts = merged.teacher_counts()
        assert sum(planned for planned, _ in counts.values()) == len(rows)
        for key in paid:
            found = merged.reply(key)
            assert found is not None and found.reply.text == ("ours" if key in ours else "theirs")


@pytest.mark.slow
def test_a_merge_that_is_killed_is_whole_or_was_never_there(tmp_path: Path) -> None:
    """At moments spread over its length; then the same merge again ends as an undisturbed one."""
    ours, theirs = tmp_path / "ours.sqlite", tmp_path / "theirs.sqlite"
    for path, first in ((ours, 0), (theirs, 1500)):
        with Ledger(path) as ledger:
            studies = [f"s{number}" for number in range(first, first + 3000)]
            ledger.plan([question(study, "a") for study in studies])
            ledger.commit([answered(key_of(study, "a"), "word " * 300) for study in studies])
    code = "import sys; from pathlib import Path; from cxr_max.ledger_merge import merge; print(flush=True);" \
           "merge(Path(sys.argv[1]), Path(sys.argv[2]))"  # fmt: skip
    counts = set()
    for moment in range(8):
        copy = tmp_path / f"copy{moment}.sqlite"
        shutil.copy(ours, copy)
        with subprocess.Popen([sys.executable, "-c", code, copy, theirs], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.04 * moment)
            process.kill()
        with Ledger(copy) as ledger:
            counts.add(len(ledger.answered()))
        merge(copy, theirs)
        with Ledger(copy) as ledger:
            assert len(ledger.answered()) == 4500 and ledger.teacher_counts() == {"a": (4500, 4500)}
    assert counts <= {3000, 4500}
