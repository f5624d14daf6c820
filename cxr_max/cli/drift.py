"""``cxr-max drift``: how the teachers of a release differ, as a page, JSON and Parquet."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cxr_max.eval.drift_report import DriftReport


def command(
    release: Annotated[Path, typer.Argument(help="The release's folder, or its run's.", metavar="RELEASE")],
    out: Annotated[Path, typer.Option(help="Where index.html, drift.json and drift.parquet go.")],
    reports: Annotated[
        str | None, typer.Option(metavar="NAME:PATH", help="A source with the studies' reports, to compare with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Measure where the teachers agree and how they drift, and write a page that shows it."""
    from cxr_max.cli.progress import counting
    from cxr_max.eval.drift_page import page
    from cxr_max.eval.drift_report import measure
    from cxr_max.eval.drift_table import as_json as as_plain
    from cxr_max.eval.drift_table import table, table_schema
    from cxr_max.shards import canonical_json, write_shard, write_text

    _check(release, out)
    with counting() as watch:
        report = measure(release, reports=reports, watch=watch)
    write_shard(out / "drift.parquet", table(report), table_schema())
    write_text(out / "drift.json", canonical_json(as_plain(report)))
    write_text(out / "index.html", page(report))
    if as_json:
        typer.echo(json.dumps(_summary(report, out)))
        return
    typer.echo(
        f"{out / 'index.html'} shows how {len(report.teachers)} teachers differ over {report.studies} studies"
    )


def _check(release: Path, out: Path) -> None:
    from cxr_max.builders.run_folder import release_in
    from cxr_max.errors import RequestError

    sealed, folder = release_in(release).resolve(), out.resolve()
    if folder == sealed or sealed in folder.parents:
        raise RequestError(f"{out} lies in the sealed release, which stays as it is: choose another --out.")
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file: choose a folder for --out.")


def _summary(report: "DriftReport", out: Path) -> dict[str, Any]:
    return {
        "out": str(out),
        "studies": report.studies,
        "teachers": list(report.teachers),
        "conflict": {
            prompt.prompt.name: {teacher: mean.value for teacher, mean in prompt.drift.mean_conflict.items()}
            for prompt in report.prompts
            if prompt.drift is not None
        },
    }
