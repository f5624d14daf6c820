"""``cxr-max leaderboard``: many results, verified, side by side."""

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    results: Annotated[list[Path], typer.Argument(help="Folders that cxr-max eval wrote.", metavar="RESULT...")],
    out: Annotated[Path, typer.Option(help="Where the site goes.")],
    title: Annotated[str, typer.Option(help="What stands on top of it.")] = "cxr-max leaderboard",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Verify results and write a static site, CSV and Markdown. Ends with 1 if a result was refused."""
    from cxr_max.cli.progress import counting
    from cxr_max.errors import RequestError
    from cxr_max.eval.leaderboard import boards, read_all
    from cxr_max.eval.site import write_site

    with counting() as watch:
        verified, refused = read_all(results, watch)
    for reason in refused:
        typer.echo(f"Refused: {reason}", err=True)
    if not verified:
        raise RequestError("No result holds, so there is nothing to show: see the reasons above.")
    made = boards(verified)
    write_site(made, out, title=title)
    models = sum(len(board.entries) for board in made)
    said = {"site": str(out / "index.html"), "boards": len(made), "entries": models, "refused": refused}
    typer.echo(json.dumps(said) if as_json else f"{models} entries on {len(made)} boards in {out / 'index.html'}")
    if refused:
        raise typer.Exit(1)
