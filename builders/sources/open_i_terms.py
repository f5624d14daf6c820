"""Open-I's MeSH terms, ``Opacity/lung/base/left``: a heading and its qualifiers -> findings and sides."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from cxr_max.builders.sources.boxes import settled
from cxr_max.builders.sources.labels import LabelTable, Meaning, label_table, weightier
from cxr_max.findings import Side, Sides, State, blank, blank_sides

_SIDES: Mapping[str, frozenset[Side]] = {
    "left": frozenset({"left"}),
    "right": frozenset({"right"}),
    "bilateral": frozenset({"left", "right"}),
    "lingula": frozenset({"left"}),
    "middle lobe": frozenset({"right"}),
}
"""Of qualifiers. The right lung alone has a middle lobe, the left one alone a lingula."""


class Term(NamedTuple):
    """One code."""

    heading: str
    qualifiers: frozenset[str]
    """In lower case."""


@lru_cache(maxsize=16384)
def parsed(term: str) -> Term:
    """Split a code at its slashes."""
    heading, *qualifiers = (part.strip() for part in term.split("/"))
    return Term(heading, frozenset(part.casefold() for part in qualifiers))


def meaning_of(term: Term, table: LabelTable) -> Meaning | None:
    """Of the rows whose heading and qualifiers the term has, the one with most qualifiers."""
    row = _row_of(term, table)
    return row[1] if row else None


def counted_as(term: Term, table: LabelTable) -> str:
    """The heading, with the qualifiers that decided what it means: ``Opacity/lung``."""
    row = _row_of(term, table)
    return "/".join((term.heading, *(row[0].split("/")[1:] if row else ())))


def _row_of(term: Term, table: LabelTable) -> tuple[str, Meaning] | None:
    fitting = [
        (label, meaning)
        for label, meaning in _rows_by_heading(table.name).get(term.heading.casefold(), ())
        if set(label.split("/")[1:]) <= term.qualifiers
    ]
    return max(fitting, key=lambda row: row[0].count("/"), default=None)


@lru_cache(maxsize=4)
def _rows_by_heading(name: str) -> dict[str, list[tuple[str, Meaning]]]:
    rows: dict[str, list[tuple[str, Meaning]]] = {}
    for label, meaning in label_table(name).meanings.items():
        rows.setdefault(label.partition("/")[0], []).append((label, meaning))
    return rows


def findings_of(terms: Iterable[Term], table: LabelTable, *, mapped_only: bool = False) -> dict[str, State | None]:
    """All 14 findings as a report's terms tell them; present outweighs uncertain.

    Args:
        mapped_only: leave out what no term speaks of, and what only follows from another finding.
    """
    found = blank()
    for term in terms:
        meaning = meaning_of(term, table)
        for name in meaning.findings if meaning else ():
            found[name] = weightier(found[name], meaning.state if meaning else None)
    if mapped_only:
        return {name: state for name, state in found.items() if state is not None}
    return table.completed(found)


def sides_of_terms(terms: Iterable[Term], table: LabelTable, findings: Mapping[str, State | None]) -> Sides:
    """The sides that the terms of each finding name together."""
    marked: dict[str, set[Side]] = {}
    for term in terms:
        meaning = meaning_of(term, table)
        named = frozenset[Side]().union(*(_SIDES.get(qualifier, frozenset()) for qualifier in term.qualifiers))
        for name in meaning.findings if meaning and meaning.state == 1 else ():
            marked.setdefault(name, set()).update(named)
    return blank_sides() | settled(marked, findings)
