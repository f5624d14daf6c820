"""Conversations of others become a release and a release becomes theirs; what a form can hold comes back."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.builders import forms
from cxr_max.builders.export import export
from cxr_max.builders.forms import FORMS, Exchange, Form
from cxr_max.builders.imports import UNKNOWN, import_files
from cxr_max.errors import RequestError
from cxr_max.records import SPLITS, STATUSES, Trajectory
from cxr_max.schemas import read_trajectories
from tests.builders.test_build import built
from tests.mimic_fixture import write_mimic

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
MIMIC = "files/p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.jpg"
ANSWER = "The heart is large.\n\nANSWER\nCardiomegaly: present"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms")
    built("phantom", out, "sim-grok-4,sim-moonshot-v1", studies=20)
    return out / "release"


@pytest.fixture(scope="module")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("mimic")
    source = f"mimic-cxr-jpg:{write_mimic(folder)[1]}"
    built(source, folder / "run", "sim-grok-4,sim-gpt-5-nano", views="study")
    return folder / "run" / "release", source


def rows(release: Path) -> list[Trajectory]:
    return [row for split in SPLITS for row in read_trajectories(release, split)]


def shared(row: Trajectory) -> dict[str, Any]:
    """What a form holds, or what follows from it: everything but what ``UNKNOWN`` names."""
    return {name: getattr(row, name) for name in row.__slots__ if name not in UNKNOWN}


def whole(row: Trajectory) -> bool:
    """How a reply ended is nothing that a form holds."""
    return row.status not in ("truncated", "filtered")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("named", [True, False], ids=["named", "found out"])
def test_round_trip_of_phantoms(phantoms: Path, tmp_path: Path, form: Form, named: bool) -> None:
    made = export(phantoms, tmp_path / "theirs", form, statuses=STATUSES)
    files = {Path(name).stem: tmp_path / "theirs" / name for name in made.files}
    done = import_files(files, tmp_path / "ours", form=form if named else None, source="phantom")
    before, after = rows(phantoms), rows(tmp_path / "ours")
    assert [shared(row) for row in after] == [shared(row) for row in before if whole(row)] or not all(
        map(whole, before)
    )
    assert len(after) == len(before) == done.trajectories and not done.skipped
    assert {row.status for row in before} >= {"ok", "refused"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("joined", [True, False], ids=["with a copy", "by its paths"])
def test_round_trip_of_mimic(mimic: tuple[Path, str], tmp_path: Path, form: Form, joined: bool) -> None:
    release, source = mimic
    made = export(release, tmp_path / "theirs", form, statuses=STATUSES)
    files = {Path(name).stem: tmp_path / "theirs" / name for name in made.files}
    where = {"source": source} if joined else {"name": "mimic-cxr-jpg"}
    done = import_files(files, tmp_path / "ours", **where)
    before, after = rows(release), rows(tmp_path / "ours")
    if joined:
        assert [shared(row) for row in after] == [shared(row) for row in before] and done.without_split == 0
    else:
        bare = [{**shared(row), "split": None} for row in before]
        assert sorted(map(repr, map(shared, after))) == sorted(map(repr, bare))
        assert done.without_split == len(after)
    assert json.loads((tmp_path / "ours" / "manifest.json").read_text())["source"]["data_use"] == "credentialed"


@given(
    st.sampled_from(FORMS), st.lists(WORDS.filter(bool), min_size=1, max_size=3), WORDS, WORDS,
    st.one_of(st.none(), WORDS), WORDS,
)  # fmt: skip
def test_what_a_form_can_hold_it_gives_back(
    form: Form, images: list[str], prompt: str, reply: str, reasoning: str | None, row_id: str
) -> None:
    marks = ("<image>", "<think>", "</think>")
    if any(mark in text for mark in marks for text in (prompt, reply, reasoning or "")):
        return
    exchange = Exchange(tuple(images), prompt, reply, reasoning, row_id)
    line = forms.line_of(forms.write(exchange, form))
    assert "\n" not in line[:-1]
    assert forms.read(json.loads(line), form) == exchange and forms.form_of(json.loads(line)) == form


FOREIGN: list[tuple[str, dict[str, Any]]] = [
    ("swift 3", {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "<image>Q"},
                              {"role": "assistant", "content": ANSWER}], "images": [MIMIC]}),
    ("swift paths", {"messages": [{"role": "user", "content": "<image>\nQ"},
                                  {"role": "assistant", "content": ANSWER}], "images": [{"path": MIMIC}]}),
    ("swift 2", {"query": "<image>Q", "response": ANSWER, "history": [], "images": [f"/data/{MIMIC}"]}),
    ("llava", {"id": "1", "image": MIMIC, "conversations": [{"from": "human", "value": "Q\n<image>"},
                                                            {"from": "gpt", "value": ANSWER}]}),
    ("openai", {"messages": [
        {"role": "user", "content": [{"type": "text", "text": "Q"},
                                     {"type": "image_url", "image_url": {"url": f"https://x.org/{MIMIC}"}}]},
        {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}]}),
]  # fmt: skip


@pytest.mark.parametrize("row", [case[1] for case in FOREIGN], ids=[case[0] for case in FOREIGN])
@pytest.mark.parametrize("shape", ["lines", "array", "bom", "indented"])
def test_forms_as_others_write_them(tmp_path: Path, row: dict[str, Any], shape: str) -> None:
    path = tmp_path / "grok-4.json"
    texts = {"lines": json.dumps(row) + "\n\n", "array": json.dumps([row]), "bom": "\ufeff" + json.dumps(row),
             "indented": json.dumps([row, row], indent=1)}  # fmt: skip
    path.write_text(texts[shape], encoding="utf-8")
    done = import_files({"grok-4": path}, tmp_path / "out", name="mimic-cxr-jpg")
    (found,) = rows(tmp_path / "out")
    assert (found.study_id, found.subject_id, found.split) == ("50414267", "10000032", None)
    assert found.image_ids == ("02aa804e-bde0afdd-112c0b34-7bc16630-4e384014",)
    assert (found.teacher, found.text, found.prompt_name, found.prompt_given) == (
        "grok-4",
        ANSWER,
        "imported",
        None,
    )
    assert found.findings is not None and found.findings["Cardiomegaly"] == 1
    assert done.skipped == ({"the same reply stands there before": 1} if shape == "indented" else {})


def test_rows_that_cannot_be_read_are_counted_and_named(tmp_path: Path) -> None:
    good = json.dumps(FOREIGN[0][1]).encode()
    turn = {"from": "human", "value": "Q"}
    bad = [
        b"{broken", b"[1, 2]", b"\xff\xfe{}", b'{"text": "x"}',
        json.dumps({"image": MIMIC, "conversations": [turn]}).encode(),
        json.dumps({"image": MIMIC, "conversations": [turn, {"value": "A"}]}).encode(),
        json.dumps({"image": MIMIC, "conversations": [turn, {"from": "gpt", "value": "A"}] * 2}).encode(),
        json.dumps({"conversations": [turn, {"from": "gpt", "value": "A"}]}).encode(),
        json.dumps({"query": "Q", "response": "A", "history": [["a", "b"]], "images": [MIMIC]}).encode(),
        b"null", good,
    ]  # fmt: skip
    path = tmp_path / "glm.jsonl"
    path.write_bytes(b"\n".join([good, *bad]))
    done = import_files({"glm": path}, tmp_path / "out", name="mimic-cxr-jpg")
    assert done.trajectories == 1 and sum(done.skipped.values()) == len(bad)
    assert "glm.jsonl, line 2: the line is no JSON" in done.examples
    assert "glm.jsonl, line 4: the line is not UTF-8" in done.examples


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"\n\n", "Nothing could be imported"), (b'[{"a": 1}, {"b"', "cut short or damaged"),
     (b"[\xff\xfe]", "not UTF-8"), (b"{}", "line 1: the row has neither")],
)  # fmt: skip
def test_a_file_that_gives_nothing_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=message):
        import_files({"a": path}, tmp_path / "out", name="x")


def test_somebody_has_to_say_whose_images_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(RequestError, match="--source NAME:PATH"):
        import_files({"a": tmp_path / "a.json"}, tmp_path / "out")


def test_simulated_rows_keep_their_mark_and_others_get_none(tmp_path: Path) -> None:
    row = forms.line_of(forms.write(Exchange((MIMIC,), "What is seen?", ANSWER, None, "1"), "llava"))
    (tmp_path / "a.jsonl").write_text(row)
    for teacher, provider in (("sim-grok-4", "simulated"), ("grok-4", None)):
        import_files({teacher: tmp_path / "a.jsonl"}, tmp_path / teacher, name="mimic-cxr-jpg")
        assert [one.provider for one in rows(tmp_path / teacher)] == [provider]
        manifest = json.loads((tmp_path / teacher / "manifest.json").read_text())
        assert (
            manifest["simulated"] == (provider is not None) == ("provider" not in manifest["imported"]["unknown"])
        )
        assert ("Simulated teachers" in (tmp_path / teacher / "README.md").read_text()) == (provider is not None)


def test_a_built_release_is_not_overwritten(phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(FOREIGN[0][1]))
    shutil.copytree(phantoms, tmp_path / "built")
    with pytest.raises(RequestError, match="not imported: choose another --out"):
        import_files({"a": tmp_path / "a.json"}, tmp_path / "built", name="mimic-cxr-jpg")


def test_two_replies_to_one_question_are_two_samples(tmp_path: Path) -> None:
    first, second = (json.loads(json.dumps(FOREIGN[0][1]).replace("large", word)) for word in ("large", "small"))
    (tmp_path / "a.jsonl").write_text(json.dumps(first) + "\n" + json.dumps(second))
    import_files({"a": tmp_path / "a.jsonl"}, tmp_path / "out", name="mimic-cxr-jpg")
    assert [row.sample_index for row in rows(tmp_path / "out")] == [0, 1]


def test_an_imported_release_is_the_same_bytes_again(phantoms: Path, tmp_path: Path) -> None:
    made = export(phantoms, tmp_path / "theirs", "llava")
    files = {Path(name).stem: tmp_path / "theirs" / name for name in made.files}
    for out in ("one", "two"):
        import_files(files, tmp_path / out, source="phantom")
    one, two = ((tmp_path / out / "manifest.json").read_bytes() for out in ("one", "two"))
    assert one == two


def test_an_unsealed_release_is_not_exported(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, tmp_path / "release")
    (tmp_path / "release" / "manifest.json").unlink()
    with pytest.raises(RequestError, match="no sealed release"):
        export(tmp_path / "release", tmp_path / "out", "llava")
