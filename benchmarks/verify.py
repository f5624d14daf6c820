"""How long ``cxr-max verify`` takes for a release of the paper's size, and what it holds in memory.

170,982 trajectories (seven teachers, 24,426 images) of about 1,200 characters, with consensus and preferences, are
made by the functions that write a release; checked in a fresh process, whose peak the kernel keeps.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from cxr_max import labeler, prompts
from cxr_max.builders.consensus import fill
from cxr_max.builders.release import write_rows
from cxr_max.builders.sources.phantom import INFO
from cxr_max.findings import FINDINGS
from cxr_max.records import Sampling
from cxr_max.replies import read_reply

IMAGES: Final = 24_426
TEACHERS: Final = tuple(f"teacher-{letter}" for letter in "abcdefg")
TEXTS: Final = 3_000
"""Different ones; each row has one of them."""
_NEUTRAL: Final = (
    "The image is taken at end inspiration and is not rotated.",
    "The trachea lies in the middle and the carina is of the usual shape.",
    "I compare both sides from the apex to the base before I commit myself.",
    "The ribs can be followed from the spine to the front on either side.",
    "The stomach bubble is where it should be and the diaphragm is smooth.",
    "Exposure is adequate, so that the spine can be made out behind the heart.",
    "The soft tissues of the chest wall look alike on both sides.",
    "Let me go through the usual regions one after the other.",
)


def section() -> str:
    """Seconds, peak memory, and the size of the release."""
    with TemporaryDirectory() as folder:
        release = Path(folder) / "release"
        began = time.monotonic()
        make(release, IMAGES)
        written = time.monotonic() - began
        files = json.loads((release / "manifest.json").read_text("utf-8"))["files"]
        began = time.monotonic()
        fill(release)
        voted = time.monotonic() - began
        plain = _checked(release)
        size = sum(entry["bytes"] for entry in files.values()) / 1e6
    rows = IMAGES * len(TEACHERS)
    return (
        f"## Verifying a release of {rows:,} trajectories\n\n"
        "| what | s | peak MB |\n| --- | --- | --- |\n"
        f"| write and seal ({size:.0f} MB of Parquet) | {written:.0f} | |\n"
        f"| consensus and preferences by vote | {voted:.0f} | |\n"
        f"| cxr-max verify, all three configs | {plain[0]:.1f} | {plain[1]:.0f} |\n"
    )


def make(release: Path, images: int) -> dict[str, Any]:
    """Write a synthetic release; the same one each time."""
    replies = _replies()
    splits = {"train": images - images // 5, "validation": images // 10, "test": images // 5 - images // 10}
    bounds = {"train": 0, "validation": splits["train"], "test": splits["train"] + splits["validation"]}

    def rows(split: str) -> Iterator[dict[str, Any]]:
        for image in range(bounds[split], bounds[split] + splits[split]):
            for number, teacher in enumerate(TEACHERS):
                yield _row(image, split, teacher, replies[(image * 7 + number) * 31 % TEXTS])

    counts = {split: count * len(TEACHERS) for split, count in splits.items() if count}
    about = {
        "source": asdict(INFO),
        "settings": {"rendering": "mimic_jpg", "views": "frontal"},
        "missing": {"gaps": 0, "failed": 0},
    }
    return write_rows(release, counts, rows, about)


def _replies() -> list[tuple[str, Any]]:
    """Texts that are read once, and what was read."""
    draw = random.Random(0)
    made = []
    for _ in range(TEXTS):
        prose = " ".join(draw.choices(_NEUTRAL, k=13))
        answer = "\n".join(
            f"{name}: {draw.choice(('present', 'absent', 'absent', 'uncertain'))}" for name in FINDINGS
        )
        text = f"{prose}\n\nANSWER\n{answer}"
        _, labels = read_reply(text, "stop", structured_answer=True)
        made.append((text, labels))
    return made


def _row(image: int, split: str, teacher: str, reply: tuple[str, Any]) -> dict[str, Any]:
    text, labels = reply
    digest = sha256(f"{image}".encode()).hexdigest()
    identity = sha256(f"{image} {teacher}".encode()).hexdigest()
    asked = prompts.load("diagnose")
    return {
        "trajectory_id": identity,
        "study_id": f"s{image:07d}",
        "subject_id": f"p{image // 2:07d}-{split}",
        "source": INFO.name,
        "split": split,
        "image_ids": [f"s{image:07d}-1"],
        "source_sha256": [digest],
        "image_sha256": [digest],
        "rendering": "as_is-1@1024",
        "teacher": teacher,
        "provider": "simulated",
        "model": teacher,
        "model_reported": teacher,
        "prompt_name": asked.name,
        "prompt_version": asked.version,
        "prompt_sha256": asked.sha256,
        "prompt_given": asked.given,
        "sampling": asdict(Sampling()),
        "sample_index": 0,
        "status": "ok" if labels is not None else "unparsed",
        "finish_reason": "stop",
        "text": text,
        "reasoning": None,
        "findings": labels and dict(labels.states),
        "sides": labels and dict(labels.sides),
        "labeler": labels and labeler.VERSION,
        "contradictions": list(labels.contradictions) if labels else [],
        "input_tokens": 900,
        "output_tokens": 300,
        "cost_usd": 0.0,
        "latency_s": 1.0,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=image),
        "request_sha256": identity,
    }


def _checked(release: Path) -> tuple[float, float]:
    """Seconds and peak MB of a fresh process that finds nothing."""
    script = (
        "import resource, sys, time; from pathlib import Path; began = time.monotonic();"
        " from cxr_max.builders.release_check import check_release; found = check_release(Path(sys.argv[1]));"
        " assert found.clean, found;"
        " print(time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    command = [sys.executable, "-c", script, str(release)]
    seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(peak)
