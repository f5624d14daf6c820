"""``cxr-max sheet``: what teachers are sent, for a person to look at."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

_GAPS = 3


def command(
    source: Annotated[str, typer.Argument(help="The source, as for build.", metavar="NAME[:PATH]")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    studies: Annotated[int, typer.Option(min=1, max=1000, help="How many studies to show.")] = 12,
    rendering: Annotated[
        Literal["mimic_jpg", "voi", "percentile"], typer.Option(help="How DICOM files are rendered.")
    ] = "mimic_jpg",
    labels: Annotated[Path | None, typer.Option(help="A table of labels, as for build.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Draw a contact sheet of a source's first studies, each image as teachers are sent it."""
    from cxr_max.builders.sheet import write_sheet

    shown = write_sheet(source, out, studies=studies, rendering=rendering, labels=labels)
    refused = [cell for cell in shown if cell.refused is not None]
    if as_json:
        cells = [
            {
                "number": cell.number,
                "study_id": cell.study.study_id,
                "image_id": cell.radiograph.image_id,
                "refused": cell.refused,
            }
            for cell in shown
        ]
        typer.echo(json.dumps({"out": str(out), "images": cells}))
    else:
        typer.echo(f"{out} shows {len(shown) - len(refused)} images of {source}")
    for cell in refused:
        typer.echo(f"cxr-max: {cell.number}: {cell.refused}", err=True)
    if refused:
        raise typer.Exit(_GAPS)
