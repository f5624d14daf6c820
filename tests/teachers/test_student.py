"""A student asked like any other teacher: from the roster to sealed rows, with weights that no row gives away."""

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from cxr_max.builders.build import BuildRequest, build  # noqa: E402
from cxr_max.costs import FREE  # noqa: E402
from cxr_max.data_use import Gate  # noqa: E402
from cxr_max.errors import RequestError  # noqa: E402
from cxr_max.findings import FINDINGS  # noqa: E402
from cxr_max.ledger import Ledger, request_key  # noqa: E402
from cxr_max.records import Reply, Sampling  # noqa: E402
from cxr_max.student import generation  # noqa: E402
from cxr_max.student.generation import Generated, Request  # noqa: E402
from cxr_max.student.weights import fingerprint  # noqa: E402
from cxr_max.teachers import roster  # noqa: E402
from cxr_max.teachers.base import TeacherError, TeacherSpec  # noqa: E402
from cxr_max.teachers.student import StudentTeacher  # noqa: E402
from tests.student.lessons import base  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that sees small images."""
    made = Path(base(tmp_path_factory.mktemp("secret-place") / "my-student"))
    settings = made / "preprocessor_config.json"
    sizes = {**json.loads(settings.read_text()), "size": {"shortest_edge": 784, "longest_edge": 84 * 84}}
    settings.write_text(json.dumps(sizes))
    return made


@pytest.fixture
def spec(folder: Path) -> TeacherSpec:
    return replace(roster.student_spec(folder), sampling=Sampling(temperature=0.0, max_tokens=8))


def jpeg(grey: int = 90) -> bytes:
    file = BytesIO()
    Image.new("L", (84, 84), grey).save(file, "JPEG")
    return file.getvalue()


def asked(spec: TeacherSpec, *questions: tuple[str, str], image: bytes | None = None) -> list[Any]:
    """Ask (prompt, key) all at once; errors are returned."""

    async def run() -> list[Any]:
        teacher = roster.connect(spec, "none")
        try:
            answers = (teacher.ask([image or jpeg()], prompt, key) for prompt, key in questions)
            return await asyncio.gather(*answers, return_exceptions=True)
        finally:
            await teacher.close()

    return asyncio.run(run())


def test_two_images_reach_the_model_in_order_and_a_comparison_is_not_scored_for_findings(
    spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxr_max import prompts
    from cxr_max.student.chat import Chat

    seen: list[list[int]] = []
    prompt = Chat.prompt

    def spied(chat: Chat, images: Any, text: str) -> Any:
        seen.append([image.convert("L").getpixel((0, 0)) for image in images])
        return prompt(chat, images, text)

    monkeypatch.setattr(Chat, "prompt", spied)

    async def run() -> Any:
        teacher = roster.connect(spec, "none")
        try:
            return await teacher.ask([jpeg(40), jpeg(200)], prompts.load("progression").text, "k")
        finally:
            await teacher.close()

    reply = asyncio.run(run())
    assert seen == [[40, 200]] and reply.raw == ""


def own_roster(path: Path, student: Path | str, more: str = "") -> Path:
    path.write_text(f'[mine]\nprovider = "student"\nmodel = "{student}"\n{more}')
    return path


# The roster


def test_the_model_names_the_weights_and_not_their_place(folder: Path, tmp_path: Path) -> None:
    spec = roster.student_spec(folder)
    assert (spec.name, spec.model) == ("my-student", f"my-student@{fingerprint(str(folder))[:12]}")
    assert (spec.endpoint, spec.place, spec.key, spec.wire) == ("student:", "local", None, "student")
    assert spec.sampling == Sampling(temperature=0.0, max_tokens=1024) and spec.price == FREE
    assert spec.weights == str(folder.resolve())
    chosen = roster.choose(roster.load(own_roster(tmp_path / "r.toml", folder)), "mine")[0]
    assert (chosen.model, chosen.weights) == (spec.model, spec.weights)


def key_of(spec: TeacherSpec) -> str:
    return request_key(
        provider=spec.provider, endpoint=spec.endpoint, model=spec.model, sampling=spec.sampling, prompt_text="?",
        images=[("sha", "as_is-1@1024")], sample_index=0,
    )  # fmt: skip


def test_other_weights_are_asked_anew_and_a_moved_folder_is_not(folder: Path, tmp_path: Path) -> None:
    import shutil

    moved = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, moved)
    before = key_of(roster.student_spec(folder))
    assert key_of(roster.student_spec(moved)) == before
    with (moved / "model.safetensors").open("ab") as file:
        file.write(b" ")
    assert key_of(roster.student_spec(moved)) != before


def test_a_roster_is_listed_without_hashing_its_weights(folder: Path, tmp_path: Path) -> None:
    assert roster.load(own_roster(tmp_path / "r.toml", folder))["mine"].model == "my-student"


def test_a_name_on_the_hub_is_its_own_model(tmp_path: Path) -> None:
    listed = roster.load(own_roster(tmp_path / "r.toml", "Qwen/Qwen2.5-VL-3B-Instruct"))
    chosen = roster.choose(listed, "mine")[0]
    assert chosen.model.startswith("Qwen/Qwen2.5-VL-3B-Instruct@")
    assert chosen.weights == "Qwen/Qwen2.5-VL-3B-Instruct"


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("/absent/model", "", "no such folder"),
        ("absent", "", "no such folder"),
        ("{empty}", "", "holds no model"),
        ("{folder}", 'endpoint = "https://a.example/v1"', "student, so it has no endpoint"),
    ],
)
def test_a_wrong_table_is_named(folder: Path, tmp_path: Path, model: str, more: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=message):
        roster.load(own_roster(tmp_path / "r.toml", model.format(folder=folder, empty=tmp_path / "empty"), more))


def test_no_other_provider_speaks_as_a_student(tmp_path: Path) -> None:
    table = tmp_path / "r.toml"
    table.write_text('[x]\nprovider = "vllm"\nmodel = "m"\nendpoint = "student:"\nplace = "local"\n')
    with pytest.raises(RequestError, match="no plain http"):
        roster.load(table)
    table.write_text('[x]\nprovider = "vllm"\nmodel = "m"\nendpoint = "http://127.0.0.1:1/v1"\nwire = "student"\n')
    with pytest.raises(RequestError, match="'wire'"):
        roster.load(table)


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="absent: --model takes"):
        roster.student_spec(tmp_path / "absent")


def test_credentialed_data_may_be_read_in_this_process(spec: TeacherSpec) -> None:
    Gate("mimic", "credentialed").check(spec.name, spec.endpoint, spec.place)


def test_without_torch_the_extra_is_named(spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxr_max.teachers.student.find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(RequestError, match=r'pip install "cxr-max\[train\]"'):
        roster.connect(spec, "none")


# The teacher


def test_a_reply_has_all_its_fields(spec: TeacherSpec, folder: Path) -> None:
    [reply] = asked(spec, ("How is the film?", "k"))
    assert isinstance(reply, Reply) and (reply.reasoning, reply.request_id, reply.raw) == (None, None, "")
    assert reply.model_reported == fingerprint(str(folder))
    assert reply.ended == reply.finish_reason and reply.ended in {"stop", "length"}
    assert reply.input_tokens and 1 <= (reply.output_tokens or 0) <= 8


class Watched:
    """Remembers the batches, and answers them with their prompts or as told."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, fails: Callable[[list[Request]], Exception | None]
    ) -> None:
        self.batches: list[list[str]] = []
        self._fails = fails
        monkeypatch.setattr(generation, "generate", self)

    def __call__(self, student: Any, requests: Sequence[Request], **_: Any) -> list[Generated]:
        self.batches.append([request.prompt for request in requests])
        error = self._fails(list(requests))
        if error:
            raise error
        return [Generated(request.prompt, "stop", 1, 1) for request in requests]


