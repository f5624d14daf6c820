"""``cxr-max build``: ask every teacher about every image, and seal a release."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from cxr_max.builders.build import BuildRequest, BuildResult

_Source = Annotated[
    str | None,
    typer.Option(metavar="NAME[:PATH]", help="The data set; `cxr-max sources` lists them.", show_default=False),
]
_Teachers = Annotated[
    str | None, typer.Option(metavar="all|simulated|a,b", help="Who is asked; `cxr-max teachers` lists them.")
]
_Out = Annotated[Path | None, typer.Option(help="The run's folder: ledger and release.", show_default=False)]


def command(
    source: _Source = None,
    teachers: _Teachers = None,
    out: _Out = None,
    prompt: Annotated[str | None, typer.Option(help="diagnose (default) or rationale.")] = None,
    studies: Annotated[int | None, typer.Option(min=1, help="At most so many studies.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Replies per question (default 1).")] = None,
    split: Annotated[Literal["train", "validation", "test"] | None, typer.Option(help="One split only.")] = None,
    image_sets: Annotated[
        int | None, typer.Option(min=1, help="Exactly so many image sets, drawn by --seed from all there are.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draw (default 0).")] = None,
    exclude_subjects: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Leave out the subjects of a table, MS-CXR-T's for one.")
    ] = None,
    views: Annotated[
        Literal["frontal", "study"] | None,
        typer.Option(help="Each frontal image by itself (default), or all images of a study at once."),
    ] = None,
    rendering: Annotated[
        Literal["mimic_jpg", "voi", "percentile"] | None,
        typer.Option(help="How DICOM becomes a picture (default mimic_jpg)."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Label tables, where they are not beside the images.")
    ] = None,
    attestation: Annotated[Path | None, typer.Option(help="What remote services guarantee.")] = None,
    roster: Annotated[Path | None, typer.Option(help="Teachers of your own, or changes to ours.")] = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME|FILE", help="Options as TOML; flags win.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests in flight per teacher.")] = None,
    max_cost_usd: Annotated[
        float | None,
        typer.Option(min=0, metavar="X", help="Stop before the run, earlier builds included, has cost more."),
    ] = None,
    batch: Annotated[
        bool,
        typer.Option("--batch", help="Through the services' batch interfaces: half the price, within a day."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked, and its cost and time; send nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Ask every teacher about every image, keep every reply, and seal a release that Hugging Face loads.

    Run the same command again after an interruption, or to fetch what failed: nothing is asked twice.
    """
    from cxr_max.builders.build import build
    from cxr_max.cli.progress import ConsoleWatch

    flags = {
        "source": source, "teachers": teachers, "out": out, "prompt": prompt, "studies": studies,
        "samples": samples, "split": split, "image_sets": image_sets, "seed": seed,
        "exclude_subjects": exclude_subjects, "views": views, "rendering": rendering, "labels": labels,
        "attestation": attestation, "roster": roster, "concurrency": concurrency, "max_cost_usd": max_cost_usd,
        "batch": batch or None,
    }  # fmt: skip
    request = _request({name: value for name, value in flags.items() if value is not None}, recipe)
    if dry_run:
        _forecast(request, as_json)
        return
    with ConsoleWatch() as watch:
        result = build(request, watch)
    watch.summarise()
    typer.echo(json.dumps(asdict(result)) if as_json else _sentence(result))
    if not result.complete:
        raise typer.Exit(3)


def _request(flags: dict[str, Any], recipe: str | None) -> "BuildRequest":
    from cxr_max.builders.build import BuildRequest
    from cxr_max.builders.recipes import read_recipe
    from cxr_max.errors import RequestError

    chosen = {**(read_recipe(recipe) if recipe else {}), **flags}
    for name in ("source", "teachers", "out"):
        if name not in chosen:
            raise RequestError(f"Say --{name}, or give a --recipe that does: cxr-max build --help explains it.")
    return BuildRequest(**chosen)


def _forecast(request: "BuildRequest", as_json: bool) -> None:
    from cxr_max.builders.estimate import estimate
    from cxr_max.cli import forecast
    from cxr_max.cli.progress import counting

    with counting() as watch:
        found = estimate(request, lambda done, total: watch("studies", done, total or done))
    typer.echo(json.dumps(forecast.as_json(found)) if as_json else forecast.as_text(found))


def _sentence(result: "BuildResult") -> str:
    from cxr_max.builders.release import read_manifest

    studies = read_manifest(Path(result.release))["counts"]["trajectories"]["studies"]
    text = (
        f"{result.trajectories} trajectories of {studies} studies in {result.release}\n"
        f"{result.studies} studies asked about: {result.requests_sent} requests sent, {result.replies_reused}"
        f" replies reused, {result.failed} failed, {result.gaps} gaps, {result.seconds:.1f} s\n"
        f'load_dataset("{result.release}", "trajectories")'
    )
    if result.complete:
        return text
    return f"{text}\nNot complete: the same command again asks only for what is missing."
