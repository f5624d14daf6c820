"""The durable record of every reply: one SQLite file per run, in WAL mode.

A reply is committed here before anything else is done with it; the release is derived from this file alone.
Three facts are kept: which bytes a file held (``files``), which rows the release shall have (``questions``)
and what was answered (``replies``). ``failures`` and ``gaps`` say what is missing and why, ``batches`` what is
at the services (see ``ledger_batches``), ``recipients`` to whom the data-use gate let anything be sent.
"""

import dataclasses
import hashlib
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from math import fsum
from pathlib import Path
from typing import Any, Final

from cxr_max import ledger_schema
from cxr_max.costs import Spent
from cxr_max.data_use import Recipient
from cxr_max.errors import RequestError, StorageError
from cxr_max.ledger_batches import BatchTables
from cxr_max.records import Question, Reply, Sampling

_DAMAGED: Final = ("malformed", "Could not decode")


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply with what only the asking knows."""

    request_sha256: str
    image_sha256: tuple[str, ...]
    reply: Reply
    cost_usd: float | None
    latency_s: float
    created_at: datetime
    """In UTC."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that got no reply. It is asked again by the next run."""

    request_sha256: str
    teacher: str
    at: datetime
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Images that cannot be asked about, and why."""

    study_id: str
    image_ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What the replies of one teacher took."""

    replies: int
    cost_usd: float
    """Of those whose cost is known."""
    unpriced: int
    """Replies whose cost is not."""
    input_tokens: float | None
    """Mean per reply; ``None`` where no reply says."""
    output_tokens: float | None
    latency_s: float
    """Mean."""


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """A file as it stood on the disk when it was hashed, so that a restart hashes nothing again."""

    path: Path
    size: int
    """Bytes."""
    mtime_ns: int
    source_sha256: str


