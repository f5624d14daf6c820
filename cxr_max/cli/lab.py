"""``cxr-max lab``: the whole paper on a CPU, with known truth."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxr_max.lab.schedule import Progress


def command(
    out: Annotated[Path, typer.Option(help="Where everything goes; the page is OUT/report.html.")],
    preset: Annotated[
        Literal["quick", "paper", "miniature"],
        typer.Option(help="quick: one seed, all arms. paper: 5 seeds and ablations. miniature: a dry run."),
    ] = "quick",
    seeds: Annotated[int | None, typer.Option(min=1, help="Other than the preset's.")] = None,
    base: Annotated[
        str, typer.Option(metavar="tiny|MODEL", help="A bigger student, for a machine with a GPU.")
    ] = "tiny",
    workers: Annotated[int, typer.Option(min=1, help="Stages at once; 1 where they share a GPU.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Phantoms, drifting teachers, SFT, consensus, APO and the ruler, end to end, and one page that judges it.

    Run the same command again after an interruption: what is done stays done.
    """
    from cxr_max.errors import RequestError

    try:
        from cxr_max.lab.report import write_report
        from cxr_max.lab.schedule import run_lab
        from cxr_max.lab.settings import settings
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cxr_max"):
            raise
        raise RequestError(f'The lab needs {error.name}: pip install "cxr-max[train,eval]".') from error
    lab = settings(preset, seeds, base)
    with _shown() as watch:
        run_lab(out, lab, watch, workers)
    claims = write_report(out, lab)
    page = out / "report.html"
    if as_json:
        typer.echo(json.dumps({"report": str(page), "claims": [claim.as_json() for claim in claims]}))
        return
    for claim in claims:
        typer.echo(f"{claim.verdict:15} {claim.sentence}: {claim.numbers}")
    typer.echo(str(page))


class _shown:
    """A bar on a terminal; elsewhere a line whenever a stage ends."""

    def __enter__(self) -> "Callable[[Progress], None]":
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("stages", total=None)
        self._bar.start()
        self._last, self._begun = -1, time.monotonic()
        return self._watch

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _watch(self, now: "Progress") -> None:
        left = "" if now.left_s is None else f", about {now.left_s / 60:.0f} min left"
        doing = "; ".join(f"{name}: {what}" for name, what in now.running.items())
        self._bar.update(self._task, completed=now.done, total=now.total, description=f"{doing}{left}")
        if not self._console.is_terminal and now.done != self._last:
            self._last = now.done
            minutes = (time.monotonic() - self._begun) / 60
            self._console.print(f"{now.done}/{now.total} stages, {minutes:.1f} min{left}", markup=False)
