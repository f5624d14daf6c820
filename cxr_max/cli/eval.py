"""``cxr-max eval``: a model on the ruler."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from cxr_max.eval.run import Evaluation
    from cxr_max.records import Score

_SHOWN: Final = (
    ("balanced_accuracy", None), ("f1", None), ("auroc", None), ("accuracy", None), ("refusal_rate", None),
    ("alpha", None), ("flip_rate", None), ("image_gain", None), ("blank_accuracy", None),
    ("mirror_consistency", None), ("mean_loss", "severity 3"), ("worst_group", None), ("bleu_4", None),
    ("finding_f1", None), ("progression_macro_accuracy", None), ("progression_accuracy", None),
    ("top1_accuracy", None),
)  # fmt: skip


def command(
    release: Annotated[Path, typer.Option(help="The release's folder, or its run's: what is asked about.")],
    out: Annotated[Path, typer.Option(help="Where replies, predictions and scores go.")],
    suite: Annotated[
        str, typer.Option(metavar="NAMES", help="Suites with commas between, or TOML files.")
    ] = "consistency,robustness,generalization",
    model: Annotated[Path | None, typer.Option(metavar="DIR", help="A student to ask.")] = None,
    teacher: Annotated[str | None, typer.Option(metavar="NAME", help="A teacher of the roster to ask.")] = None,
    stored: Annotated[bool, typer.Option("--stored", help="Score its rows in the release; ask nobody.")] = False,
    predictions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Predictions to score, as Parquet or CSV.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the model is called on a leaderboard.")] = None,
    images: Annotated[
        str | None, typer.Option(metavar="NAME[:PATH]", help="The source, where the run's own is not at hand.")
    ] = None,
    trained_on: Annotated[
        Path | None, typer.Option(metavar="RELEASE", help="Where to look for leaks, if not in --release.")
    ] = None,
    roster: Annotated[Path | None, typer.Option(help="Teachers of your own, or changes to ours.")] = None,
    attestation: Annotated[Path | None, typer.Option(help="What remote services guarantee.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Score a model on a release's test split. Run the same command again after an interruption: it goes on."""
    from cxr_max.cli.progress import ConsoleWatch, counting
    from cxr_max.errors import RequestError

    try:
        from cxr_max.eval.run import EvalRequest, prepare
        from cxr_max.eval.subject import Given
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"scipy", "sacrebleu"}:
            raise
        raise RequestError(f'Scoring needs {error.name}: pip install "cxr-max[eval]".') from error
    who = Given(model, teacher, stored, predictions, name, roster)
    request = EvalRequest(release, out, who, suite, images, trained_on, attestation)
    prepared = prepare(request)
    with prepared.opened():
        with counting() as bar:
            prepared.look_for_leaks(bar)
        if prepared.asks:
            with ConsoleWatch("Writing the result") as watch:
                prepared.ask(watch)
            watch.summarise("the same command asks for what is missing")
        with counting() as bar:
            evaluation = prepared.finish(bar)
    typer.echo(_json(evaluation) if as_json else _text(evaluation, prepared.asks))
    if prepared.asks and (evaluation.failed or evaluation.gaps):
        raise typer.Exit(3)


def _json(evaluation: "Evaluation") -> str:
    said = {
        "scores": [asdict(score) for score in evaluation.scores],
        "suite": ", ".join(suite.title for suite in evaluation.suites),
        "suite_sha256": {suite.title: suite.sha256 for suite in evaluation.suites},
        "flags": {title: [asdict(flag) for flag in flags] for title, flags in evaluation.flags.items()},
        "failed": evaluation.failed,
        "out": str(evaluation.out),
    }
    return json.dumps(said)


def _text(evaluation: "Evaluation", asked: bool) -> str:
    lines = []
    for suite in evaluation.suites:
        lines.append(f"{suite.title} ({suite.sha256[:12]})")
        scores = [score for score in evaluation.scores if score.suite_sha256 == suite.sha256]
        lines += [_line(score) for score in scores if _headline(score)]
        lines += [f"  {flag.name}: {flag.verdict}, {flag.reason}" for flag in evaluation.flags[suite.title]]
    if evaluation.failed:
        rest = "the same command asks them again" if asked else "they count for nothing"
        lines.append(f"{evaluation.failed} questions have no reply: {rest}.")
    lines.append(f"{len(evaluation.scores)} scores in {evaluation.out}")
    return "\n".join(lines)


def _headline(score: "Score") -> bool:
    return (score.metric, score.condition) in _SHOWN and score.finding is None and score.group is None


def _line(score: "Score") -> str:
    from cxr_max.eval.definitions import DEFINITIONS

    condition = f", {score.condition}" if score.condition else ""
    title = DEFINITIONS[score.metric].title + condition
    counts = f"n {score.n_scored}, refused {score.n_refused}, failed {score.n_failed}"
    if score.value is None:
        return f"  {title:34} none: {score.reason} ({counts})"
    interval = "" if score.low is None or score.high is None else f" [{score.low:.3f}, {score.high:.3f}]"
    doubt = f"; not to be trusted: {score.distrust}" if score.distrust else ""
    return f"  {title:34} {score.value:.3f}{interval} ({counts}{doubt})"
