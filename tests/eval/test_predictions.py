"""A submission is read as it is meant, from every form it may have, or refused by row, column and remedy."""

import csv
import gzip
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_max.errors import RequestError
from cxr_max.eval import predictions_csv
from cxr_max.eval.predictions import prediction_schema, read_predictions, write_predictions
from cxr_max.findings import FINDINGS, LATERAL, SIDES, blank, blank_sides
from cxr_max.records import PREDICTION_STATUSES, Prediction

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "submissions.md").read_text("utf-8")
EFFUSION = "Pleural Effusion"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def of_csv(folder: Path, text: str | bytes, name: str = "p.csv") -> list[dict[str, Any]]:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return rows_of(folder / name)


def rows_of(path: Path) -> list[dict[str, Any]]:
    table = read_predictions(path)
    assert table.schema.equals(prediction_schema(), check_metadata=True)
    table.validate(full=True)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def of_frame(folder: Path, columns: dict[str, Any]) -> list[dict[str, Any]]:
    pd.DataFrame(columns).to_parquet(folder / "p.parquet", index=False)
    return rows_of(folder / "p.parquet")


def prediction(**changes: Any) -> Prediction:
    said: dict[str, Any] = {
        "study_id": "s1",
        "image_ids": ("a",),
        "condition": "original",
        "status": "ok",
        "findings": blank() | {EFFUSION: 1},
        "sides": blank_sides() | {EFFUSION: "left"},
        "scores": dict.fromkeys(FINDINGS) | {EFFUSION: 0.75},
        "contradictions": (),
        "text": "There is an effusion.",
    }
    return Prediction(**{**said, **changes})


def as_row(one: Prediction) -> dict[str, Any]:
    """As Arrow gives a prediction back."""

    def listed(values: Sequence[str] | None) -> list[str] | None:
        return None if values is None else list(values)

    row = {name: getattr(one, name) for name in prediction_schema().names}
    return row | {"image_ids": list(one.image_ids), "contradictions": listed(one.contradictions)}


# ---------------------------------------------------------------------------------------------- known answers


def test_every_column_says_what_it_holds() -> None:
    assert all(field.metadata[b"description"] for field in prediction_schema())
    assert [field.name for field in prediction_schema() if not field.nullable] == [
        "study_id",
        "image_ids",
        "condition",
        "status",
    ]


def test_the_documents_csv_reads_as_it_says(tmp_path: Path) -> None:
    first, second, third = of_csv(tmp_path, blocks("csv")[0])
    assert first["findings"] == blank() | {"Cardiomegaly": 0, EFFUSION: 1}
    assert first["sides"] == blank_sides() | {EFFUSION: "left"}
    assert first["scores"] == dict.fromkeys(FINDINGS) | {EFFUSION: 0.93}
    assert second["image_ids"] == ["2a2277a9-b0ded155", "e084de3b-be89b11e"]
    assert second["findings"] == blank() | {"Cardiomegaly": 1, "Edema": -1, EFFUSION: 0}
    assert third["findings"] == blank() | {"Edema": 1, EFFUSION: -1}
    assert third["sides"] == blank_sides() | {EFFUSION: "bilateral"}
    for row in (first, second, third):
        assert (row["condition"], row["status"], row["text"], row["contradictions"]) == (
            "original",
            "ok",
            None,
            None,
        )


def test_the_documents_texts_are_read_for_findings(tmp_path: Path) -> None:
    asked, report = of_csv(tmp_path, blocks("csv")[1])
    assert asked["status"] == report["status"] == "ok"
    for row in (asked, report):
        assert (row["findings"][EFFUSION], row["sides"][EFFUSION]) == (1, "left")
        assert row["findings"]["Cardiomegaly"] == 0
        assert row["scores"] is None
    assert asked["contradictions"] == report["contradictions"] == []
    assert asked["text"].startswith("The left costophrenic angle") and asked["text"].count("\n") == 4


