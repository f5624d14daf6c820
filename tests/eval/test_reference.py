"""The reference: its order, its arrays, the findings over which means are taken, and its file."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.errors import RequestError
from cxr_max.eval.reference import (
    COMMON_PATIENTS,
    SIDE_ORDER,
    Reference,
    ReferenceRow,
    ordered,
    read_reference,
    reference_schema,
    write_reference,
)
from cxr_max.findings import FINDINGS, SIDES, blank_sides
from tests.eval.data import STATES, common_by_hand, random_rows, row


def rows(n: int = 30, seed: int = 0) -> list[ReferenceRow]:
    return random_rows(Random(seed), n, max(1, n // 3))


def test_the_order_is_that_of_a_hash_of_the_key() -> None:
    made = ordered(rows())
    hashes = [sha256(json.dumps([one.study_id, list(one.image_ids)]).encode()).hexdigest() for one in made.rows]
    assert hashes == sorted(hashes)
    assert [one.key for one in made.rows] != [one.key for one in rows()]


@given(st.randoms(use_true_random=False), st.integers(0, 30))
def test_the_first_are_the_same_whatever_else_is_there(chance: Random, fewer: int) -> None:
    several = rows()
    chance.shuffle(several)
    assert ordered(several).rows == ordered(rows()).rows
    kept = {one.key for one in several[fewer:]}
    assert [one.key for one in ordered(several[fewer:]).rows] == [
        one.key for one in ordered(rows()).rows if one.key in kept
    ]


def test_images_of_one_study_are_apart_and_their_order_counts() -> None:
    one, two = row(1, 1, image_ids=("a", "b")), row(1, 1, image_ids=("b", "a"))
    assert len(ordered([one, two])) == 2
    with pytest.raises(RequestError, match="stands twice"):
        ordered([one, replace(two, image_ids=("a", "b"))])


def test_arrays_say_what_the_rows_say() -> None:
    chance = Random(4)
    several = [
        replace(
            one,
            sides={name: chance.choice((*SIDES, None)) for name in FINDINGS} if chance.random() < 0.7 else None,
        )
        for one in rows(60)
    ]
    made = Reference(tuple(several))
    assert made.subjects == tuple(one.subject_id for one in several)
    assert made.position == {one.key: index for index, one in enumerate(several)}
    for index, one in enumerate(several):
        assert made.labelled[index] == (one.findings is not None)
        for place, name in enumerate(FINDINGS):
            assert STATES[made.states[index, place]] == (one.findings or {}).get(name)
            assert SIDE_ORDER[made.sides[index, place]] == (one.sides or {}).get(name)
    chosen = [5, 3, 17]
    assert made.take(chosen).rows == tuple(several[index] for index in chosen)
    assert made.take(np.array(chosen)).rows == made.take(chosen).rows
    empty = made.take([])
    assert len(empty) == 0 and empty.states.shape == (0, 14) and empty.labelled.shape == (0,)


def names(reference: Reference) -> list[str]:
    return [FINDINGS[place] for place in reference.common]


def test_common_findings_by_hand() -> None:
    """15 patients have it and 15 have not; images of one patient are one patient, uncertain ones are neither."""
    edges: dict[str, list[Any]] = {
        "Edema": [1] * 15 + [0] * 15,
        "Fracture": [1] * 14 + [0] * 16,
        "Pneumonia": [1] * 16 + [0] * 14,
        "Atelectasis": [1] * 15 + [None] * 15,
        "Cardiomegaly": [1] * 15 + [-1] * 15,
        "Consolidation": [-1] * 1 + [1] * 14 + [0] * 15,
    }
    made = Reference(tuple(row(k, k, {name: states[k] for name, states in edges.items()}) for k in range(30)))
    assert COMMON_PATIENTS == 15 and names(made) == ["Atelectasis", "Edema"]
    twins = Reference(tuple(row(k, k // 2, {"Edema": k % 2}) for k in range(30)))
    assert names(twins) == ["Edema"], "a patient may be of both kinds"
    halves = Reference(tuple(row(k, k // 2, {"Edema": int(k < 30)}) for k in range(58)))
    assert names(halves) == [], "29 patients: 14 of them have not, and none is left"


@pytest.mark.parametrize("seed", range(5))
def test_common_findings_by_a_loop(seed: int) -> None:
    several = random_rows(Random(seed), 150, 40)
    assert names(Reference(tuple(several))) == common_by_hand(several)


def test_nobody_labelled_leaves_no_finding() -> None:
    assert names(Reference(tuple(row(k, k, labelled=False) for k in range(40)))) == []


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    several = [
        *rows(40),
        row(
            99,
            5,
            sides=blank_sides() | {"Edema": None, "Pneumonia": "left"},
            image_ids=("a", "é 😀"),
            report="So.\n",
            source_sha256=("1" * 64, "2" * 64),
        ),
    ]
    made = ordered(several)
    write_reference(tmp_path / "r.parquet", made)
    assert read_reference(tmp_path / "r.parquet").rows == made.rows
    first = (tmp_path / "r.parquet").read_bytes()
    write_reference(tmp_path / "r.parquet", ordered(reversed(several)))
    assert (tmp_path / "r.parquet").read_bytes() == first
    schema = pq.read_schema(tmp_path / "r.parquet")
    assert all(field.metadata[b"description"] for field in schema)


def test_what_is_no_reference_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    with pytest.raises(RequestError, match="cannot be read as Parquet"):
        read_reference(path)
    path.write_bytes(b"PAR1 not so PAR1")
    with pytest.raises(RequestError, match="run the evaluation again"):
        read_reference(path)
    table = reference_schema().empty_table()
    for other in (table.drop_columns(["seen"]), table.append_column("more", pa.array([], pa.string()))):
        pq.write_table(other, path)
        with pytest.raises(RequestError, match="other columns"):
            read_reference(path)
    write_reference(path, ordered(rows(3)))
    doubled = pa.concat_tables([pq.read_table(path)] * 2)
    pq.write_table(doubled, path)
    with pytest.raises(RequestError, match="stands twice"):
        read_reference(path)
