"""Log-probs of every reply under the frozen reference: computed once, kept on disk, found again by content."""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import torch

from cxr_max.student.batches import Turns
from cxr_max.student.logps import sums, token_logps
from cxr_max.student.model import Student
from cxr_max.student.packing import pack
from cxr_max.student.training import Watch


def reference_logps(
    student: Student, data: Turns, cache: Path, watch: Watch, *, process: int = 0, processes: int = 1
) -> None:
    """Fill the cache with this process's share of what it lacks.

    Args:
        student: as it is before the first step: the reference.
        cache: an SQLite file; several processes may fill it at once.
    """
    with closing(_open(cache)) as db:
        names = keys(student, data)
        missing = [index for index, name in enumerate(names) if _get(db, name) is None]
        mine = missing[process::processes]
        student.model.eval()
        for done, index in enumerate(mine, 1):
            item = data[index]
            packed = pack([(item.prompt, item.replies)]).to(student.model.device)
            with torch.no_grad():
                values = sums(token_logps(student.model, packed), packed.reply_lengths).tolist()
            with db:
                db.execute("INSERT OR REPLACE INTO logps VALUES (?, ?)", (names[index], json.dumps(values)))
            watch("Reference", done, len(mine))
        student.model.train()


def read_logps(student: Student, data: Turns, cache: Path) -> list[list[float]]:
    """Per lesson, the summed log-prob of each reply, in nats."""
    with closing(_open(cache)) as db:
        found = [_get(db, key) for key in keys(student, data)]
    assert all(values is not None for values in found), "reference_logps fills the cache first"
    return [values for values in found if values is not None]


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
    db = sqlite3.connect(path, timeout=60)
    db.execute("CREATE TABLE IF NOT EXISTS logps (key TEXT PRIMARY KEY, sums TEXT NOT NULL) WITHOUT ROWID")
    return db


def _get(db: sqlite3.Connection, key: str) -> list[float] | None:
    row = db.execute("SELECT sums FROM logps WHERE key = ?", (key,)).fetchone()
    return None if row is None else json.loads(row[0])
