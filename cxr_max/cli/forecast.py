"""What ``cxr-max build --dry-run`` says: a line per teacher, the total, and what to know about it."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cxr_max.costs import usd

if TYPE_CHECKING:
    from cxr_max.builders.estimate import Estimate, Forecast

_HEADS = ("teacher", "requests", "there already", "tokens in", "tokens out", "cost", "time")


def as_json(found: "Estimate") -> dict[str, Any]:
    """One object: the totals, and everything known of each teacher."""
    return {
        "studies": found.studies,
        "requests": found.requests,
        "known_cost_usd": found.known_cost_usd,
        "unpriced": found.unpriced,
        "seconds": found.seconds,
        "gaps": found.gaps,
        "spent_usd": found.spent_usd,
        "notes": found.notes,
        "teachers": [asdict(teacher) for teacher in found.teachers],
    }


def as_text(found: "Estimate") -> str:
    """A table, and one sentence for each thing that it cannot say."""
    rows = [_HEADS, *(_row(teacher) for teacher in found.teachers), _total(found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join(["Nothing was sent.", *lines, *_remarks(found)])


def _row(teacher: "Forecast") -> tuple[str, ...]:
    if teacher.cost_usd is None:
        cost = "unknown"
    else:
        bound = "" if teacher.measured or teacher.cost_usd == 0 else "up to "
        cost = bound + usd(teacher.cost_usd)
    return (
        teacher.teacher, f"{teacher.requests:,}", f"{teacher.reused:,}", f"{teacher.input_tokens:,}",
        f"{teacher.output_tokens:,}", cost, _time(teacher.seconds),
    )  # fmt: skip


def _total(found: "Estimate") -> tuple[str, ...]:
    teachers = found.teachers
    guessed = any(not teacher.measured and teacher.cost_usd for teacher in teachers)
    bound = "at least " if found.unpriced else "up to " if guessed else ""
    return (
        "all", f"{found.requests:,}", f"{sum(teacher.reused for teacher in teachers):,}",
        f"{sum(teacher.input_tokens for teacher in teachers):,}",
        f"{sum(teacher.output_tokens for teacher in teachers):,}",
        bound + usd(found.known_cost_usd), _time(found.seconds),
    )  # fmt: skip


def _remarks(found: "Estimate") -> list[str]:
    asked = [teacher for teacher in found.teachers if teacher.requests]
    guessed = [teacher.teacher for teacher in asked if not teacher.measured]
    estimated = [teacher.teacher for teacher in asked if not teacher.measured and not teacher.documented]
    sources = sorted({teacher.price.source for teacher in asked if teacher.price is not None})
    remarks = [f"Studies asked about: {found.studies:,}. Spent so far: {usd(found.spent_usd)}."]
    if found.gaps:
        remarks.append(f"Image sets that could not be asked about, for want of file or finding: {found.gaps:,}.")
    if found.unpriced:
        remarks.append(
            f"The price of {', '.join(found.unpriced)} is unknown: write price = {{ input = ..., output = ... }}"
            " into a table of --roster FILE."
        )
    if guessed:
        remarks.append(
            f"Tokens out of {', '.join(guessed)} are as many as max_tokens allows: after a first build of some"
            " studies into this --out, its replies tell more."
        )
    if estimated:
        remarks.append(f"How {', '.join(estimated)} counts an image is not documented: tokens in are an estimate.")
    if sources:
        remarks.append(f"Prices: {', '.join(sources)}.")
    return remarks + [f"Note: {note}" for note in found.notes]


def _time(seconds: float | None) -> str:
    """Rounded to what an estimate is worth."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
