"""A student's scores on their way from its replies into the predictions."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cxr_max import prompts
from cxr_max.builders.questions import question_like
from cxr_max.eval.asking import Model, Wanted, ask, predictions
from cxr_max.eval.conditions import parse
from cxr_max.findings import FINDINGS
from cxr_max.ledger import Answered, Ledger
from cxr_max.records import Asked, Ended, Reply
from cxr_max.teachers import roster
from cxr_max.teachers.base import TeacherSpec

SPEC = next(iter(roster.load().values()))
STUDENT = replace(SPEC, name="mine", provider="student", model="mine@0123", endpoint="student:", weights="mine")
SCORES = {name: number / 16 for number, name in enumerate(FINDINGS)}
TEXT = "It is wide.\nANSWER\nCardiomegaly: present"
RAW = json.dumps({"finding_scores": SCORES})


def wanted(study: str, spec: TeacherSpec = STUDENT) -> Wanted:
    asked = Asked(study, "p", "test", "test", ("i",), (f"sha of {study}",), ("j",), "as_is-1@1024")
    prompt = prompts.load("diagnose")
    return Wanted(asked, parse("original"), question_like(asked, spec, prompt, prompt.text), prompt.text)


def answered(one: Wanted, raw: str = RAW, text: str = TEXT, ended: Ended = "stop") -> Answered:
    reply = Reply(text, None, ended, ended, None, 1, 1, None, raw)
    return Answered(one.question.request_sha256, ("j",), reply, 0.0, 1.0, datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


@pytest.mark.parametrize(
    ("spec", "how", "status", "scores"),
    [
        (STUDENT, {}, "ok", SCORES),
        (STUDENT, {"raw": ""}, "ok", None),
        (STUDENT, {"raw": '{"finding_scores": null, "reason": "MemoryError: full"}'}, "ok", None),
        (STUDENT, {"ended": "length"}, "truncated", None),
        (STUDENT, {"text": "It is wide.\nANSWER\nWide."}, "unparsed", None),
        (STUDENT, {"text": "I am unable to interpret this image.\n" + TEXT}, "refused", None),
        (SPEC, {"raw": '{"choices": []}'}, "ok", None),
        (SPEC, {}, "ok", None),
    ],
)
def test_only_an_answer_of_a_student_has_scores(
    ledger: Ledger, spec: TeacherSpec, how: dict[str, Any], status: str, scores: object
) -> None:
    one = wanted("s", spec)
    ledger.commit([answered(one, **how)])
    [found] = predictions([one], ledger)
    assert (found.status, found.scores) == (status, scores)


def test_a_question_without_a_reply_has_no_scores(ledger: Ledger) -> None:
    [found] = predictions([wanted("s")], ledger)
    assert (found.status, found.scores) == ("failed", None)


class Quiet:
    stopping = None

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_what_another_ledger_knows_is_taken_over_with_its_scores(ledger: Ledger, tmp_path: Path) -> None:
    known_to_both, elsewhere = wanted("a"), wanted("b")
    other = dict.fromkeys(FINDINGS, 0.5)
    ledger.commit([answered(known_to_both)])
    with Ledger(tmp_path / "known.sqlite") as known:
        body = json.dumps({"finding_scores": other})
        known.commit([answered(known_to_both, body), answered(elsewhere, body)])
        nobody = Model(STUDENT, {}, None, None)  # type: ignore[arg-type]
        assert ask([known_to_both, elsewhere], nobody, ledger, known, Quiet()) == ()  # type: ignore[arg-type]
    assert [row.scores for row in predictions([known_to_both, elsewhere], ledger)] == [SCORES, other]


@pytest.fixture
def one_thread() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_an_evaluated_student_has_scores_in_its_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, from the picture to the file; the replies alone are put into its mouth."""
    import pyarrow.parquet as pq

    from cxr_max.builders.build import BuildRequest, build
    from cxr_max.eval.run import EvalRequest, prepare
    from cxr_max.eval.subject import Given
    from cxr_max.student import generation
    from cxr_max.student.generation import Generated, Request
    from tests.student.lessons import base

    def says(student: Any, requests: Sequence[Request], **_: Any) -> list[Generated]:
        return [Generated(TEXT, "stop", 1, 1) for _ in requests]

    monkeypatch.setattr(generation, "generate", says)
    built = BuildRequest(source="phantom", teachers="sim-gpt-5-nano", out=tmp_path / "run", studies=10)
    build(built, Quiet())  # type: ignore[arg-type]
    model = Path(base(tmp_path / "student"))
    suite = tmp_path / "mine.toml"
    suite.write_text('name = "mine"\nversion = 1\nresamples = 100\nsplit = "train"\n[generalization]\n')
    request = EvalRequest(tmp_path / "run", tmp_path / "eval", Given(model=model), str(suite))
    (tmp_path / "eval").mkdir()
    prepared = prepare(request)
    prepared.ask(Quiet())  # type: ignore[arg-type]
    made = prepared.finish(lambda *_: None)
    rows = pq.read_table(made.out / "predictions.parquet").to_pylist()
    assert rows and {row["status"] for row in rows} == {"ok"}
    for row in rows:
        assert set(row["scores"]) == set(FINDINGS) and all(0 < score < 1 for score in row["scores"].values())
    assert len({row["scores"]["Edema"] for row in rows}) == len(rows), "every picture is scored by itself"
    assert any(one.metric == "auroc" and one.value is not None for one in made.scores)
