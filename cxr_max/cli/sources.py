"""``cxr-max sources``: which data sets can be read, and whether a copy of one is whole."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cxr_max.builders.sources.copy_check import CopyReport

app = typer.Typer(help="Which data sets can be read, and whether a copy of one is whole.")

_DEFECTS = 1
_LABELS = 12


@app.callback(invoke_without_command=True)
def list_sources(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List the data sets that can be read: how to name them, their terms, where to get them, how much it is."""
    if context.invoked_subcommand is not None:
        return
    from cxr_max.builders.sources.registry import listing

    entries = listing()
    if as_json:
        typer.echo(json.dumps({"sources": entries}))
        return
    for entry in entries:
        typer.echo(f"{entry['spec']:<19} {entry['data_use']:<13} {entry['title']}")
        published = ", ".join(f"{number:,} {name}" for name, number in entry["expected"].items())
        for line in (published, entry["home"]):
            if line:
                typer.echo(f"{'':<33} {line}")


@app.command("check")
def check(
    source: Annotated[str, typer.Argument(help="The copy, as for build.", metavar="NAME:PATH")],
    images: Annotated[bool, typer.Option("--images", help="Also read the header of every image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Compare a copy with its own tables and with what its owners publish, and name what is missing.

    Exit code 0: it is whole. 1: it has defects. 2: there is no such copy, or its tables cannot be read.
    """
    from cxr_max.builders.sources.copy_check import check_copy
    from cxr_max.builders.sources.registry import open_copy
    from cxr_max.cli.progress import counting

    with counting() as watch:
        report = check_copy(open_copy(source), images=images, watch=watch)
    if as_json:
        typer.echo(json.dumps({**asdict(report), "root": str(report.root), "whole": not report.defects}))
    else:
        _print(report)
    for defect in report.defects:
        typer.echo(f"cxr-max: {defect}", err=True)
    if report.defects:
        raise typer.Exit(_DEFECTS)


def _print(report: "CopyReport") -> None:
    typer.echo(f"{report.source} in {report.root}")
    typer.echo(f"tables    {', '.join(report.tables) or 'none'}")
    for name in report.absent:
        typer.echo(f"absent    {name}")
    typer.echo(f"rows      {report.rows:,}")
    for name, counted in report.counts.items():
        published = report.expected.get(name)
        typer.echo(f"{name:<9} {counted:,}" + (f" of {published:,} published" if published else ""))
    typer.echo(f"present   {report.present:,}")
    _print_files("missing", report.missing, report.missing_names)
    _print_files("extra", report.extra, report.extra_names)
    for file, reason in list((report.unreadable or {}).items())[:_LABELS]:
        typer.echo(f"unread    {file}: {reason}")
    _print_labels("mapped", report.mapped)
    _print_labels("unmapped", report.unmapped)
    if report.unknown:
        typer.echo(f"unknown   {', '.join(report.unknown)}")
    for warning in report.warnings:
        typer.echo(f"note      {warning}")
    typer.echo("defects   " + (str(len(report.defects)) if report.defects else "none: the copy is whole"))


def _print_files(what: str, number: int, names: tuple[str, ...]) -> None:
    more = f" and {number - len(names):,} more" if number > len(names) else ""
    typer.echo(f"{what:<9} {number:,}" + (f": {', '.join(names)}{more}" if number else ""))


def _print_labels(what: str, labels: dict[str, int]) -> None:
    shown = [f"{name} {times:,}" for name, times in list(labels.items())[:_LABELS]]
    more = f" and {len(labels) - len(shown)} more" if len(labels) > len(shown) else ""
    typer.echo(f"{what:<9} {len(labels)} labels" + (f": {', '.join(shown)}{more}" if shown else ""))
