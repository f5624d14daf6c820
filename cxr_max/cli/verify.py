"""``cxr-max verify``: whether a release holds what it says."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cxr_max.builders.release_check import Verdict


def command(
    release: Annotated[Path, typer.Argument(help="The release's folder, or its run's.", metavar="RELEASE")],
    exclude_subjects: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A CSV table with a column subject_id, as MS-CXR-T's: none of them may be in the train split.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Check files, schema, counts, subjects, duplicates, identifiers and keys of a release; nothing is written.

    Exit code 0: nothing found; 1: defects, each told in a sentence; 2: it is no release.
    """
    from cxr_max.builders.release_check import check_release, read_subjects
    from cxr_max.builders.run_folder import release_in
    from cxr_max.cli.progress import counting

    excluded = read_subjects(exclude_subjects) if exclude_subjects is not None else frozenset()
    with counting() as watch:
        verdict = check_release(release_in(release), excluded=excluded, watch=watch)
    typer.echo(json.dumps(asdict(verdict) | {"clean": verdict.clean}) if as_json else _sentences(verdict))
    if not verdict.clean:
        raise typer.Exit(1)


def _sentences(verdict: "Verdict") -> str:
    lines = []
    for check, count in verdict.counts.items():
        told = [defect for defect in verdict.defects if defect.check == check]
        for defect in told:
            place = defect.file if defect.row is None else f"{defect.file}, row {defect.row}"
            lines.append(f"{check}: {place}: {defect.message}")
        if count > len(told):
            lines.append(f"{check}: and {count - len(told):,} more")
    found = sum(verdict.counts.values())
    lines.append(
        f"{verdict.rows:,} trajectories in {verdict.release}: {f'{found:,} defects' if found else 'clean'}"
    )
    return "\n".join(lines)
