"""What a suite asks, what a model is sent for it, and that nothing is bought twice."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from aiohttp import web

from cxr_max import prompts
from cxr_max.eval.asking import Wanted, predictions, wanted
from cxr_max.eval.conditions import parse
from cxr_max.eval.corruptions import corrupt
from cxr_max.eval.reference import Reference
from cxr_max.eval.run import Prepared, prepare
from cxr_max.findings import FINDINGS
from cxr_max.ledger import Ledger
from cxr_max.records import Prediction
from tests.background import background, committed, keys_received, roster_of
from tests.eval.data import ORIGINALS, QUESTIONS, TEACHERS, TINY, Watch, evaluated, release, request_of, suite
from tests.teachers.scripted import Scripted, body, error

TEXT = "The heart is large.\n\nANSWER\nCardiomegaly: present\nPneumothorax: absent"
CHANGES = ["sample-1", "paraphrase-brief", "mirror", "blank", "noise-3", "report"]


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY + "[report]\nimage_sets = 1\n")
    return path


def quiet(*_: object) -> None:
    pass


def prepared(run: Path, out: Path, tiny: Path, **who: Any) -> Prepared:
    out.mkdir()
    return prepare(request_of(run, out, tiny, **who))


@contextmanager
def asked(run: Path, out: Path, tiny: Path, **who: Any) -> Iterator[tuple[Prepared, Watch]]:
    """Ask, and keep the folder's lock as ``cxr-max eval`` does."""
    watch = Watch()
    request = request_of(run, out, tiny, **who)
    with evaluated(request) as made:
        made.ask(watch)
        yield made, watch


def rows_of(made: Prepared) -> list[Prediction]:
    with Ledger(made.folder.ledger) as ledger:
        return list(predictions(made.questions(), ledger))


async def reply(_request: web.Request) -> web.StreamResponse:
    return body("openai", TEXT)


# What is asked.


def test_questions_by_hand(run: Path, tmp_path: Path, tiny: Path) -> None:
    made = prepared(run, tmp_path / "e", tiny, teacher=TEACHERS[0])
    questions = made.questions()
    assert len(questions) == QUESTIONS
    by_set: dict[tuple[str, ...], list[str]] = {}
    for one in questions:
        by_set.setdefault(one.asked.image_ids, []).append(str(one.condition))
    scored = [row for row in made.reference.rows if row.split == "test"]
    expected = [sorted(["original", *CHANGES[:5]])] * 2
    expected += [["blank", "noise-3", "original"], ["original"], *[["original"]] * 4]
    assert [sorted(conditions) for conditions in by_set.values()] == expected
    assert list(by_set)[:4] == [row.image_ids for row in scored]


def test_the_greatest_limit_of_several_suites_holds(run: Path, tmp_path: Path, tiny: Path) -> None:
    made = prepared(run, tmp_path / "e", tiny, teacher=TEACHERS[0])
    suites = [suite(consistency={"image_sets": 1}), suite(consistency={"image_sets": 3}), suite(generalization={})]
    assert made.who.spec is not None

    def count(questions: list[Wanted], condition: str) -> int:
        return sum(str(one.condition) == condition for one in questions)

    found = wanted(made.reference, made.image_sets, suites, made.who.spec)
    assert (count(found, "original"), count(found, "blank"), count(found, "noise-3")) == (ORIGINALS, 3, 0)


def test_a_report_is_asked_for_where_there_is_one_to_hold_it_against(
    run: Path, tmp_path: Path, tiny: Path
) -> None:
    made = prepared(run, tmp_path / "e", tiny, teacher=TEACHERS[0])
    assert made.who.spec is not None
    test = [row for row in made.reference.rows if row.split == "test"]
    rows = tuple(replace(row, report="Clear lungs." if row in test[1:3] else None) for row in made.reference.rows)
    asked = wanted(Reference(rows), made.image_sets, [suite(report={"image_sets": 1})], made.who.spec)
    assert [one.asked.image_ids for one in asked if str(one.condition) == "report"] == [test[1].image_ids]


def test_every_question_has_a_key_of_its_own_and_originals_that_of_the_build(
    run: Path, tmp_path: Path, tiny: Path
) -> None:
    questions = prepared(run, tmp_path / "e", tiny, teacher=TEACHERS[0]).questions()
    keys = {str(one.condition): set[str]() for one in questions}
    for one in questions:
        keys[str(one.condition)].add(one.question.request_sha256)
    assert len(set.union(*keys.values())) == len(questions)
    known = committed(run)
    assert keys["original"] <= known and not (set.union(*keys.values()) - keys["original"]) & known


