"""``cxr-max import``: trajectories that were made elsewhere, as a release."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer


def command(
    files: Annotated[
        list[Path] | None, typer.Argument(help="JSON or JSONL files, one per teacher.", metavar="FILES")
    ] = None,
    out: Annotated[Path, typer.Option(help="The release's folder.")] = Path("release"),
    form: Annotated[
        Literal["ms-swift", "llava", "openai"] | None, typer.Option(help="Of the files; found out if left out.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="NAME:PATH", help="Your copy of the images, for studies and splits.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The data set, if you have no copy of it.")] = None,
    teacher: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="A file whose name is not its teacher's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Make a release of conversations in ms-swift, LLaVA or OpenAI chat form.

    Their texts are read by the labeler. What the files do not say is null in every row; rows that cannot be read
    are skipped, counted and named.
    """
    from cxr_max.builders.imports import import_files
    from cxr_max.cli.progress import counting

    with counting() as watch:
        done = import_files(
            _named(files or [], teacher or []), out, form=form, source=source, name=name, watch=watch
        )
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    typer.echo(
        f"{done.trajectories} trajectories of {len(done.teachers)} teachers over {done.studies} studies in {out}"
    )
    for example in done.examples:
        typer.echo(f"cxr-max: skipped {example}", err=True)
    for reason, count in done.skipped.items():
        typer.echo(f"cxr-max: skipped {count}: {reason}", err=True)
    if done.without_split:
        typer.echo(f"cxr-max: nothing says the split of {done.without_split} rows: they load as train", err=True)
    typer.echo(f"cxr-max: unknown, and null: {', '.join(done.unknown)}", err=True)


def _named(files: list[Path], named: list[str]) -> dict[str, Path]:
    from cxr_max.errors import RequestError

    pairs = [(path.stem, path) for path in files]
    for one in named:
        teacher, mark, path = one.partition("=")
        if not (teacher and mark and path):
            raise RequestError(f"--teacher {one} says not whose file it is: write --teacher NAME=FILE.")
        pairs.append((teacher, Path(path)))
    if not pairs:
        raise RequestError("Name the files to import, one per teacher.")
    if len(dict(pairs)) < len(pairs):
        raise RequestError("Two files are of one teacher: name them by --teacher NAME=FILE.")
    return dict(pairs)
