"""Stages: in order, once, and on from where they were; and what the arms learn from."""

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from cxr_max.errors import RequestError
from cxr_max.image_set import ImageSet
from cxr_max.lab import schedule
from cxr_max.lab import stages as lab_stages
from cxr_max.lab.plan import stages, students
from cxr_max.lab.schedule import Progress, StageFailed, marker, run_lab
from cxr_max.lab.settings import PRESETS, RECIPE, read_settings, settings
from cxr_max.lab.stages import ANCHOR, deranged, of_one, preferring, suite_text, taught
from cxr_max.student.data import Lesson
from cxr_max.student.settings import read_recipe

MINIATURE = PRESETS["miniature"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_LOOK_EVERY_S", 0.001)


class Started:
    """Stages that end at once; those named in ``bad`` fail."""

    def __init__(self, *bad: str) -> None:
        self.names: list[str] = []
        self._bad = bad

    def __call__(self, out: Path, name: str) -> "subprocess.Popen[str]":
        self.names.append(name)
        return subprocess.Popen(["false" if name in self._bad else "true"], text=True)


def nobody(_: Progress) -> None:
    pass


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("base", ["tiny", "other/model"])
def test_every_stage_comes_after_those_that_it_needs(preset: str, base: str) -> None:
    planned = stages(settings(preset, base=base))
    names = [stage.name for stage in planned]
    assert len(set(names)) == len(names)
    for number, stage in enumerate(planned):
        assert set(stage.needs) <= set(names[:number]), stage.name
    assert any(name.startswith("school") for name in names) == (base == "tiny")


def test_the_paper_has_every_arm_of_every_seed() -> None:
    paper = settings("paper")
    names = {stage.name for stage in stages(paper)}
    assert all(f"eval:{arm}:{seed}" in names for arm in students(paper) for seed in range(5))
    assert {"noise-apo", "apo-shuffled", "poisoned-apo", "three-apo", "correlated-apo", "strong-anchor"} <= set(
        students(paper)
    )


def test_all_stages_run_once_and_none_again(tmp_path: Path) -> None:
    first, again = Started(), Started()
    run_lab(tmp_path, MINIATURE, nobody, 3, first)
    run_lab(tmp_path, MINIATURE, nobody, 3, again)
    assert sorted(first.names) == sorted(stage.name for stage in stages(MINIATURE))
    assert again.names == []


def test_a_lab_goes_on_after_a_stage_that_failed(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="consensus:train:0"):
        run_lab(tmp_path, MINIATURE, nobody, 1, Started("consensus:train:0"))
    done = [stage for stage in stages(MINIATURE) if marker(tmp_path, stage).exists()]
    rest = Started()
    run_lab(tmp_path, MINIATURE, nobody, 1, rest)
    assert done and sorted([*rest.names, *(stage.name for stage in done)]) == sorted(
        stage.name for stage in stages(MINIATURE)
    )


def test_a_stop_ends_what_runs_and_marks_nothing(tmp_path: Path) -> None:
    running: list[subprocess.Popen[str]] = []

    def start(out: Path, name: str) -> "subprocess.Popen[str]":
        running.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], text=True))
        return running[-1]

    def stop(now: Progress) -> None:
        if now.running:
            raise KeyboardInterrupt

    with pytest.raises(schedule.Interrupted):
        run_lab(tmp_path, MINIATURE, stop, 2, start)
    assert running and all(process.poll() is not None for process in running)
    assert not (tmp_path / "done").exists()


def test_the_seconds_of_a_stage_are_those_of_all_its_starts(tmp_path: Path) -> None:
    def slow(out: Path, name: str) -> "subprocess.Popen[str]":
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], text=True)

    def stop(now: Progress) -> None:
        time.sleep(0.4)
        raise KeyboardInterrupt

    with pytest.raises(schedule.Interrupted):
        run_lab(tmp_path, MINIATURE, stop, 1, slow)
    run_lab(tmp_path, MINIATURE, nobody, 1, Started())
    first, second = stages(MINIATURE)[:2]
    assert schedule.seconds(tmp_path, first) >= 0.4 > schedule.seconds(tmp_path, second)