def test_a_question_says_what_was_changed(run: Path, tmp_path: Path, tiny: Path) -> None:
    for one in prepared(run, tmp_path / "e", tiny, teacher=TEACHERS[0]).questions():
        question = one.question
        assert question.rendering == one.asked.rendering + one.condition.rendering
        assert question.prompt_name == one.condition.prompt("diagnose")
        assert one.prompt == prompts.load(question.prompt_name).text
        assert question.sample_index == (1 if str(one.condition) == "sample-1" else 0)
        assert question.source_sha256 == one.asked.source_sha256


# What is sent.


def picture(request: dict[str, Any]) -> bytes:
    (part,) = (
        p for m in request["messages"] for p in m["content"] if isinstance(p, dict) and p["type"] == "image_url"
    )
    return base64.b64decode(part["image_url"]["url"].partition(",")[2])


def grey(jpeg: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE))


def error_of(one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> float:
    return float(np.abs(one.astype(float) - two.astype(float)).mean())


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Watch, Scripted]:
    """Everything asked of a server that writes down what it gets."""
    folder = tmp_path_factory.mktemp("sent")
    tiny = folder / "tiny.toml"
    tiny.write_text(TINY + "[report]\nimage_sets = 1\n")
    with background(reply) as server:
        roster = roster_of(folder, server, "mine")
        with asked(release(tmp_path_factory), folder / "e", tiny, teacher="mine", roster=roster) as (made, watch):
            return made, watch, server


def by_condition(sent: tuple[Prepared, Watch, Scripted]) -> dict[tuple[str, ...], dict[str, dict[str, Any]]]:
    """Image set -> condition -> the request's body."""
    made, _, server = sent
    bodies = dict(zip(keys_received(server), server.received, strict=True))
    found: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for one in made.questions():
        found.setdefault(one.asked.image_ids, {})[str(one.condition)] = bodies[one.question.request_sha256]
    return found


def test_each_question_is_sent_once(sent: tuple[Prepared, Watch, Scripted]) -> None:
    made, watch, server = sent
    keys = keys_received(server)
    assert len(keys) == len(set(keys)) == QUESTIONS == watch.sent
    assert set(keys) == {one.question.request_sha256 for one in made.questions()}


def test_pictures_are_what_their_conditions_say(sent: tuple[Prepared, Watch, Scripted]) -> None:
    made = sent[0]
    images = {row.image_ids: row for row in made.reference.rows}
    checked = 0
    for ids, bodies in by_condition(sent).items():
        (encoded,) = made.pixels.encoded(made.image_sets[images[ids].key])
        original = grey(encoded.jpeg)
        assert picture(bodies["original"]) == encoded.jpeg, (
            "the original is what the teachers were sent, to the byte"
        )
        for name, request in bodies.items():
            jpeg, seen = picture(request), grey(picture(request))
            if name in ("sample-1", "paraphrase-brief", "report"):
                assert jpeg == encoded.jpeg
            elif name == "mirror":
                assert error_of(seen, original[:, ::-1]) < 2 < error_of(seen, original)
            elif name == "blank":
                assert seen.shape == original.shape and np.ptp(seen.astype(int)) <= 2
            elif name == "noise-3":
                expected = corrupt(original, "noise", 3, encoded.sha256)
                assert error_of(seen, expected) < 0.8 * error_of(seen, original)
            checked += name != "original"
    assert checked == QUESTIONS - ORIGINALS


def test_prompts_are_what_their_conditions_say(sent: tuple[Prepared, Watch, Scripted]) -> None:
    for bodies in by_condition(sent).values():
        for name, request in bodies.items():
            text = prompts.load(parse(name).prompt("diagnose")).text
            assert json.dumps(text)[1:-1] in json.dumps(request["messages"])


def test_replies_become_rows(sent: tuple[Prepared, Watch, Scripted]) -> None:
    rows = rows_of(sent[0])
    assert len(rows) == QUESTIONS and {one.status for one in rows} == {"ok"}
    for one in rows:
        assert one.findings is not None and one.scores is None
        assert (
            one.findings["Cardiomegaly"] == 1 and one.findings["Pneumothorax"] == 0
        ) or one.condition == "report"
        assert one.text == TEXT