def test_the_documents_python_writes_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, names)
    first, second = names["table"].to_pylist()
    assert (first["findings"][EFFUSION], second["findings"][EFFUSION]) == (1, None)
    assert second["image_ids"] == ["2a2277a9-b0ded155", "e084de3b-be89b11e"]
    assert second["scores"][EFFUSION] == 0.08


def test_the_document_names_all_findings_and_statuses() -> None:
    flowing = " ".join(DOCUMENT.split())
    assert ", ".join(FINDINGS) in flowing
    assert ", ".join(f"`{status}`" for status in PREDICTION_STATUSES) in flowing
    assert ", ".join(sorted(LATERAL)[:-1]) in flowing


@pytest.mark.parametrize(
    ("cell", "state"),
    [("1", 1), ("1.0", 1), ("0", 0), ("-1.0", -1), ("", None), ("nan", None), ("NaN", None), (" 1 ", 1)],
)
def test_states_are_coded_as_everywhere(tmp_path: Path, cell: str, state: int | None) -> None:
    (row,) = of_csv(tmp_path, f"study_id,image_ids,Edema\n1,a,{cell}\n")
    assert row["findings"] == blank() | {"Edema": state}


@pytest.mark.parametrize(
    ("cell", "score"),
    [("0", 0.0), ("1", 1.0), (".5", 0.5), ("1.", 1.0), ("2e-3", 0.002), ("", None), ("NaN", None)],
)
def test_a_score_alone_leaves_its_finding_unmentioned(tmp_path: Path, cell: str, score: float | None) -> None:
    (row,) = of_csv(tmp_path, f"study_id,image_ids,Edema score\n1,a,{cell}\n")
    assert row["scores"] == dict.fromkeys(FINDINGS) | {"Edema": score}
    assert row["findings"] == blank()
    assert row["sides"] is None


def test_a_row_without_answer_has_none(tmp_path: Path) -> None:
    text = "study_id,image_ids,status,Edema,Edema score,contradictions\n1,a,failed,,,\n2,b,,,,\n"
    failed, silent = of_csv(tmp_path, text)
    assert failed["status"] == "failed"
    assert [failed[name] for name in ("findings", "scores", "contradictions")] == [None, None, None]
    assert (silent["status"], silent["findings"], silent["contradictions"]) == ("ok", blank(), [])


def test_contradictions_are_split_by_semicolons(tmp_path: Path) -> None:
    text = f"study_id,image_ids,Edema,contradictions\n1,a,1,Edema; {EFFUSION}\n2,a,1,Edema\n3,a,1,\n"
    rows = of_csv(tmp_path, text)
    assert [row["contradictions"] for row in rows] == [["Edema", EFFUSION], ["Edema"], []]


def test_findings_that_are_given_are_not_read_from_the_text(tmp_path: Path) -> None:
    (row,) = of_csv(tmp_path, "study_id,image_ids,Edema,text\n1,a,0,ANSWER Edema: present\n")
    assert row["findings"] == blank() | {"Edema": 0}
    assert row["text"] == "ANSWER Edema: present"


