"""A build on a disk of its own that really fills up."""

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.background import TEXT, background, committed, keys_received, roster_of, run
from tests.builders.test_interruptions import identities
from tests.teachers.scripted import body

STUDIES = 60


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """40 MB, which only root may mount."""
    place = tmp_path / "disk"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", place]
    try:
        subprocess.run(mounting, check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("mounting a disk of a known size takes root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


async def long_reply(request: web.Request) -> web.StreamResponse:
    """A short text in a body of half a megabyte that cannot be compressed away."""
    return body("openai", TEXT, padding=random.randbytes(250_000).hex())


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_no_reply_and_doubles_none(tmp_path: Path, disk: Path) -> None:
    out = disk / "r"
    with background(long_reply) as server:
        roster = roster_of(tmp_path, server, "a", "b")
        asked = [
            "--source",
            "phantom",
            "--studies",
            STUDIES,
            "--roster",
            roster,
            "--teachers",
            "a,b",
            "--out",
            out,
        ]
        code, _, said = run(*asked)
        last = said.splitlines()[-1]
        assert code == 1 and "Traceback" not in said and "full" in last and "same command again" in last
        paid = set(keys_received(server))
        assert 0 < len(paid) < 2 * STUDIES
        assert committed(out) == paid, "a reply that was paid for was lost"
        subprocess.run(["mount", "-o", "remount,size=400m", disk], check=True)
        code, result, said = run(*asked)
        assert code == 0, said
        assert result["replies_reused"] == len(paid) and len(server.headers) == 2 * STUDIES
    assert len(identities(out)) == 2 * STUDIES
    assert not [path for path in out.iterdir() if "reserve" in path.name]
