"""Every source has a card in one form, and the card says what the code says."""

import importlib
import pkgutil
from pathlib import Path

import pytest

from cxr_max.builders import sources
from cxr_max.builders.sources.base import SourceInfo
from cxr_max.builders.sources.registry import listing

CARDS = Path(__file__).resolve().parents[2] / "data_cards" / "sources"
HEADINGS = [
    "What it is", "Where to get it", "Files read", "Labels", "Splits", "Overlap with other sets", "Terms",
]  # fmt: skip
NAMES = sorted(path.stem for path in CARDS.glob("*.md"))


def infos() -> dict[str, SourceInfo]:
    """What the code says of every source that says it before a copy is opened."""
    found = {"folder": SourceInfo("folder", "Images in a folder", "credentialed", "other", "")}
    for module in pkgutil.iter_modules(sources.__path__):
        for value in vars(importlib.import_module(f"{sources.__name__}.{module.name}")).values():
            info = getattr(value, "info", None) if isinstance(value, type) else value
            if isinstance(info, SourceInfo):
                found[info.name] = info
    return found


def test_every_source_has_a_card() -> None:
    assert {entry["spec"].partition(":")[0].partition("[")[0] for entry in listing()} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_the_code_says(name: str) -> None:
    info = infos()[name]
    uses = {entry["spec"].partition(":")[0].partition("[")[0]: entry["data_use"] for entry in listing()}
    lines = (CARDS / f"{name}.md").read_text("utf-8").splitlines()
    assert lines[:8] == [
        f"# {info.title}",
        "",
        "| | |",
        "| --- | --- |",
        f"| data use | {uses[name]} |",
        f"| licence | {info.licence} |",
        f"| citation | {info.citation or 'none'} |",
        "",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_card_has_its_headings_and_none_is_empty(name: str) -> None:
    text = (CARDS / f"{name}.md").read_text("utf-8")
    parts = text.split("\n## ")
    assert [part.partition("\n")[0] for part in parts[1:]] == HEADINGS
    assert all(part.partition("\n")[2].strip() for part in parts[1:])
    assert all(len(line) <= 115 for line in text.splitlines() if not line.startswith("|"))
