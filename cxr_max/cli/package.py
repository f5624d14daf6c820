"""``cxr-max package``: a release of credentialed data as a folder for PhysioNet."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def command(
    release: Annotated[Path, typer.Argument(help="The release's folder, or its run's.", metavar="RELEASE")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Prepare a submission to PhysioNet: README, LICENSE, SHA256SUMS and the shards; no images, no reports."""
    from cxr_max.builders.physionet import package
    from cxr_max.builders.run_folder import release_in
    from cxr_max.cli.progress import counting

    with counting() as watch:
        done = package(release_in(release), out, watch)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    typer.echo(f"{out}: {done.title}, {len(done.files)} files, {sum(done.files.values()):,} bytes")
    typer.echo(f"{done.for_authors} passages of README.md are yours to write: look for [Authors")
