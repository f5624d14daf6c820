"""Training: same seed, same bits; interruptions without a trace; one sentence when something is wrong."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from PIL import Image
from safetensors.torch import load_file

from cxr_max.errors import ImageError, RequestError, StorageError
from cxr_max.student import checkpoints, training
from cxr_max.student.apo import apo_loss
from cxr_max.student.critique import train_apo, weights_of
from cxr_max.student.data import Lesson, sft_turns
from cxr_max.student.model import open_student
from cxr_max.student.settings import read_recipe
from cxr_max.student.sft import train_sft
from tests.student.lessons import TEACHERS, base, recipe, write_lessons


def quiet(what: str, done: int, total: int) -> None:
    pass


def weights(checkpoint: str) -> dict[str, torch.Tensor]:
    found = sorted(Path(checkpoint).glob("*.safetensors"))
    assert len(found) == 1
    return load_file(found[0])


def equal(one: str, other: str) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def history(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


class Stopped(BaseException):
    """What a kill looks like from within."""


def stop_at(step: int) -> Any:
    def watch(what: str, done: int, total: int) -> None:
        if what == "Training" and done == step:
            raise Stopped

    return watch


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "adapter"])
def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(tmp_path: Path, lora: bool) -> None:
    lessons, model = write_lessons(tmp_path / "images"), base(tmp_path / "base")
    runs = [
        train_sft(model, lessons, recipe(sft={"seed": seed}, lora=lora), tmp_path / name, data="d", watch=quiet)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert equal(runs[0].checkpoint, runs[1].checkpoint)
    assert not equal(runs[0].checkpoint, runs[2].checkpoint)
    assert runs[0].steps == 9


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "adapter"])
def test_the_card_names_data_and_settings_and_no_path(tmp_path: Path, lora: bool) -> None:
    lessons, model = write_lessons(tmp_path / "images"), base(tmp_path / "base")
    done = train_sft(model, lessons, recipe(lora=lora), tmp_path / "o", data="digest-of-data", watch=quiet)
    text = (Path(done.checkpoint) / "README.md").read_text()
    assert "digest-of-data" in text and '"learning_rate": 0.003' in text and "| loss |" in text
    assert str(tmp_path) not in text


def test_merged_weights_say_what_base_and_adapter_say(tmp_path: Path) -> None:
    lessons, model = write_lessons(tmp_path / "images"), base(tmp_path / "base")
    tokens = torch.arange(20)[None]
    said = []
    for name, merged in (("adapter", False), ("merged", True)):
        done = train_sft(model, lessons, recipe(lora=True), tmp_path / name, data="d", watch=quiet, merged=merged)
        with torch.no_grad():
            said.append(open_student(done.checkpoint).model(input_ids=tokens).logits)
        assert (Path(done.checkpoint) / "adapter_config.json").exists() is not merged
    assert torch.allclose(*said, atol=1e-5)
    with torch.no_grad():
        assert not torch.allclose(open_student(model).model(input_ids=tokens).logits, said[0], atol=1e-3)


def test_a_student_is_served_at_the_size_it_was_trained_on(tmp_path: Path) -> None:
    lessons, model = write_lessons(tmp_path / "images"), base(tmp_path / "base")
    done = train_sft(model, lessons, recipe(), tmp_path / "o", data="d", watch=quiet)
    large = Image.new("L", (336, 336), 90)
    trained = open_student(model, max_pixels=84 * 84).chat.prompt([large], "How?")
    assert torch.equal(open_student(done.checkpoint).chat.prompt([large], "How?").input_ids, trained.input_ids)
    assert len(open_student(model).chat.prompt([large], "How?").input_ids) > len(trained.input_ids)


def test_sft_learns(tmp_path: Path) -> None:
    lessons = write_lessons(tmp_path / "images")
    train_sft(base(tmp_path / "base"), lessons, recipe(sft={"epochs": 12}), tmp_path / "o", data="d", watch=quiet)
    losses = [entry["loss"] for entry in history(tmp_path / "o")]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "adapter"])
@pytest.mark.parametrize("step", [1, 5])
@pytest.mark.parametrize("stage", ["sft", "apo"])
def test_a_stopped_training_goes_on_to_the_bits_of_an_undisturbed_one(
    tmp_path: Path, step: int, stage: str, lora: bool
) -> None:
    train = train_sft if stage == "sft" else train_apo
    lessons = write_lessons(tmp_path / "images", preferences=stage == "apo")
    model = base(tmp_path / "base")
    whole = train(model, lessons, recipe(lora=lora), tmp_path / "whole", data="d", watch=quiet)
    with pytest.raises(Stopped):
        train(model, lessons, recipe(lora=lora), tmp_path / "cut", data="d", watch=stop_at(step))
    resumed = train(model, lessons, recipe(lora=lora), tmp_path / "cut", data="d", watch=quiet)
    assert equal(whole.checkpoint, resumed.checkpoint)
    assert [e["loss"] for e in history(tmp_path / "whole")] == [e["loss"] for e in history(tmp_path / "cut")]


def test_a_half_written_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    for step, whole in ((2, True), (4, True), (6, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            (folder / checkpoints.WHOLE).touch()
    assert checkpoints.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    assert not (tmp_path / "checkpoint-6").exists()


def test_a_full_disk_is_one_sentence_and_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons, model = write_lessons(tmp_path / "images"), base(tmp_path / "base")
    saved: list[str] = []
    real = training.StudentTrainer._save_optimizer_and_scheduler

    def full(self: Any, folder: str) -> None:
        saved.append(folder)
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, folder)

    monkeypatch.setattr(training.StudentTrainer, "_save_optimizer_and_scheduler", full)
    with pytest.raises(StorageError, match=r"No space left.*make room"):
        train_sft(model, lessons, recipe(), tmp_path / "o", data="d", watch=quiet)
    assert checkpoints.last_checkpoint(tmp_path / "o" / "checkpoints") == str(
        tmp_path / "o/checkpoints/checkpoint-2"
    )
    monkeypatch.undo()
    whole = train_sft(model, lessons, recipe(), tmp_path / "whole", data="d", watch=quiet)
    assert equal(
        train_sft(model, lessons, recipe(), tmp_path / "o", data="d", watch=quiet).checkpoint, whole.checkpoint
    )


def test_an_image_that_is_not_what_the_teachers_saw_is_refused(tmp_path: Path) -> None:
    lessons = write_lessons(tmp_path / "images")
    (tmp_path / "images" / "3.png").write_bytes((tmp_path / "images" / "2.png").read_bytes())
    with pytest.raises(ImageError, match=r"3\.png is not the file that the teachers saw"):
        train_sft(base(tmp_path / "base"), lessons, recipe(), tmp_path / "o", data="d", watch=quiet)


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    lessons, model = write_lessons(tmp_path / "images"), base(tmp_path / "base")
    train_sft(model, lessons, recipe(sft={"epochs": 1}), tmp_path / "o", data="d", watch=quiet)
    with pytest.raises(RequestError, match="other settings"):
        train_sft(model, lessons, recipe(sft={"epochs": 2}), tmp_path / "o", data="d", watch=quiet)


def test_a_prompt_that_leaves_no_room_says_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="raise max_length"):
        train_sft(
            base(tmp_path / "base"), write_lessons(tmp_path / "images"), recipe(sft={"max_length": 10}),
            tmp_path / "o", data="d", watch=quiet,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["nowhere", "another family"])
def test_a_model_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    if name == "another family":
        (folder / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(RequestError):
        open_student(str(folder))


def test_the_anchor_divides_out_and_the_first_step_has_no_margin(tmp_path: Path) -> None:
    """At the reference all rewards are 0: the loss is log(1 + negatives heard), and the shift 0."""
    lessons = write_lessons(tmp_path / "images", preferences=True)
    settings = recipe(apo={"epochs": 1, "images_per_step": 6, "agreeing": "keep"})
    train_apo(base(tmp_path / "base"), lessons, settings, tmp_path / "o", data="d", watch=quiet)
    first = history(tmp_path / "o")[0]
    assert first["loss"] == pytest.approx(torch.tensor(4.0).log().item(), abs=1e-4)
    assert first["chosen_logp_shift"] == pytest.approx(0, abs=1e-4)


def test_displacement_is_warned_of_and_stopped_and_the_anchor_prevents_it(tmp_path: Path) -> None:
    """Without an anchor and with a large step the preferred reply itself becomes unlikely."""
    lessons, model = write_lessons(tmp_path / "images", preferences=True), base(tmp_path / "base")
    learn = recipe(sft={"epochs": 10})
    sft = train_sft(model, write_lessons(tmp_path / "images"), learn, tmp_path / "s", data="d", watch=quiet)
    fast = {"learning_rate": 3e-2, "epochs": 8, "beta": 1.0, "agreeing": "keep"}

    def run(name: str, **more: object) -> Any:
        return train_apo(
            sft.checkpoint, lessons, recipe(apo={**fast, **more}), tmp_path / name, data="d", watch=quiet
        )

    free, stopped, held = run("free"), run("stopped", stop_below=1.0), run("held", anchor=20.0)
    assert "likelihood displacement" in free.warnings[0]
    assert free.metrics["chosen_logp_shift"] < -1
    assert stopped.steps < free.steps and "Stopped at step" in stopped.warnings[0]
    assert held.metrics["chosen_logp_shift"] > -1 and not held.warnings


def test_references_are_computed_once_and_found_again(tmp_path: Path) -> None:
    lessons, model = write_lessons(tmp_path / "images", preferences=True), base(tmp_path / "base")
    with pytest.raises(Stopped):
        train_apo(model, lessons, recipe(), tmp_path / "o", data="d", watch=stop_at(1))
    told: list[str] = []
    train_apo(model, lessons, recipe(), tmp_path / "o", data="d", watch=lambda what, *_: told.append(what))
    assert "Reference" not in told


def test_agreeing_negatives_are_left_out_and_teachers_weighed() -> None:
    lesson = Lesson("s", None, "p", ("+", "a", "b", "c"), ("consensus", *TEACHERS), (True, False, True, False))  # type: ignore[arg-type]
    apo = recipe(apo={"teacher_weights": {"cyd": 0.5}}).apo
    assert weights_of(lesson, apo) == [1, 1, 0, 0.5]
    assert weights_of(lesson, apo.model_copy(update={"agreeing": "keep"})) == [1, 1, 1, 0.5]


def test_draws_are_all_replies_once_where_teachers_wrote_equally_many(tmp_path: Path) -> None:
    lessons = write_lessons(tmp_path)
    turns = sft_turns(lessons, smoothing=0.5, epochs=2, seed=0)
    assert Counter(turn.lesson for turn in turns) == dict.fromkeys(range(6), 2)
    assert all(turn.replies == (0, 1, 2) for turn in turns)


def test_smoothing_draws_a_rare_teacher_as_often_as_its_formula_says() -> None:
    """Two teachers with 900 and 100 replies, s = 0.5: the shares are .5 x .9 + .25 = .7 and .3."""
    lessons = [
        Lesson(str(i), None, "p", ("x", "y") if i < 100 else ("x",), ("often", "rare") if i < 100 else ("often",))  # type: ignore[arg-type]
        for i in range(900)
    ]
    turns = sft_turns(lessons, smoothing=0.5, epochs=20, seed=1)
    drawn = Counter(lessons[turn.lesson].teachers[reply] for turn in turns for reply in turn.replies)
    assert drawn["rare"] / drawn.total() == pytest.approx(0.3, abs=0.01)
    assert drawn.total() == pytest.approx(20_000, rel=0.02)


def test_shipped_recipes_are_the_papers_and_a_small_one() -> None:
    paper = read_recipe("paper")
    assert (paper.model.lora.rank, paper.model.lora.alpha) == (8, 32) if paper.model.lora else False
    assert (paper.sft.learning_rate, paper.apo.learning_rate, paper.apo.images_per_step) == (1e-4, 5e-7, 32)
    assert read_recipe("tiny").model.lora is None


def test_a_wrong_recipe_names_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[model]\n[sft]\nlearning_rate = -1\nmax_length = 9\nimages_per_step = 1\n[apo]\n")
    with pytest.raises(RequestError, match=r"sft\.learning_rate"):
        read_recipe(str(path))


def test_a_hundred_steps_of_the_papers_preferences_keep_the_preferred_reply(tmp_path: Path) -> None:
    """At a learning rate of 5e-7 the preferred log-prob never falls a nat below the reference."""
    lessons = write_lessons(tmp_path / "images", preferences=True)
    settings = recipe(apo={"learning_rate": 5e-7, "epochs": 34, "agreeing": "keep", "save_every": 200}, lora=True)
    train_apo(base(tmp_path / "base"), lessons, settings, tmp_path / "o", data="d", watch=quiet)
    logged = history(tmp_path / "o")
    assert len(logged) >= 100
    assert min(entry["chosen_logp_shift"] for entry in logged) > -1


def test_the_loss_of_the_module_is_the_one_that_scripts_hold() -> None:
    logps = torch.zeros(1, 3)
    assert apo_loss(logps, logps, 0.1).item() == pytest.approx(torch.tensor(3.0).log().item())


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_no_trace(tmp_path: Path) -> None:
    lessons, model = write_lessons(tmp_path / "images"), base(tmp_path / "base")
    settings = recipe(sft={"epochs": 20})
    whole = train_sft(model, lessons, settings, tmp_path / "whole", data="d", watch=quiet)
    child = (
        "import pickle, sys, torch; torch.set_num_threads(1);"
        "from cxr_max.student.sft import train_sft; a = pickle.load(open(sys.argv[1], 'rb'));"
        "train_sft(*a, data='d', watch=lambda what, done, total: print(done, flush=True))"
    )
    (tmp_path / "a.pickle").write_bytes(pickle.dumps((model, lessons, settings, tmp_path / "cut")))
    for step in (7, 23, 41):
        process = subprocess.Popen(
            [sys.executable, "-c", child, str(tmp_path / "a.pickle")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= step:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
    resumed = train_sft(model, lessons, settings, tmp_path / "cut", data="d", watch=quiet)
    assert equal(whole.checkpoint, resumed.checkpoint)


def test_eyes_that_are_not_trained_stay_as_they_were(tmp_path: Path) -> None:
    lessons, start = write_lessons(tmp_path / "films"), base(tmp_path / "base")
    settings = recipe()
    blind = settings.model_copy(update={"model": settings.model.model_copy(update={"vision": False})})
    trained = train_sft(start, lessons, blind, tmp_path / "out", data="d", watch=quiet)
    before, after = weights(start), weights(trained.checkpoint)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if "visual" in name}