def test_texts_give_the_status_of_a_teachers_reply(tmp_path: Path) -> None:
    with (tmp_path / "p.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["study_id", "image_id", "condition", "status", "text"])
        writer.writerow(["1", "a", "", "", "I'm sorry, I cannot interpret this image."])
        writer.writerow(["2", "a", "", "ok", "The heart is enlarged."])
        writer.writerow(["3", "a", "report", "ok", "The heart is enlarged."])
        writer.writerow(["4", "a", "", "", ""])
        writer.writerow(["5", "a", "", "truncated", "The heart\n\nANSWER\nEdema: present"])
        writer.writerow(["6", "a", "", "failed", ""])
        writer.writerow(["7", "a", "mirror", "", "There is no edema.\nANSWER\nEdema: present"])
        writer.writerow(["8", "a", "report", "", "I do not have the ability to provide an interpretation."])
    rows = rows_of(tmp_path / "p.csv")
    statuses = ["refused", "unparsed", "ok", "unparsed", "truncated", "failed", "ok", "refused"]
    assert [row["status"] for row in rows] == statuses
    assert [row["findings"] is not None for row in rows] == [status == "ok" for status in statuses]
    assert rows[2]["findings"]["Cardiomegaly"] == 1
    assert (rows[6]["findings"]["Edema"], rows[6]["contradictions"]) == (1, ["Edema"])


def test_texts_of_many_batches_stay_with_their_rows(tmp_path: Path) -> None:
    said = [("present", "absent", "uncertain")[number % 3] for number in range(2_500)]
    texts = [f"ANSWER\nEdema: {word}" for word in said]
    rows = of_frame(tmp_path, {"study_id": range(2_500), "image_id": "a", "text": texts})
    states = {"present": 1, "absent": 0, "uncertain": -1}
    assert [row["findings"]["Edema"] for row in rows] == [states[word] for word in said]
    assert [row["text"] for row in rows] == texts


# ----------------------------------------------------------------------------------------- forms of one file


FORMS: dict[str, Callable[[str], bytes]] = {
    "p.csv": lambda text: text.encode(),
    "mark.csv": lambda text: text.encode("utf-8-sig"),
    "windows.csv": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "blank lines.csv": lambda text: text.replace("\n", "\n\n").encode(),
    "no last newline.csv": lambda text: text.rstrip().encode(),
    "quoted.csv": lambda text: re.sub(r"[^,\n]+", r'"\g<0>"', text).encode(),
    "p.csv.gz": lambda text: gzip.compress(text.encode()),
    "P.CSV.GZ": lambda text: gzip.compress(text.encode("utf-8-sig")),
}


@pytest.mark.parametrize("name", FORMS)
def test_all_forms_of_csv_say_the_same(tmp_path: Path, name: str) -> None:
    text = f"study_id,image_ids,{EFFUSION},{EFFUSION} side\n007,ä  b,1,left\ns2,c,,\n"
    first, second = of_csv(tmp_path, FORMS[name](text), name)
    assert (first["study_id"], first["image_ids"]) == ("007", ["ä", "b"])
    assert (first["findings"][EFFUSION], first["sides"][EFFUSION]) == (1, "left")
    assert (second["study_id"], second["findings"]) == ("s2", blank())


def test_a_long_text_with_quotations_and_lines_is_kept(tmp_path: Path) -> None:
    text = ' He said "no, \r\n never" \n' * 100_000
    pd.DataFrame({"study_id": ["1"], "image_id": ["a"], "Edema": [1], "text": [text]}).to_csv(
        tmp_path / "p.csv", index=False, lineterminator="\r\n"
    )
    assert rows_of(tmp_path / "p.csv")[0]["text"] == text


def test_rows_with_lines_in_them_go_on_from_block_to_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions_csv, "_BLOCK", 1_000)
    texts = ["\n".join(f"{number}, {line}" for line in range(number % 50)) or "x" for number in range(500)]
    frame = pd.DataFrame({"study_id": range(500), "image_id": "a", "Edema": 1, "text": texts})
    frame.to_csv(tmp_path / "p.csv", index=False)
    rows = rows_of(tmp_path / "p.csv")
    assert [(row["study_id"], row["text"]) for row in rows] == list(zip(map(str, range(500)), texts, strict=True))


def test_an_image_id_may_have_spaces_in_it(tmp_path: Path) -> None:
    assert of_csv(tmp_path, "study_id,image_id,Edema\n1,my picture.png,1\n")[0]["image_ids"] == ["my picture.png"]


def test_integers_become_their_decimal_text(tmp_path: Path) -> None:
    columns = {"study_id": [50414267, 7], "image_id": np.array([2**63, 1], np.uint64), "Edema": [1, 0]}
    assert [(row["study_id"], row["image_ids"]) for row in of_frame(tmp_path, columns)] == [
        ("50414267", [str(2**63)]),
        ("7", ["1"]),
    ]


