"""``cxr-max status``: what a run has, and what it lacks."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Argument(help="The run's folder.", metavar="DIR")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say what a run has and what it lacks; safe while it is building."""
    from cxr_max.builders.run_folder import RunFolder
    from cxr_max.errors import RequestError
    from cxr_max.ledger import Ledger

    folder = RunFolder(out)
    if not folder.ledger.exists():
        raise RequestError(f"{out} holds no run: give the --out of a cxr-max build.")
    with Ledger(folder.ledger) as ledger:
        counts = ledger.teacher_counts()
        reasons = Counter((failure.teacher, failure.message) for failure in ledger.failures())
        gaps = ledger.gaps()
    sealed = (folder.release / "manifest.json").exists()
    if as_json:
        teachers = {name: {"planned": planned, "answered": done} for name, (planned, done) in counts.items()}
        typer.echo(json.dumps({"teachers": teachers, "gaps": len(gaps), "sealed": sealed}))
        return
    for name, (planned, done) in counts.items():
        typer.echo(f"{name:<27} {done} of {planned} answered")
    for (teacher, message), times in reasons.most_common():
        typer.echo(f"failed {times} times: {teacher}: {message}")
    for gap in gaps:
        typer.echo(f"gap: study {gap.study_id}: {gap.reason}")
    typer.echo("release sealed" if sealed else "release not sealed: run the build again")
