"""``cxr-max eval``: a model on the ruler."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from cxr_max.eval.collection import Collection, Part
    from cxr_max.eval.run import EvalRequest, Evaluation
    from cxr_max.records import Score

_SHOWN: Final = (
    ("balanced_accuracy", None), ("f1", None), ("auroc", None), ("accuracy", None), ("refusal_rate", None),
    ("alpha", None), ("flip_rate", None), ("image_gain", None), ("blank_accuracy", None),
    ("mirror_consistency", None), ("mean_loss", "severity 3"), ("worst_group", None), ("bleu_4", None),
    ("finding_f1", None), ("progression_macro_accuracy", None), ("progression_accuracy", None),
    ("top1_accuracy", None),
)  # fmt: skip


def command(
    out: Annotated[Path, typer.Option(help="Where replies, predictions and scores go.")],
    release: Annotated[
        Path | None, typer.Option(help="The release's folder, or its run's: what is asked about.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:PATH", help="For a suite of several data sets: where one of them is."),
    ] = None,
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
    max_cost_usd: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="X",
            help="Stop before --teacher, earlier starts included, has cost more; with --data, builds included.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Score a model on a release's test split. Run the same command again after an interruption: it goes on."""
    from cxr_max.errors import RequestError

    try:
        from cxr_max.eval.collection import collections
        from cxr_max.eval.run import EvalRequest
        from cxr_max.eval.subject import Given
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"scipy", "sacrebleu"}:
            raise
        raise RequestError(f'Scoring needs {error.name}: pip install "cxr-max[eval]".') from error
    who = Given(model, teacher, stored, predictions, name, roster)
    request = EvalRequest(release or Path(), out, who, suite, images, trained_on, attestation, max_cost_usd)
    if suite in collections():
        _several(collections()[suite], request, release, data or [], as_json)
        return
    if release is None or data:
        raise RequestError(
            f"Give --release, what is asked about; --data is for {', '.join(collections())}, a suite of several"
            " data sets."
        )
    evaluation, asked = _evaluated(request)
    typer.echo(_json(evaluation) if as_json else _text(evaluation, asked))
    if asked and (evaluation.failed or evaluation.gaps):
        raise typer.Exit(3)


def _evaluated(request: "EvalRequest") -> "tuple[Evaluation, bool]":
    """What it came to, and whether anybody was asked."""
    from cxr_max.cli.progress import ConsoleWatch, counting
    from cxr_max.eval.run import prepare

    prepared = prepare(request)
    with prepared.opened():
        with counting() as bar:
            prepared.look_for_leaks(bar)
        if prepared.asks:
            with ConsoleWatch("Writing the result") as watch:
                prepared.ask(watch)
            watch.summarise("the same command asks for what is missing")
        with counting() as bar:
            return prepared.finish(bar), prepared.asks


def _several(
    collection: "Collection", request: "EvalRequest", release: Path | None, data: list[str], as_json: bool
) -> None:
    """Every part whose data is given; what is not is a named gap."""
    from cxr_max.builders.run_folder import RunFolder
    from cxr_max.errors import RequestError
    from cxr_max.eval.collection import given, refuse_other_than_a_teacher
    from cxr_max.teachers import roster
    from cxr_max.teachers.budget import require_limit

    refuse_other_than_a_teacher(request, release)
    specs = roster.choose(roster.load(request.who.roster), request.who.teacher or "")
    if len(specs) != 1:
        raise RequestError(f"--teacher {request.who.teacher} means several teachers: name one.")
    roster.keys_of(specs)  # before a missing key makes a gap of every part
    require_limit(request.max_cost_usd, specs)
    sources = given(collection, data)
    # Two at once would each think that the other has spent nothing yet.
    with RunFolder(request.out).locked():
        done, gaps = _all_parts(collection, sources, request)
    typer.echo(_several_json(collection, done, gaps) if as_json else _several_text(collection, done, gaps))
    if gaps:
        raise typer.Exit(3)


def _all_parts(
    collection: "Collection", sources: dict[str, str], request: "EvalRequest"
) -> "tuple[dict[str, Evaluation], dict[str, str]]":
    """What each part came to, and why one has nothing or is not whole."""
    from cxr_max.errors import RequestError
    from cxr_max.eval.collection import ABSENT

    done: dict[str, Evaluation] = {}
    gaps: dict[str, str] = {}
    for part in collection.part:
        if part.data not in sources:
            gaps[part.name] = ABSENT.format(part.data)
            continue
        try:
            done[part.name], missing = _part(part, sources[part.data], request, collection)
        except RequestError as error:
            gaps[part.name] = str(error)
            continue
        if missing:
            gaps[part.name] = missing
    return done, gaps


def _part(
    part: "Part", source: str, request: "EvalRequest", parts: "Collection"
) -> "tuple[Evaluation, str | None]":
    """What it came to, and what of it could not be had."""
    from cxr_max.builders.build import build
    from cxr_max.cli.progress import ConsoleWatch
    from cxr_max.errors import RequestError
    from cxr_max.eval.collection import to_build, to_evaluate

    raised = "" if request.max_cost_usd is None else ", with a higher --max-cost-usd if that is used up"
    rest = f"the same command asks for what is missing{raised}"
    with ConsoleWatch(f"Writing the release of {part.name}") as watch:
        built = build(to_build(part, source, request, parts), watch)
    watch.summarise()
    if built.failed and not built.trajectories:
        raise RequestError(f"none of {built.failed} questions has a reply: {rest}")
    evaluation, _ = _evaluated(to_evaluate(part, request, parts))
    missing = {
        "image sets whose pictures cannot be had": built.gaps,
        "questions without a reply": built.failed + evaluation.failed,
    }
    said = ", ".join(f"{number} {what}" for what, number in missing.items() if number)
    return evaluation, f"{said}: {rest}" if said else None


def _several_json(collection: "Collection", done: "dict[str, Evaluation]", gaps: dict[str, str]) -> str:
    return json.dumps({
        "suite": collection.title,
        "parts": {name: json.loads(_json(evaluation)) for name, evaluation in done.items()},
        "gaps": gaps,
    })  # fmt: skip


def _several_text(collection: "Collection", done: "dict[str, Evaluation]", gaps: dict[str, str]) -> str:
    parts = [f"== {name}\n{_text(evaluation, True)}" for name, evaluation in done.items()]
    named = [f"gap: {name}: {reason}" for name, reason in gaps.items()]
    return "\n".join([collection.title, *parts, *named])


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