@pytest.mark.parametrize("dtype", ["float64", "float32", "Int8", "object", "string"])
def test_missing_cells_of_pandas_are_blank(tmp_path: Path, dtype: str) -> None:
    states = pd.Series([1, None, -1]).astype("Int8" if dtype == "string" else dtype).astype(dtype)
    columns = {
        "study_id": pd.Categorical(["s1", "s2", "s1"]),
        "image_ids": ["a", "b", "c"],
        EFFUSION: states,
        f"{EFFUSION} side": ["left", np.nan, None],
        f"{EFFUSION} score": [0.5, np.nan, None],
        "Edema side": [None] * 3,
        "text": [np.nan] * 3,
    }
    rows = of_frame(tmp_path, columns)
    assert [row["findings"][EFFUSION] for row in rows] == [1, None, -1]
    assert [row["sides"][EFFUSION] for row in rows] == ["left", None, None]
    assert [row["scores"][EFFUSION] for row in rows] == [0.5, None, None]
    assert [row["text"] for row in rows] == [None] * 3


def test_nan_is_missing_wherever_a_writer_keeps_it(tmp_path: Path) -> None:
    nan = float("nan")
    frame = pl.DataFrame(
        {
            "study_id": ["1", "2"],
            "image_id": ["a", "a"],
            "status": ["ok", "failed"],
            EFFUSION: [1.0, nan],
            "Edema score": [nan, nan],
            "text": [nan, None],
        }
    )
    frame.write_parquet(tmp_path / "p.parquet")
    assert pq.read_table(tmp_path / "p.parquet").column("Edema score").null_count == 0
    first, second = rows_of(tmp_path / "p.parquet")
    assert (first["findings"], first["scores"]) == (blank() | {EFFUSION: 1}, dict.fromkeys(FINDINGS))
    assert (second["findings"], second["scores"], second["text"]) == (None, None, None)


def test_the_index_that_pandas_writes_is_overlooked(tmp_path: Path) -> None:
    frame = pd.DataFrame({"study_id": ["1", "2"], "image_id": ["a", "b"], "Edema": [1, 0]}, index=[7, 3])
    frame.to_parquet(tmp_path / "p.parquet")
    assert "__index_level_0__" in pq.read_schema(tmp_path / "p.parquet").names
    assert [row["study_id"] for row in rows_of(tmp_path / "p.parquet")] == ["1", "2"]


def test_structs_may_lack_findings_and_be_written_by_others(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "study_id": ["1", "2"],
            "image_ids": [["a", "b"], ["c"]],
            "status": ["ok", "refused"],
            "findings": [{EFFUSION: 1, "Edema": None}, None],
            "sides": [{EFFUSION: "left"}, None],
            "contradictions": [["Edema"], None],
        }
    )
    frame.write_parquet(tmp_path / "p.parquet")
    first, second = rows_of(tmp_path / "p.parquet")
    assert first["image_ids"] == ["a", "b"]
    assert (first["findings"], first["sides"][EFFUSION]) == (blank() | {EFFUSION: 1}, "left")
    assert (first["contradictions"], first["scores"]) == (["Edema"], None)
    assert (second["findings"], second["sides"], second["contradictions"]) == (None, None, None)


def test_a_struct_of_nulls_under_another_status_is_no_answer(tmp_path: Path) -> None:
    rows = of_frame(
        tmp_path,
        {
            "study_id": ["1", "2"],
            "image_id": ["a", "a"],
            "status": ["ok", "failed"],
            "findings": [{"Edema": 1}, {}],
        },
    )
    assert [row["findings"] for row in rows] == [blank() | {"Edema": 1}, None]


# ------------------------------------------------------------------------------------------------- properties


names = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
identifiers = names.filter(lambda text: text.strip() != "")
plain = st.text(st.sampled_from("abcé-_.1"), min_size=1, max_size=5)
CONDITIONS = ["original", "mirror", "blank", "report", "sample-2", "paraphrase-list", "noise-3"]


