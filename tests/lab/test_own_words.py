"""What the student says itself, against what its teachers say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from cxr_max.builders.build import BuildRequest, build
from cxr_max.builders.consensus import fill
from cxr_max.builders.lessons import apo_lessons
from cxr_max.builders.pixels import open_pixels
from cxr_max.errors import RequestError
from cxr_max.lab.own_words import in_own_words, own_preferences
from cxr_max.schemas import read_trajectories
from tests.builders.test_build import Quiet
from tests.builders.test_consensus import said


def test_the_students_answer_is_preferred_and_the_vote_is_not_asked() -> None:
    teachers = [said("a", Edema=1), said("b", Edema=1), said("c", Edema=0)]
    (found,) = own_preferences([teachers], {"s1": said("student", Edema=0)})
    assert (found.chosen, found.rejected) == ("student writes", ("a writes", "b writes", "c writes"))
    assert found.agreeing == (False, False, True)
    assert found.conflicts == (1.0, 1.0, 0.0)


def test_texts_like_the_students_and_refusals_are_no_negatives() -> None:
    teachers = [said("a", "the same", Edema=1), said("b", status="refused"), said("c", Edema=0)]
    (found,) = own_preferences([teachers], {"s1": said("student", "the same", Edema=1)})
    assert found.rejected_teachers == ("c",)


def test_without_an_answer_or_another_text_nothing_is_preferred() -> None:
    teachers = [said("a", "the same", Edema=1)]
    assert list(own_preferences([teachers], {})) == []
    assert list(own_preferences([teachers], {"s1": said("student", "the same", Edema=1)})) == []


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Three teachers, and a fourth in the student's place, about the same pictures."""
    folder = tmp_path_factory.mktemp("own")
    common: dict[str, Any] = {"prompt": "diagnose_five", "studies": 12}
    for name, teachers in (("all", "sim-grok-4,sim-glm-4.5v,sim-gpt-5-nano"), ("own", "sim-moonshot-v1")):
        build(BuildRequest("phantom:3,112px,25%,train", teachers, folder / name, **common), Quiet())
    fill(folder / "all" / "release")
    return folder / "all" / "release", folder / "own" / "release"


def test_lessons_keep_picture_and_question_and_change_what_is_preferred(releases: tuple[Path, Path]) -> None:
    teachers, own = releases
    before = {lesson.study_id: lesson for lesson in apo_lessons(teachers, open_pixels(teachers))}
    texts = {answer.study_id: answer.text for answer in read_trajectories(own, "train") if answer.status == "ok"}
    made = in_own_words(list(before.values()), teachers, own)
    assert len(made) > 6
    for lesson in made:
        was = before[lesson.study_id]
        assert lesson.replies[0] == texts[lesson.study_id] != was.replies[0]
        assert len(lesson.agreeing) == len(lesson.replies) == len(lesson.teachers)
        assert replace(lesson, replies=was.replies, teachers=was.teachers, agreeing=was.agreeing) == was


def test_a_student_without_a_readable_answer_has_nothing_to_prefer(releases: tuple[Path, Path]) -> None:
    teachers, own = releases
    with pytest.raises(RequestError, match="nothing to prefer"):
        in_own_words([], teachers, own)
