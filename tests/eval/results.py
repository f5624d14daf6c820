"""Results on disk as ``cxr-max eval`` writes them, of models whose quality is chosen; nothing is asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cxr_max.eval.predictions import read_predictions, write_predictions
from cxr_max.eval.reference import ReferenceRow, ordered, write_reference
from cxr_max.eval.result import (
    PEERS,
    PREDICTIONS,
    REFERENCE,
    Result,
    read_data,
    write_peers,
    write_result,
)
from cxr_max.eval.scoring import score_all
from cxr_max.eval.suite import Suite, parse_suite
from cxr_max.findings import FINDINGS, blank_sides
from cxr_max.records import Prediction

SUITE = """
name = "small"
version = 1
resamples = 200

[generalization]
"""
LEAKS = {"leaks": [], "counts": {}, "leaked": 0, "studies": 60, "images": 60, "training_images": 9}


def suite(text: str = SUITE) -> Suite:
    return parse_suite(text, "small")


def rows(n: int, seed: int = 0) -> list[ReferenceRow]:
    """n image sets of n / 2 patients, each finding in a third of them."""
    rng = np.random.default_rng(seed)
    return [
        ReferenceRow(
            study_id=f"s{index}",
            image_ids=(f"i{index}",),
            subject_id=f"p{index // 2}",
            source="phantom",
            split="test",
            source_sha256=("0" * 64,),
            findings={name: int(rng.random() < 1 / 3) for name in FINDINGS},  # type: ignore[misc]
            sides=dict(blank_sides()),
            sex="F" if index % 4 < 2 else "M",
            age=50.0,
            view="PA",
            report=None,
            seen=False,
        )
        for index in range(n)
    ]


def answers(reference: list[ReferenceRow], right: float, seed: int) -> Iterator[Prediction]:
    """Each state is the reference's with probability ``right``, else its opposite."""
    rng = np.random.default_rng(seed)
    for row in reference:
        assert row.findings is not None
        findings: dict[str, Any] = {
            name: state if rng.random() < right else 1 - (state or 0) for name, state in row.findings.items()
        }
        yield Prediction(
            row.study_id, row.image_ids, "original", "ok", findings, dict(blank_sides()), None, None, None
        )


def write(
    folder: Path,
    model: str,
    right: float = 0.8,
    *,
    seed: int = 1,
    suites: tuple[Suite, ...] | None = None,
    n: int = 60,
    **changes: Any,
) -> Path:
    """A sealed result; ``changes`` are fields of ``Result``."""
    suites = suites or (suite(),)
    reference = ordered(rows(n))
    write_reference(folder / REFERENCE, reference)
    write_predictions(folder / PREDICTIONS, answers(list(reference.rows), right, seed))
    write_peers(folder / PEERS, peers(folder, list(reference.rows)))
    said: dict[str, Any] = {
        "model": model, "member": False, "settings": {}, "notes": (), "dataset": "Chest radiograph phantoms",
        "source": "phantom", "data_use": "open", "dataset_notes": (), "release_digest": "a" * 64,
        "trained_on": None, "leaks": LEAKS, "suites": suites, "files": {},
    }  # fmt: skip
    result = Result(**{**said, **changes})
    data = read_data(folder, result.member)
    scores = [
        scored.score(model, result.dataset, task, one) for one in suites for task, scored in score_all(data, one)
    ]
    write_result(folder, result, scores)
    return folder


def peers(folder: Path, reference: list[ReferenceRow]) -> dict[str, pa.Table]:
    """Three teachers that are right in seven of ten."""
    tables = {}
    for number in range(3):
        path = folder / f"peer{number}.parquet"
        write_predictions(path, answers(reference, 0.7, 100 + number))
        tables[f"teacher {number}"] = read_predictions(path)
        path.unlink()
    return tables
