"""A disk that fills up in the middle of a run loses no reply that was paid for."""

import asyncio
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cxr_max.data_use import Gate
from cxr_max.errors import RequestError, StorageError
from cxr_max.ledger import Answered, Failure, Ledger
from cxr_max.teachers import reserve as reserve_module
from cxr_max.teachers.asking import Asking, Batch
from cxr_max.teachers.reserve import Reserve
from tests.teachers.test_asking import Fake, Log, batches


class FullDisk(Ledger):
    """A disk that has room for ``room`` replies, and for more once the reserve is gone."""

    room = 20
    reserve: Reserve | None = None
    committed = 0

    def commit(self, answers: Sequence[Answered], failures: Sequence[Failure] = ()) -> None:
        kept = self.reserve is not None and self.reserve.path.exists()
        if self.committed + len(answers) > self.room and (kept or self.reserve is None):
            raise StorageError("The ledger cannot be written (database or disk is full).")
        super().commit(answers, failures)
        self.committed += len(answers)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[FullDisk]:
    with FullDisk(tmp_path / "ledger.sqlite") as opened:
        yield opened


def ask(ledger: Ledger, asked: Iterator[Batch], *teachers: Fake, reserve: Reserve | None = None) -> None:
    async def go() -> None:
        asking = Asking(teachers, Gate("t", "open"), ledger, Log(ledger), [], asyncio.Event(), reserve=reserve)
        await asking.run(asked)

    asyncio.run(go())


def test_the_replies_in_flight_are_kept_and_nothing_more_is_sent(ledger: FullDisk) -> None:
    a, b = Fake("a", concurrency=8), Fake("b", concurrency=8)
    with Reserve(ledger.path, 4096) as reserve:
        ledger.reserve = reserve
        with pytest.raises(StorageError, match="disk is full"):
            ask(ledger, batches(500, a, b), a, b, reserve=reserve)
    calls = {*a.calls, *b.calls}
    assert ledger.answered() == calls, "a reply that was paid for was lost"
    assert 20 < len(calls) < 200


def test_a_disk_that_stays_full_ends_the_run_all_the_same(ledger: FullDisk) -> None:
    a = Fake("a")
    with pytest.raises(StorageError, match="disk is full"):
        ask(ledger, batches(100, a), a)
    assert len(a.calls) < 100


@pytest.mark.parametrize("error", [StorageError("full"), RequestError("a table is wrong"), OSError("gone")])
def test_images_that_cannot_be_had_any_more_lose_no_reply_in_flight(ledger: Ledger, error: Exception) -> None:
    ledger.room = 10_000  # type: ignore[attr-defined]
    a = Fake("a", concurrency=8)

    def failing() -> Iterator[Batch]:
        yield from batches(30, a)
        raise error

    with pytest.raises(type(error), match=str(error)):
        ask(ledger, failing(), a)
    assert ledger.answered() == set(a.calls) and a.calls


def test_the_reserve_takes_real_room_and_leaves_none_behind(tmp_path: Path) -> None:
    with Reserve(tmp_path / "ledger.sqlite", 2**20) as reserve:
        found = reserve.path.stat()
        assert found.st_size == 2**20 and found.st_blocks * 512 >= 2**20
        assert reserve.let_go() and not reserve.let_go()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_used_again(tmp_path: Path) -> None:
    Reserve(tmp_path / "ledger.sqlite", 2**20).__enter__()
    with Reserve(tmp_path / "ledger.sqlite", 2**20) as reserve:
        assert reserve.path.stat().st_size == 2**20
    assert list(tmp_path.iterdir()) == []


def refusing(number: int) -> Any:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_disk_that_is_full_already_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserve_module.os, "posix_fallocate", refusing(errno.ENOSPC))
    with pytest.raises(StorageError, match=r"no room for replies.*at least 32 MB.*Nothing was sent"):
        Reserve(tmp_path / "ledger.sqlite").__enter__()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EFBIG])
def test_where_no_room_can_be_set_aside_the_run_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(reserve_module.os, "posix_fallocate", refusing(number))
    with Reserve(tmp_path / "ledger.sqlite") as reserve:
        assert not reserve.let_go()
