"""What a training tells of its course: curves, trackers, and the replies that were too long."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from PIL import Image

from cxr_max.errors import RequestError
from cxr_max.student import reference, trackers, training
from cxr_max.student.critique import train_apo
from cxr_max.student.curves import PANELS, figure, means_around
from cxr_max.student.model import open_student
from cxr_max.student.settings import log_to
from cxr_max.student.sft import train_sft
from tests.student.lessons import base, recipe, write_lessons


def quiet(what: str, done: int, total: int) -> None:
    pass


def history(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_curves_stand_beside_the_checkpoints_and_in_the_card(tmp_path: Path) -> None:
    lessons, model = write_lessons(tmp_path / "images", preferences=True), base(tmp_path / "base")
    done = train_apo(model, lessons, recipe(), tmp_path / "o", data="d", watch=quiet)
    for folder in (tmp_path / "o", Path(done.checkpoint)):
        with Image.open(folder / "curves.png") as image:
            assert image.format == "PNG" and image.width > 1000
    assert "](curves.png)" in (Path(done.checkpoint) / "README.md").read_text()


def test_curves_are_drawn_while_the_training_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(BaseException):
        pass

    def watch(what: str, done: int, total: int) -> None:
        if done == 5:
            raise Stopped

    monkeypatch.setattr(training, "DRAW_EVERY", 0.0)
    lessons, model = write_lessons(tmp_path / "images"), base(tmp_path / "base")
    with pytest.raises(Stopped):
        train_sft(model, lessons, recipe(), tmp_path / "o", data="d", watch=watch)
    assert [entry["step"] for entry in history(tmp_path / "o")] == [1, 2, 3, 4]
    assert (tmp_path / "o" / "curves.png").stat().st_size > 5000


def test_a_panel_for_what_was_logged_and_a_line_where_learning_turns_to_unlearning() -> None:
    chance = random.Random(0)
    entries = [{"step": step, **{name: chance.random() for name in PANELS}} for step in range(1, 101)]
    drawn = {axes.get_title(loc="left"): axes for axes in figure(entries).axes}
    assert list(drawn) == [title for title, _ in PANELS.values()]
    assert all(axes.get_xlabel() == "step" and axes.get_ylabel() for axes in drawn.values())
    flat = [title for title, axes in drawn.items() if any(set(line.get_ydata()) == {0} for line in axes.lines)]
    assert flat == [PANELS["chosen_logp_shift"][0], PANELS["reward_margin"][0]]
    plain = figure([{"step": 1, "loss": 2.0, "learning_rate": 1e-4}])
    assert [axes.get_title(loc="left") for axes in plain.axes] == ["Loss", "Learning rate"]
    assert figure([]).axes == []


def test_the_mean_around_a_value_is_the_one_by_hand() -> None:
    assert means_around([0, 3, 6, 3], 1) == [1.5, 3, 4, 4.5]
    assert means_around([1, 2], 0) == [1, 2]


def test_tensorboard_holds_what_metrics_hold_and_no_path(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lessons, model = write_lessons(tmp_path / "images"), base(tmp_path / "base")
    train_sft(model, lessons, recipe(), tmp_path / "o", data="d", watch=quiet)
    runs = tmp_path / "o" / "runs"
    events = EventAccumulator(str(runs)).Reload()
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("loss")] == [
        (entry["step"], entry["loss"]) for entry in history(tmp_path / "o")
    ]
    written = b"".join(path.read_bytes() for path in runs.rglob("*") if path.is_file())
    assert b"course/learning_rate" in written and str(tmp_path).encode() not in written


def test_nothing_is_tracked_where_nothing_is_asked_for(tmp_path: Path) -> None:
    lessons, model = write_lessons(tmp_path / "images"), base(tmp_path / "base")
    how = recipe(sft={"epochs": 1}).model_copy(update={"log": log_to("none")})
    train_sft(model, lessons, how, tmp_path / "o", data="d", watch=quiet)
    assert not (tmp_path / "o" / "runs").exists() and len(history(tmp_path / "o")) == 3


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_other_trackers_get_numbers_and_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip(name)  # trackio looks for its folder when it is imported.
    lessons, model = write_lessons(tmp_path / "images"), base(tmp_path / "base")
    how = recipe(sft={"epochs": 1}).model_copy(update={"log": log_to(name)})
    train_sft(model, lessons, how, tmp_path / "o", data="d", watch=quiet)
    kept = [*(tmp_path / "o").glob("wandb/*/*.wandb"), *(tmp_path / "trackio").rglob("*.db*")]
    written = b"".join(path.read_bytes() for path in kept)
    assert b"learning_rate" in written and str(tmp_path).encode() not in written


def test_a_tracker_that_is_missing_or_unknown_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    how = recipe().model_copy(update={"log": log_to("tensorboard, wandb")})
    with pytest.raises(RequestError, match=r"pip install tensorboard, or leave it out of --log\."):
        train_sft("nowhere", [], how, tmp_path / "o", data="d", watch=quiet)
    with pytest.raises(RequestError, match="choose from tensorboard, wandb, trackio, or none"):
        log_to("mlflow")


@pytest.mark.parametrize("stage", ["sft", "apo"])
def test_replies_that_were_cut_are_counted_and_reported(tmp_path: Path, stage: str) -> None:
    """Three of six studies get one reply that is too long by a token; each comes by once an epoch."""
    train = train_sft if stage == "sft" else train_apo
    lessons, model = write_lessons(tmp_path / "images", preferences=stage == "apo"), base(tmp_path / "base")
    chat = open_student(model, max_pixels=84 * 84).chat
    images = [Image.open(lessons[0].images.paths[0])]
    room = len(chat.prompt(images, lessons[0].prompt).input_ids)
    longest = max(len(chat.reply(reply)) for lesson in lessons for reply in lesson.replies)
    long = lessons[0].replies[-1] + " bright" * longest
    assert len(chat.reply(long)) > longest
    longer = [
        type(lesson)(lesson.study_id, lesson.images, lesson.prompt, (*lesson.replies[:-1], long), lesson.teachers,
                     lesson.agreeing)
        if index < 3 else lesson
        for index, lesson in enumerate(lessons)
    ]  # fmt: skip
    how = {"max_length": room + longest, "epochs": 2}
    done = train(model, longer, recipe(sft=how, apo=how), tmp_path / "cut", data="d", watch=quiet)
    replies = 2 * sum(len(lesson.replies) for lesson in lessons)
    (warning,) = (w for w in done.warnings if "cut" in w)
    assert warning.startswith(f"6 of {replies} replies") and f"{room + longest} tokens" in warning
    assert "Raise max_length" in warning
    fits = train(model, lessons, recipe(sft=how, apo=how), tmp_path / "fits", data="d", watch=quiet)
    assert not any("cut" in w for w in fits.warnings)


def test_texts_are_hashed_once_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Any] = []
    real = reference._key
    monkeypatch.setattr(reference, "_key", lambda parts: hashed.append(parts) or real(parts))
    lessons, model = write_lessons(tmp_path / "images", preferences=True), base(tmp_path / "base")
    train_apo(model, lessons, recipe(apo={"epochs": 1}), tmp_path / "o", data="d", watch=quiet)
    assert len(hashed) == len(lessons)


def test_the_last_step_is_logged_whatever_log_every_says(tmp_path: Path) -> None:
    lessons, model = write_lessons(tmp_path / "images"), base(tmp_path / "base")
    train_sft(model, lessons, recipe(sft={"log_every": 4}), tmp_path / "o", data="d", watch=quiet)
    assert [entry["step"] for entry in history(tmp_path / "o")] == [4, 8, 9]
    assert sum(entry["replies"] for entry in history(tmp_path / "o")) == 3 * 18
