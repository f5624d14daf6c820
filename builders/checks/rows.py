"""What must hold for the trajectories of a release, row by row and among rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cxr_max import labeler, prompts
from cxr_max.builders.checks.base import Defects, Part
from cxr_max.builders.checks.texts import check_texts
from cxr_max.findings import FINDINGS, SIDES, STATES
from cxr_max.ledger import UNDIVIDED
from cxr_max.records import STATUSES
from cxr_max.replies import read_reply

if TYPE_CHECKING:
    import pyarrow as pa

REQUIRED: Final = (
    "trajectory_id", "study_id", "subject_id", "source", "image_ids", "teacher", "sample_index", "status", "text",
)  # fmt: skip
SHA256: Final = ("trajectory_id", "prompt_sha256", "request_sha256", "source_sha256", "image_sha256")
SEARCHED: Final = ("text", "reasoning", "finish_reason", "model_reported")
READ_AGAIN: Final = 500
"""Rows whose findings are read again, evenly spread over the release."""
_HEX: Final = "^[0-9a-f]{64}$"
_BREAK: Final = "\x00"


@dataclass(slots=True)
class TrajectoryRows:
    """Looks at the trajectories as they stream by, shard by shard, and keeps what must be compared among them."""

    defects: Defects
    prompts: frozenset[str]
    """sha256 of those that the manifest lists."""
    excluded: frozenset[str]
    """Subjects that may not be in the train split."""
    total: int
    """Rows of the release, by its manifest: how far apart the rows stand that are read again."""
    asked: set[str] = field(default_factory=set)
    """Every study, its images and a prompt, as ``question_keys`` writes them."""
    studies: set[str] = field(default_factory=set)
    _splits: dict[str, str] = field(default_factory=dict)
    """By subject."""
    _subjects: dict[str, str] = field(default_factory=dict)
    """By study."""
    _told: set[str] = field(default_factory=set)
    """Excluded subjects that were found."""
    seen: int = 0
    """Rows so far."""
    _ids: list["pa.Array"] = field(default_factory=list)
    _keys: list["pa.Array"] = field(default_factory=list)
    _places: list[tuple[int, str, int]] = field(default_factory=list)
    """Number of the first row of each part in the release, its file, and its place there."""
    _last: dict[str, str] = field(default_factory=dict)
    """By split, the key of the last row."""

    def add(self, part: Part) -> None:
        """Look at some rows."""
        self._check_nulls(part)
        self._check_values(part)
        self._check_findings(part)
        self._check_hashes(part)
        check_texts(part, SEARCHED, self.defects)
        self._check_own_names(part)
        self._check_subjects(part)
        self._read_again(part)
        self._collect(part)

    def _check_nulls(self, part: Part) -> None:
        for name in REQUIRED:
            self.defects.flag("null", part, part.table[name].is_null(), f"{name} is null.")

    def _check_values(self, part: Part) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        table, flag = part.table, self.defects.flag
        status = table["status"]
        flag("status", part, pc.invert(pc.is_in(status, value_set=pa.array(STATUSES))), "status is none of ours.")
        blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(table["text"])), 0)
        flag("empty text", part, pc.and_(pc.equal(status, "ok"), blank), "status is ok, and there is no text.")
        wrong = pc.not_equal(pc.fill_null(table["split"], UNDIVIDED), part.split)
        flag("split", part, wrong, lambda row: f"split is {table['split'][row]}, and its file is {part.split}'s.")
        unknown = pc.and_(
            pc.is_valid(table["prompt_given"]),
            pc.invert(pc.is_in(table["prompt_sha256"], value_set=pa.array(sorted(self.prompts), pa.string()))),
        )
        flag("prompt", part, unknown, "prompt_sha256 is of no prompt that the manifest lists.")
        for name in ("cost_usd", "latency_s"):
            bad = pc.or_(pc.is_nan(table[name]), pc.less(table[name], 0))
            flag("number", part, bad, f"{name} is negative or not a number.")
        for name in ("input_tokens", "output_tokens", "sample_index"):
            flag("number", part, pc.less(table[name], 0), f"{name} is negative.")

    def _check_findings(self, part: Part) -> None:
        import pyarrow.compute as pc

        findings, sides = part.table["findings"], part.table["sides"]
        there, ok = findings.is_valid(), pc.equal(part.table["status"], "ok")
        self.defects.flag(
            "findings", part, pc.and_not(there, ok), "there are findings of a reply whose status is not ok."
        )
        differ = pc.not_equal(there, part.table["labeler"].is_valid())
        self.defects.flag(
            "findings", part, differ, "findings without the labeler that read them, or the other way."
        )
        for names, values, what in ((STATES.values(), findings, "state"), (SIDES, sides, "side")):
            check_coding(part, values, tuple(names), what, self.defects)

    def _check_hashes(self, part: Part) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        for name in SHA256:
            values = part.table[name].combine_chunks()
            listed = pa.types.is_list(values.type)
            flat = pc.list_flatten(values) if listed else values
            bad = pc.invert(pc.match_substring_regex(flat, _HEX))
            if not listed:
                self.defects.flag("hash", part, bad, f"{name} is no sha256.")
            elif pc.any(bad).as_py():
                owners = pc.list_parent_indices(values)
                for row in pc.filter(owners, bad.fill_null(False)).unique().to_pylist():
                    self.defects.add("hash", part.file, f"{name} holds what is no sha256.", part.first + row)
        lengths = [
            pc.list_value_length(part.table[name]) for name in ("image_ids", "image_sha256", "source_sha256")
        ]
        uneven = pc.or_(pc.not_equal(lengths[0], lengths[1]), pc.not_equal(lengths[0], lengths[2]))
        self.defects.flag("hash", part, uneven, "there are not as many hashes as images.")

    def _check_own_names(self, part: Part) -> None:
        """No text may repeat the row's own subject, study or image: nobody told the teacher."""
        names = ("text", "subject_id", "study_id")
        columns = [part.table[name].to_pylist() for name in names]
        for row, (text, *own) in enumerate(zip(*columns, strict=True)):
            for identifier in own:
                if text and identifier and len(identifier) >= 6 and _numbered(identifier) and identifier in text:
                    message = "text repeats the identifier of its own subject or study."
                    self.defects.add("identifier", part.file, message, part.first + row)

    def _check_subjects(self, part: Part) -> None:
        grouped = part.table.select(["subject_id", "study_id"]).group_by(["subject_id", "study_id"]).aggregate([])
        for subject, study in zip(*(grouped[name].to_pylist() for name in grouped.column_names), strict=True):
            first = self._splits.setdefault(subject, part.split)
            if first not in (part.split, "told"):
                self._splits[subject] = "told"
                message = (
                    f"Subject {subject} is in {first} and in {part.split}: no result would hold for new patients."
                )
                self.defects.add("subject leak", part.file, message)
            if subject in self.excluded - self._told and part.split == "train":
                self._told.add(subject)
                message = f"Subject {subject} of the excluded list is in the train split."
                self.defects.add("excluded subject", part.file, message)
            if self._subjects.setdefault(study, subject) != subject:
                self.defects.add("subject leak", part.file, f"Study {study} belongs to two subjects.")

    def _read_again(self, part: Part) -> None:
        """Findings must be what the labeler reads from the text, where it can know what the prompt gave away."""
        step = max(1, self.total // READ_AGAIN)
        rows = [row for row in range(len(part.table)) if (self.seen + row) % step == 0]
        if not rows:
            return
        names = ["text", "status", "findings", "sides", "labeler", "prompt_name", "prompt_sha256", "prompt_given"]
        for row, values in zip(rows, part.table.select(names).take(rows).to_pylist(), strict=True):
            message = _read_otherwise(values)
            if message is not None:
                self.defects.add("findings", part.file, message, part.first + row)

    def _collect(self, part: Part) -> None:
        import pyarrow.compute as pc

        self._places.append((self.seen, part.file, part.first))
        self.seen += len(part.table)
        self._ids.append(part.table["trajectory_id"].combine_chunks())
        self.studies.update(part.table["study_id"].unique().to_pylist())
        self.asked.update(question_keys(part.table).unique().to_pylist())
        keys = _row_keys(part.table)
        self._keys.append(keys)
        before = self._last.get(part.split)
        if before is not None and before > keys[0].as_py():
            self.defects.add("order", part.file, "The row belongs before the one above it.", part.first)
        late = pc.greater(keys[:-1], keys[1:])
        for row in pc.indices_nonzero(late).to_pylist():
            self.defects.add("order", part.file, "The row belongs before the one above it.", part.first + row + 1)
        self._last[part.split] = keys[-1].as_py()

    def finish(self) -> None:
        """Compare what was kept."""
        self._check_twice("duplicate", self._keys, "The same question is answered in another row too.")
        self._keys.clear()
        self._check_twice("duplicate id", self._ids, "trajectory_id is another row's too.")
        self._ids.clear()

    def _check_twice(self, check: str, kept: Sequence["pa.Array"], message: str) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if not kept:
            return
        values = pa.chunked_array(kept)
        counts = pa.table({"value": values}).group_by("value").aggregate([([], "count_all")])
        twice = counts.filter(pc.greater(counts["count_all"], 1))["value"].drop_null()
        for value in twice.to_pylist():
            number = pc.indices_nonzero(pc.equal(values, value))[1].as_py()
            start, file, first = max(place for place in self._places if place[0] <= number)
            self.defects.add(check, file, message, first + number - start)


def check_coding(part: Part, values: Any, allowed: tuple[Any, ...], what: str, defects: Defects) -> None:
    """Every part of a column of findings or sides is one of ``allowed``, or null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in FINDINGS:
        column = pc.struct_field(values, name)
        known = pc.is_in(column, value_set=pa.array(allowed, column.type))
        wrong = pc.and_(column.is_valid(), pc.invert(known))
        defects.flag("coding", part, wrong, f"{name} has a {what} that does not exist.")


def question_keys(table: "pa.Table") -> "pa.Array":
    """What was asked, by (study, images, prompt): one text per row."""
    return _joined([table["study_id"], _list_text(table["image_sha256"]), table["prompt_sha256"]])


def _row_keys(table: "pa.Table") -> "pa.Array":
    """A row's identity, one text each, which sorts as a release's rows are sorted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    index = pc.utf8_lpad(pc.cast(table["sample_index"], pa.string()), 10, "0")
    columns = [table[name] for name in ("teacher", "prompt_name", "prompt_sha256")]
    return _joined([table["study_id"], _list_text(table["image_ids"]), *columns, index])


def _list_text(column: "pa.ChunkedArray") -> Any:
    """As JSON writes a list of plain texts, so that it sorts alike."""
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(pc.binary_join(column, '", "'), "]", '"')


def _joined(columns: list[Any]) -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    joined = pc.binary_join_element_wise(*columns, _BREAK, null_handling="replace", null_replacement="")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _numbered(identifier: str) -> bool:
    return any(character.isdecimal() for character in identifier)


def _read_otherwise(row: Mapping[str, Any]) -> str | None:
    """What a row says its text claims, against what the labeler of this version reads in it."""
    name = row["prompt_name"]
    asked = prompts.load(name) if name in prompts.names() else None
    knowable = row["status"] == "ok" and row["labeler"] == labeler.VERSION and row["prompt_given"] == "nothing"
    if not knowable or asked is None or asked.sha256 != row["prompt_sha256"] or row["text"] is None:
        return None
    status, labels = read_reply(row["text"], "stop", structured_answer=asked.structured_answer, given=())
    if labels is None:
        return f"status is ok, and the text reads as {status}."
    wrong = [*_differing(row["findings"], labels.states), *_differing(row["sides"], labels.sides)]
    return f"The labeler reads {wrong[0]} otherwise from the text." if wrong else None


def _differing(said: Mapping[str, Any] | None, read: Mapping[str, Any]) -> Iterable[str]:
    return [name for name in FINDINGS if (said or {}).get(name) != read.get(name)]
