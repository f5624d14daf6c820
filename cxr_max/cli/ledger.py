"""``cxr-max ledger``: care of what was paid for."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cxr_max.ledger_merge import Merged

app = typer.Typer(help="Care of the replies that were paid for.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command("merge")
def merge(
    into: Annotated[Path, typer.Argument(help="The run that grows: the --out of a build.", metavar="INTO")],
    others: Annotated[list[Path], typer.Argument(help="Runs of the same source; only read.", metavar="FROM...")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Make one run of several that were built on different machines; no reply is lost or doubled.

    Copy the other run's whole folder here first, after its build has ended. Merging it again changes nothing.
    """
    from cxr_max.builders.merge import merge_runs

    merged = merge_runs(into, others)
    if as_json:
        runs = [{**asdict(run), "folder": str(run.folder)} for run in merged]
        typer.echo(json.dumps({"into": str(into), "merged": runs}))
        return
    for run in merged:
        typer.echo(f"{run.folder}: {_sentence(run.ledger)}")
        if run.consensus is not None:
            typer.echo(f"{run.folder}, consensus in words: {_sentence(run.consensus)}")
    typer.echo(f"Run the build of {into} again: it asks only for what is missing, and seals a release of all.")


def _sentence(merged: "Merged") -> str:
    text = f"{merged.replies} replies and {merged.rows} rows are new, {merged.known} replies were there"
    if merged.differing:
        text += f"; {merged.differing} rows are asked differently there, and stay as they are here where answered"
    return text