@st.composite
def predictions(draw: st.DrawFn, words: st.SearchStrategy[str], whole: bool) -> Prediction:
    """Any row; where ``whole``, one that CSV can say: what may be null as a whole follows the status."""

    def given_or(value: Any) -> Any:
        return value if whole else draw(st.sampled_from([None, value]))

    shared: dict[str, Any] = {
        "study_id": draw(words),
        "image_ids": tuple(draw(st.lists(words, min_size=1, max_size=3))),
        "condition": draw(st.sampled_from(CONDITIONS)),
        "text": draw(st.none() | st.text(st.characters(codec="utf-8"), min_size=whole)),
    }
    status = draw(st.sampled_from(["ok", "ok", *PREDICTION_STATUSES]))
    if status != "ok":
        silent = dict.fromkeys(("findings", "sides", "scores", "contradictions"))
        return Prediction(status=status, **shared, **silent)
    states = {name: draw(st.sampled_from([1, 0, -1, None])) for name in FINDINGS}
    findings = given_or(states)
    claimed = {name for name in LATERAL if findings and findings[name] in (1, -1)}
    sides = {name: draw(st.sampled_from([None, *SIDES])) if name in claimed else None for name in FINDINGS}
    scores = {name: draw(st.none() | st.floats(0, 1)) for name in FINDINGS}
    against = tuple(draw(st.lists(st.sampled_from(FINDINGS), max_size=3)))
    return Prediction(
        status="ok",
        findings=findings,
        sides=given_or(sides),
        scores=given_or(scores),
        contradictions=given_or(against),
        **shared,
    )


def lists_of(words: st.SearchStrategy[str], whole: bool) -> st.SearchStrategy[list[Prediction]]:
    return st.lists(
        predictions(words, whole),
        min_size=1,
        max_size=5,
        unique_by=lambda one: (one.study_id, one.image_ids, one.condition),
    )


@given(lists_of(identifiers, whole=False))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[Prediction]) -> None:
    path = tmp_path_factory.mktemp("parquet") / "p.parquet"
    assert write_predictions(path, rows) == len(rows)
    assert rows_of(path) == [as_row(one) for one in rows]


@given(lists_of(plain, whole=True), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_csv_and_parquet_of_the_same_rows_are_one_table(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Prediction], order: Any
) -> None:
    folder = tmp_path_factory.mktemp("both")
    write_predictions(folder / "p.parquet", rows)
    write_csv(folder / "p.csv", rows, order)
    assert read_predictions(folder / "p.csv").equals(read_predictions(folder / "p.parquet"), check_metadata=True)


def write_csv(path: Path, rows: list[Prediction], order: Any) -> None:
    """The rows as the document says, columns in any order, by the standard library's writer."""
    cells = [flat(one) for one in rows]
    columns = list(cells[0])
    order.shuffle(columns)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(cells)


def flat(one: Prediction) -> dict[str, Any]:
    cells: dict[str, Any] = {
        "study_id": one.study_id,
        "image_ids": " ".join(one.image_ids),
        "condition": one.condition,
        "status": one.status,
        "contradictions": ";".join(one.contradictions or ()),
        "text": one.text,
    }
    for values, suffix in ((one.findings, ""), (one.sides, " side"), (one.scores, " score")):
        cells |= {name + suffix: (values or {}).get(name) for name in FINDINGS}
    return cells


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    rows = [prediction(), prediction(study_id="s2", status="failed", findings=None, sides=None, scores=None)]
    for name in ("a", "b"):
        write_predictions(tmp_path / f"{name}.parquet", iter(rows))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


# -------------------------------------------------------------------------------------------------- refusals


def refused(folder: Path, text: str | bytes, name: str = "p.csv") -> str:
    with pytest.raises(RequestError) as caught:
        of_csv(folder, text, name)
    message = str(caught.value)
    assert str(folder / name) in message
    assert message.endswith(".") and "\n" not in message and ": " in message
    return message


