"""Conversations that others kept as JSON or JSONL -> a release. What they do not say stays null, and is said.

Rows wait in a temporary SQLite file, which sorts them and finds duplicates, so memory does not grow with them.
"""

import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from cxr_max import labeler, prompts
from cxr_max.builders import forms
from cxr_max.builders.forms import Exchange, Form, FormError
from cxr_max.builders.json_rows import Unreadable, rows_of_file
from cxr_max.builders.published import MANIFEST, Watch
from cxr_max.builders.release import read_manifest, write_rows
from cxr_max.builders.sources.base import SourceInfo
from cxr_max.builders.sources.registry import info_of, open_source
from cxr_max.errors import RequestError
from cxr_max.ledger import UNDIVIDED
from cxr_max.prompts import Prompt
from cxr_max.records import Split
from cxr_max.replies import read_reply
from cxr_max.shards import disk_refusals_named
from cxr_max.teachers.simulator.personas import PERSONAS

UNKNOWN: Final = (
    "source_sha256", "image_sha256", "rendering", "provider", "model", "model_reported", "sampling",
    "finish_reason", "input_tokens", "output_tokens", "cost_usd", "latency_s", "created_at", "request_sha256",
)  # fmt: skip
"""Columns that none of the forms can hold; but a teacher with a persona's name is ``simulated``."""
_PERSONAS_UNKNOWN: Final = tuple(name for name in UNKNOWN if name != "provider")
_MIMIC_PATH: Final = re.compile(r"p(\d{8})/s(\d{8})/([0-9a-f]{8}(?:-[0-9a-f]{8}){4})\b")
_MIMIC_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
_SHOWN: Final = 3
_PROMPTS_KEPT: Final = 20
_TABLE: Final = """CREATE TABLE rows (
    split TEXT, study TEXT, images TEXT, teacher TEXT, prompt TEXT, reply TEXT, row TEXT,
    UNIQUE (study, images, teacher, prompt, reply))"""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    release: str
    trajectories: int
    studies: int
    teachers: tuple[str, ...]
    forms: Mapping[str, str]
    """By file."""
    skipped: Mapping[str, int]
    """Rows that did not become trajectories, by reason."""
    examples: tuple[str, ...]
    """Some of them, with file and line."""
    without_split: int
    """Rows of which nothing says the split; they are in ``train``, with ``split`` null."""
    prompts: int
    """Different prompts that this version does not ship."""
    unknown: tuple[str, ...]
    """Columns that are null in every row of at least one teacher."""


