"""What a release's shards hold, counted: the numbers of its manifest, its card and its check.

Counted from the written shards and not while rows are made, so that sealing, withdrawing and ``cxr-max verify``
count by the same code. No text is read, and memory holds the columns that count of one shard at a time.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from cxr_max.findings import FINDINGS, STATES
from cxr_max.records import SPLITS, STATUSES

if TYPE_CHECKING:
    import pyarrow as pa

PROMPT: Final = ("name", "version", "sha256", "given")
"""What tells prompts apart, as the columns ``prompt_...`` have it."""
_WORDS: Final[dict[int, str]] = {state: word for word, state in STATES.items()}


class Tally(Protocol):
    """Counts the rows of one config."""

    columns: ClassVar[tuple[str, ...]]
    """Those that are counted."""

    def add(self, table: "pa.Table", split: str) -> None:
        """Count a table that has at least ``columns``; ``split`` is its file's."""

    def counts(self) -> dict[str, Any]:
        """What the manifest says of the config."""


def tally_of(config: str) -> "Tally":
    """A new tally of ``trajectories``, ``consensus`` or ``preferences``."""
    kinds: dict[str, type[Tally]] = {
        "trajectories": Trajectories,
        "consensus": Consensuses,
        "preferences": Preferences,
    }
    return kinds[config]()


def split_of(shard: Path) -> str:
    """The split that a shard's name says."""
    return shard.name.partition("-")[0]


def counted(config: str, shards: list[Path]) -> "Tally":
    """Count the shards of one config."""
    import pyarrow.parquet as pq

    tally = tally_of(config)
    for shard in shards:
        with pq.ParquetFile(shard) as file:
            tally.add(file.read(columns=list(tally.columns)), split_of(shard))
    return tally


@dataclass(slots=True)
class Trajectories:
    """See ``Tally``."""

    columns: ClassVar[tuple[str, ...]] = (
        "study_id", "subject_id", "teacher", "provider", "model_reported", "status", "rendering", "labeler",
        "prompt_name", "prompt_version", "prompt_sha256", "prompt_given", "findings", "input_tokens",
        "output_tokens", "cost_usd", "created_at",
    )  # fmt: skip
    by_split: Counter[str] = field(default_factory=Counter)
    by_teacher: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    studies: set[str] = field(default_factory=set)
    subjects: set[str] = field(default_factory=set)
    renderings: set[str] = field(default_factory=set)
    providers: set[str] = field(default_factory=set)
    labelers: set[str] = field(default_factory=set)
    reported: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    prompts: set[tuple[str | None, ...]] = field(default_factory=set)
    """Those of which it is known what they give away; imported rows may have thousands of others."""
    findings: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    """By teacher and finding, rows by state; of rows that have findings."""
    read: Counter[str] = field(default_factory=Counter)
    """By teacher, rows that have findings."""
    usage: dict[str, "_Usage"] = field(default_factory=dict)
    first: str | None = None
    last: str | None = None

    def add(self, table: "pa.Table", split: str) -> None:
        import pyarrow.compute as pc

        for name in ("teacher", "status"):
            table = table.set_column(table.column_names.index(name), name, pc.fill_null(table[name], ""))
        self.by_split[split] += len(table)
        self.studies.update(_values(table["study_id"]))
        self.subjects.update(_values(table["subject_id"]))
        self.renderings.update(_values(table["rendering"]))
        self.providers.update(_values(table["provider"]))
        self.labelers.update(_values(table["labeler"]))
        for teacher, status, rows in _groups(table, ("teacher", "status")):
            self.by_teacher[teacher][status] += rows
        for teacher, model, _ in _groups(table, ("teacher", "model_reported")):
            if model is not None:
                self.reported[teacher].add(model)
        asked = table.filter(pc.is_valid(table["prompt_given"]))
        self.prompts.update(tuple(group[:-1]) for group in _groups(asked, [f"prompt_{name}" for name in PROMPT]))
        for teacher in _values(table["teacher"]):
            rows = table.filter(pc.equal(table["teacher"], teacher))
            self._add_findings(teacher, rows["findings"])
            self.usage.setdefault(teacher, _Usage()).add(rows)
        self._add_times(table["created_at"])

    def _add_findings(self, teacher: str, findings: "pa.ChunkedArray") -> None:
        said = self.findings.setdefault(teacher, {name: Counter() for name in FINDINGS})
        self.read[teacher] += len(findings) - findings.null_count
        for name, state, rows in _states(findings):
            said[name][_WORDS[state]] += rows

    def _add_times(self, created_at: "pa.ChunkedArray") -> None:
        import pyarrow.compute as pc

        times = pc.min_max(created_at).as_py()
        if times["min"] is not None:
            first, last = times["min"].isoformat(), times["max"].isoformat()
            self.first = min(self.first or first, first)
            self.last = max(self.last or last, last)

    @property
    def cost_usd(self) -> float | None:
        """US dollars of all rows; ``None`` where one's price is unknown."""
        usages = self.usage.values()
        return None if any(u.unpriced for u in usages) else fsum(u.cost_usd for u in usages)

    def counts(self) -> dict[str, Any]:
        teachers = sorted(self.by_teacher)
        return {
            "rows": sum(self.by_split.values()),
            "studies": len(self.studies),
            "subjects": len(self.subjects),
            "by_split": _in_order(self.by_split),
            "by_teacher": {t: _of(self.by_teacher[t], STATUSES) for t in teachers},
            "renderings": sorted(self.renderings),
            "models_reported": {t: sorted(models) for t, models in sorted(self.reported.items())},
            "read": {t: self.read[t] for t in teachers},
            "findings": {
                t: {name: _of(self.findings[t][name], STATES) for name in FINDINGS} for t in teachers
            },
            "usage": {t: self.usage[t].counts() for t in teachers},
            "first_reply": self.first,
            "last_reply": self.last,
        }  # fmt: skip


