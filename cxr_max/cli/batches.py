"""``cxr-max batches``: what a run has at the services' batch interfaces, and how to stop it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cxr_max.records import Status


def command(
    out: Annotated[Path, typer.Argument(help="The run's folder.", metavar="DIR")],
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Stop those at the services; what they finished is kept.")
    ] = False,
    roster: Annotated[Path | None, typer.Option(help="The roster that the build was given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List the batches of a run; `cxr-max build --batch` collects them, --cancel stops them.

    What was cancelled is asked again by the next build.
    """
    from cxr_max.builders.batches import cancel_batches
    from cxr_max.builders.run_folder import RunFolder
    from cxr_max.errors import RequestError
    from cxr_max.ledger import Ledger

    folder = RunFolder(out)
    if not folder.ledger.exists():
        raise RequestError(f"{out} holds no run: give the --out of a cxr-max build.")
    if cancel:
        cancel_batches(out, roster, _Said(), lambda: _say("Stopping: the services go on cancelling"))
    with Ledger(folder.ledger) as ledger:
        batches = ledger.batches()
    if as_json:
        rows = [
            {
                "batch": batch.batch_id, "teacher": batch.teacher, "service_id": batch.service_id,
                "state": batch.state, "submitted_at": batch.submitted_at.isoformat(), "requests": batch.requests,
            }
            for batch in batches
        ]  # fmt: skip
        typer.echo(json.dumps({"batches": rows}))
        return
    for batch in batches:
        name = batch.service_id or batch.batch_id
        when = f"{batch.submitted_at:%Y-%m-%d %H:%M} UTC"
        typer.echo(f"{batch.teacher:<27} {batch.state:<10} {batch.requests:>6} requests  {when}  {name}")
    if not batches:
        typer.echo("no batches")


class _Said:
    """A watch that says what matters while batches are cancelled."""

    def answered(self, teacher: str, status: Status, cost_usd: float | None) -> None:
        pass

    def failed(self, teacher: str, message: str) -> None:
        pass

    def stopped(self, teacher: str, message: str) -> None:
        _say(f"{teacher}: {message}")

    def warned(self, message: str) -> None:
        _say(message)

    def batches(self, state: str) -> None:
        _say(state)


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)