@dataclass(slots=True)
class _Told:
    """What is gathered while rows stream by."""

    skipped: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    forms: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, None] = field(default_factory=dict)
    without_split: int = 0

    def skip(self, path: Path, line: int, reason: str) -> None:
        self.skipped[reason] += 1
        if self.skipped[reason] <= _SHOWN:
            self.examples.append(f"{path.name}, line {line}: {reason}")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an image belongs, as far as anything says."""

    image_id: str
    study_id: str
    subject_id: str
    split: Split | None


def import_files(
    files: Mapping[str, Path], out: Path, *, form: Form | None = None, source: str | None = None,
    name: str | None = None, watch: Watch = lambda *_: None,
) -> Imported:  # fmt: skip
    """Make a release of files, one per teacher.

    Args:
        files: by teacher's name.
        form: of all files; ``None`` finds out for each, from its first row.
        source: ``NAME[:PATH]``, a copy of the data set: images get its study, subject and split.
        name: of the data set, where there is no copy at hand.

    Raises:
        RequestError: a file is missing, empty or in no known form, or nothing says of which data set it is.
        StorageError: the disk refused.
    """
    for path in files.values():
        if not path.is_file() or path.stat().st_size == 0:
            raise RequestError(f"{path} is empty or no file: give the JSON or JSONL files, one per teacher.")
    _refuse_another(out)
    told = _Told()
    with disk_refusals_named(out), TemporaryDirectory(prefix="cxr-max-import-") as workspace:
        info, places = _source(source, name, Path(workspace))
        with closing(sqlite3.connect(Path(workspace) / "rows.sqlite")) as db:
            db.execute(_TABLE)
            for teacher, path in files.items():
                _gather(db, teacher, path, form, info, places, told, watch)
            counts = dict(db.execute("SELECT split, COUNT(*) FROM rows GROUP BY split ORDER BY split"))
            if not counts:
                reasons = "; ".join(told.examples) or "the files hold no rows"
                raise RequestError(f"Nothing could be imported: {reasons}.")
            about = {
                "source": asdict(info),
                "settings": {},
                "missing": {"gaps": 0, "failed": 0},
                "imported": _said(told, files),
            }
            manifest = write_rows(out, counts, lambda split: _sorted(db, split), about)
    counted = manifest["counts"]["trajectories"]
    return Imported(
        str(out), counted["rows"], counted["studies"], tuple(counted["by_teacher"]), told.forms,
        dict(told.skipped), tuple(told.examples), told.without_split, len(told.prompts), _unknown(files),
    )  # fmt: skip


def _refuse_another(out: Path) -> None:
    """A release that was built is not to be lost by an import."""
    there = read_manifest(out) if (out / MANIFEST).is_file() else None
    if (there is not None and "imported" not in there) or (out / "ledger.sqlite").exists():
        raise RequestError(f"{out} holds a release or a run that was not imported: choose another --out.")


def _said(told: _Told, files: Mapping[str, Path]) -> dict[str, Any]:
    """What the manifest keeps: file names without their folders."""
    return {
        "files": {teacher: path.name for teacher, path in sorted(files.items())},
        "forms": told.forms,
        "skipped": dict(sorted(told.skipped.items())),
        "unknown": list(_unknown(files)),
        "prompts": list(told.prompts)[:_PROMPTS_KEPT],
        "different_prompts": len(told.prompts),
    }


def _unknown(teachers: Iterable[str]) -> tuple[str, ...]:
    return _PERSONAS_UNKNOWN if set(teachers) <= set(PERSONAS) else UNKNOWN


def _source(spec: str | None, name: str | None, workspace: Path) -> tuple[SourceInfo, dict[str, _Place] | None]:
    if spec is not None:
        from cxr_max.builders.sources.copies import phantom_place

        source = open_source(spec, workspace=workspace)
        if source.total is None:
            return source.info, _Drawn(phantom_place)
        places = {
            image.image_id: _Place(image.image_id, study.study_id, study.subject_id, study.split)
            for study in source.studies()
            for image in study.radiographs
        }
        return source.info, places
    if name is None:
        raise RequestError("Say of which data set the images are: --source NAME:PATH if you have it, else --name.")
    return info_of(name) or SourceInfo(name, name, "credentialed", "other", ""), None


class _Drawn(dict[str, _Place]):
    """The places of phantoms, of which there is no end."""

    def __init__(self, place: Any) -> None:
        super().__init__()
        self._place = place

    def get(self, key: str, default: Any = None) -> Any:
        found = self._place(key)
        return default if found is None else _Place(key, *found)


def _gather(
    db: sqlite3.Connection, teacher: str, path: Path, form: Form | None, info: SourceInfo,
    places: Mapping[str, _Place] | None, told: _Told, watch: Watch,
) -> None:  # fmt: skip
    size = path.stat().st_size
    for line, end, row in rows_of_file(path):
        if line % 500 == 1:
            watch(f"Reading {path.name}", end, size)
        if isinstance(row, Unreadable):
            told.skip(path, line, row.reason)
            continue
        try:
            used = form or _form(path, row, told)
            told.forms.setdefault(path.name, used)
            exchange = forms.read(row, used)
            where = [_place(image, places) for image in exchange.images]
        except FormError as error:
            told.skip(path, line, f"the row {error}")
            continue
        if len({(one.study_id, one.subject_id) for one in where}) > 1:
            told.skip(path, line, "the row has images of several studies")
            continue
        if not _keep(db, _row(teacher, exchange, where, info, told)):
            told.skip(path, line, "the same reply stands there before")
    watch(f"Reading {path.name}", size, size)
    db.commit()


def _form(path: Path, row: Mapping[str, Any], told: _Told) -> Form:
    return told.forms.get(path.name) or forms.form_of(row)  # type: ignore[return-value]


def _place(image: str, places: Mapping[str, _Place] | None) -> _Place:
    """By the copy of the data set, else by MIMIC's path, else nothing is known but the image."""
    if image.startswith("data:"):
        raise FormError("has an image as data, which says not whose it is")
    found = _MIMIC_PATH.search(image)
    bare = _MIMIC_ID.search(image)
    image_id = found[3] if found else bare[0] if bare else image
    if places is not None:
        known = places.get(image_id) or places.get(Path(image).stem) or places.get(Path(image).name)
        if known is None:
            raise FormError("has an image that the copy of the data set lacks")
        return known
    if found:
        return _Place(image_id, found[2], found[1], None)
    stem = image_id if bare else str(Path(image).with_suffix("")).lstrip("/")
    return _Place(stem, stem, stem, None)


