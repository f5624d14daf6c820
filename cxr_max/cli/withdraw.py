"""``cxr-max withdraw``: subjects are taken out of a release."""

import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated

import typer


def command(
    release: Annotated[Path, typer.Argument(help="The release's folder, or its run's.", metavar="RELEASE")],
    reason: Annotated[str, typer.Option(help="Why, in a line: published in the manifest and the card.")],
    subject: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="A subject, as subject_id has it; may be repeated.")
    ] = None,
    subjects: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A CSV table with a column subject_id.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Take every row about some subjects out of a release, in all its configs, and renew its seal.

    The run that the release lies in remembers them: no build asks about them or writes them again. Run the same
    command again after an interruption.
    """
    from cxr_max.builders.release_check import read_subjects
    from cxr_max.builders.run_folder import release_in
    from cxr_max.builders.withdraw import withdraw

    named = frozenset(subject or ()) | (read_subjects(subjects) if subjects is not None else frozenset())
    done = withdraw(release_in(release), named, reason, today=date.today())
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    if done.finished:
        typer.echo("An interrupted withdrawal was finished.")
    rows = ", ".join(f"{count:,} of {config}" for config, count in done.rows.items())
    if done.subjects:
        typer.echo(f"{done.subjects} subjects withdrawn from {done.release}: {rows}")
        typer.echo(
            "Copies that were published before still hold them: push again, and delete old revisions there."
        )
