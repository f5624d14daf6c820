"""``cxr-max consensus``: what the teachers of a release say together."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer


def command(
    release: Annotated[Path, typer.Argument(help="The release's folder, or its run's.", metavar="RELEASE")],
    weights: Annotated[
        Literal["equal", "estimated"],
        typer.Option(help="One vote each, or votes weighed by estimated reliability (no labels are used)."),
    ] = "equal",
    quorum: Annotated[int, typer.Option(min=1, help="Fewest teachers that must mention a finding.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Add the consensus and preferences configs to a release, by vote, and renew its seal."""
    from cxr_max.builders.consensus import fill
    from cxr_max.builders.run_folder import release_in

    folder = release_in(release)
    filled = fill(folder, weighting=weights, quorum=quorum)
    if as_json:
        typer.echo(json.dumps({"release": str(folder), **asdict(filled)}))
        return
    typer.echo(
        f"{filled.consensus} consensus rows and {filled.preferences} preferences in {folder}\n"
        f"{filled.composed} texts composed because no trajectory says what the vote says,"
        f" {filled.undecided} image sets undecided"
    )
