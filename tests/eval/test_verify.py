"""A result that lies is refused, with the reason; one that does not is computed again to the same numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cxr_max.errors import RequestError
from cxr_max.eval.predictions import prediction_schema
from cxr_max.eval.result import PREDICTIONS, RESULT, SCORES, read_scores
from cxr_max.eval.verify import reference_digest, verify
from cxr_max.shards import sha256_of
from tests.eval import results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return results.write(tmp_path / "result", "honest")


def test_an_honest_result_holds_and_gives_the_same_scores(folder: Path) -> None:
    verified = verify(folder)
    (sha256,) = verified.scores
    assert verified.scores[sha256] == read_scores(folder / SCORES)
    assert verified.unlike_text == 0
    assert ("generalization", "auroc", None, None, None) in verified.drawn[sha256]


def reseal(folder: Path, name: str) -> None:
    """As a liar would who knows that files are hashed."""
    said = json.loads((folder / RESULT).read_text())
    said["files"][name] = sha256_of(folder / name)
    (folder / RESULT).write_text(json.dumps(said))


def edit_scores(folder: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    table = pq.read_table(folder / SCORES)
    pq.write_table(type(table).from_pylist(change(table.to_pylist()), schema=table.schema), folder / SCORES)


def test_an_edited_file_is_not_the_one_that_was_sealed(folder: Path) -> None:
    edit_scores(folder, lambda rows: rows[::-1])
    with pytest.raises(RequestError, match=r"scores\.parquet is not the file that result\.json speaks of"):
        verify(folder)


def test_an_edited_score_is_not_what_the_predictions_give(folder: Path) -> None:
    def better(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        row = next(row for row in rows if row["metric"] == "auroc" and row["finding"] is None)
        row["value"] = 0.99
        return rows

    edit_scores(folder, better)
    reseal(folder, SCORES)
    with pytest.raises(RequestError, match=r"says value 0\.99 of generalization, auroc"):
        verify(folder)


@pytest.mark.parametrize("field", ["low", "n_refused", "trusted", "model"])
def test_no_field_of_a_score_can_be_edited(folder: Path, field: str) -> None:
    lies = {"low": 0.0123, "n_refused": 7, "trusted": False, "model": "another"}

    def lie(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, field: lies[field]} for row in rows]

    edit_scores(folder, lie)
    reseal(folder, SCORES)
    with pytest.raises(RequestError, match=f"says {field}"):
        verify(folder)


def test_scores_left_out_invented_or_given_twice_are_refused(folder: Path) -> None:
    whole = pq.read_table(folder / SCORES)
    cases = {
        "lacks the score": whole.slice(1),
        "twice": whole.take([0, *range(len(whole))]),
    }
    for reason, table in cases.items():
        pq.write_table(table, folder / SCORES)
        reseal(folder, SCORES)
        with pytest.raises(RequestError, match=reason):
            verify(folder)
    invented = [{**whole.to_pylist()[0], "condition": "noise-1"}, *whole.to_pylist()]
    pq.write_table(type(whole).from_pylist(invented, schema=whole.schema), folder / SCORES)
    reseal(folder, SCORES)
    with pytest.raises(RequestError, match="invents the score"):
        verify(folder)


def test_studies_left_out_are_refused_and_failed_ones_are_not(folder: Path) -> None:
    rows = pq.read_table(folder / PREDICTIONS).to_pylist()
    pq.write_table(
        type(pq.read_table(folder / PREDICTIONS)).from_pylist(rows[3:], schema=prediction_schema()),
        folder / PREDICTIONS,
    )
    reseal(folder, PREDICTIONS)
    with pytest.raises(RequestError, match="no prediction for 3 of 60 image sets"):
        verify(folder)


def test_a_declared_failure_lowers_no_score_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = results.answers

    def with_failures(reference: Any, right: float, seed: int) -> Any:
        for number, one in enumerate(original(reference, right, seed)):
            failed = replace(one, status="failed", findings=None, sides=None)
            yield failed if seed == 1 and number < 5 else one

    monkeypatch.setattr(results, "answers", with_failures)
    verified = verify(results.write(tmp_path / "r", "flaky", right=1.0))
    (scores,) = verified.scores.values()
    accuracy = next(one for one in scores if one.metric == "accuracy_refusals_wrong" and one.finding is None)
    assert accuracy.value == 1.0
    assert accuracy.n_failed > 0


def test_a_duplicated_row_is_refused(folder: Path) -> None:
    table = pq.read_table(folder / PREDICTIONS)
    pq.write_table(table.take([0, *range(len(table))]), folder / PREDICTIONS)
    reseal(folder, PREDICTIONS)
    with pytest.raises(RequestError, match=r"twice|again|duplicate"):
        verify(folder)


def test_a_suite_that_is_not_what_its_hash_says_is_refused(folder: Path) -> None:
    said = json.loads((folder / RESULT).read_text())
    said["suites"][0]["settings"]["resamples"] = 100
    (folder / RESULT).write_text(json.dumps(said))
    with pytest.raises(RequestError, match="a hash that its settings do not have"):
        verify(folder)


def test_scores_of_another_suite_are_refused(folder: Path) -> None:
    edit_scores(folder, lambda rows: [{**rows[0], "suite_sha256": "f" * 64}, *rows])
    reseal(folder, SCORES)
    with pytest.raises(RequestError, match="a suite that it does not name"):
        verify(folder)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 99}', '{"schema_version": 1, "suites": 3}'],
)
def test_a_garbled_result_is_one_sentence(folder: Path, content: str) -> None:
    (folder / RESULT).write_text(content)
    with pytest.raises(RequestError):
        verify(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "peers.parquet").unlink()
    with pytest.raises(RequestError, match=r"lacks peers\.parquet"):
        verify(folder)


def test_the_reference_digest_knows_labels_and_not_what_training_has_seen() -> None:
    from cxr_max.eval.reference import ordered

    rows = results.rows(10)
    digest = reference_digest(ordered(rows))
    assert digest == reference_digest(ordered([replace(row, seen=True) for row in rows]))
    other = [replace(rows[0], findings={**(rows[0].findings or {}), "Edema": -1}), *rows[1:]]
    assert digest != reference_digest(ordered(other))
