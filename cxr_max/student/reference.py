"""Log-probs of every reply under the frozen reference: computed once, kept on disk, found again by content."""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Final

import torch

from cxr_max.student import processes
from cxr_max.student.batches import Turns
from cxr_max.student.logps import sums, token_logps
from cxr_max.student.model import Student
from cxr_max.student.packing import pack
from cxr_max.student.training import Watch

_ROUND: Final = 8
"""Lessons that each process computes before they are kept: enough for short and long ones to even out."""


def reference_logps(student: Student, data: Turns, cache: Path, watch: Watch) -> list[list[float]]:
    """Per lesson, the summed log-prob of each reply, in nats. What the cache lacks is computed, by all processes.

    Args:
        student: as it is before the first step: the reference.
        cache: an SQLite file; the main process alone reads and writes it.
    """
    here = processes.here()
    with closing(_open(cache)) if processes.is_main() else nullcontext() as db:
        names = [] if db is None else keys(student, data)
        found = processes.from_main({} if db is None else _read(db, names))
        missing = [index for index in range(len(data)) if index not in found]
        student.model.eval()
        for start in range(0, len(missing), _ROUND * here.num_processes):
            these = missing[start : start + _ROUND * here.num_processes]
            mine = {
                index: _logps(student, data, index) for index in these[here.process_index :: here.num_processes]
            }
            new = {index: values for part in processes.from_all(mine) for index, values in part.items()}
            found |= new
            if db is not None:
                _write(db, {names[index]: values for index, values in new.items()})
                watch("Reference", min(start + len(these), len(missing)), len(missing))
        student.model.train()
    return [found[index] for index in range(len(data))]


def _logps(student: Student, data: Turns, index: int) -> list[float]:
    item = data[index]
    packed = pack([(item.prompt, item.replies)]).to(student.model.device)
    with torch.no_grad():
        values: list[float] = sums(token_logps(student.model, packed), packed.reply_lengths).tolist()
    return values


def keys(student: Student, data: Turns) -> list[str]:
    """By content: weights, how images are seen, question, replies, and where they are cut."""
    about = [student.fingerprint, str(student.model.dtype), student.chat.max_pixels, data.max_length]
    return [_key([*about, *_content(data, index)]) for index in range(len(data))]


def _content(data: Turns, index: int) -> Sequence[object]:
    lesson = data.lessons[data.turns[index].lesson]
    return [lesson.images.source_sha256, lesson.images.rendering, lesson.prompt, lesson.replies]


def _key(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE IF NOT EXISTS logps (key TEXT PRIMARY KEY, sums TEXT NOT NULL) WITHOUT ROWID")
    return db


def _read(db: sqlite3.Connection, names: Sequence[str]) -> dict[int, list[float]]:
    rows = (db.execute("SELECT sums FROM logps WHERE key = ?", (name,)).fetchone() for name in names)
    return {index: json.loads(row[0]) for index, row in enumerate(rows) if row is not None}


def _write(db: sqlite3.Connection, values: dict[str, list[float]]) -> None:
    with db:
        db.executemany(
            "INSERT OR REPLACE INTO logps VALUES (?, ?)", [(k, json.dumps(v)) for k, v in values.items()]
        )
