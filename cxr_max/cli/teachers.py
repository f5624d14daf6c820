"""``cxr-max teachers``: who can be asked."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cxr_max.costs import Price
    from cxr_max.records import Limits
    from cxr_max.teachers.base import TeacherSpec
    from cxr_max.teachers.check import Check


def command(
    teachers: Annotated[
        str | None, typer.Option(metavar="all|simulated|a,b", help="Only these (default everybody).")
    ] = None,
    roster: Annotated[Path | None, typer.Option(help="Teachers of your own, or changes to ours.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Ask each one a tiny question about a generated picture.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List the teachers: where they are, what they cost, and whether their key is at hand.

    With --check each is asked, which costs a fraction of a cent: is it reachable, is the key accepted, does the
    model exist and take images, what limits apply. Exit code 3 if one of them cannot be asked.
    """
    from cxr_max.builders.check import check_with_phantom, specs_of

    specs = specs_of(roster, teachers)
    if not check:
        entries = [_entry(spec) for spec in specs]
        _print(as_json, {"teachers": entries}, map(_line, entries))
        return
    typer.echo(f"Asking {len(specs)} teachers one question each, about a picture that shows no patient", err=True)
    checks = check_with_phantom(specs)
    _print(as_json, {"teachers": [_result(one) for one in checks]}, _table(checks))
    if any(one.problem for one in checks):
        raise typer.Exit(3)


def _print(as_json: bool, entries: dict[str, Any], lines: Iterator[str]) -> None:
    for line in [json.dumps(entries)] if as_json else lines:
        typer.echo(line)


def _entry(spec: "TeacherSpec") -> dict[str, Any]:
    return {
        "name": spec.name,
        "provider": spec.provider,
        "model": spec.model,
        "endpoint": spec.endpoint,
        "place": spec.place,
        "key": spec.key,
        "key_set": bool(spec.key and os.environ.get(spec.key)),
        "concurrency": spec.concurrency,
        "price": asdict(spec.price) if spec.price else None,
    }


def _line(entry: dict[str, Any]) -> str:
    has_key = f"{entry['key']} {'set' if entry['key_set'] else 'not set'}"
    key = "no key needed" if entry["key"] is None else has_key
    price = entry["price"] and f"${entry['price']['input']:g}/{entry['price']['output']:g}"
    return (
        f"{entry['name']:<27} {entry['place']:<7} {entry['model']:<31} {entry['endpoint']:<56}"
        f" {price or 'price unknown':<14} {key}"
    )


def _result(one: "Check") -> dict[str, Any]:
    return {**asdict(one), "ok": one.problem is None}


def _table(checks: "tuple[Check, ...]") -> Iterator[str]:
    width = max(len(one.teacher) for one in checks)
    for one in checks:
        if one.problem is not None:
            yield f"{one.teacher:<{width}}  FAILS  {one.problem}"
            continue
        parts = [one.model_reported or one.model, _price(one.price)]
        if one.latency_s is not None:
            parts.insert(0, f"{one.latency_s:.1f} s")
        if one.limits is not None:
            parts.append(_limits(one.limits))
        yield f"{one.teacher:<{width}}  ok     {', '.join(parts)}"
        if one.note is not None:
            yield f"{'':<{width}}         Note: {one.note}"
    can = sum(one.problem is None for one in checks)
    costs = [one.cost_usd for one in checks if one.text is not None]
    least = "at least " if None in costs else ""
    cost = sum(cost or 0.0 for cost in costs)
    sent = sum(one.asked for one in checks)
    yield f"{can} of {len(checks)} can be asked; {sent} requests sent, {least}${cost:.4f}"


def _price(price: "Price | None") -> str:
    if price is None:
        return "price unknown"
    if price.input == price.output == 0:
        return "nothing charged"
    return f"${price.input:g} in and ${price.output:g} out per million tokens ({price.source})"


def _limits(limits: "Limits") -> str:
    """What is left of what is allowed in the service's window, a minute as a rule."""
    known = [
        f"{'?' if left is None else left} of {'?' if most is None else most} {what} left"
        for left, most, what in (
            (limits.requests_left, limits.requests, "requests"),
            (limits.tokens_left, limits.tokens, "tokens"),
        )
        if (left, most) != (None, None)
    ]
    return " and ".join(known) or "no limits named"