def _row(
    teacher: str, exchange: Exchange, where: Sequence[_Place], info: SourceInfo, told: _Told
) -> dict[str, Any]:
    prompt = _shipped().get(exchange.prompt)
    if prompt is None and len(told.prompts) < 10**5:
        told.prompts.setdefault(exchange.prompt)
    told.without_split += where[0].split is None
    structured = prompt is not None and prompt.structured_answer
    status, labels = read_reply(exchange.reply, "stop", structured_answer=structured)
    nothing = [None] * len(where)
    return {
        "study_id": where[0].study_id,
        "subject_id": where[0].subject_id,
        "source": info.name,
        "split": where[0].split,
        "image_ids": [one.image_id for one in where],
        **dict.fromkeys(UNKNOWN),
        # Nothing else says so, and rows that no model wrote must not lose the mark on their way through a form.
        "provider": "simulated" if teacher in PERSONAS else None,
        "source_sha256": nothing,
        "image_sha256": nothing,
        "sampling": dict.fromkeys(("temperature", "top_p", "max_tokens", "seed")),
        "teacher": teacher,
        "prompt_name": prompt.name if prompt else "imported",
        "prompt_version": prompt.version if prompt else None,
        "prompt_sha256": prompt.sha256 if prompt else hashlib.sha256(exchange.prompt.encode()).hexdigest(),
        "prompt_given": prompt.given if prompt else None,
        "sample_index": 0,
        "status": status,
        "text": exchange.reply,
        "reasoning": exchange.reasoning,
        "findings": dict(labels.states) if labels else None,
        "sides": dict(labels.sides) if labels else None,
        "labeler": labeler.VERSION if labels else None,
        "contradictions": list(labels.contradictions) if labels else [],
    }


@cache
def _shipped() -> dict[str, Prompt]:
    """The prompts of this version, by their text."""
    return {prompt.text: prompt for prompt in map(prompts.load, prompts.names())}


def _keep(db: sqlite3.Connection, row: Mapping[str, Any]) -> bool:
    """False where the same reply to the same question is there already."""
    values = (
        row["split"] or UNDIVIDED, row["study_id"], json.dumps(row["image_ids"]), row["teacher"],
        row["prompt_sha256"], hashlib.sha256(f"{row['reasoning']}\0{row['text']}".encode()).hexdigest(),
        json.dumps(row),
    )  # fmt: skip
    return db.execute("INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", values).rowcount == 1


def _sorted(db: sqlite3.Connection, split: str) -> Iterator[dict[str, Any]]:
    """In a release's order; replies to the same question are numbered as samples, in the order of the files."""
    query = "SELECT row FROM rows WHERE split = ? ORDER BY study, images, teacher, prompt, rowid"
    last, sample = None, 0
    for (text,) in db.execute(query, (split,)):
        row = json.loads(text)
        question = [row[name] for name in ("study_id", "image_ids", "teacher", "prompt_name", "prompt_sha256")]
        sample = sample + 1 if question == last else 0
        last = question
        row["sample_index"] = sample
        row["trajectory_id"] = hashlib.sha256(json.dumps([*question, sample]).encode()).hexdigest()
        yield row