def request_key(
    *,
    provider: str,
    endpoint: str,
    model: str,
    sampling: Sampling,
    prompt_text: str,
    images: Sequence[tuple[str, str]],
    sample_index: int,
) -> str:
    """The sha256 that identifies a request: equal keys are the same purchase.

    Args:
        endpoint: the service's URL, or the literal ``simulated:``, whose port changes.
        prompt_text: as filled in and sent.
        images: (sha256 of the source file, rendering with version and size) of each. The rendered bytes
            are left out on purpose: a new JPEG encoder must not buy every reply again.
    """
    parts = [provider, endpoint, model, dataclasses.asdict(sampling), prompt_text, list(images), sample_index]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def refusals_named(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk refuse about a ledger into one sentence with the remedy.

    Raises:
        RequestError: the file is no ledger.
        StorageError: it is damaged, or cannot be written.
    """
    try:
        yield
    except (sqlite3.DatabaseError, OSError) as error:
        if isinstance(error, sqlite3.IntegrityError):
            raise
        if "not a database" in str(error):
            raise RequestError(f"{path} is not a ledger: move it away, or use another --out.") from error
        if any(sign in str(error) for sign in _DAMAGED):
            raise _damaged(path, str(error)) from error
        raise StorageError(
            f"The ledger {path} cannot be written ({error}). Every reply committed so far is safe:"
            " make room on the disk and run the same command again."
        ) from error


def refuse_empty(path: Path) -> None:
    """A ledger never has 0 bytes, not even while it is being made: such a file lost what it held.

    Raises:
        StorageError: it has.
    """
    if path.stat().st_size == 0:
        raise _damaged(path, "it is empty")


def _damaged(path: Path, how: str) -> StorageError:
    return StorageError(
        f"The ledger {path} is damaged ({how}): put a copy of it back, or save what is whole"
        " with sqlite3's .recover command."
    )


def _create(path: Path) -> None:
    """Make a new ledger that appears under its name only once it is whole, whatever kills the process."""
    partial = path.with_name(path.name + ".partial")
    try:
        # A log that outlived its ledger would be played back into the new one.
        for left in (f"{partial}", f"{partial}-journal", f"{path}-wal", f"{path}-shm"):
            Path(left).unlink(missing_ok=True)
        with closing(sqlite3.connect(partial, isolation_level=None)) as db:
            ledger_schema.create(db)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    # The name must outlive a power cut too.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Ledger(BatchTables):
    """One run's ledger, safe to share between threads; ``with`` closes it.

    Raises:
        RequestError: the file is no ledger, or of a newer schema version.
        StorageError: the disk refused a write; all that was committed stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._refusals_named():
            if not path.exists():
                _create(path)
            refuse_empty(path)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            if self._db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                self._db.close()
                raise RequestError(
                    f"{path} lies where SQLite's write-ahead log does not work: choose an --out on a disk of this"
                    " machine."
                )
            # FULL: a reply that was paid for survives a power cut too, not only a killed process.
            self._db.execute("PRAGMA synchronous = FULL")
            ledger_schema.migrate(self._db, path)

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def _refusals_named(self) -> AbstractContextManager[None]:
        return refusals_named(self.path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._refusals_named():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _read(self, query: str, parameters: Sequence[object] = ()) -> Iterator[Any]:
        with self._refusals_named():
            yield from self._db.execute(query, parameters)

    # What files held.

    def source_sha256(self, path: Path, size: int, mtime_ns: int) -> str | None:
        """The hash of a file that has not changed since it was last read; else ``None``."""
        query = "SELECT source_sha256 FROM files WHERE path = ? AND size = ? AND mtime_ns = ?"
        with self._lock:
            return next((row[0] for row in self._read(query, (str(path), size, mtime_ns))), None)

    # The rows that the release shall have.

    def plan(self, questions: Iterable[Question], files: Iterable[FileIdentity] = ()) -> None:
        """Add rows, and what was hashed for them. A row planned before points to its newest request."""
        with self._transaction() as db:
            db.executemany(_insert("REPLACE", "questions", _QUESTION_COLUMNS), map(_question_row, questions))
            rows = [(str(file.path), file.size, file.mtime_ns, file.source_sha256) for file in files]
            db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)

    def answered(self) -> set[str]:
        """The key of every request that has a reply."""
        return {row[0] for row in self._read("SELECT request_sha256 FROM replies")}

    def bought_at(self) -> dict[str, str]:
        """When each request that has a reply got it, in ISO 8601: the same in every ledger that holds it."""
        return dict(self._read("SELECT request_sha256, created_at FROM replies"))

    def images_asked(self) -> set[tuple[str, ...]]:
        """The ids of every image set about which there is a reply, or was one asked for in a batch."""
        query = (
            "SELECT DISTINCT image_ids FROM questions WHERE request_sha256 IN"
            " (SELECT request_sha256 FROM replies UNION ALL SELECT request_sha256 FROM batch_members)"
        )
        return {tuple(json.loads(row[0])) for row in self._read(query)}

    # What came back.

    def reply(self, request_sha256: str) -> Answered | None:
        """What was answered to one request, without ``raw``; ``None`` where there is no reply yet."""
        query = f"SELECT {', '.join(_READ_COLUMNS)} FROM replies WHERE request_sha256 = ?"
        with self._lock:
            return next((_answered_of(request_sha256, row) for row in self._read(query, (request_sha256,))), None)

    def raw(self, request_sha256: str) -> str | None:
        """The body of one reply as it was received; ``None`` where there is no reply yet."""
        query = "SELECT raw FROM replies WHERE request_sha256 = ?"
        with self._lock:
            return next((zlib.decompress(row[0]).decode() for row in self._read(query, (request_sha256,))), None)

    def commit(self, answers: Sequence[Answered], failures: Sequence[Failure] = ()) -> None:
        """Write replies and failures in one transaction; a reply clears its request's failure."""
        with self._transaction() as db:
            # A reply once committed is never overwritten.
            db.executemany(_insert("IGNORE", "replies", _REPLY_COLUMNS), map(_reply_row, answers))
            keys = [(answer.request_sha256,) for answer in answers]
            db.executemany("DELETE FROM failures WHERE request_sha256 = ?", keys)
            db.executemany(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)",
                [(f.request_sha256, f.teacher, f.at.isoformat(), f.kind, f.message) for f in failures],
            )

    def record_gaps(self, gaps: Iterable[Gap]) -> None:
        """Replace the list of what cannot be asked about; rows about it without a reply leave the plan."""
        rows = [(gap.study_id, json.dumps(gap.image_ids), gap.reason) for gap in gaps]
        with self._transaction() as db:
            db.execute("DELETE FROM gaps")
            db.executemany("INSERT OR REPLACE INTO gaps VALUES (?, ?, ?)", rows)
            db.executemany(
                "DELETE FROM questions WHERE study_id = ? AND image_ids = ?"
                " AND request_sha256 NOT IN (SELECT request_sha256 FROM replies)",
                [row[:2] for row in rows],
            )

    def keep_recipients(self, recipients: Iterable[Recipient]) -> None:
        """Remember to whom data go from now on, and under which attestation; what is known stays."""
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO recipients VALUES (?, ?, ?, ?)", map(_recipient_row, recipients))

    def forget(self, subjects: Iterable[str]) -> None:
        """Take the rows of these subjects out of the plan, with their failures and gaps; replies stay."""
        named = json.dumps(sorted(subjects))
        theirs = "FROM questions WHERE subject_id IN (SELECT value FROM json_each(?))"
        with self._transaction() as db:
            db.execute(f"DELETE FROM failures WHERE request_sha256 IN (SELECT request_sha256 {theirs})", (named,))
            db.execute(f"DELETE FROM gaps WHERE study_id IN (SELECT study_id {theirs})", (named,))
            db.execute(f"DELETE {theirs}", (named,))

    # Reading back.

    def rows(self, split: str | None = None) -> Iterator[tuple[Question, Answered]]:
        """Every planned row that has a reply, in the release's order, streamed; ``raw`` is left out.

        Args:
            split: only this split, as ``split_counts`` names it.
        """
        columns = [*(f"q.{name}" for name in _QUESTION_COLUMNS), *(f"r.{name}" for name in _READ_COLUMNS)]
        query = (
            f"SELECT {', '.join(columns)} FROM questions q JOIN replies r USING (request_sha256)"
            f" WHERE ?1 IS NULL OR {_SPLIT} = ?1"
            " ORDER BY q.study_id, q.image_ids, q.teacher, q.prompt_name, q.prompt_sha256, q.sample_index"
        )
        for row in self._read(query, (split,)):
            question = _question_of(dict(zip(_QUESTION_COLUMNS, row, strict=False)))
            yield question, _answered_of(question.request_sha256, row[len(_QUESTION_COLUMNS) :])

    def split_counts(self) -> dict[str, int]:
        """Planned rows that have a reply, by split; rows without one count as ``train``, as on the Hub."""
        query = f"SELECT {_SPLIT}, COUNT(*) FROM questions JOIN replies USING (request_sha256) GROUP BY 1"
        return dict(self._read(query))

    def teacher_counts(self) -> dict[str, tuple[int, int]]:
        """By teacher: rows planned, and of these answered."""
        query = (
            "SELECT teacher, COUNT(*), COUNT(r.request_sha256) FROM questions"
            " LEFT JOIN replies r USING (request_sha256) GROUP BY teacher ORDER BY teacher"
        )
        return {teacher: (planned, answered) for teacher, planned, answered in self._read(query)}

    def spent(self, without: Mapping[str, str] | None = None) -> Spent:
        """US dollars paid for all replies whose cost is known, and how many replies it is not known of.

        Of every reply that was ever bought, whether or not a row of the release still points to it.

        Args:
            without: replies that another ledger has paid for, as its ``bought_at`` says.
        """
        paid = without or {}
        rows = self._read("SELECT request_sha256, created_at, cost_usd FROM replies")
        costs = [cost for key, at, cost in rows if paid.get(key) != at]
        return fsum(cost for cost in costs if cost is not None), costs.count(None)

    def usage(self, prompt_sha256: str | None = None) -> dict[str, Usage]:
        """By teacher, of the replies that rows point to.

        Args:
            prompt_sha256: only of this prompt.
        """
        query = (
            "SELECT teacher, COUNT(*), COALESCE(SUM(cost_usd), 0.0), COUNT(*) - COUNT(cost_usd),"
            " AVG(input_tokens), AVG(output_tokens),"
            # How long a batch took says nothing about one question.
            " AVG(CASE WHEN request_sha256 NOT IN (SELECT request_sha256 FROM batch_members) THEN latency_s END)"
            " FROM (SELECT DISTINCT teacher, request_sha256 FROM questions WHERE ?1 IS NULL OR prompt_sha256 = ?1)"
            " JOIN replies USING (request_sha256) GROUP BY teacher ORDER BY teacher"
        )
        return {teacher: Usage(*numbers) for teacher, *numbers in self._read(query, (prompt_sha256,))}

    def failures(self) -> list[Failure]:
        """The latest failure of every request that still has no reply."""
        query = "SELECT request_sha256, teacher, at, kind, message FROM failures ORDER BY teacher, request_sha256"
        return [Failure(key, t, datetime.fromisoformat(at), k, m) for key, t, at, k, m in self._read(query)]

    def recipients(self) -> list[dict[str, Any]]:
        """Everybody to whom data went or may have gone, as JSON holds it: the fields of ``Recipient``."""
        query = "SELECT teacher, place, host, attestation FROM recipients ORDER BY 1, 2, 3, 4"
        return [
            {"teacher": teacher, "place": place, "host": host or None, "attestation": json.loads(attestation)}
            for teacher, place, host, attestation in self._read(query)
        ]

    def gaps(self) -> list[Gap]:
        """What the last run could not ask about."""
        query = "SELECT study_id, image_ids, reason FROM gaps ORDER BY study_id, image_ids"
        return [Gap(study, tuple(json.loads(ids)), reason) for study, ids, reason in self._read(query)]


