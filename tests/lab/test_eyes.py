"""The eyes are those of the real tower, and what teaches them names no finding."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

import torch

from cxr_max.builders.sources.phantom import ASKED
from cxr_max.lab.eyes import SIGNS, STUDENT, TOWER, Stills, eyes, learn_to_see, pictures
from cxr_max.lab.school import CODES
from cxr_max.student.tiny import tiny_image_processor, tiny_model, tiny_tokenizer


def nobody(*_: object) -> None:
    pass


def test_pictures_are_those_of_the_image_processor_and_come_again_the_same() -> None:
    processor = tiny_image_processor()
    one, again = (pictures("seen", 3, processor, nobody) for _ in range(2))
    assert one.patches.equal(again.patches) and one.signs.equal(again.signs)
    assert one.grid.tolist() == [1, 8, 8]
    assert one.signs.shape == (3, len(SIGNS))


def test_a_still_is_seen_as_a_video_of_two_equal_frames() -> None:
    visual = tiny_model(tiny_tokenizer(), size=STUDENT).model.visual
    data = pictures("seen", 4, tiny_image_processor(), nobody)
    frames = data.patches.float().unsqueeze(3).expand(-1, -1, -1, 2, -1, -1)
    video = frames.flatten(0, 1).flatten(1)
    grid = data.grid.expand(4, 3)
    expected = visual(video, grid_thw=grid).pooler_output
    visual.patch_embed = Stills(visual.patch_embed.proj)
    seen = visual(data.values(range(4)), grid_thw=grid).pooler_output
    assert torch.allclose(seen, expected, atol=1e-5)


def test_what_is_seen_is_told_of_every_sign_and_the_tower_is_whole_again() -> None:
    visual = tiny_model(tiny_tokenizer(), size=STUDENT).model.visual
    before, layer = {name: value.clone() for name, value in visual.state_dict().items()}, visual.patch_embed
    seen = learn_to_see(visual, tiny_image_processor(), 40, nobody)
    assert list(seen) == list(SIGNS)
    assert visual.patch_embed is layer and visual.state_dict().keys() == before.keys()
    assert not visual.state_dict()["patch_embed.proj.weight"].equal(before["patch_embed.proj.weight"])


def test_eyes_can_be_put_into_another_student(tmp_path: Path) -> None:
    eyes(tmp_path, 33, nobody)
    other = tiny_model(tiny_tokenizer(["other words"]), seed=5, size=STUDENT).model.visual
    other.load_state_dict(torch.load(tmp_path / TOWER, weights_only=True))
    assert (tmp_path / "seen.json").is_file()


def test_neither_the_name_nor_the_place_of_a_code_tells_a_finding() -> None:
    assert set(CODES) == set(SIGNS)
    assert all(place != list(CODES).index(name) for place, name in enumerate(ASKED))
    assert not any(code in name.lower() or name.lower() in code for name, code in CODES.items())