def test_a_stage_can_be_stopped_in_a_lab_that_runs_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heeded: list[object] = []
    monkeypatch.setattr(lab_stages, "run", lambda *_: heeded.append(signal.getsignal(signal.SIGINT)))
    monkeypatch.setattr(lab_stages.threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    (tmp_path / "lab.json").write_text(json.dumps(MINIATURE.as_json()))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        lab_stages.main([str(tmp_path), "build:test:0"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert heeded == [signal.default_int_handler]


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    run_lab(tmp_path, MINIATURE, nobody, 3, Started())
    with pytest.raises(RequestError, match="other settings"):
        run_lab(tmp_path, replace(MINIATURE, train=9), nobody, 3, Started())
    assert read_settings(json.loads((tmp_path / "lab.json").read_text())) == MINIATURE


def test_a_lab_goes_on_with_more_seeds(tmp_path: Path) -> None:
    run_lab(tmp_path, MINIATURE, nobody, 3, Started())
    more = Started()
    run_lab(tmp_path, replace(MINIATURE, seeds=2), nobody, 3, more)
    assert more.names and all(name.endswith(":1") for name in more.names)


def test_a_lab_goes_on_with_more_ablations_and_not_with_fewer(tmp_path: Path) -> None:
    run_lab(tmp_path, MINIATURE, nobody, 3, Started())
    more = Started()
    run_lab(tmp_path, replace(MINIATURE, ablations=("self-trained",)), nobody, 1, more)
    assert more.names == [f"{what}:self-trained:0" for what in ("build", "train", "eval")]
    with pytest.raises(RequestError, match="other settings"):
        run_lab(tmp_path, MINIATURE, nobody, 3, Started())


def test_the_time_left_shrinks_with_the_stages(tmp_path: Path) -> None:
    seen: list[Progress] = []
    run_lab(tmp_path, MINIATURE, seen.append, 1, Started())
    assert seen[0].left_s is None and seen[-1].left_s == 0 and seen[-1].done == seen[-1].total


def lessons(count: int = 5) -> list[Lesson]:
    images = ImageSet((Path("a.png"),), ("0" * 64,), "as_is-1@1024")
    return [
        Lesson(
            str(n), images, "?", (f"right {n}", f"same {n}", f"wrong {n}"), ("consensus", "a", "b"),
            (True, True, False),
        )
        for n in range(count)
    ]  # fmt: skip


def test_dpo_has_one_negative_which_disagrees() -> None:
    for lesson in taught("dpo", lessons(), 0):
        assert (lesson.replies[1:], lesson.teachers[1:], lesson.agreeing) == (
            (f"wrong {lesson.study_id}",), ("b",), (True, False),
        )  # fmt: skip


def test_without_an_anchor_the_learning_rate_is_the_papers_share_of_sfts() -> None:
    paper = read_recipe("paper")
    assert preferring("apo", paper).apo.learning_rate == pytest.approx(paper.apo.learning_rate)
    assert preferring("dpo", paper).apo.anchor == preferring("apo", paper).apo.anchor == 0
    anchored = preferring("noise-apo", read_recipe(str(RECIPE)))
    assert (anchored.apo.anchor, anchored.apo.learning_rate) == (ANCHOR, 2e-4)


def test_one_teacher_is_heard_alone() -> None:
    mixed = lessons()
    without = replace(mixed[0], study_id="silent", replies=("a",), teachers=("b",))
    heard = of_one([*mixed, without], "a")
    assert [lesson.study_id for lesson in heard] == [lesson.study_id for lesson in mixed]
    assert all(lesson.replies == (f"same {lesson.study_id}",) and lesson.teachers == ("a",) for lesson in heard)


def test_a_shuffled_consensus_is_always_another_studys() -> None:
    made = taught("apo-shuffled", lessons(), 0)
    assert all(lesson.replies[0] != f"right {lesson.study_id}" for lesson in made)
    assert sorted(lesson.replies[0] for lesson in made) == [f"right {n}" for n in range(5)]
    # What agreed with the own consensus need not agree with another's.
    assert all(lesson.agreeing == (True, False, False) for lesson in made)


def test_other_arms_learn_from_the_preferences_as_they_are() -> None:
    assert taught("apo-anchor", lessons(), 0) == lessons()


@pytest.mark.parametrize("count", [2, 3, 10])
def test_nobody_keeps_its_place(count: int) -> None:
    order = deranged(count, random.Random(1))
    assert sorted(order) == list(range(count)) and all(n != other for n, other in enumerate(order))


def test_tuning_never_looks_at_the_test_split() -> None:
    assert 'split = "validation"' in suite_text("tune", 4, True)
    assert 'split = "test"' in suite_text("shifted", 4, True)


def test_the_base_learns_to_write_from_texts_of_other_pictures() -> None:
    from cxr_max.lab.school import _writing

    made = _writing(lessons(40), ["one", "two"])
    assert {lesson.replies for lesson in made} == {("one",), ("two",)}
    assert made == _writing(lessons(40), ["one", "two"])
    assert all("ANSWER" in lesson.prompt for lesson in made)


def test_another_recipe_needs_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_lab(tmp_path, MINIATURE, nobody, 3, Started())
    other = tmp_path / "other.toml"
    other.write_text("[sft]")
    monkeypatch.setattr(schedule, "RECIPE", other)
    with pytest.raises(RequestError, match="other settings"):
        run_lab(tmp_path, MINIATURE, nobody, 3, Started())
