"""Ledgers with known content."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cxr_max.ledger import Answered, Failure, Ledger
from cxr_max.records import Question, Reply, Sampling

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def key_of(study: str, teacher: str, sampling: str = "") -> str:
    return hashlib.sha256(f"{study} {teacher} {sampling}".encode()).hexdigest()


def question(study: str, teacher: str, key: str | None = None, *, source_sha256: str | None = None) -> Question:
    return Question(
        study_id=study, subject_id="p1", source="test", split="train", image_ids=(f"{study}-1",),
        source_sha256=(source_sha256 or f"bytes of {study}",), rendering="mimic_jpg-1@1024", teacher=teacher,
        provider="openai", model="m", prompt_name="diagnose", prompt_version="1", prompt_sha256="t",
        prompt_given="nothing", structured_answer=True, sampling=Sampling(), sample_index=0,
        request_sha256=key or key_of(study, teacher),
    )  # fmt: skip


def answered(
    key: str, text: str = "text", *, minutes_ago: float = 600, cost: float | None = 0.5, **changes: Any
) -> Answered:
    values = {"ended": "stop", "model_reported": "m-1", "input_tokens": 10, "output_tokens": 20, **changes}
    reply = Reply(text=text, reasoning=None, finish_reason="stop", request_id=None, raw="{}", **values)
    return Answered(key, ("j",), reply, cost, 1.5, NOW - timedelta(minutes=minutes_ago))


def failure(key: str, teacher: str, message: str = "HTTP 500", *, minutes_ago: float = 600) -> Failure:
    return Failure(key, teacher, NOW - timedelta(minutes=minutes_ago), "server", message)


def run(folder: Path, *, source: str = "phantom", **settings: str) -> Path:
    """A run's folder with its settings, and an empty ledger."""
    folder.mkdir(parents=True)
    said = {"source": source, "labels": "", "rendering": "mimic_jpg", "views": "frontal", **settings}
    (folder / "run.toml").write_text("".join(f'{name} = "{value}"\n' for name, value in said.items()))
    Ledger(folder / "ledger.sqlite").close()
    return folder


def dump(path: Path) -> dict[str, list[Any]]:
    """Every row of a ledger's own tables, in order, by other means than the ledger's."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(path)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
        return {table: sorted(db.execute(f"SELECT * FROM {table}").fetchall(), key=repr) for table in tables}
