"""A release -> the forms that training programs read, one JSONL file per teacher."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from cxr_max import prompts
from cxr_max.builders import forms
from cxr_max.builders.forms import Exchange, Form
from cxr_max.builders.published import Watch
from cxr_max.builders.release import read_manifest
from cxr_max.builders.sources.mimic_tables import study_folder
from cxr_max.errors import RequestError
from cxr_max.records import SPLITS, Status, Trajectory
from cxr_max.schemas import read_trajectories
from cxr_max.shards import disk_refusals_named

_SUFFIX: Final = {"mimic-cxr-jpg": ".jpg", "mimic-cxr": ".dcm"}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    out: str
    files: dict[str, int]
    """Rows, by file name."""
    left_out: int
    """Rows of another status."""


def export(
    release: Path, out: Path, form: Form, *, statuses: Sequence[Status] = ("ok",), watch: Watch = lambda *_: None
) -> Exported:
    """Write ``OUT/TEACHER.jsonl`` for every teacher. Images are named as in the data set, below its folder.

    Raises:
        RequestError: the release is not sealed.
        StorageError: the disk refused.
    """
    manifest = read_manifest(release)
    total, done, left_out = manifest["counts"]["trajectories"]["rows"], 0, 0
    texts = {prompts.load(one["name"]).sha256: prompts.load(one["name"]).text for one in manifest["prompts"]}
    imported = manifest.get("imported", {}).get("prompts", [])
    texts |= {forms.sha256(text): text for text in imported}
    counts: dict[str, int] = {}
    with disk_refusals_named(out), ExitStack() as opened:
        out.mkdir(parents=True, exist_ok=True)
        streams: dict[str, IO[str]] = {}
        for split in SPLITS:
            for row in read_trajectories(release, split):
                done += 1
                if done % 1000 == 0:
                    watch("Writing rows", done, total)
                if row.status not in statuses:
                    left_out += 1
                    continue
                name = f"{row.teacher.replace('/', '_')}.jsonl"
                if name not in streams:
                    streams[name] = opened.enter_context((out / f"{name}.partial").open("w", encoding="utf-8"))
                streams[name].write(forms.line_of(forms.write(_exchange(row, texts), form)))
                counts[name] = counts.get(name, 0) + 1
    for name in counts:
        (out / f"{name}.partial").replace(out / name)
    return Exported(str(out), dict(sorted(counts.items())), left_out)


def _exchange(row: Trajectory, texts: dict[str, str]) -> Exchange:
    if row.prompt_sha256 not in texts:
        raise RequestError(
            f"The text of the prompt {row.prompt_name} ({row.prompt_sha256[:12]}) is not at hand, and no form does"
            " without: export with the version that asked it."
        )
    images = tuple(_path(row, image) for image in row.image_ids)
    return Exchange(images, texts[row.prompt_sha256], row.text, row.reasoning, row.trajectory_id)


def _path(row: Trajectory, image_id: str) -> str:
    if row.source not in _SUFFIX:
        return image_id
    return f"{study_folder(int(row.subject_id), int(row.study_id))}/{image_id}{_SUFFIX[row.source]}"
