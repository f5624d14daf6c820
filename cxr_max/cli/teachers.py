"""``cxr-max teachers``: who can be asked."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cxr_max.teachers.base import TeacherSpec


def command(
    roster: Annotated[Path | None, typer.Option(help="Teachers of your own, or changes to ours.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List the teachers of the roster: where they are, and whether their key is at hand."""
    from cxr_max.teachers.roster import load

    entries = [_entry(spec) for spec in load(roster).values()]
    if as_json:
        typer.echo(json.dumps({"teachers": entries}))
        return
    for entry in entries:
        has_key = f"{entry['key']} {'set' if entry['key_set'] else 'not set'}"
        key = "no key needed" if entry["key"] is None else has_key
        typer.echo(f"{entry['name']:<27} {entry['place']:<7} {entry['model']:<31} {entry['endpoint']:<56} {key}")


def _entry(spec: "TeacherSpec") -> dict[str, Any]:
    return {
        "name": spec.name,
        "provider": spec.provider,
        "model": spec.model,
        "endpoint": spec.endpoint,
        "place": spec.place,
        "key": spec.key,
        "key_set": bool(spec.key and os.environ.get(spec.key)),
        "concurrency": spec.concurrency,
    }
