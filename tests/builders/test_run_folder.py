"""A run's folder: its lock, and who asks about it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_max.builders.run_folder import RunFolder
from cxr_max.errors import RunLockedError


def test_somebody_at_work_is_seen_without_writing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert not folder.at_work()
    assert not folder.root.exists()
    with folder.locked():
        assert folder.at_work()
        assert folder.at_work(), "asking must not take the lock"
    assert not folder.at_work()


def test_whoever_asks_does_not_lock_a_build_out(tmp_path: Path) -> None:
    """The asker holds the lock for an instant; a build that comes just then tries again."""
    folder = RunFolder(tmp_path)
    with folder.locked():
        pass
    folder.lock.touch()
    code = (
        "import fcntl, sys, time\n"
        "file = open(sys.argv[1], 'rb')\n"
        "fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)\n"
        "print('held', flush=True)\n"
        "time.sleep(0.1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, folder.lock], stdout=subprocess.PIPE, text=True) as asker:
        assert asker.stdout is not None and asker.stdout.readline() == "held\n"
        with folder.locked():
            assert folder.at_work()


def test_a_second_job_is_locked_out(tmp_path: Path) -> None:
    with RunFolder(tmp_path).locked():
        pid = os.fork()
        if pid == 0:
            try:
                with RunFolder(tmp_path).locked():
                    os._exit(0)
            except RunLockedError:
                os._exit(3)
            os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_only_be_read_can_be_asked_about(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.locked():
        pass
    tmp_path.chmod(0o500)
    try:
        assert not folder.at_work()
    finally:
        tmp_path.chmod(0o700)
