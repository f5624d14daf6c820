"""Predictions become arrays in the reference's order, whatever the order, the chunks or the gaps of the file."""

from collections.abc import Sequence
from dataclasses import fields
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_max.eval.answers import Answers, Data, by_condition, nothing
from cxr_max.eval.predictions import prediction_schema
from cxr_max.eval.reference import Reference, ReferenceRow
from cxr_max.findings import FINDINGS
from cxr_max.records import PREDICTION_STATUSES
from tests.eval.data import FAILED, STATES, Said, answers, random_rows, random_said, random_world, row, with_scores


def as_row(one: ReferenceRow, condition: str, said: Said) -> dict[str, Any]:
    """As a predictions file has it."""
    return {
        "study_id": one.study_id,
        "image_ids": list(one.image_ids),
        "condition": condition,
        "status": said.status,
        "findings": {name: said.findings.get(name) for name in FINDINGS} if said.ok else None,
        "sides": {name: said.sides.get(name) for name in FINDINGS} if said.ok and said.sides else None,
        "scores": {name: said.scores.get(name) for name in FINDINGS} if said.ok and said.scores else None,
        "contradictions": None if said.contradictions is None or not said.ok else list(said.contradictions),
        "text": None,
    }


def table_of(rows: Sequence[dict[str, Any]], pieces: int = 1) -> pa.Table:
    schema = prediction_schema()
    size = max(1, -(-len(rows) // pieces))
    parts = [pa.Table.from_pylist(list(rows[k : k + size]), schema=schema) for k in range(0, len(rows), size)]
    return pa.concat_tables(parts) if parts else schema.empty_table()


def same(first: Answers, second: Answers) -> None:
    for name in (field.name for field in fields(Answers)):
        one, two = getattr(first, name), getattr(second, name)
        assert one.dtype == two.dtype or name == "scores", name
        np.testing.assert_array_equal(one, two, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(1, 4))
def test_a_file_becomes_the_rows_it_holds(seed: int, n: int, pieces: int) -> None:
    chance = Random(seed)
    rows = random_rows(chance, n, 5)
    said = {
        "original": with_scores(chance, random_said(chance, rows), ("Edema", "Fracture")),
        "noise-3": random_said(chance, rows),
    }
    strangers = random_rows(chance, 3, 2, first=900)
    lines, expected = [], {name: list(replies) for name, replies in said.items()}
    for name, replies in said.items():
        for index, one in enumerate(rows):
            if chance.random() < 0.8:
                lines.append(as_row(one, name, replies[index]))
            else:
                expected[name][index] = FAILED
        lines += [as_row(one, name, Said({"Edema": 1})) for one in strangers]
    chance.shuffle(lines)
    found = by_condition(table_of(lines, pieces), Reference(tuple(rows)))
    assert set(found) == set(said)
    for name in said:
        same(found[name], answers(expected[name]))


def test_a_slice_of_a_table_is_read_like_a_table() -> None:
    chance = Random(3)
    rows = random_rows(chance, 12, 5)
    said = random_said(chance, rows)
    whole = table_of([as_row(one, "original", reply) for one, reply in zip(rows, said, strict=True)], 3)
    found = by_condition(whole.slice(3, 7), Reference(tuple(rows)))["original"]
    same(found, answers([*[FAILED] * 3, *said[3:10], *[FAILED] * 2]))


def test_codes_by_hand() -> None:
    rows = [row(0, 0), row(1, 1)]
    said = Said(
        {"Atelectasis": 1, "Edema": 0, "Fracture": -1}, sides={"Atelectasis": "left", "Fracture": "bilateral"},
        scores={"Edema": 0.25}, contradictions=("Support Devices",),
    )  # fmt: skip
    found = by_condition(table_of([as_row(rows[1], "original", said)]), Reference(tuple(rows)))["original"]
    assert found.status.tolist() == [PREDICTION_STATUSES.index("failed"), PREDICTION_STATUSES.index("ok")]
    place = FINDINGS.index
    assert [found.states[1, place(name)] for name in ("Atelectasis", "Edema", "Fracture", "Pneumonia")] == [
        3,
        1,
        2,
        0,
    ]
    assert [found.sides[1, place(name)] for name in ("Atelectasis", "Edema", "Fracture")] == [1, 0, 3]
    assert found.scores[1, place("Edema")] == 0.25 and np.isnan(found.scores).sum() == 27
    assert found.contradicted.sum() == 1 and found.contradicted[1, place("Support Devices")]
    assert found.compared.tolist() == [False, True]
    assert found.failed.tolist() == [True, False] and found.ok.tolist() == [False, True]


def test_every_status_is_ok_refused_or_failed() -> None:
    made = answers([Said(status=status) for status in PREDICTION_STATUSES])
    kinds = {status: (made.ok[k], made.refused[k], made.failed[k]) for k, status in enumerate(PREDICTION_STATUSES)}
    assert kinds["ok"] == (True, False, False) and kinds["failed"] == (False, False, True)
    others = {kinds[status] for status in ("refused", "truncated", "filtered", "unparsed")}
    assert others == {(False, True, False)}


def test_images_of_one_study_are_told_apart() -> None:
    rows = [row(0, 0, image_ids=("a",)), row(0, 0, image_ids=("b",)), row(0, 0, image_ids=("a", "b"))]
    lines = [as_row(one, "original", Said({"Edema": state})) for one, state in zip(rows, (1, 0, -1), strict=True)]
    found = by_condition(table_of(lines[::-1]), Reference(tuple(rows)))["original"]
    assert found.states[:, FINDINGS.index("Edema")].tolist() == [3, 1, 2]


def test_an_empty_table_has_no_condition() -> None:
    assert by_condition(table_of([]), Reference((row(0, 0),))) == {}


def test_what_was_not_asked_has_failed() -> None:
    data = Data(Reference((row(0, 0), row(1, 1))), {}, {})
    same(data.under("noise-3"), nothing(2))
    same(nothing(2), answers([FAILED, FAILED]))


def test_parts_of_the_data_keep_everything_together() -> None:
    world = random_world(5, n=30, patients=10)
    rows = [*world.rows[:20], *(row(500 + k, 50, split="validation") for k in range(10))]
    data = Data(Reference(tuple(rows)), world.data.answers, world.data.peers, [str(k) for k in range(30)], True)
    chosen = np.array([7, 2, 25])
    part = data.take(chosen)
    assert [one.key for one in part.reference.rows] == [rows[k].key for k in chosen]
    assert part.reports == ["7", "2", "25"] and part.member
    for name in data.answers:
        same(part.answers[name], answers([world.said[name][k] for k in chosen]))
    for name in data.peers:
        same(part.peers[name], answers([world.peers[name][k] for k in chosen]))
    assert len(data.of_split("test").reference) == 20 and len(data.of_split("validation").reference) == 10
    assert len(data.of_split("train").reference) == 0 == len(data.of_split("train").under("original"))
    assert data.first(30) is data and [one.key for one in data.first(4).reference.rows] == [
        r.key for r in rows[:4]
    ]
    assert Data(data.reference, {}, {}).take(chosen).reports == ()


@given(st.integers(0, 10**6))
def test_taking_is_taking_of_every_array(seed: int) -> None:
    chance = Random(seed)
    rows = random_rows(chance, 9, 4)
    said = random_said(chance, rows)
    order = [chance.randrange(9) for _ in range(6)]
    same(answers(said).take(np.array(order)), answers([said[k] for k in order]))


@pytest.mark.parametrize("code", range(4))
def test_states_are_coded_as_the_reference_codes_them(code: int) -> None:
    made = answers([Said({"Edema": STATES[code]})])
    reference = Reference((row(0, 0, {"Edema": STATES[code]}),))
    assert made.states[0, FINDINGS.index("Edema")] == code == reference.states[0, FINDINGS.index("Edema")]