@dataclass(slots=True)
class _Usage:
    """What the rows of one teacher took."""

    input_tokens: int = 0
    output_tokens: int = 0
    uncounted: int = 0
    """Rows without a number of tokens."""
    cost_usd: float = 0.0
    unpriced: int = 0

    def add(self, rows: "pa.Table") -> None:
        import pyarrow.compute as pc

        self.input_tokens += pc.sum(rows["input_tokens"]).as_py() or 0
        self.output_tokens += pc.sum(rows["output_tokens"]).as_py() or 0
        self.uncounted += pc.sum(pc.or_(rows["input_tokens"].is_null(), rows["output_tokens"].is_null())).as_py()
        self.cost_usd = fsum([self.cost_usd, *rows["cost_usd"].drop_null().to_pylist()])
        self.unpriced += rows["cost_usd"].null_count

    def counts(self) -> dict[str, Any]:
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "rows_without_tokens": self.uncounted,
            "cost_usd": self.cost_usd,
            "rows_without_cost": self.unpriced,
        }


@dataclass(slots=True)
class Consensuses:
    """See ``Tally``."""

    columns: ClassVar[tuple[str, ...]] = ("findings", "support")
    by_split: Counter[str] = field(default_factory=Counter)
    states: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in FINDINGS})
    votes: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FINDINGS, 0.0))
    voters: Counter[str] = field(default_factory=Counter)

    def add(self, table: "pa.Table", split: str) -> None:
        import pyarrow.compute as pc

        self.by_split[split] += len(table)
        for name, state, rows in _states(table["findings"]):
            self.states[name][_WORDS[state]] += rows
        for name in FINDINGS:
            decided = pc.is_valid(pc.struct_field(table["findings"], name))
            support = pc.struct_field(table["support"], name).filter(decided)
            votes = pc.struct_field(support, "votes").drop_null().to_pylist()
            self.votes[name] = fsum([self.votes[name], *votes])
            self.voters[name] += pc.sum(pc.struct_field(support, "voters")).as_py() or 0

    def counts(self) -> dict[str, Any]:
        """``support``: over the rows that decide a finding, votes for what was decided, and voters."""
        return {
            "rows": sum(self.by_split.values()),
            "by_split": _in_order(self.by_split),
            "findings": {name: _of(self.states[name], STATES) for name in FINDINGS},
            "support": {name: {"votes": self.votes[name], "voters": self.voters[name]} for name in FINDINGS},
        }


@dataclass(slots=True)
class Preferences:
    """See ``Tally``."""

    columns: ClassVar[tuple[str, ...]] = ("rejected_teachers", "conflicts", "agreeing")
    by_split: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    agreeing: Counter[str] = field(default_factory=Counter)
    comparable: Counter[str] = field(default_factory=Counter)
    conflict: dict[str, float] = field(default_factory=dict)

    def add(self, table: "pa.Table", split: str) -> None:
        self.by_split[split] += len(table)
        columns = (table[name].combine_chunks().flatten().to_pylist() for name in self.columns)
        # Lists of unequal lengths are left to the check of the release.
        for teacher, conflict, agreeing in zip(*columns, strict=False):
            self.texts[teacher] += 1
            self.agreeing[teacher] += agreeing
            if conflict is not None:
                self.comparable[teacher] += 1
                self.conflict[teacher] = self.conflict.get(teacher, 0.0) + conflict

    def counts(self) -> dict[str, Any]:
        """``rejected``: by teacher its dispreferred texts, and their mean conflict with the consensus, 0 to 1."""
        return {
            "rows": sum(self.by_split.values()),
            "by_split": _in_order(self.by_split),
            "rejected": {
                teacher: {
                    "texts": texts,
                    "agreeing": self.agreeing[teacher],
                    "mean_conflict": self._mean_conflict(teacher),
                }
                for teacher, texts in sorted(self.texts.items())
            },
        }

    def _mean_conflict(self, teacher: str) -> float | None:
        comparable = self.comparable[teacher]
        return round(self.conflict[teacher] / comparable, 6) if comparable else None


def _values(column: "pa.ChunkedArray") -> list[Any]:
    return [value for value in column.unique().to_pylist() if value is not None]


def _groups(table: "pa.Table", by: tuple[str, ...] | list[str]) -> list[tuple[Any, ...]]:
    """Every combination of values that is there, and its number of rows."""
    grouped = table.select(list(by)).group_by(list(by)).aggregate([([], "count_all")])
    return list(zip(*(grouped[name].to_pylist() for name in (*by, "count_all")), strict=True))


def _states(findings: "pa.ChunkedArray") -> Iterator[tuple[str, int, int]]:
    """Finding, state and number of rows; a state that is none is left to the check of the release."""
    import pyarrow.compute as pc

    for name in FINDINGS:
        for entry in pc.value_counts(pc.struct_field(findings, name)).to_pylist():
            if entry["values"] in _WORDS:
                yield name, entry["values"], entry["counts"]


def _of(counter: Counter[str], names: Any) -> dict[str, int]:
    """What there is of ``names``, in their order, then whatever else was counted."""
    return {name: counter[name] for name in [*names, *sorted(set(counter) - set(names))] if counter[name]}


def _in_order(by_split: Counter[str]) -> dict[str, int]:
    return _of(by_split, SPLITS)