CELLS = [
    ("Edema", "2", "1, 0 or -1"),
    ("Edema", "present", "1, 0 or -1"),
    ("Edema", "0.5", "1, 0 or -1"),
    ("Edema", "inf", "1, 0 or -1"),
    ("Pneumothorax side", "Left side", "left, right or bilateral"),
    ("Pneumothorax side", "left", "neither present"),
    ("Cardiomegaly side", "left", "has no side"),
    ("Edema score", "1.01", "from 0 to 1"),
    ("Edema score", "-0.1", "from 0 to 1"),
    ("Edema score", "inf", "from 0 to 1"),
    ("Edema score", "1e999", "from 0 to 1"),
    ("Edema score", "high", "from 0 to 1"),
    ("Edema score", "0,5", "from 0 to 1"),
    ("condition", "sunny", "original, mirror"),
    ("condition", "noise-6", "original, mirror"),
    ("status", "fine", "refused"),
    ("contradictions", "Edema;Oedema", "name findings"),
    ("study_id", " ", "write the identifier"),
]


@pytest.mark.parametrize(("column", "cell", "remedy"), CELLS)
def test_a_wrong_cell_is_named_by_row_and_column(tmp_path: Path, column: str, cell: str, remedy: str) -> None:
    with (tmp_path / "made.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(["study_id", "image_ids", "Lung Opacity", column])))
        writer.writeheader()
        for number, wrong in enumerate([{}, {column: cell}, {column: cell}]):
            writer.writerow({"study_id": number, "image_ids": "a", "Lung Opacity": 1} | wrong)
    message = refused(tmp_path, (tmp_path / "made.csv").read_bytes())
    assert message.startswith("Row 2 of ")
    assert f" in column {column}: " in message
    assert remedy in message


@pytest.mark.parametrize("state", ["0", ""])
def test_a_side_needs_a_present_or_uncertain_finding(tmp_path: Path, state: str) -> None:
    text = f"study_id,image_ids,{EFFUSION},{EFFUSION} side\n1,a,1,left\n2,a,-1,right\n3,a,{state},left\n"
    message = refused(tmp_path, text)
    assert message.startswith("Row 3 of ") and f"in column {EFFUSION} side: leave it blank" in message


@pytest.mark.parametrize("column", ["Edema", "Pneumonia side", "Edema score", "contradictions"])
@pytest.mark.parametrize("status", [status for status in PREDICTION_STATUSES if status != "ok"])
def test_only_ok_rows_answer(tmp_path: Path, column: str, status: str) -> None:
    cell = {"Edema": "0", "Pneumonia side": "left", "Edema score": "0", "contradictions": "Edema"}[column]
    other = "" if column == "Edema" else ",Edema"
    text = f"study_id,image_ids,status,{column}{other}\n1,a,,,\n2,a,{status},{cell},\n"
    if not other:
        text = text.replace(",\n", "\n")
    message = refused(tmp_path, text)
    assert message.startswith("Row 2 of ") and f"in column {column}: " in message and "status" in message


def test_a_question_is_answered_once(tmp_path: Path) -> None:
    head = "study_id,image_ids,condition,Edema\n"
    different = "1,a,,1\n1,a b,,1\n1,b a,,1\n1,a,mirror,1\n2,a,,1\n"
    assert len(of_csv(tmp_path, head + different)) == 5
    message = refused(tmp_path, head + different + "2,b,,1\n1,b a,original,0\n1,b a,,0\n")
    assert message.startswith("Rows 3 and 7 of ")


FILES = [
    ("", "is empty"),
    ("\n", "is empty"),
    ("study_id,image_ids,Edema\n", "has no row"),
    ("image_ids,Edema\na,1\n", "no column study_id"),
    ("study_id,Edema\n1,1\n", "no column image_ids"),
    ("study_id,image_ids,image_id,Edema\n1,a,a,1\n", "both image_ids and image_id"),
    ("study_id,image_ids\n1,a\n", "neither findings nor text"),
    ("study_id,image_ids,status\n1,a,failed\n", "neither findings nor text"),
    ("study_id,image_ids,Edema,Edema\n1,a,1,1\n", "two columns Edema"),
    ("study_id,image_ids,Oedema\n1,a,1\n", "'Oedema': did you mean Edema"),
    ("study_id,image_ids,edema\n1,a,1\n", "'edema': did you mean Edema"),
    ("study_id,image_ids,Pleural Efusion side\n1,a,left\n", "did you mean Pleural Effusion side"),
    ("study_id,image_ids,Edema,prompt\n1,a,1,x\n", "unknown column 'prompt'"),
    ("study_id,image_ids,findings\n1,a,1\n", "unknown column 'findings'"),
    (",study_id,image_ids,Edema\n0,1,a,1\n", "index=False"),
    ("study_id;image_ids;Edema\n1;a;1\n", "semicolons: use commas"),
    ("study_id\timage_ids\tEdema\n1\ta\t1\n", "tabs: use commas"),
    ("study_id,image_ids,Edema\n1,a,1\n\n2,b,1,0\n", "Row 2 of"),
    ('study_id,image_ids,Edema\n"1\n\n",a,1\n2,b\n', "has 2 cells instead of 3"),
    ('study_id,image_ids,text\n1,a,fine\n2,b,"open\n3,c,d\n', "never closed"),
    ("study_id,image_ids,contradictions,text\n1,a,Edema,x\n", "contradictions but no findings"),
    ("study_id,image_ids,text\n1,a,fine\n2,b,café\n".encode("latin-1"), "Row 2 of"),
    ("study_id,image_ids,Édema\n1,a,1\n".encode("latin-1"), "not UTF-8"),
    ("study_id,image_ids,Edema\n1,a,1\n".encode("utf-16"), "not UTF-8"),
]


@pytest.mark.parametrize(("text", "says"), FILES)
def test_a_wrong_csv_is_refused(tmp_path: Path, text: str | bytes, says: str) -> None:
    assert says in refused(tmp_path, text)


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"study_id,image_ids,Edema\n1,a,1\n" * 1000)
    assert "neither .parquet nor .csv" in refused(tmp_path, "study_id\n", "p.xlsx")
    assert "no Parquet file" in refused(tmp_path, "study_id,image_ids,Edema\n1,a,1\n", "p.parquet")
    assert "cannot be read as CSV" in refused(tmp_path, "study_id,image_ids,Edema\n1,a,1\n", "p.csv.gz")
    assert "cannot be read as CSV" in refused(tmp_path, whole[: len(whole) // 2], "p.csv.gz")
    assert "cannot be read as CSV" in refused(tmp_path, whole[:12] + b"\xff" * 40, "p.csv.gz")
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(RequestError, match=re.escape(str(path))):
            read_predictions(path)


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    write_predictions(tmp_path / "whole.parquet", [prediction(study_id=str(n)) for n in range(2_000)])
    data = bytearray((tmp_path / "whole.parquet").read_bytes())
    data[200:900] = bytes(700)
    assert "no Parquet file or a damaged one" in refused(tmp_path, bytes(data), "p.parquet")


FRAMES: list[tuple[dict[str, Any], str]] = [
    ({"image_id": ["a", " "], "Edema": [1, 1]}, "Row 2 of .* column image_id"),
    ({"image_ids": [["a"], ["b", ""]], "Edema": [1, 1]}, "Row 2 of .* column image_ids"),
    ({"image_ids": [["a"], ["", "b"]], "Edema": [1, 1]}, "Row 2 of .* column image_ids"),
    ({"image_ids": [["a", "b"], ["c", None]], "Edema": [1, 1]}, "Row 2 of .* column image_ids"),
    ({"image_ids": [["a"], []], "Edema": [1, 1]}, "Row 2 of .* column image_ids"),
    ({"image_ids": [["a"], None], "Edema": [1, 1]}, "Row 2 of .* column image_ids"),
    ({"image_id": [1.0, 2.0], "Edema": [1, 1]}, "image_id of .* holds double"),
    ({"study_id": [1.0, np.nan], "image_id": "a", "Edema": [1, 1]}, "study_id of .* holds double"),
    ({"study_id": ["1", None], "image_id": "a", "Edema": [1, 1]}, "Row 2 of .* column study_id"),
    ({"image_id": "a", "Edema": [1, 3]}, "Row 2 of .* has 3 in column Edema"),
    ({"image_id": "a", "Edema": [True, False]}, "Row 1 of .* has True in column Edema"),
    ({"image_id": "a", "Edema": [[1], [0]]}, "Edema of .* holds list"),
    ({"image_id": "a", "Edema score": [0.5, np.inf]}, "Row 2 of .* has inf in column Edema score"),
    ({"image_id": "a", "Edema score": [True, False]}, "Edema score of .* holds bool"),
    ({"image_id": "a", "findings": [{"Edema": 1}, {"Oedema": 1}]}, "findings of .* 'Oedema': did you mean Edema"),
    ({"image_id": "a", "findings": [{"Edema": 1}, {"Edema": 7}]}, "Row 2 of .* has 7 in column Edema"),
    ({"image_id": "a", "findings": ["Edema", "Edema"]}, "findings of .* struct"),
    ({"image_id": "a", "findings": [{"Edema": 1}] * 2, "Edema": [1, 1]}, "both findings and Edema"),
    ({"image_id": "a", "scores": [{"Edema": 1.5}] * 2}, "Row 1 of .* has 1.5 in column Edema score"),
    ({"image_id": "a", "findings": [{"Edema": 1}] * 2, "contradictions": [[], ["x"]]}, "Row 2 .* contradictions"),
    ({"image_id": "a", "findings": [{"Edema": 1}] * 2, "contradictions": [[], [None]]}, "Row 2 .* contradictions"),
    ({"image_id": "a", "Edema": [1, 1], "text": [1, 2]}, "text of .* holds int64"),
    ({"image_id": "a", "text": [[1], [2]]}, "text of .* holds list"),
    ({"image_id": "a", "Edema": [1, 1], "__index_level_0": [1, 2]}, "unknown column"),
]


@pytest.mark.parametrize(("columns", "says"), FRAMES)
def test_a_wrong_parquet_is_refused(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        of_frame(tmp_path, {"study_id": ["s1", "s2"]} | columns)


def test_an_error_shows_no_more_than_the_start_of_a_cell(tmp_path: Path) -> None:
    assert len(refused(tmp_path, f"study_id,image_ids,Edema\n1,a,{'x' * 10_000}\n")) < 200 + len(str(tmp_path))


def test_the_first_wrong_row_is_named_across_pieces(tmp_path: Path) -> None:
    states = [1] * 150_000
    states[140_001] = states[149_000] = 5
    ids = pa.array(map(str, range(150_000)))
    table = pa.table({"study_id": ids, "image_id": ids, "Edema": states})
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=10_000)
    with pytest.raises(RequestError, match=r"Row 140002 of .* has 5 in column Edema"):
        read_predictions(tmp_path / "p.parquet")


# --------------------------------------------------------------------------------------------------- large


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_no_loop_goes_over_the_rows_of_a_large_file(tmp_path: Path, suffix: str) -> None:
    """Counted by the lines of Python that run in this package: as many for 200,000 rows as for 2,000."""
    lines = {}
    for rows in (2_000, 200_000):
        path = tmp_path / f"{rows}{suffix}"
        write_large(path, rows)
        lines[rows] = lines_run(lambda path=path: read_predictions(path))  # type: ignore[misc]
        assert read_predictions(path).num_rows == rows
    assert lines[200_000] < lines[2_000] + 500


def write_large(path: Path, rows: int) -> None:
    random = np.random.default_rng(0)
    numbers = np.arange(rows).astype(str)
    states = random.choice([1, 0, -1, np.nan], rows)
    frame = pd.DataFrame(
        {
            "study_id": numbers,
            "image_id": numbers,
            EFFUSION: states,
            f"{EFFUSION} side": np.where(np.abs(states) == 1, random.choice(SIDES, rows), None),
            f"{EFFUSION} score": random.random(rows),
            "contradictions": random.choice(["", "Edema", "Edema;Fracture"], rows),
            "text": "There is an effusion.",
        }
    )
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path, index=False)


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of this package's modules run."""
    count = 0

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal count
        if f"{os.sep}eval{os.sep}predictions" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count
