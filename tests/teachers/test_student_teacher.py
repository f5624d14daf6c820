"""A student answers like any other teacher: batched, the same each time, and no path of it is published."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from cxr_max.builders.build import BuildRequest, build  # noqa: E402
from cxr_max.cli.progress import ConsoleWatch  # noqa: E402
from cxr_max.errors import RequestError  # noqa: E402
from cxr_max.records import Reply  # noqa: E402
from cxr_max.schemas import read_trajectories  # noqa: E402
from cxr_max.student.generation import Generated, Request, _Gumbel, generate  # noqa: E402
from cxr_max.student.model import open_student  # noqa: E402
from cxr_max.teachers import roster  # noqa: E402
from cxr_max.teachers.base import TeacherError  # noqa: E402
from cxr_max.teachers.student import StudentTeacher  # noqa: E402
from tests.student.lessons import base, write_lessons  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(base(tmp_path_factory.mktemp("student") / "small"))


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    lessons = write_lessons(tmp_path_factory.mktemp("images"))
    return [lesson.images.encoded()[0].jpeg for lesson in lessons]


def requests(jpegs: list[bytes], **settings: float | int) -> list[Request]:
    """Prompts of different lengths, about one image and about two."""
    asked = [Request((jpegs[i],), "How is the film? " * (i + 1), 16, seed=i) for i in range(3)]
    asked.append(Request((jpegs[0], jpegs[1]), "And these?", 9, seed=3))
    return [replace(request, **settings) for request in asked]  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.8}])
def test_an_answer_does_not_depend_on_its_neighbours(
    folder: Path, jpegs: list[bytes], settings: dict[str, float]
) -> None:
    student, asked = open_student(str(folder)), requests(jpegs, **settings)
    alone = [generate(student, [request])[0] for request in asked]
    assert generate(student, asked) == alone
    assert generate(student, asked[::-1]) == alone[::-1]
    assert all(answer.output_tokens <= request.max_tokens for answer, request in zip(alone, asked, strict=True))


def test_another_seed_is_another_draw_and_greedy_has_none(folder: Path, jpegs: list[bytes]) -> None:
    student = open_student(str(folder))
    sampled = [Request((jpegs[0],), "How?", 16, temperature=1.0, seed=seed) for seed in range(4)]
    assert len({answer.text for answer in generate(student, sampled)}) == 4
    greedy = [replace(request, temperature=0.0) for request in sampled]
    assert len({answer.text for answer in generate(student, greedy)}) == 1


def test_draws_follow_the_softmax() -> None:
    """20,000 draws of four tokens; the standard error of a share is at most .0035."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    asked = [Request((), "", 1, temperature=2.0, seed=seed) for seed in range(20_000)]
    drawn = _Gumbel(asked)(torch.empty(0), logits.expand(len(asked), -1)).argmax(1)
    shares = torch.bincount(drawn, minlength=4) / len(asked)
    assert torch.allclose(shares, (logits / 2).softmax(0), atol=0.015)


def test_top_p_leaves_the_likeliest_tokens_only() -> None:
    """Probabilities .5, .3, .15, .05: the first two reach .7."""
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    asked = [Request((), "", 1, temperature=1.0, top_p=0.7, seed=seed) for seed in range(500)]
    assert set(_Gumbel(asked)(torch.empty(0), logits.expand(500, -1)).argmax(1).tolist()) == {0, 1}


def test_the_teacher_answers_in_batches_and_the_same_each_time(
    folder: Path, jpegs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(student: object, asked: list[Request]) -> list[Generated]:
        sizes.append(len(asked))
        return generate(student, asked)  # type: ignore[arg-type]

    monkeypatch.setattr("cxr_max.student.generation.generate", counted)
    spec = roster.student_spec(folder, max_tokens=12)

    async def ask_all() -> list[Reply]:
        teacher = StudentTeacher(replace(spec, concurrency=4))
        try:
            return await asyncio.gather(*(teacher.ask([jpegs[i]], "How?", f"{i:064x}") for i in range(6)))
        finally:
            await teacher.close()

    first, second = asyncio.run(ask_all()), asyncio.run(ask_all())
    assert first == second
    assert sum(sizes) == 12 and max(sizes) == 4
    assert all(reply.model_reported == spec.model and str(folder) not in str(reply) for reply in first)


def test_what_goes_wrong_in_a_batch_is_told_and_the_next_one_goes_on(folder: Path, jpegs: list[bytes]) -> None:
    async def ask() -> Reply:
        teacher = StudentTeacher(roster.student_spec(folder, max_tokens=4))
        with pytest.raises(TeacherError, match="cannot identify image"):
            await teacher.ask([b"no picture"], "How?", "0" * 64)
        return await teacher.ask([jpegs[0]], "How?", "1" * 64)

    assert asyncio.run(ask()).output_tokens


def test_a_student_in_a_roster_builds_a_release_without_its_path(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "roster.toml"
    table.write_text(f'[mine]\nprovider = "student"\nmodel = "{folder}"\nsampling = {{ max_tokens = 8 }}\n')
    request = BuildRequest(source="phantom", teachers="mine", roster=table, out=tmp_path / "run", studies=2)
    with ConsoleWatch() as watch:
        assert build(request, watch).requests_sent == 2
        assert build(request, watch).requests_sent == 0
    release = tmp_path / "run" / "release"
    rows = [row for split in ("train", "validation", "test") for row in read_trajectories(release, split)]
    assert {row.provider for row in rows} == {"student"} and rows[0].model.startswith("small@")
    assert str(folder) not in (release / "manifest.json").read_text()
    assert str(folder) not in str(rows)


def test_other_weights_are_another_model(folder: Path, tmp_path: Path) -> None:
    from cxr_max.student.tiny import write_tiny
    from tests.student.lessons import SMALL

    write_tiny(tmp_path / "small", seed=2, size=SMALL)
    assert roster.student_spec(folder).model != roster.student_spec(tmp_path / "small").model


def test_a_folder_without_a_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError):
        roster.student_spec(tmp_path / "nowhere")
