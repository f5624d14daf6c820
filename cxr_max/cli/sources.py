"""``cxr-max sources``: which data sets can be read."""

import json
from typing import Annotated

import typer


def command(as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False) -> None:
    """List the data sets that can be read, their terms and how to name them."""
    from cxr_max.builders.sources.registry import listing

    entries = listing()
    if as_json:
        typer.echo(json.dumps({"sources": entries}))
        return
    for entry in entries:
        typer.echo(f"{entry['spec']:<22} {entry['data_use']:<13} {entry['title']}")
