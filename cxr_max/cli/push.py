"""``cxr-max push``: a release on the Hugging Face Hub."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def command(
    release: Annotated[Path, typer.Argument(help="The release's folder, or its run's.", metavar="RELEASE")],
    repo: Annotated[str, typer.Option(metavar="ORG/NAME", help="The data set repository; made if there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make it private, if it is made.")] = False,
    tag: Annotated[str | None, typer.Option(help="A revision tag for this release, such as v1.0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Publish a release of open data on the Hugging Face Hub, and check what arrived.

    Only what the manifest lists is sent. The token is the one of `hf auth login`, or HF_TOKEN. Run the same
    command again after an interruption: it goes on, and ends in the same tree.
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from cxr_max.builders.push import push
    from cxr_max.builders.run_folder import release_in
    from cxr_max.cli.progress import counting

    disable_progress_bars()
    with counting() as watch:
        pushed = push(release_in(release), repo, private=private, tag=tag, watch=watch)
    if pushed.simulated:
        typer.echo("Simulated teachers: no model answers, and the card on the Hub says so.", err=True)
    if as_json:
        typer.echo(json.dumps(asdict(pushed)))
        return
    done = "holds" if pushed.changed else "held already"
    typer.echo(f"{pushed.url} {done} {pushed.files} files ({pushed.bytes:,} bytes), each checked by its hash")
