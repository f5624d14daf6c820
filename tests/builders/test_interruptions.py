"""Builds that are killed, stopped, locked out or out of disk: nothing lost, nothing asked twice."""

import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiohttp import web

from cxr_max.builders.run_folder import RunFolder
from tests.background import background, committed, keys_received, roster_of, run, slow_reply, start
from tests.teachers.scripted import Scripted

STUDIES = 30
ROWS = 2 * STUDIES


def arguments(folder: Path, scripted: Scripted) -> list[Any]:
    roster = roster_of(folder, scripted, "a", "b")
    return [
        "--source",
        "phantom",
        "--studies",
        STUDIES,
        "--roster",
        roster,
        "--teachers",
        "a,b",
        "--out",
        folder / "r",
    ]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.005)


def identities(out: Path) -> Counter[tuple[Any, ...]]:
    rows = pq.read_table(out / "release" / "data" / "trajectories").to_pylist()
    return Counter(
        (row["study_id"], *row["image_ids"], row["teacher"], row["prompt_name"], row["sample_index"])
        for row in rows
    )


@pytest.mark.slow
def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    chance = random.Random(7)
    out = tmp_path / "r"
    with background() as server:
        asked = arguments(tmp_path, server)
        for _ in range(6):
            known, seen = committed(out), len(server.headers)
            process = start(*asked)
            goal = seen + chance.randrange(0, 12)
            wait_for(lambda: len(server.headers) > goal or process.poll() is not None)  # noqa: B023
            process.kill()
            process.communicate()
            assert known <= committed(out), "a committed reply was lost"
            assert not known & set(keys_received(server)[seen:]), "a committed reply was asked for again"
        before = committed(out)
        code, result, said = run(*asked)
    assert code == 0, said
    assert result["replies_reused"] == len(before)
    assert result["requests_sent"] == ROWS - len(before)
    assert len(identities(out)) == ROWS and set(identities(out).values()) == {1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_with_130_and_loses_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with background() as server:
        asked = arguments(tmp_path, server)
        process = start(*asked)
        wait_for(lambda: len(server.headers) > 10)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "Traceback" not in said and "the same command goes on" in said
        assert committed(tmp_path / "r") == set(keys_received(server)), "a reply in flight was lost"
        assert len(server.headers) < ROWS
        code, _, _ = run(*asked)
        assert code == 0 and len(server.headers) == ROWS


def test_a_second_stop_gives_up_what_is_in_flight(tmp_path: Path) -> None:
    async def stall(request: web.Request) -> web.StreamResponse:
        import asyncio

        await asyncio.sleep(100)
        return web.Response()

    with background(stall) as server:
        process = start(*arguments(tmp_path, server))
        wait_for(lambda: len(server.headers) >= 4)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "it should wait for the replies in flight"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in said


def test_a_second_build_is_locked_out(tmp_path: Path) -> None:
    with background() as server:
        asked = arguments(tmp_path, server)
        # The lock of a process that goes on working, as a build does.
        with RunFolder(tmp_path / "r").locked():
            code, _, said = run(*asked)
        assert not server.headers
        assert run(*asked)[0] == 0
    assert code == 2 and "Another build is at work" in said and said.count("\n") == 1


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the kernel refuses the write either way."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    with background(slow_reply) as server:
        asked = arguments(tmp_path, server)
        code, _, said = run(*asked, preexec_fn=limit)
        assert code == 1, said
        assert "Traceback" not in said and "same command again" in said.splitlines()[-1]
        known = committed(tmp_path / "r")
        code, result, said = run(*asked)
        assert code == 0, said
        assert result["replies_reused"] == len(known)
    assert len(identities(tmp_path / "r")) == ROWS
