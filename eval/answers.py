"""Predictions as arrays: one model's answers under one condition, a row for each image set of the reference."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cxr_max.drift.states import STATE_ORDER, Codes
from cxr_max.eval.metrics.measured import Bools, Floats, Ints
from cxr_max.eval.reference import SIDE_ORDER, Reference
from cxr_max.findings import FINDINGS
from cxr_max.progression import Changes
from cxr_max.records import PREDICTION_STATUSES

if TYPE_CHECKING:
    import pyarrow as pa

OK: Final = PREDICTION_STATUSES.index("ok")
FAILED: Final = PREDICTION_STATUSES.index("failed")
_STATE_CODES: Final = np.array([STATE_ORDER.index(state) for state in (-1, 0, 1, None)], dtype=np.int8)
"""Indexed by state + 1; the last is null."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """n image sets; what is not in the submission failed."""

    status: Codes
    """(n,): index ``PREDICTION_STATUSES``."""
    states: Codes
    """(n, 14): index ``STATE_ORDER``; 0, not mentioned, unless the status is ok."""
    sides: Codes
    """(n, 14): index ``SIDE_ORDER``."""
    scores: Floats
    """(n, 14): probability of present; NaN, never shown, where the model gave none."""
    contradicted: Bools
    """(n, 14): the text before the structured answer says another state."""
    compared: Bools
    """(n,): something compared answer and text."""

    def __len__(self) -> int:
        return len(self.status)

    @property
    def ok(self) -> Bools:
        """(n,): there are findings."""
        ok: Bools = self.status == OK
        return ok

    @property
    def failed(self) -> Bools:
        """(n,): there is no reply, or no row."""
        failed: Bools = self.status == FAILED
        return failed

    @property
    def refused(self) -> Bools:
        """(n,): a reply without findings."""
        return ~self.ok & ~self.failed

    def with_scores(self, scores: Floats) -> "Answers":
        """The same with other scores, (n, 14)."""
        return replace(self, scores=scores)

    def take(self, rows: Ints) -> "Answers":
        """Some rows, in the order given."""
        return Answers(*(getattr(self, field.name)[rows] for field in fields(self)))


def nothing(n: int) -> Answers:
    """No row at all."""
    blank = np.zeros((n, len(FINDINGS)), dtype=np.int8)
    return Answers(
        status=np.full(n, FAILED, dtype=np.int8),
        states=blank,
        sides=blank.copy(),
        scores=np.full(blank.shape, np.nan),
        contradicted=np.zeros(blank.shape, dtype=np.bool_),
        compared=np.zeros(n, dtype=np.bool_),
    )


def by_condition(table: "pa.Table", reference: Reference) -> dict[str, Answers]:
    """Predictions as ``predictions.read_predictions`` gives them -> answers by condition.

    Image sets that are not in the reference are passed over.
    """
    import pyarrow.compute as pc

    conditions = table.column("condition").to_pylist()
    keys = zip(table.column("study_id").to_pylist(), table.column("image_ids").to_pylist(), strict=True)
    position = reference.position
    places = np.array([position.get((study, tuple(images)), -1) for study, images in keys], dtype=np.int64)
    columns = _columns(table, pc)
    names, condition = np.unique(np.asarray(conditions, dtype=str), return_inverse=True)
    answers = {}
    for number, name in enumerate(names.tolist()):
        rows = np.flatnonzero((condition == number) & (places >= 0))
        answers[name] = _placed(columns, rows, places[rows], len(reference))
    return answers


def _placed(columns: Answers, rows: Ints, places: Ints, n: int) -> Answers:
    placed = nothing(n)
    for field in fields(Answers):
        getattr(placed, field.name)[places] = getattr(columns, field.name)[rows]
    return placed


def _columns(table: "pa.Table", pc: Any) -> Answers:
    """The rows of the file, in its order."""
    import pyarrow as pa

    n = len(table)
    findings, sides, scores = (table.column(name).combine_chunks() for name in ("findings", "sides", "scores"))
    made = nothing(n)
    made.status[:] = _indices(table.column("status"), PREDICTION_STATUSES)
    for place, name in enumerate(FINDINGS):
        states = pc.fill_null(pc.struct_field(findings, name), 2).to_numpy(zero_copy_only=False)
        made.states[:, place] = _STATE_CODES[states.astype(np.int64) + 1]
        made.sides[:, place] = _indices(pc.struct_field(sides, name), SIDE_ORDER)
        made.scores[:, place] = pc.struct_field(scores, name).cast(pa.float64()).to_numpy(zero_copy_only=False)
    contradictions = table.column("contradictions")
    made.compared[:] = contradictions.is_valid().to_numpy(zero_copy_only=False)
    flat = pc.list_flatten(contradictions)
    parents = pc.list_parent_indices(contradictions).to_numpy()
    made.contradicted[parents, _indices(flat, FINDINGS)] = True
    made.states[~made.ok] = 0
    return made


def _indices(column: Any, order: Sequence[str | None]) -> Ints:
    """Of each value in ``order``; null is the place of ``None``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.fill_null(pc.index_in(column, value_set=pa.array(order, pa.string())), 0)
    return np.asarray(found.to_numpy(), dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """All that a task may look at."""

    reference: Reference
    answers: Mapping[str, Answers]
    """Condition -> the model's."""
    peers: Mapping[str, Answers]
    """Teacher -> the original answers of the release's other teachers."""
    reports: Sequence[str | None] = ()
    """(n,) texts of the condition ``report``; empty where nobody asked for them."""
    member: bool = False
    """The model is a teacher of the release, and so has a vote."""
    changes: Sequence[Changes | None] = ()
    """(n,): how findings changed, as the original answers say; empty where the reference says nothing of it."""

    def under(self, condition: str) -> Answers:
        """The model's answers; all failed where the condition was not asked."""
        answers = self.answers.get(condition)
        return nothing(len(self.reference)) if answers is None else answers

    def take(self, rows: Ints) -> "Data":
        """Some of the image sets."""
        return Data(
            self.reference.take(rows.tolist()),
            {name: answers.take(rows) for name, answers in self.answers.items()},
            {name: answers.take(rows) for name, answers in self.peers.items()},
            [self.reports[row] for row in rows.tolist()] if self.reports else (),
            self.member,
            [self.changes[row] for row in rows.tolist()] if self.changes else (),
        )

    def only(self, conditions: Iterable[str]) -> "Data":
        """What was answered under these conditions: the rest is not the suite's, whoever asked for it."""
        kept = {name: self.answers[name] for name in conditions if name in self.answers}
        return replace(self, answers=kept)

    def of_split(self, split: str) -> "Data":
        """The image sets of one split."""
        chosen = [index for index, row in enumerate(self.reference.rows) if row.split == split]
        return self.take(np.array(chosen, dtype=np.int64))

    def first(self, image_sets: int) -> "Data":
        """At most so many image sets, the first by hash."""
        if image_sets >= len(self.reference):
            return self
        return self.take(np.arange(image_sets))
