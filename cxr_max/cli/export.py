"""``cxr-max export``: a release in the forms that training programs read."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer


def command(
    release: Annotated[Path, typer.Argument(help="The release's folder, or its run's.", metavar="RELEASE")],
    form: Annotated[Literal["ms-swift", "llava", "openai"], typer.Option(help="What is written.")],
    out: Annotated[Path, typer.Option(help="The folder for one JSONL file per teacher.")],
    every: Annotated[bool, typer.Option("--all", help="Refused, truncated and unparsed replies too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Write trajectories as conversations, one JSONL file per teacher; images are named, not copied."""
    from cxr_max.builders.export import export
    from cxr_max.builders.run_folder import release_in
    from cxr_max.cli.progress import counting
    from cxr_max.records import STATUSES

    with counting() as watch:
        done = export(release_in(release), out, form, statuses=STATUSES if every else ("ok",), watch=watch)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    rows = sum(done.files.values())
    typer.echo(f"{rows} rows in {len(done.files)} files in {out}, {done.left_out} left out for their status")
