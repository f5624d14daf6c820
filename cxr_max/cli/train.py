"""``cxr-max train``: a student of the teachers, and then a better one."""

import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from cxr_max.student.settings import Recipe


def command(
    stage: Annotated[
        Literal["sft", "apo"], typer.Argument(help="Learn from all teachers, or prefer their consensus.")
    ],
    release: Annotated[Path, typer.Option(help="The release's folder, or its run's.")],
    base: Annotated[str, typer.Option(metavar="MODEL|tiny", help="A Hub name, a student's folder, or tiny.")],
    out: Annotated[Path, typer.Option(help="Where checkpoints, curves and the student go.")],
    images: Annotated[
        str | None, typer.Option(metavar="NAME[:PATH]", help="The source, where the run's own is not at hand.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="paper (default), tiny (default of --base tiny), or a TOML."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of data order and weights.")] = None,
    export: Annotated[
        Literal["adapter", "merged"], typer.Option(help="What is written where there is an adapter.")
    ] = "adapter",
    log: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="tensorboard (default), wandb, trackio, several of them, or none."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Train a student on a release. Run the same command again after an interruption: it goes on.

    On several GPUs: accelerate launch --config_file FILE -m cxr_max train ...
    """
    from cxr_max.cli.progress import counting
    from cxr_max.errors import RequestError

    try:
        from cxr_max.builders.train import train
        from cxr_max.student.processes import is_main
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {
            "torch",
            "transformers",
            "peft",
            "accelerate",
            "matplotlib",
            "tokenizers",
        }:
            raise
        raise RequestError(f'Training needs {error.name}: pip install "cxr-max[train]".') from error
    settings = _recipe(recipe, base, seed, log)
    with counting() if is_main() else nullcontext(lambda *_: None) as watch:
        trained = train(stage, release, base, settings, out, images, export == "merged", watch)
    if not is_main():
        return
    for warning in trained.warnings:
        typer.echo(f"Note: {warning}", err=True)
    if as_json:
        typer.echo(json.dumps(asdict(trained)))
        return
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in trained.metrics.items())
    typer.echo(f"{trained.checkpoint} after {trained.steps} steps, {trained.seconds:.1f} s\n{numbers}")


def _recipe(name: str | None, base: str, seed: int | None, log: str | None) -> "Recipe":
    from cxr_max.student.settings import log_to, read_recipe

    recipe = read_recipe(name or ("tiny" if base == "tiny" else "paper"))
    if log is not None:
        recipe = recipe.model_copy(update={"log": log_to(log)})
    if seed is None:
        return recipe
    changed = {stage: getattr(recipe, stage).model_copy(update={"seed": seed}) for stage in ("sft", "apo")}
    return recipe.model_copy(update=changed)