UNDIVIDED: Final = "train"
"""The split whose file holds the rows of a data set that is not divided, as on the Hub."""

_SPLIT: Final = f"COALESCE(split, '{UNDIVIDED}')"
_LISTS: Final = ("image_ids", "source_sha256", "given_findings")
_QUESTION_COLUMNS = tuple(field.name for field in dataclasses.fields(Question))
_REPLY_COLUMNS: Final = (
    "request_sha256", "image_sha256", "text", "reasoning", "ended", "finish_reason", "model_reported",
    "input_tokens", "output_tokens", "cost_usd", "latency_s", "created_at", "request_id", "raw",
)  # fmt: skip
_READ_COLUMNS = tuple(name for name in _REPLY_COLUMNS if name not in {"request_sha256", "raw"})


def _insert(on_conflict: str, table: str, columns: Sequence[str]) -> str:
    values = ", ".join("?" * len(columns))
    return f"INSERT OR {on_conflict} INTO {table} ({', '.join(columns)}) VALUES ({values})"


def _question_row(question: Question) -> tuple[object, ...]:
    values = {name: getattr(question, name) for name in _QUESTION_COLUMNS}
    for name in _LISTS:
        values[name] = json.dumps(values[name])
    values["sampling"] = json.dumps(dataclasses.asdict(question.sampling), sort_keys=True)
    return tuple(values.values())


