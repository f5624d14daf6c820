"""``cxr-max status``: what a run has, lacks and cost so far."""

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from cxr_max.builders.status import RunStatus
    from cxr_max.ledger_summary import LedgerSummary, Replies, TeacherSummary

_BAR: Final = 24
_MARKS: Final = ("█", "▒", "·")
"""Answered, failed, open."""
_PLAIN_MARKS: Final = ("#", "!", ".")
_ENDED: Final = {"length": "truncated", "filtered": "filtered", "refused": "refused"}
_SEALS: Final = {
    "sealed": "{} sealed",
    "stale": "{} stale: replies came since it was sealed; the same command again renews it",
    "not sealed": "{} not sealed: run the {} again",
}


def command(
    out: Annotated[Path, typer.Argument(help="The folder of a build or an evaluation.", metavar="DIR")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say what a run has, what it lacks and what it cost; safe while it is at work."""
    from cxr_max.builders import status

    found = status.status_of_run(out, datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps(status.as_json(found)))
        return
    for line in _lines(found, _marks()):
        typer.echo(line)


def _marks() -> tuple[str, str, str]:
    """A terminal of another age shows plain characters."""
    try:
        "".join(_MARKS).encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return _PLAIN_MARKS
    return _MARKS


def _lines(status: "RunStatus", marks: tuple[str, str, str]) -> Iterator[str]:
    yield _headline(status)
    if status.ledger is not None:
        yield from _ledger_lines(status.ledger, status, marks)
    if status.consensus is not None:
        yield from _consensus_lines(status.consensus)
    what = "result" if status.kind == "evaluation" else "release"
    derived = f", with {' and '.join(status.derived)}" if status.derived else ""
    command = "evaluation" if status.kind == "evaluation" else "build"
    yield _SEALS[status.seal].format(what, command) + derived


def _headline(status: "RunStatus") -> str:
    if status.kind == "evaluation":
        who = status.settings.get("model") or status.settings.get("teacher") or "stored or submitted predictions"
        about = f"evaluation of {who} on {status.settings['release']}"
    else:
        about = f"build of {status.settings.get('source') or 'an unknown source (run.toml is missing or damaged)'}"
    work = "; a job is at work" if status.at_work else ""
    return f"{about}{work}{'' if status.ledger else '; nobody was asked yet'}"


def _ledger_lines(ledger: "LedgerSummary", status: "RunStatus", marks: tuple[str, str, str]) -> Iterator[str]:
    width = max((len(name) for name in ledger.teachers), default=0)
    for name, teacher in ledger.teachers.items():
        yield f"{name:<{width}}  {_bar(teacher, marks)}  {_progress(teacher, status.at_work)}"
        for detail in _details(teacher, status.statuses.get(name)):
            yield f"{'':<{width}}  {detail}"
    if ledger.others.count:
        replies = _many(ledger.others.count, "reply", "replies")
        yield f"{replies} that no row asks for any more: {_cost(ledger.others)}"
    for asked, open_batches in ledger.batches.items():
        yield f"{_many(open_batches, 'batch', 'batches')} of {asked} at the service"
    yield from _failures(ledger)
    for gap in ledger.gaps:
        yield f"gap: study {gap.study_id}: {gap.reason}"


def _bar(teacher: "TeacherSummary", marks: tuple[str, str, str]) -> str:
    """Full only when every row is answered, and empty only when none is."""
    planned = max(teacher.planned, 1)
    done = max(_BAR * teacher.answered // planned, min(teacher.answered, 1))
    failed = min(_BAR - done, max(_BAR * teacher.failed // planned, min(teacher.failed, 1)))
    return marks[0] * done + marks[1] * failed + marks[2] * (_BAR - done - failed)


def _progress(teacher: "TeacherSummary", at_work: bool) -> str:
    parts = [f"{teacher.answered} of {teacher.planned} answered", _cost(teacher.replies)]
    if teacher.failed:
        parts.insert(1, f"{teacher.failed} failed")
    if at_work and teacher.replies.per_hour:
        parts.append(f"{teacher.replies.per_hour:.0f} an hour")
        left = teacher.planned - teacher.answered
        if left:
            parts.append(f"the {left} open ones take {_span(left / teacher.replies.per_hour)}")
    return ", ".join(parts)


def _details(teacher: "TeacherSummary", statuses: "Mapping[str, int] | None") -> Iterator[str]:
    replies = teacher.replies
    if not replies.count:
        return
    counts = {_ENDED[end]: count for end, count in replies.ended.items() if end in _ENDED}
    for status in ("refused", "unparsed"):
        # Only the release's makers read the texts.
        if statuses and statuses.get(status):
            counts[status] = statuses[status]
    parts = [f"{count} {name}" for name, count in sorted(counts.items())]
    parts.append(f"tokens {_tokens(replies.input_tokens)} in, {_tokens(replies.output_tokens)} out")
    parts.append(f"{_when(replies.first)} to {_when(replies.last)} UTC")
    yield ", ".join(parts)
    for version in replies.versions:
        model = version.model or "nothing that it names"
        span = f", {_when(version.first)} to {_when(version.last)}" if len(replies.versions) > 1 else ""
        yield f"answered as {model}: {version.replies}{span}"


def _failures(ledger: "LedgerSummary") -> Iterator[str]:
    found = [(reason, name) for name, teacher in ledger.teachers.items() for reason in teacher.reasons]
    for reason, name in sorted(found, key=lambda one: (-one[0].times, one[1])):
        times = _many(reason.times, "time", "times")
        yield f"failed {times}, last {_when(reason.last)} UTC: {name}: {reason.message}"


def _consensus_lines(consensus: "LedgerSummary") -> Iterator[str]:
    yield f"consensus in words: {_many(consensus.others.count, 'reply', 'replies')}, {_cost(consensus.others)}"
    yield from _failures(consensus)


def _cost(replies: "Replies") -> str:
    if not replies.unpriced:
        return f"${replies.cost_usd:.2f}"
    if replies.unpriced == replies.count:
        return "cost unknown"
    return f"at least ${replies.cost_usd:.2f} ({replies.unpriced} replies without a known price)"


def _tokens(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1_000_000 else str(count)


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "?"


def _span(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"


def _many(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
