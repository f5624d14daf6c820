"""The default suites on 10,000 stored predictions: seconds and memory of a process that reads, scores and writes.

``python -m benchmarks.evaluation FOLDER`` scores what lies in ``FOLDER``, in a process of its own.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from cxr_max.eval.predictions import read_predictions, write_predictions
from cxr_max.eval.reference import Reference, ReferenceRow, ordered, write_reference
from cxr_max.eval.result import PEERS, PREDICTIONS, REFERENCE, read_data, write_peers
from cxr_max.eval.scoring import score_all
from cxr_max.eval.suite import DEFAULT, read_suites
from cxr_max.findings import FINDINGS, blank_sides
from cxr_max.records import Prediction

PREDICTIONS_SCORED: Final = 10_000
TEACHERS: Final = 7


def section() -> str:
    """One row per suite."""
    with TemporaryDirectory() as folder:
        make(Path(folder))
        command = [sys.executable, "-m", "benchmarks.evaluation", folder]
        here = Path(__file__).resolve().parents[1]
        out = subprocess.run(command, cwd=here, check=True, capture_output=True, text=True).stdout
    measured = json.loads(out.splitlines()[-1])
    rows = "\n".join(f"| {row['suite']} | {row['scores']} | {row['seconds']:.1f} |" for row in measured["suites"])
    return (
        f"## The suites on {PREDICTIONS_SCORED:,} stored predictions\n\n"
        f"| suite | scores | seconds |\n| --- | --- | --- |\n{rows}\n\n"
        f"Reading took {measured['reading']:.1f} s; {measured['total']:.1f} s in all, and at most"
        f" {measured['mebibytes']} MiB. {PREDICTIONS_SCORED:,} image sets of half as many patients, 14 findings,"
        f" probabilities that are all different, {TEACHERS} other teachers, 2,000 resamples for every number."
        " Conditions other than the original are not among the predictions, so the suites that need them say so.\n"
    )


def make(folder: Path) -> None:
    """Reference, predictions and peers of random answers that are right in four of five."""
    rng = np.random.default_rng(0)
    reference = ordered(_reference_row(number, rng) for number in range(PREDICTIONS_SCORED))
    write_reference(folder / REFERENCE, reference)
    write_predictions(folder / PREDICTIONS, _answers(reference, rng))
    tables = {}
    for number in range(TEACHERS):
        path = folder / "peer.parquet"
        write_predictions(path, _answers(reference, rng))
        tables[f"teacher {number}"] = read_predictions(path)
    write_peers(folder / PEERS, tables)


def _reference_row(number: int, rng: np.random.Generator) -> ReferenceRow:
    findings: dict[str, Any] = {name: int(rng.random() < 0.12) for name in FINDINGS}
    return ReferenceRow(
        study_id=f"s{number}",
        image_ids=(f"i{number}",),
        subject_id=f"p{number // 2}",
        source="random",
        split="test",
        source_sha256=("0" * 64,),
        findings=findings,
        sides=None,
        sex="F" if number % 4 < 2 else "M",
        age=float(rng.integers(20, 90)),
        view="PA" if number % 3 else "AP",
        report=None,
        seen=False,
    )


def _answers(reference: Reference, rng: np.random.Generator) -> "list[Prediction]":
    rows = []
    for row in reference.rows:
        truth = np.array([(row.findings or {})[name] for name in FINDINGS])
        said = np.where(rng.random(len(FINDINGS)) < 0.8, truth, 1 - truth).tolist()
        scores = (0.3 * truth + 0.7 * rng.random(len(FINDINGS))).tolist()
        rows.append(
            Prediction(
                study_id=row.study_id,
                image_ids=row.image_ids,
                condition="original",
                status="ok",
                findings=dict(zip(FINDINGS, said, strict=True)),
                sides=dict(blank_sides()),
                scores=dict(zip(FINDINGS, scores, strict=True)),
                contradictions=(),
                text=None,
            )
        )
    return rows


def _score(folder: Path) -> None:
    """Print what was measured, as JSON."""
    begun = time.perf_counter()
    data = read_data(folder, member=False)
    reading, suites = time.perf_counter() - begun, []
    for suite in read_suites(DEFAULT):
        started = time.perf_counter()
        scores = [scored.score("model", "random", task, suite) for task, scored in score_all(data, suite)]
        suites.append({"suite": suite.title, "scores": len(scores), "seconds": time.perf_counter() - started})
    status = Path("/proc/self/status").read_text()
    said = {
        "reading": reading,
        "suites": suites,
        "total": time.perf_counter() - begun,
        "mebibytes": int(status.split("VmHWM:")[1].split()[0]) // 1024,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    _score(Path(sys.argv[1]))
