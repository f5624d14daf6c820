"""One build, killed at twenty random moments and gone on with, beside the same build undisturbed."""

import random
import shutil
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cxr_max.builders.release import write_release
from cxr_max.builders.sources.registry import open_source
from cxr_max.builders.sources.views import frontal
from cxr_max.ledger import Ledger
from cxr_max.radiograph import encode
from cxr_max.teachers.simulator import Simulator, Truth
from cxr_max.teachers.simulator.faults import Faults
from tests.background import committed, contents, run, start

STUDIES, CONCURRENCY = 60, 4
TEACHERS = {
    "a": ("openai", "sim-gpt-5-nano", "/openai/v1"),
    "b": ("anthropic", "sim-claude-sonnet-4", "/anthropic"),
    "c": ("gemini", "sim-gemini-2.5-flash-lite", "/gemini"),
}
ROWS = len(TEACHERS) * STUDIES
OF_ITS_OWN_TIME = ("created_at", "latency_s")
"""The only two columns in which two builds of the same request may differ."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Simulator]:
    """All three services, outside the builds' processes, so that they outlive them and can count."""
    source = open_source("phantom", workspace=tmp_path / "truth", labels=None)
    with Simulator(seed=5, latency_s=0.03, faults=Faults()) as simulator:
        for study in islice(source.studies(), STUDIES):
            for image in frontal(study.radiographs):
                truth = Truth(study.reference_findings, study.reference_sides, study.difficulty)
                simulator.learn(encode(image.path, "mimic_jpg").sha256, truth)
        yield simulator


def request(folder: Path, simulator: Simulator, out: Path) -> list[object]:
    roster = folder / "roster.toml"
    roster.write_text(
        "\n".join(
            f'[{name}]\nprovider = "{provider}"\nmodel = "{model}"\nendpoint = "{simulator.address}{path}"\n'
            f"concurrency = {CONCURRENCY}\nprice = {{ input = 1.0, output = 2.0 }}\n"
            for name, (provider, model, path) in TEACHERS.items()
        )
    )
    teachers = ",".join(TEACHERS)
    return ["--source", "phantom", "--studies", STUDIES, "--roster", roster, "--teachers", teachers, "--out", out]


def received(simulator: Simulator) -> Counter[str]:
    """How often each request reached its service, by its key."""
    return sum((served.received for served in list(simulator.served.values())), Counter())


def wait_for(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.002)


def moments(simulator: Simulator, out: Path) -> Iterator[Callable[[], bool]]:
    """Twenty times to kill: at a random request, at a random time, and while the release is sealed."""
    chance = random.Random(11)
    for _ in range(12):
        goal = simulator.requests + chance.randrange(1, 14)
        yield lambda: simulator.requests >= goal  # noqa: B023
    for _ in range(4):
        due = time.monotonic() + chance.uniform(0, 3)
        yield lambda: time.monotonic() >= due  # noqa: B023
    for _ in range(4):
        before = written(out / "release")
        yield lambda: written(out / "release") != before  # noqa: B023


def written(folder: Path) -> dict[Path, int]:
    """When everything below a folder was last changed."""
    try:
        return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
    except FileNotFoundError:  # it goes while we look, or is not there yet
        return {}


def of_one_time(out: Path, folder: Path, studies: Path) -> dict[str, bytes]:
    """The release of a run's ledger, had every reply come at one moment and taken one second."""
    folder.mkdir()
    for name in ("ledger.sqlite", "ledger.sqlite-wal"):
        if (out / name).exists():
            shutil.copy(out / name, folder / name)
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as db, db:
        db.execute("UPDATE replies SET created_at = '2026-01-01T00:00:00+00:00', latency_s = 1.0")
    info = open_source("phantom", workspace=studies, labels=None).info
    with Ledger(folder / "ledger.sqlite") as ledger:
        write_release(ledger, folder / "release", info, {"rendering": "mimic_jpg", "views": "frontal"})
    return contents(folder / "release")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_9_at_twenty_moments_loses_nothing_and_buys_nothing_twice(tmp_path: Path, service: Simulator) -> None:
    out, calm = tmp_path / "killed", tmp_path / "calm"
    asked = request(tmp_path, service, out)
    killed = 0
    for moment in moments(service, out):
        known, seen = committed(out), received(service)
        process = start(*asked)
        wait_for(process, moment)
        killed += process.poll() is None
        process.kill()
        process.communicate()
        assert known <= committed(out), "a committed reply was lost"
        assert not known & set(received(service) - seen), "a committed reply was asked for again"
    before = committed(out)
    code, result, said = run(*asked)
    assert code == 0, said
    assert (result["replies_reused"], result["requests_sent"]) == (len(before), ROWS - len(before))
    assert (result["trajectories"], result["failed"], result["gaps"]) == (ROWS, 0, 0)
    times = received(service)
    assert len(times) == ROWS
    again = times.total() - ROWS
    print(f"{killed} kills, {ROWS} rows, {again} asked again because they were in flight when it was killed")
    assert again <= killed * CONCURRENCY * len(TEACHERS), "more was lost than was in flight"

    code, _, said = run(*request(tmp_path, service, calm))
    assert code == 0, said
    paths = [sorted((each / "release" / "data" / "trajectories").glob("*.parquet")) for each in (out, calm)]
    assert [path.name for path in paths[0]] == [path.name for path in paths[1]] != []
    for one, other in zip(*paths, strict=True):
        tables = [pq.read_table(path) for path in (one, other)]
        assert tables[0].drop_columns(OF_ITS_OWN_TIME).equals(tables[1].drop_columns(OF_ITS_OWN_TIME))
        assert all(not tables[0][name].equals(tables[1][name]) for name in OF_ITS_OWN_TIME)
    studies = tmp_path / "truth"
    assert of_one_time(out, tmp_path / "one", studies) == of_one_time(calm, tmp_path / "two", studies)
