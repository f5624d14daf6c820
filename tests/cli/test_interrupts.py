"""Ctrl-C before the command line has begun: 130, and no traceback."""

import subprocess
import sys

import pytest

INTERRUPTED_AT = """
import os, signal, sys

module = sys.argv[1]

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from cxr_max.cli import main
sys.argv = ["cxr-max", "status", "/nowhere"]
main()
"""


@pytest.mark.parametrize(
    "module", ["typer", "cxr_max.cli.build", "cxr_max.errors", "cxr_max.builders", "cxr_max.builders.status"]
)
def test_an_interrupt_at_any_import_is_quiet(module: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT, module], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_a_program_that_imports_the_command_line_keeps_its_own_handler() -> None:
    code = "import signal; before = signal.getsignal(signal.SIGINT); import cxr_max.cli\n" \
           "assert signal.getsignal(signal.SIGINT) is before is signal.default_int_handler"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_program_that_ignores_interrupts_goes_on_doing_so() -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import cxr_max.cli\n" \
           "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_thread_may_import_the_command_line() -> None:
    code = "import threading; t = threading.Thread(target=__import__, args=('cxr_max.cli',))\n" \
           "t.start(); t.join()\n" \
           "import sys, signal; assert 'cxr_max.cli' in sys.modules\n" \
           "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)
