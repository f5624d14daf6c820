"""The drift report as JSON, and as one long table: one number per row."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from cxr_max.eval.drift_numbers import Rate
from cxr_max.eval.drift_report import DriftReport, PromptDrift, PromptReport, Steps

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_COLUMNS: Final[Mapping[str, str]] = {
    "metric": "What is measured; the page explains each",
    "prompt": "The prompt's name",
    "prompt_sha256": "sha256 of the prompt's template",
    "teacher": "The teacher; null where it is about all of them",
    "other_teacher": "The second of a pair of teachers",
    "finding": "One of the 14 findings; null where it is about all of them",
    "step": "0-based relative position in the text; for a test, the earlier of the two",
    "value": "Null where it would be of nothing",
    "low": "Lower end of the 95% interval",
    "high": "Upper end of the 95% interval",
    "n": "How many things it is of",
}


def table_schema() -> "pa.Schema":
    """The columns of ``drift.parquet``, each with its description as field metadata."""
    import pyarrow as pa

    types = {
        **dict.fromkeys(("value", "low", "high"), pa.float64()),
        **dict.fromkeys(("step", "n"), pa.int64()),
    }
    return pa.schema(
        pa.field(name, types.get(name, pa.string()), metadata={"description": text})
        for name, text in TABLE_COLUMNS.items()
    )


def as_json(report: DriftReport) -> dict[str, Any]:
    """Everything but the texts; numbers to six decimals, times in ISO 8601."""
    return {name: _plain(value) for name, value in asdict(report).items()}


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items() if key != "pieces"}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return round(value, 6)
    return value.isoformat() if isinstance(value, datetime) else value


def table(report: DriftReport) -> Iterator[dict[str, Any]]:
    """The report as a long table: one number per row, to six decimals; see ``TABLE_COLUMNS``."""
    for prompt in report.prompts:
        for line in _lines(prompt):
            blank = dict.fromkeys(TABLE_COLUMNS)
            yield {**blank, "prompt": prompt.prompt.name, "prompt_sha256": prompt.prompt.sha256, **_plain(line)}


def _lines(report: PromptReport) -> Iterator[dict[str, Any]]:
    for one in report.statuses:
        for status, rows in one.counts.items():
            share = Rate(rows / one.rows, one.rows)
            yield {"metric": f"status_{status}", "teacher": one.teacher, **asdict(share)}
    for place in report.laterality:
        for side in ("left", "right", "bilateral", "unsided"):
            count = getattr(place, side)
            yield {"metric": f"side_{side}_claims", "finding": place.finding, "value": float(count), "n": count}
        yield {"metric": "side_split", "finding": place.finding, **asdict(place.split)}
    if report.drift is not None:
        yield from _drift_lines(report.drift)


def _drift_lines(drift: PromptDrift) -> Iterator[dict[str, Any]]:
    for teacher, mean in drift.mean_conflict.items():
        yield {
            "metric": "conflict_mean", "teacher": teacher, "value": mean.value, "low": mean.low,
            "high": mean.high, "n": mean.n,
        }  # fmt: skip
        yield {"metric": "side_conflict", "teacher": teacher, **asdict(drift.side_conflict[teacher])}
    for metric, rates in (("conflict", drift.conflict), ("positive_rate", drift.positive)):
        for teacher, findings in rates.items():
            for finding, rate in findings.items():
                yield {"metric": metric, "teacher": teacher, "finding": finding, **asdict(rate)}
    for pair in drift.pairs:
        both = {"teacher": pair.first, "other_teacher": pair.second}
        yield {"metric": "agreement", **both, **asdict(pair.agreement)}
        yield {"metric": "kappa", **both, **asdict(pair.kappa)}
    for profile in drift.profiles or ():
        for part in ("precision", "recall", "similarity"):
            yield {"metric": f"report_{part}", "teacher": profile.teacher, **asdict(getattr(profile, part))}
    if not isinstance(drift.steps, str):
        yield from _step_lines(drift.steps)


def _step_lines(steps: Steps) -> Iterator[dict[str, Any]]:
    for metric, values in (("divergence_bits", steps.divergence), ("newly_opposed", steps.opposed)):
        for step, value in enumerate(values):
            yield {"metric": metric, "step": step, "value": value, "n": steps.image_sets}
    for view, tests in (("agreement", steps.agreement_tests), ("increments", steps.increments_tests)):
        for test in tests:
            base = {"step": test.step, "n": test.studies}
            yield {"metric": f"{view}_statistic", **base, "value": test.statistic}
            yield {"metric": f"{view}_p", **base, "value": test.p_value}
            yield {"metric": f"{view}_p_holm", **base, "value": test.p_adjusted}
