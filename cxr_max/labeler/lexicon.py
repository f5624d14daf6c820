"""The lexicon as a trie of words, built from ``lexicon.toml`` on first use.

Matching is longest-first from each word, without backtracking: the cost of a text is linear in its words.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from cxr_max.findings import Side, State

Kind = Literal[
    "term", "structure", "quality", "abnormality", "other", "ignored",
    "negates", "negates_next", "negated", "doubts", "doubted", "either", "artefact", "change", "silences",
    "breaks", "begins", "adds", "supports", "seen", "defines", "supposes", "supposes_not",
    "unable", "task", "willing",
]  # fmt: skip
END: Final = ""
"""Key of a node's meanings; no word is empty."""
SKIPS: Final = 5
"""How many filler words a phrase may be stretched by."""

Node = dict[str, Any]


class Meaning(NamedTuple):
    """What one phrase stands for."""

    kind: Kind
    findings: tuple[str, ...] = ()
    """Named by a term; cleared or made present by a structure's quality."""
    name: str = ""
    """Of the structure."""
    states: Mapping[str, State] = MappingProxyType({})
    """Of a quality: structure -> state of the structure's findings."""
    sign: bool = False
    """Its absence says nothing."""
    hint: bool = False
    """Its presence leaves the finding uncertain."""


class Match(NamedTuple):
    """A phrase found at the words ``first`` to ``last - 1``."""

    meaning: Meaning
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Everything the rules look up."""

    root: Node
    sides: Mapping[str, Side]
    words: Mapping[str, frozenset[str]]
    """Classes of single words: filler, verb, list_end, location, yes, abbreviation, owner, direction, greater."""
    clears: Mapping[str, tuple[str, ...]]
    """Structure -> the findings that its normality excludes."""
    makes: Mapping[str, tuple[str, ...]]
    """Structure -> the findings that its abnormality is."""

    def matches(self, words: Sequence[str]) -> Iterator[Match]:
        """The phrases of a sentence from left to right, none overlapping."""
        root, first, size = self.root, 0, len(words)
        while first < size:
            node = root.get(words[first])
            found = self._longest(node, words, first) if node is not None else None
            if found is None:
                first += 1
            else:
                yield found
                first = found.last

    def _longest(self, node: Node, words: Sequence[str], first: int) -> Match | None:
        found: Match | None = None
        filler, at, skipped, size = self.words["filler"], first + 1, 0, len(words)
        while True:
            if END in node:
                found = Match(node[END], first, at)
            if at == size:
                return found
            after = node.get(words[at])
            while after is None and words[at] in filler and skipped < SKIPS and at + 1 < size:
                at, skipped = at + 1, skipped + 1
                after = node.get(words[at])
            if after is None:
                return found
            node, at = after, at + 1


@cache
def lexicon() -> Lexicon:
    """The shipped lexicon."""
    table = tomllib.loads(Path(__file__).with_name("lexicon.toml").read_text("utf-8"))
    root: Node = {}
    for phrases, meaning in (*_terms(table), *_structures(table), *_triggers(table)):
        for phrase in phrases:
            _plant(root, phrase, meaning)
    sides = table["sides"]
    words = {name: frozenset(listed) for name, listed in table["words"].items()}
    words |= {name: frozenset(sides[name]) for name in ("owner", "direction", "greater")}
    names: tuple[Side, ...] = ("left", "right", "bilateral")
    structures = table["structure"]
    return Lexicon(
        root,
        {word: side for side in names for word in sides[side]},
        words,
        {name: tuple(entry.get("clears", entry["findings"])) for name, entry in structures.items()},
        {name: tuple(entry["findings"]) for name, entry in structures.items()},
    )


def _terms(table: Mapping[str, Any]) -> Iterator[tuple[Iterable[str], Meaning]]:
    for finding, entry in table["finding"].items():
        yield entry["terms"], Meaning("term", (finding,))
        yield entry["signs"], Meaning("term", (finding,), sign=True)
        yield entry.get("hints", ()), Meaning("term", (finding,), hint=True)
    for word, findings in table["several"].items():
        yield [word], Meaning("term", tuple(findings))
    yield table["ignored"]["phrases"], Meaning("ignored")
    yield table["other"]["phrases"], Meaning("other")


def _structures(table: Mapping[str, Any]) -> Iterator[tuple[Iterable[str], Meaning]]:
    qualities: dict[str, dict[str, State]] = {}
    codes: tuple[tuple[str, State], ...] = (("abnormal", 1), ("normal", 0), ("borderline", -1))
    for name, entry in table["structure"].items():
        yield entry["words"], Meaning("structure", name=name)
        for phrase in table["quality"]["normal"]:
            qualities.setdefault(phrase, {})[name] = 0
        for key, state in codes:
            for phrase in entry[key]:
                qualities.setdefault(phrase, {})[name] = state
    for phrase, states in qualities.items():
        yield [phrase], Meaning("quality", states=states)


def _triggers(table: Mapping[str, Any]) -> Iterator[tuple[Iterable[str], Meaning]]:
    for kind, phrases in {**table["trigger"], **table["refusal"]}.items():
        yield phrases, Meaning(kind)


def _plant(root: Node, phrase: str, meaning: Meaning) -> None:
    for words in product(*map(_forms, phrase.split())):
        node = root
        for word in words:
            node = node.setdefault(word, {})
        node.setdefault(END, meaning)


def _forms(word: str) -> list[str]:
    """``nodule(s)`` -> nodule, nodules; ``is|are`` -> is, are."""
    forms: list[str] = []
    for part in word.split("|"):
        match = re.fullmatch(r"([^()]+)\((\w+)\)", part)
        forms += [match[1], match[1] + match[2]] if match else [part]
    return forms