# Nothing is bought twice.


def test_what_the_build_bought_is_taken_over(run: Path, tmp_path: Path, tiny: Path) -> None:
    before = (run / "ledger.sqlite").read_bytes()
    with asked(run, tmp_path / "e", tiny, teacher=TEACHERS[0]) as (made, watch):
        assert watch.sent == QUESTIONS - ORIGINALS and not watch.failures
        assert len(made.questions()) == len(committed(tmp_path / "e")) == QUESTIONS
        first = rows_of(made)
    with asked(run, tmp_path / "e", tiny, teacher=TEACHERS[0]) as (made, watch):
        assert watch.sent == 0 and rows_of(made) == first
    assert (run / "ledger.sqlite").read_bytes() == before


def test_a_release_without_its_run_is_asked_about_all_the_same(run: Path, tmp_path: Path, tiny: Path) -> None:
    import shutil

    shutil.copytree(run / "release", tmp_path / "published")
    with asked(tmp_path / "published", tmp_path / "e", tiny, teacher=TEACHERS[0], images="phantom") as (_, watch):
        assert watch.sent == QUESTIONS


def test_failed_requests_are_failed_rows_and_are_asked_again(run: Path, tmp_path: Path, tiny: Path) -> None:
    """Every third request is refused by the service as malformed, which no retry mends."""
    count = 0

    async def every_third(_request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        return error(400, "no") if count % 3 == 0 else body("openai", TEXT)

    with background(every_third) as server:
        roster = roster_of(tmp_path, server, "mine")
        with asked(run, tmp_path / "e", tiny, teacher="mine", roster=roster) as (made, watch):
            failed = [one for one in rows_of(made) if one.status == "failed"]
            assert len(failed) == len(watch.failures) == (QUESTIONS) // 3
            for one in failed:
                assert (one.findings, one.sides, one.scores, one.contradictions, one.text) == (None,) * 5
            assert len(committed(tmp_path / "e")) == QUESTIONS - len(failed)
        server.answers[:] = [reply]
        with asked(run, tmp_path / "e", tiny, teacher="mine", roster=roster) as (made, watch):
            assert watch.sent == len(failed)
            assert {one.status for one in rows_of(made)} == {"ok"}


def test_an_interruption_keeps_what_was_answered(run: Path, tmp_path: Path, tiny: Path) -> None:
    from cxr_max.builders.sending import Interrupted

    with background() as server:
        request = request_of(run, tmp_path / "e", tiny, teacher="mine", roster=roster_of(tmp_path, server, "mine"))
        with evaluated(request) as made, pytest.raises(Interrupted, match="the same command goes on"):
            made.ask(Watch(stop_after=3))
        there = committed(tmp_path / "e")
        assert 3 <= len(there) < QUESTIONS and there == set(keys_received(server))
        with evaluated(request) as made:
            watch = Watch()
            made.ask(watch)
            assert watch.sent == QUESTIONS - len(there)
        assert len(keys_received(server)) == len(set(keys_received(server))) == QUESTIONS
        assert {one.status for one in rows_of(made)} == {"ok"}


# Simulated teachers see what was changed.


def test_a_simulated_teacher_answers_about_the_changed_picture(
    run: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path / "mirror.toml"
    path.write_text('name = "m"\nversion = 1\nresamples = 100\n[consistency]\nsamples = 0\nparaphrases = []\n')
    with asked(run, tmp_path / "e", path, teacher="sim-grok-4") as (made, _):
        rows = {(one.image_ids, one.condition): one for one in rows_of(made)}
    truth = {row.image_ids: row for row in made.reference.rows if row.split == "test"}
    swapped = {"left": "right", "right": "left", "bilateral": "bilateral"}
    as_is, turned = [], []
    for ids, row in truth.items():
        for name in FINDINGS:
            side = (row.sides or {}).get(name)
            for condition, into in (("original", as_is), ("mirror", turned)):
                said = (rows[ids, condition].sides or {}).get(name)
                if side and said:
                    into.append((side, said))
    assert len(as_is) + len(turned) > 3
    assert np.mean([side == said for side, said in as_is]) >= 0.5
    assert np.mean([swapped[side] == said for side, said in turned]) >= 0.5
