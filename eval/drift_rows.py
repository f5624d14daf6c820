"""A release's trajectories as arrays: the columns that the drift report counts, a few bytes per row.

Texts are read in a second pass, and only where they are asked for.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from cxr_max.builders.release import read_manifest
from cxr_max.builders.run_folder import release_in
from cxr_max.drift.states import STATE_ORDER, Codes
from cxr_max.errors import RequestError
from cxr_max.findings import FINDINGS, SIDES, Side, State
from cxr_max.records import STATUSES, Trajectory
from cxr_max.shards import ROWS_PER_GROUP

if TYPE_CHECKING:
    import pyarrow as pa

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Watch = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""

SIDE_ORDER: Final[tuple[Side | None, ...]] = (None, *SIDES)
_CODE_OF: Final = np.array([STATE_ORDER.index(value) for value in (-1, 0, 1, None)], dtype=np.int8)
"""Indexed by state + 1; the last is null."""
_NULL: Final = 2
_KEYS: Final = ("teacher", "prompt_sha256", "subject_id", "finish_reason", "model_reported")
_COLUMNS: Final = (
    *("study_id", "subject_id", "image_ids", "image_sha256", "teacher", "provider", "model_reported"),
    *("prompt_name", "prompt_version", "prompt_sha256", "prompt_given", "sample_index", "status"),
    *("finish_reason", "findings", "sides", "labeler", "created_at"),
)


@dataclass(frozen=True, slots=True)
class Release:
    """A sealed release on disk."""

    folder: Path
    manifest: dict[str, Any]
    shards: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class PromptInfo:
    """A prompt of the release."""

    name: str
    version: str
    sha256: str
    given: str
    """What it gave away: nothing, findings, report or trajectories."""


@dataclass(frozen=True, slots=True)
class ImageSet:
    """What was sent in one request: one frontal image, or all images of a study."""

    study_id: str
    image_ids: tuple[str, ...]
    image_sha256: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """n trajectories, in the order of the shards. Integer columns index the vocabularies; -1 is null."""

    teachers: tuple[str, ...]
    """In alphabetical order."""
    simulated: frozenset[str]
    """Teachers with rows that no model answered."""
    prompts: tuple[PromptInfo, ...]
    image_sets: tuple[ImageSet, ...]
    subjects: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    models: tuple[str, ...]
    """As the services report them."""
    labelers: tuple[str, ...]
    position: Ints
    """(n,): the row's number in the release."""
    teacher: Ints
    prompt: Ints
    image_set: Ints
    subject: Ints
    finish_reason: Ints
    model: Ints
    sample: Ints
    status: Ints
    """Indexes ``STATUSES``."""
    created: Ints
    """Microseconds since 1970 (UTC); -1 where unknown."""
    read: Bools
    """Whether something read the text for findings."""
    states: Codes
    """(n, 14): indexes ``STATE_ORDER``."""
    sides: Codes
    """(n, 14): indexes ``SIDE_ORDER``."""

    def __len__(self) -> int:
        return len(self.teacher)

    def where(self, chosen: Bools) -> "Rows":
        """The rows for which ``chosen`` is true, with the same vocabularies."""
        columns = {name: getattr(self, name)[chosen] for name in _ARRAYS}
        vocabularies = {name: getattr(self, name) for name in _VOCABULARIES}
        return Rows(**vocabularies, **columns)

    @property
    def usable(self) -> Bools:
        """(n,): the reply is ok and was read for findings, so that it takes part in a vote."""
        taking_part: Bools = (self.status == STATUSES.index("ok")) & self.read
        return taking_part

    def trajectory(self, index: int) -> Trajectory:
        """What a vote needs to know of one row; every other field is blank."""
        asked = self.image_sets[self.image_set[index]]
        said: dict[str, Any] = {
            "study_id": asked.study_id,
            "image_ids": asked.image_ids,
            "image_sha256": asked.image_sha256,
            "teacher": self.teachers[self.teacher[index]],
            "prompt_sha256": self.prompts[self.prompt[index]].sha256,
            "sample_index": int(self.sample[index]),
            "status": STATUSES[self.status[index]],
            "findings": states_of(self.states[index]) if self.read[index] else None,
            "sides": sides_of(self.sides[index]) if self.read[index] else None,
        }
        return Trajectory(**{**_BLANK, **said})


