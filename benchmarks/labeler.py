"""How well and how fast the labeler reads Open-I's reports.

Gold: NegBio's authors' labels (Peng et al. 2018) of the Indiana University reports (Demner-Fushman et al. 2016),
NIH classes, positives only. Only half A (even report numbers) was looked at while the rules were written. Speed is
that of one core, the median of several runs over all reports, beside a baseline that looks for every term of the
lexicon with a regular expression of its own and knows no negation.
"""

import csv
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cxr_max.labeler import VERSION, label
from cxr_max.labeler.lexicon import END, lexicon

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "open-i"
CLASSES: Final[Mapping[str, tuple[str, ...]]] = {
    "Atelectasis": ("Atelectasis",),
    "Cardiomegaly": ("Cardiomegaly",),
    "Consolidation": ("Consolidation",),
    "Edema": ("Edema",),
    "Lung Lesion": ("Mass", "Nodule"),
    "Pleural Effusion": ("Effusion",),
    "Pleural Other": ("Pleural_Thickening",),
    "Pneumonia": ("Pneumonia",),
    "Pneumothorax": ("Pneumothorax",),
}
"""The nine findings that the gold covers -> its classes."""
RUNS: Final = 7


@dataclass(frozen=True)
class Report:
    """One report's text (findings and impression), and the findings that the gold calls present."""

    number: int
    text: str
    gold: frozenset[str]


@dataclass(frozen=True)
class Counts:
    """Of one finding; present is positive."""

    true: int
    false: int
    missed: int

    @property
    def precision(self) -> float:
        return self.true / max(1, self.true + self.false)

    @property
    def recall(self) -> float:
        return self.true / max(1, self.true + self.missed)

    @property
    def f1(self) -> float:
        return 2 * self.true / max(1, 2 * self.true + self.false + self.missed)


@dataclass(frozen=True)
class Table:
    """The counts of all nine findings over some reports."""

    rows: Mapping[str, Counts]

    @property
    def micro(self) -> float:
        rows = self.rows.values()
        return Counts(sum(r.true for r in rows), sum(r.false for r in rows), sum(r.missed for r in rows)).f1

    @property
    def macro(self) -> float:
        return statistics.fmean(row.f1 for row in self.rows.values())


def reports(data: Path = DATA) -> list[Report]:
    """All reports that have gold labels."""
    with (data / "gold.csv").open(encoding="utf-8") as file:
        gold = {row["filename"]: _present(row) for row in csv.DictReader(file)}
    with (data / "reports.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Report(int(row["uid"]), f"{row['findings']}\n\n{row['impression']}", gold[f"CXR{row['uid']}"])
        for row in rows
        if f"CXR{row['uid']}" in gold
    ]


def _present(row: Mapping[str, str]) -> frozenset[str]:
    return frozenset(name for name, classes in CLASSES.items() if any(row[one] == "1" for one in classes))


def half(found: Iterable[Report], name: str) -> list[Report]:
    """A: even numbers, on which the rules were tuned. B: odd ones."""
    return [report for report in found if report.number % 2 == (0 if name == "A" else 1)]


def score(found: Sequence[Report]) -> Table:
    """Label the reports and count."""
    read = [label(report.text) for report in found]
    return Table({name: _count(name, found, read) for name in CLASSES})


def _count(name: str, found: Sequence[Report], read: Sequence[Mapping[str, Any]]) -> Counts:
    pairs = [(labels[name] == 1, name in report.gold) for labels, report in zip(read, found, strict=True)]
    return Counts(pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True)))


def speed(read: Callable[[str], object], texts: Sequence[str], runs: int = RUNS) -> float:
    """Texts per second of CPU time, the median of several runs."""
    rates = []
    for _ in range(runs):
        start = time.process_time()
        for text in texts:
            read(text)
        rates.append(len(texts) / (time.process_time() - start))
    return statistics.median(rates)


def naive() -> Callable[[str], object]:
    """One regular expression per term of the lexicon, all of them searched in every text."""
    patterns = [
        (re.compile(rf"\b{re.escape(term)}\b", re.IGNORECASE), names) for term, names in _terms(lexicon().root)
    ]
    return lambda text: {name for pattern, names in patterns if pattern.search(text) for name in names}


def _terms(node: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, tuple[str, ...]]]:
    for word, after in node.items():
        if word == END:
            if after.kind == "term":
                yield before.strip(), after.findings
        else:
            yield from _terms(after, f"{before} {word}")


def markdown(found: Sequence[Report]) -> str:
    """The section that goes into the benchmarks' page."""
    texts = [report.text for report in found]
    ours, theirs = speed(label, texts), speed(naive(), texts, runs=3)
    long = speed(label, [" ".join(texts)[:1_000_000]], runs=3)
    lines = [
        f"## Labeler ({VERSION})",
        "",
        f"- {ours:,.0f} reports/s on one core ({len(texts):,} reports of Open-I)",
    ]
    lines.append(f"- {ours / theirs:.1f} times the speed of one regular expression per term ({theirs:,.0f}/s)")
    lines.append(f"- {1 / long:.2f} s for 10^6 characters in one text")
    for name in ("A", "B"):
        lines += ["", *_rows(name, score(half(found, name)))]
    return "\n".join(lines)


def _rows(name: str, table: Table) -> list[str]:
    title = "A (even numbers, tuned on)" if name == "A" else "B (odd numbers, held out)"
    lines = [f"### Half {title}", "", "| finding | true | false | missed | precision | recall | F1 |"]
    lines.append("|---|---|---|---|---|---|---|")
    for finding, row in table.rows.items():
        counts = f"{row.true} | {row.false} | {row.missed}"
        lines.append(f"| {finding} | {counts} | {row.precision:.3f} | {row.recall:.3f} | {row.f1:.3f} |")
    return [*lines, f"| micro / macro F1 | | | | | | {table.micro:.3f} / {table.macro:.3f} |"]


def section() -> str:
    """The section, or why there is none."""
    if not DATA.is_dir():
        return "## Labeler\n\nNot measured: the Open-I reports are not at hand.\n"
    return markdown(reports()) + "\n"
