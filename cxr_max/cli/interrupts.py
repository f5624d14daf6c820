"""Ctrl-C while the command line is still being imported: the process ends with 130, and shows no traceback.

Imported before anything that takes time. Whoever imports the command line as a library has the own handler back as
soon as it is loaded.
"""

import signal
import sys
import threading
from typing import Any


def _leave(*_: object) -> None:
    # Nothing was begun yet, so there is nothing to say.
    sys.exit(130)


# Only a main thread may set a handler; and one that ignores Ctrl-C, or is somebody's own, stays.
_in_charge = (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
)
_before: Any = signal.signal(signal.SIGINT, _leave) if _in_charge else None


def loaded() -> None:
    """Give the handler back: from now on ``main`` catches what comes."""
    if _in_charge and signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, _before)