_BLANK: Final[dict[str, Any]] = {field.name: None for field in fields(Trajectory)}
_ARRAYS: Final = (
    *("position", "teacher", "prompt", "image_set", "subject", "finish_reason", "model", "sample", "status"),
    *("created", "read", "states", "sides"),
)
_VOCABULARIES: Final = (
    *("teachers", "simulated", "prompts", "image_sets", "subjects", "finish_reasons", "models", "labelers"),
)


def states_of(codes: Codes) -> dict[str, State | None]:
    """All 14 findings of one row of state codes."""
    return {name: STATE_ORDER[code] for name, code in zip(FINDINGS, codes.tolist(), strict=True)}


def sides_of(codes: Codes) -> dict[str, Side | None]:
    """The sides of all 14 findings of one row of side codes."""
    return {name: SIDE_ORDER[code] for name, code in zip(FINDINGS, codes.tolist(), strict=True)}


def open_release(path: Path) -> Release:
    """Find the release in ``path``: a run's folder, its release folder, or any that holds such a release.

    Raises:
        RequestError: there is none, it is not sealed, or it has no rows.
    """
    folder = release_in(path)
    manifest = read_manifest(folder)
    shards = tuple(sorted((folder / "data" / "trajectories").glob("*.parquet")))
    if not shards:
        _no_rows(folder)
    return Release(folder, manifest, shards)


def _no_rows(folder: Path) -> NoReturn:
    raise RequestError(f"The release in {folder} has no trajectories, so there is nothing to compare.")


class _Vocabulary:
    """Numbers values in the order in which they come."""

    def __init__(self) -> None:
        self.index: dict[Any, int] = {}

    def codes(self, values: Sequence[Any]) -> list[int]:
        known = self.index
        return [-1 if value is None else known.setdefault(value, len(known)) for value in values]

    def values(self) -> tuple[Any, ...]:
        return tuple(self.index)


def read_rows(release: Release, watch: Watch) -> Rows:
    """Read everything but the texts, one row group at a time.

    Raises:
        RequestError: a shard cannot be read, lacks a column, or holds a value outside its coding.
    """
    words = {name: _Vocabulary() for name in (*_KEYS, "image_set", "prompt", "labeler", "simulated")}
    parts: list[dict[str, NDArray[Any]]] = []
    total, done = _count(release), 0
    for batch in _batches(release, _COLUMNS):
        parts.append(_columns(batch, words))
        done += batch.num_rows
        watch("Reading rows", done, total)
    if not done:
        _no_rows(release.folder)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    teachers = words["teacher"].values()
    order = np.argsort(np.array(teachers, dtype=object), kind="stable")
    columns["teacher"] = np.argsort(order, kind="stable")[columns["teacher"]]
    return Rows(
        teachers=tuple(teachers[index] for index in order),
        simulated=frozenset(words["simulated"].values()),
        prompts=tuple(PromptInfo(*prompt) for prompt in words["prompt"].values()),
        image_sets=tuple(ImageSet(*asked) for asked in words["image_set"].values()),
        subjects=words["subject_id"].values(),
        finish_reasons=words["finish_reason"].values(),
        models=words["model_reported"].values(),
        labelers=tuple(sorted(words["labeler"].values())),
        position=np.arange(done, dtype=np.int64),
        **columns,
    )


def _count(release: Release) -> int:
    import pyarrow.parquet as pq

    try:
        return sum(pq.read_metadata(shard).num_rows for shard in release.shards)
    except (OSError, ValueError) as error:
        raise RequestError(
            f"A shard of {release.folder} is no Parquet ({error}): build the release again."
        ) from error


def _batches(release: Release, columns: Sequence[str]) -> Iterator["pa.RecordBatch"]:
    import pyarrow.parquet as pq

    for shard in release.shards:
        try:
            with pq.ParquetFile(shard) as file:
                lacking = sorted(set(columns) - set(file.schema_arrow.names))
                if lacking:
                    raise RequestError(f"{shard} lacks the column {lacking[0]}: it is no shard of trajectories.")
                yield from file.iter_batches(batch_size=ROWS_PER_GROUP, columns=list(columns))
        except (OSError, ValueError) as error:
            raise RequestError(f"{shard} cannot be read ({error}): build the release again.") from error