QUESTIONS = [(str(number), f"key {number}") for number in range(8)]


def test_what_waits_is_answered_in_full_batches(spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, lambda _: None)
    replies = asked(replace(spec, concurrency=3), *QUESTIONS)
    assert [reply.text for reply in replies] == [prompt for prompt, _ in QUESTIONS]
    assert [len(batch) for batch in watched.batches] == [3, 3, 2]


def test_one_bad_request_fails_alone(spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    Watched(monkeypatch, lambda batch: ValueError("odd") if any(r.prompt == "5" for r in batch) else None)
    replies = asked(spec, *QUESTIONS)
    assert [reply.text for number, reply in enumerate(replies) if number != 5] == list("0123467")
    assert isinstance(replies[5], TeacherError)
    assert (replies[5].kind, str(replies[5])) == ("bad_request", "ValueError: odd")


def test_an_image_that_is_none_is_a_bad_request(spec: TeacherSpec) -> None:
    [error] = asked(spec, ("?", "k"), image=b"no image")
    assert isinstance(error, TeacherError) and error.kind == "bad_request"


def test_batches_shrink_to_what_fits_the_memory(spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, lambda batch: MemoryError() if len(batch) > 2 else None)
    replies = asked(spec, *QUESTIONS, *QUESTIONS)
    assert [reply.text for reply in replies] == [prompt for prompt, _ in QUESTIONS] * 2
    assert [len(batch) for batch in watched.batches] == [8, 4, 2, 2, 4, 2, 2, 2, 2, 2, 2]


def test_a_request_too_large_for_the_memory_is_told(spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    Watched(monkeypatch, lambda _: MemoryError())
    [error] = asked(spec, ("?", "k"))
    assert isinstance(error, TeacherError) and not error.retried and "lower max_tokens" in str(error)


def test_weights_that_do_not_load_stop_the_teacher(spec: TeacherSpec, tmp_path: Path) -> None:
    errors = asked(replace(spec, weights=str(tmp_path)), *QUESTIONS[:2])
    assert all(isinstance(error, TeacherError) and error.kind == "model" and error.fatal for error in errors)


def test_weights_that_changed_stop_the_teacher(spec: TeacherSpec) -> None:
    [error] = asked(replace(spec, model="my-student@0123456789ab"), ("?", "k"))
    assert isinstance(error, TeacherError) and error.fatal and "changed since" in str(error)


def test_the_model_is_loaded_once_and_at_the_first_question(
    spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxr_max.student import model

    opened: list[str] = []
    real = model.open_student

    def counted(name: str) -> Any:
        opened.append(name)
        return real(name)

    monkeypatch.setattr(model, "open_student", counted)

    async def run() -> None:
        teacher = StudentTeacher(spec)
        assert opened == []
        for _ in range(2):
            await teacher.ask([jpeg()], "?", "k")
        await teacher.close()
        assert teacher._student is None

    asyncio.run(run())
    assert opened == [spec.weights]


def test_closing_gives_up_the_batch_on_its_way(spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is told, and every asker hears of it."""
    begun, told = threading.Event(), threading.Event()

    def endless(student: Any, requests: Sequence[Request], *, cancelled: Callable[[], bool]) -> list[Generated]:
        begun.set()
        while not cancelled():
            threading.Event().wait(0.001)
        told.set()
        return [Generated("", "length", 1, 1) for _ in requests]

    monkeypatch.setattr(generation, "generate", endless)

    async def run() -> list[Any]:
        teacher = StudentTeacher(replace(spec, concurrency=1))
        asks = [asyncio.create_task(teacher.ask([jpeg()], "?", key)) for key in "ab"]
        await asyncio.to_thread(begun.wait)
        await teacher.close()
        return await asyncio.gather(*asks, return_exceptions=True)

    assert all(isinstance(one, asyncio.CancelledError) for one in asyncio.run(run()))
    assert told.wait(10)


# The scores of a reply's findings

STRUCTURED = "Finish with the word ANSWER. "
REPLY = "It is bright.\nANSWER\nEdema: present"


def answering(monkeypatch: pytest.MonkeyPatch, *texts: str) -> list[int]:
    """Let the student reply with these texts, in the order of its questions; the sizes of the batches."""
    sizes: list[int] = []

    def generate(student: Any, requests: Sequence[Request], **_: Any) -> list[Generated]:
        done = sum(sizes)
        sizes.append(len(requests))
        return [Generated(texts[(done + row) % len(texts)], "stop", 1, 1) for row in range(len(requests))]

    monkeypatch.setattr(generation, "generate", generate)
    return sizes


def test_a_structured_answer_comes_with_the_scores_of_its_findings(
    spec: TeacherSpec, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxr_max.student.finding_scores import finding_scores
    from cxr_max.student.model import open_student

    answering(monkeypatch, REPLY)
    [reply] = asked(spec, (STRUCTURED, "k"))
    request = Request((jpeg(),), STRUCTURED, None, None, 8, None)
    [expected] = finding_scores(open_student(str(folder)), [request], [REPLY])
    assert json.loads(reply.raw) == {"finding_scores": expected}
    assert tuple(json.loads(reply.raw)["finding_scores"]) == FINDINGS and reply.text == REPLY


def test_scores_are_the_same_bits_alone_and_in_a_batch(spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, REPLY)
    questions = [(STRUCTURED + prompt, key) for prompt, key in QUESTIONS]
    together = [reply.raw for reply in asked(spec, *questions)]
    assert together == [asked(spec, question)[0].raw for question in questions]
    assert len(set(together)) == len(questions)


def test_nothing_is_scored_where_no_structured_answer_was_asked_for(
    spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, REPLY)
    plain, structured = asked(spec, ("Describe.", "k"), (STRUCTURED, "l"))
    assert plain.raw == "" and structured.raw


def test_a_reply_without_a_heading_says_why_it_has_no_scores(
    spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, "It is bright.")
    [reply] = asked(spec, (STRUCTURED, "k"))
    assert json.loads(reply.raw) == {"finding_scores": None, "reason": "The reply has no ANSWER heading."}


@pytest.mark.parametrize("error", [ValueError("odd"), MemoryError("full")])
def test_a_reply_that_cannot_be_scored_is_kept_and_so_are_its_neighbours(
    spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from cxr_max.student import finding_scores as module

    sizes = answering(monkeypatch, REPLY)
    real = module.finding_scores

    def failing(student: Any, requests: Sequence[Request], texts: Sequence[str]) -> Any:
        if requests[0].prompt.endswith("2"):
            raise error
        return real(student, requests, texts)

    monkeypatch.setattr(module, "finding_scores", failing)
    replies = asked(spec, *[(STRUCTURED + prompt, key) for prompt, key in QUESTIONS])
    assert [reply.text for reply in replies] == [REPLY] * 8 and sizes == [8]
    bodies = [json.loads(reply.raw) for reply in replies]
    assert bodies[2] == {"finding_scores": None, "reason": f"{type(error).__name__}: {error}"}
    assert all(set(body["finding_scores"]) == set(FINDINGS) for n, body in enumerate(bodies) if n != 2)


def test_a_closed_teacher_scores_nothing_more(spec: TeacherSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    from cxr_max.student import finding_scores as module

    teacher, scored = StudentTeacher(spec), []
    answering(monkeypatch, REPLY)

    def closing(student: Any, requests: Sequence[Request], texts: Sequence[str]) -> list[None]:
        scored.append(requests[0].prompt)
        teacher._closed.set()
        return [None]

    monkeypatch.setattr(module, "finding_scores", closing)
    requests = [Request((jpeg(),), STRUCTURED + prompt, None, None, 8, None) for prompt, _ in QUESTIONS]
    replies = teacher._answers(requests)
    assert scored == [STRUCTURED + "0"]
    assert [bool(reply.raw) for reply in replies if isinstance(reply, Reply)] == [True, *[False] * 7]


@pytest.mark.parametrize("seed", [None, 7])
def test_the_key_and_the_seed_draw_the_reply(spec: TeacherSpec, seed: int | None) -> None:
    drawing = replace(spec, sampling=Sampling(temperature=1.0, max_tokens=12, seed=seed))
    first, again, other = asked(drawing, ("?", "k"), ("?", "k"), ("?", "l"))
    assert first.text == again.text != other.text
    assert asked(drawing, ("?", "k"))[0].text == first.text
    reseeded = replace(drawing, sampling=Sampling(temperature=1.0, max_tokens=12, seed=8))
    assert asked(reseeded, ("?", "k"))[0].text != first.text


# The main job


class Quiet:
    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_a_build_asks_a_student_and_keeps_its_place_secret(folder: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    mine = own_roster(tmp_path / "r.toml", folder, "sampling = { temperature = 1, max_tokens = 6 }\n")
    out = tmp_path / "out"
    request = BuildRequest(source="phantom", teachers="mine", out=out, studies=2, samples=2, roster=mine)
    result = build(request, Quiet())  # type: ignore[arg-type]
    assert (result.trajectories, result.requests_sent, result.complete, result.cost_usd) == (4, 4, True, 0.0)
    rows = [row for path in sorted((out / "release").rglob("*trajectories*/*.parquet")) for row in
            pq.read_table(path).to_pylist()]  # fmt: skip
    assert len(rows) == 4 and len({row["text"] for row in rows}) == 4
    assert {row["model"] for row in rows} == {roster.student_spec(folder).model}
    assert {row["model_reported"] for row in rows} == {fingerprint(str(folder))}
    assert {row["provider"] for row in rows} == {"student"}
    for path in (out / "release").rglob("*"):
        assert path.is_dir() or b"secret-place" not in path.read_bytes(), path
    for row in rows:
        assert "secret-place" not in repr(row)
    again = build(replace(request, studies=3), Quiet())  # type: ignore[arg-type]
    assert (again.requests_sent, again.replies_reused, again.trajectories) == (2, 4, 6)


def test_a_build_of_a_student_that_fails_keeps_no_row(folder: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    mine = own_roster(tmp_path / "r.toml", broken)
    out = tmp_path / "out"
    result = build(BuildRequest(source="phantom", teachers="mine", out=out, studies=2, roster=mine), Quiet())  # type: ignore[arg-type]
    assert (result.trajectories, result.failed) == (0, 2)
    with Ledger(out / "ledger.sqlite") as ledger:
        assert ledger.answered() == set()
