"""``cxr-max consensus``: what the teachers of a release say together."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from cxr_max.builders.consensus import Filled


def command(
    release: Annotated[Path, typer.Argument(help="The release's folder, or its run's.", metavar="RELEASE")],
    method: Annotated[
        Literal["vote", "student"],
        typer.Option(help="Who puts the vote into words: a teacher that says it, or a model that is asked."),
    ] = "vote",
    weights: Annotated[
        Literal["equal", "estimated"],
        typer.Option(help="One vote each, or votes weighed by estimated reliability (no labels are used)."),
    ] = "equal",
    quorum: Annotated[int, typer.Option(min=1, help="Fewest teachers that must mention a finding.")] = 2,
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The student to ask: a checkpoint's folder.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="NAME", help="The one to ask instead: a teacher of the roster.")
    ] = None,
    roster: Annotated[Path | None, typer.Option(help="Teachers of your own, or changes to ours.")] = None,
    images: Annotated[
        str | None,
        typer.Option(metavar="NAME:PATH", help="Where the images are, if not where the build found them."),
    ] = None,
    attestation: Annotated[Path | None, typer.Option(help="What remote services guarantee.")] = None,
    max_cost_usd: Annotated[
        float | None,
        typer.Option(min=0, metavar="X", help="Stop before it, earlier starts included, has cost more."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Add the consensus and preferences configs to a release, and renew its seal.

    With --method student a model is asked for the consensus in words. Run the same command again after an
    interruption, or to fetch what failed: nothing is asked twice.
    """
    from cxr_max.builders.consensus import fill
    from cxr_max.builders.run_folder import release_in
    from cxr_max.cli.progress import ConsoleWatch, counting

    folder = release_in(release)
    asked = {
        "model": model, "teacher": teacher, "roster_file": roster, "images": images, "attestation": attestation,
        "max_cost_usd": max_cost_usd,
    }  # fmt: skip
    if method == "vote":
        _refuse_idle(asked)
        with counting() as bar:
            filled = fill(folder, weighting=weights, quorum=quorum, watch=bar)
    else:
        from cxr_max.builders.synthesis import writer_for

        with ConsoleWatch() as watch:
            writer = writer_for(folder, watch, **asked)  # type: ignore[arg-type]
            filled = fill(folder, weighting=weights, quorum=quorum, writer=writer)
        watch.summarise("the same command tries them again")
    typer.echo(json.dumps({"release": str(folder), **asdict(filled)}) if as_json else _sentences(filled, folder))
    if not filled.complete:
        raise typer.Exit(3)


def _refuse_idle(asked: dict[str, Any]) -> None:
    """An option that would do nothing is a mistake that the user should hear of."""
    from cxr_max.errors import RequestError

    idle = [
        f"--{name.removesuffix('_file').replace('_', '-')}" for name, value in asked.items() if value is not None
    ]
    if idle:
        raise RequestError(f"A vote asks nobody, so {', '.join(idle)} means nothing: add --method student.")


def _sentences(filled: "Filled", folder: Path) -> str:
    lines = [
        f"{filled.consensus} consensus rows and {filled.preferences} preferences in {folder}",
        f"{filled.composed} texts composed because no trajectory says what the vote says,"
        f" {filled.undecided} image sets undecided",
    ]
    if filled.student:
        reasons = [f"{count} {name}" for name, count in filled.student.items() if count and name != "kept"]
        others = f"; the vote's stand for the others: {', '.join(reasons)}" if reasons else ""
        lines.insert(1, f"{filled.student['kept']} texts of the asked model kept{others}")
    if not filled.complete:
        lines.append("Not complete: the same command again asks only for what is missing.")
    return "\n".join(lines)