def _columns(batch: "pa.RecordBatch", words: dict[str, _Vocabulary]) -> dict[str, NDArray[Any]]:
    plain = {
        name: batch.column(name).to_pylist()
        for name in _COLUMNS
        if name not in {"findings", "sides", "created_at", "sample_index"}
    }
    images = zip(
        plain["study_id"], map(_strings, plain["image_ids"]), map(_strings, plain["image_sha256"]), strict=True
    )
    prompts = zip(*(plain[f"prompt_{part}"] for part in ("name", "version", "sha256", "given")), strict=True)
    words["labeler"].codes(plain["labeler"])
    pairs = zip(plain["teacher"], plain["provider"], strict=True)
    words["simulated"].codes([teacher if provider == "simulated" else None for teacher, provider in pairs])
    codes = {
        "teacher": words["teacher"].codes(plain["teacher"]),
        "subject": words["subject_id"].codes(plain["subject_id"]),
        "finish_reason": words["finish_reason"].codes(plain["finish_reason"]),
        "model": words["model_reported"].codes(plain["model_reported"]),
        "image_set": words["image_set"].codes(list(images)),
        "prompt": words["prompt"].codes(list(prompts)),
        "status": [_index(STATUSES, status, "status") for status in plain["status"]],
    }
    return {
        **{name: np.array(values, dtype=np.int64) for name, values in codes.items()},
        "sample": _integers(batch.column("sample_index"), 0),
        "created": _integers(_microseconds(batch.column("created_at")), -1),
        "read": np.asarray(batch.column("findings").is_valid()),
        "states": _states(batch.column("findings")),
        "sides": _sides(batch.column("sides")),
    }


def _strings(values: list[str] | None) -> tuple[str, ...]:
    return tuple(values or ())


def _index(known: tuple[Any, ...], value: object, what: str) -> int:
    if value not in known:
        raise RequestError(f"A row has the {what} {value!r}, which is none of {known}: build the release again.")
    return known.index(value)


def _integers(column: "pa.Array", null: int) -> Ints:
    values: Ints = column.fill_null(null).to_numpy(zero_copy_only=False).astype(np.int64)
    return values


def _microseconds(column: "pa.Array") -> "pa.Array":
    import pyarrow as pa

    return column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())


def _states(column: "pa.Array") -> Codes:
    """A null struct, an absent field and a null state are all: not mentioned."""
    fields = _fields(column)
    stated = np.full((len(column), len(FINDINGS)), _NULL, dtype=np.int64)
    for index, name in enumerate(FINDINGS):
        if name in fields:
            stated[:, index] = _integers(fields[name], _NULL)
    if stated.min(initial=0) < -1 or stated.max(initial=0) > _NULL:
        raise RequestError("A row's findings hold a state other than 1, 0, -1 and null: build the release again.")
    codes: Codes = _CODE_OF[stated + 1]
    return codes


def _sides(column: "pa.Array") -> Codes:
    fields = _fields(column)
    codes = np.zeros((len(column), len(FINDINGS)), dtype=np.int8)
    for index, name in enumerate(FINDINGS):
        for row, side in enumerate(fields[name].to_pylist() if name in fields else ()):
            if side is not None:
                codes[row, index] = _index(SIDE_ORDER, side, "side")
    return codes


def _fields(column: "pa.Array") -> dict[str, "pa.Array"]:
    """A struct's children, null where the struct is."""
    names = [column.type.field(index).name for index in range(column.type.num_fields)]
    return dict(zip(names, column.flatten(), strict=True))


def read_texts(release: Release, wanted: Collection[int], watch: Watch) -> dict[int, str]:
    """Row number -> text, of the rows whose numbers are ``wanted``; other row groups are not opened."""
    import pyarrow.parquet as pq

    texts: dict[int, str] = {}
    numbers = np.array(sorted(wanted), dtype=np.int64)
    first = 0
    for shard in release.shards:
        with pq.ParquetFile(shard) as file:
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                inside = numbers[(numbers >= first) & (numbers < first + size)]
                if len(inside):
                    column = file.read_row_group(group, columns=["text"]).column("text")
                    texts.update((int(number), column[int(number) - first].as_py() or "") for number in inside)
                    watch("Reading texts", len(texts), len(numbers))
                first += size
    return texts