def _question_of(values: dict[str, object]) -> Question:
    decoded: Mapping[str, object] = {
        **values,
        **{name: tuple(json.loads(str(values[name]))) for name in _LISTS},
        "sampling": Sampling(**json.loads(str(values["sampling"]))),
        "structured_answer": bool(values["structured_answer"]),
    }
    return Question(**decoded)  # type: ignore[arg-type]


def _recipient_row(recipient: Recipient) -> tuple[str, ...]:
    attestation = recipient.attestation and dataclasses.asdict(recipient.attestation)
    said = json.dumps(attestation, default=str, sort_keys=True)
    return recipient.teacher, recipient.place, recipient.host or "", said


def _reply_row(answer: Answered) -> tuple[object, ...]:
    reply = answer.reply
    return (
        answer.request_sha256, json.dumps(answer.image_sha256), reply.text, reply.reasoning, reply.ended,
        reply.finish_reason, reply.model_reported, reply.input_tokens, reply.output_tokens, answer.cost_usd,
        answer.latency_s, answer.created_at.isoformat(), reply.request_id, zlib.compress(reply.raw.encode()),
    )  # fmt: skip


def _answered_of(key: str, row: Sequence[object]) -> Answered:
    values: dict[str, Any] = dict(zip(_READ_COLUMNS, row, strict=True))
    names = [field.name for field in dataclasses.fields(Reply) if field.name in values]
    return Answered(
        request_sha256=key,
        image_sha256=tuple(json.loads(values["image_sha256"])),
        reply=Reply(**{name: values[name] for name in names}, raw=""),
        cost_usd=values["cost_usd"],
        latency_s=values["latency_s"],
        created_at=datetime.fromisoformat(values["created_at"]),
    )
