"""What a person sees while a build runs: a board on a terminal, single lines elsewhere."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.progress import Progress, TaskID
from rich.progress_bar import ProgressBar
from rich.table import Table

from cxr_max.costs import add_cost
from cxr_max.ledger import Gap
from cxr_max.records import Status
from cxr_max.teachers.base import TeacherSpec

_SIMULATED = "Simulated teachers: no model answers, and nothing here is data about any model."
_STATE_EVERY_S = 60.0
_SHOWN = 5
"""Reasons and gaps printed at the end; ``cxr-max status`` has them all."""


@dataclass(slots=True)
class _Line:
    """One teacher's numbers. ``planned`` and ``there`` count rows, the others this run's requests."""

    planned: int = 0
    there: int = 0
    done: int = 0
    failed: int = 0
    refused: int = 0
    cost_usd: float | None = 0.0
    stopped: bool = False


@dataclass(slots=True)
class _Board:
    """Drawn a few times a second from plain counters, so that showing costs nothing per reply."""

    studies_expected: int | None = None
    studies: int = 0
    begun: float = field(default_factory=time.monotonic)
    lines: dict[str, _Line] = field(default_factory=dict)
    at_services: str | None = None
    """What is in batches, in a sentence."""

    def __rich__(self) -> Table:
        table = Table(box=None, pad_edge=False, caption=self.at_services, caption_justify="left")
        for head in ("teacher", "", "done", "failed", "refused", "replies/s", "cost", "left"):
            table.add_column(head, justify="left" if head in {"teacher", ""} else "right")
        for teacher, line in self.lines.items():
            table.add_row(teacher, *self._cells(line))
        return table

    def _cells(self, line: _Line) -> tuple[str | ProgressBar, ...]:
        total = self._expected_rows(line)
        have = line.there + line.done
        rate = line.done / max(time.monotonic() - self.begun, 1e-9)
        left = (total - have - line.failed) / rate if total is not None and rate else None
        return (
            ProgressBar(total=total or None, completed=have, width=24),
            f"{have}/{total if total is not None else '?'}",
            str(line.failed),
            str(line.refused),
            f"{rate:.1f}",
            "?" if line.cost_usd is None else f"${line.cost_usd:.2f}",
            "stopped" if line.stopped else "" if left is None else _span(left),
        )

    def _expected_rows(self, line: _Line) -> int | None:
        """Rows planned so far, scaled up to all studies."""
        if self.studies_expected is None or self.studies == 0:
            return None
        return max(line.planned, round(line.planned * self.studies_expected / self.studies))


class ConsoleWatch:
    """Follows a build on stderr. On a terminal a live board; elsewhere only what a log needs.

    Args:
        last: said when all is asked.
    """

    def __init__(self, last: str = "Writing the release") -> None:
        self._last = last
        self._console = Console(stderr=True, highlight=False)
        self._board = _Board()
        self._live: Live | None = None
        self._next_state = 0.0
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._gaps: Sequence[Gap] = ()

    def __enter__(self) -> "ConsoleWatch":
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, teachers: tuple[TeacherSpec, ...], studies: int | None) -> None:
        """See ``BuildWatch``."""
        self._board = _Board(studies, lines={spec.name: _Line() for spec in teachers})
        if any(spec.provider == "simulated" for spec in teachers):
            self._say(_SIMULATED)
        about = "all studies" if studies is None else _many(studies, "study", "studies")
        self._say(f"Asking {_many(len(teachers), 'teacher', 'teachers')} about {about}")
        if self._console.is_terminal:
            self._live = Live(self._board, console=self._console, refresh_per_second=4)
            self._live.start()

    def warned(self, message: str) -> None:
        """See ``BuildWatch``."""
        self._say(f"Note: {message}")

    def planned(self, teacher: str, settled: bool) -> None:
        """See ``PlanWatch``."""
        line = self._board.lines[teacher]
        line.planned += 1
        line.there += settled

    def study(self) -> None:
        """See ``PlanWatch``."""
        self._board.studies += 1

    def answered(self, teacher: str, status: Status, cost_usd: float | None) -> None:
        """See ``Watch``."""
        line = self._board.lines[teacher]
        line.done += 1
        line.refused += status == "refused"
        line.cost_usd = add_cost(line.cost_usd, cost_usd)

    def failed(self, teacher: str, message: str) -> None:
        """See ``Watch``."""
        self._board.lines[teacher].failed += 1
        self._reasons[teacher, message] += 1

    def stopped(self, teacher: str, message: str) -> None:
        """See ``Watch``."""
        self._board.lines[teacher].stopped = True
        self._say(f"{teacher} is out for this run: {message}")

    def stopping(self) -> None:
        """See ``BuildWatch``."""
        self._say("Stopping: waiting for the replies in flight; once more gives them up")

    def batches(self, state: str) -> None:
        """See ``BatchWatch``. Said when it changes."""
        self._board.at_services = state
        now = time.monotonic()
        # On a terminal the board shows it; a log needs to know now and then.
        if self._live is None and now >= self._next_state:
            self._next_state = now + _STATE_EVERY_S
            self._say(state)

    def sealing(self, gaps: Sequence[Gap]) -> None:
        """See ``BuildWatch``."""
        self._gaps = gaps
        self._say(self._last)

    def summarise(self, rest: str = "cxr-max status lists them all") -> None:
        """Say why something is missing, the commonest reasons first.

        Args:
            rest: where more than is shown can be found.
        """
        for (teacher, message), times in self._reasons.most_common(_SHOWN):
            self._say(f"Failed {_many(times, 'time', 'times')}: {teacher}: {message}")
        for gap in self._gaps[:_SHOWN]:
            self._say(f"Gap: study {gap.study_id}: {gap.reason}")
        more = max(0, len(self._reasons) - _SHOWN) + max(0, len(self._gaps) - _SHOWN)
        if more:
            self._say(f"and {more} more: {rest}")

    def _say(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, soft_wrap=True)


def _many(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def counting() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per kind of work, with the time left, on a terminal; silence elsewhere.

    Yields a function to be told what is being done, how much of it is done, and of how much.
    """
    console = Console(stderr=True)
    with Progress(*Progress.get_default_columns(), console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def watch(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield watch
