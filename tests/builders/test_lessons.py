"""A release and its images -> what the student learns from."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from cxr_max import prompts
from cxr_max.builders.build import BuildRequest, build
from cxr_max.builders.consensus import fill
from cxr_max.builders.lessons import apo_lessons, sft_lessons
from cxr_max.builders.pixels import open_pixels
from cxr_max.cli.progress import ConsoleWatch
from cxr_max.errors import ImageError, RequestError
from cxr_max.schemas import read_trajectories


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with ConsoleWatch() as watch:
        build(BuildRequest(source="phantom", teachers="simulated", out=folder, studies=5), watch)
    return folder


def test_every_whole_trajectory_of_the_train_split_is_a_reply_and_no_refusal_is(run: Path) -> None:
    release = run / "release"
    lessons = sft_lessons(release, open_pixels(release))
    rows = list(read_trajectories(release, "train"))
    whole = [row for row in rows if row.status == "ok"]
    assert sorted(text for lesson in lessons for text in lesson.replies) == sorted(row.text for row in whole)
    with_refusals = sft_lessons(release, open_pixels(release), refusals=True)
    refused = [row for row in rows if row.status == "refused" and row.text.strip()]
    assert sum(len(lesson.replies) for lesson in with_refusals) == len(whole) + len(refused)
    assert {lesson.prompt for lesson in lessons} == {prompts.load("diagnose").text}


def test_the_images_are_those_that_the_teachers_saw(run: Path) -> None:
    pixels = open_pixels(run / "release")
    for row in read_trajectories(run / "release", "train"):
        assert tuple(image.sha256 for image in pixels.encoded(row)) == row.image_sha256


def test_a_release_alone_draws_its_phantoms_again(run: Path, tmp_path: Path) -> None:
    release = tmp_path / "downloaded"
    shutil.copytree(run / "release", release)
    with pytest.raises(RequestError, match="give --images"):
        open_pixels(release)
    row = next(read_trajectories(release, "train"))
    assert open_pixels(release, "phantom").encoded(row)[0].sha256 == row.image_sha256[0]


def test_another_data_set_is_refused_and_another_copy_named(run: Path, tmp_path: Path) -> None:
    release = run / "release"
    row = next(read_trajectories(release, "train"))
    with pytest.raises(RequestError, match="is of phantom, and --images names"):
        (tmp_path / "x.png").write_bytes((next((run / "phantoms").rglob("*.*"))).read_bytes())
        open_pixels(release, f"folder:{tmp_path}")
    with pytest.raises(ImageError, match=r"not in the copy|not the file"):
        open_pixels(release, "phantom:99").encoded(row)


def test_preferences_need_a_consensus_first(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    release = tmp_path / "run" / "release"
    with pytest.raises(RequestError, match="run cxr-max consensus"):
        apo_lessons(release, open_pixels(release))
    fill(release)
    lessons = apo_lessons(release, open_pixels(release))
    assert all(lesson.teachers[0] == "consensus" and lesson.agreeing[0] for lesson in lessons)
    assert all(len(lesson.replies) == len(lesson.teachers) == len(lesson.agreeing) for lesson in lessons)


def test_too_few_teachers_are_one_sentence(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    release = tmp_path / "run" / "release"
    fill(release)
    with pytest.raises(RequestError, match="use more teachers"):
        apo_lessons(release, open_pixels(release), negatives=99)
