"""The command line: one small file per command, with parsing, progress and exit codes only.

Exit codes: 0 done; 1 something unexpected; 2 the request is wrong or not allowed, and nothing was sent;
3 done with gaps; 130 interrupted, resumable.
"""

import signal
import sys

from cxr_max.cli import interrupts  # isort: split

import typer
from typer.exceptions import TyperException

from cxr_max import __version__
from cxr_max.cli import (
    batches,
    build,
    consensus,
    drift,
    export,
    importing,
    lab,
    leaderboard,
    ledger,
    package,
    push,
    sheet,
    sources,
    status,
    teachers,
    train,
    verify,
    withdraw,
)
from cxr_max.cli import eval as evaluation
from cxr_max.errors import CxrMaxError

app = typer.Typer(
    name="cxr-max",
    help="Chest radiographs in, reasoning trajectories of many teachers out, as Parquet that Hugging Face loads.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("build")(build.command)
app.command("batches")(batches.command)
app.command("consensus")(consensus.command)
app.command("drift")(drift.command)
app.command("lab")(lab.command)
app.command("train")(train.command)
app.command("eval")(evaluation.command)
app.command("leaderboard")(leaderboard.command)
app.add_typer(sources.app, name="sources")
app.command("verify")(verify.command)
app.command("withdraw")(withdraw.command)
app.command("sheet")(sheet.command)
app.command("teachers")(teachers.command)
app.command("status")(status.command)
app.command("push")(push.command)
app.command("package")(package.command)
app.command("import")(importing.command)
app.command("export")(export.command)
app.add_typer(ledger.app, name="ledger")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _top(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    # A scheduler's SIGTERM is Ctrl-C by another hand.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)
    except CxrMaxError as error:
        _say(str(error))
        code = error.exit_code
    except TyperException as error:
        _say(error.format_message() or "cxr-max --help shows the commands.")
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


def _say(sentence: str) -> None:
    typer.echo(f"cxr-max: {sentence}", err=True)


interrupts.loaded()
