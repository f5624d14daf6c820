"""The eyes are those of the real tower, and what teaches them names no finding."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

import torch

from cxr_max.builders.sources.phantom import ASKED
from cxr_max.lab.eyes import SIGNS, STUDENT, eyes, pictures
from cxr_max.lab.school import CODES
from cxr_max.student.eyes import Stills, give_eyes, learn_to_see
from cxr_max.student.model import open_student
from cxr_max.student.tiny import tiny_model, tiny_tokenizer, write_tiny


def nobody(*_: object) -> None:
    pass


def test_pictures_come_again_the_same() -> None:
    (one, signs), (again, same) = (pictures("seen", 3, nobody) for _ in range(2))
    assert one.patches.equal(again.patches) and (signs == same).all()
    assert one.grid.tolist() == [1, 8, 8]
    assert signs.shape == (3, len(SIGNS))


def test_a_still_is_seen_as_a_video_of_two_equal_frames() -> None:
    visual = tiny_model(tiny_tokenizer(), size=STUDENT).model.visual
    data, _ = pictures("seen", 4, nobody)
    frames = data.patches.float().unsqueeze(3).expand(-1, -1, -1, 2, -1, -1)
    grid = data.grid.expand(4, 3)
    expected = visual(frames.flatten(0, 1).flatten(1), grid_thw=grid).pooler_output
    visual.patch_embed = Stills(visual.patch_embed.proj)
    seen = visual(data.values(range(4)), grid_thw=grid).pooler_output
    assert torch.allclose(seen, expected, atol=1e-5)


def test_eyes_learn_what_they_are_shown_and_the_tower_is_whole_again() -> None:
    visual = tiny_model(tiny_tokenizer(), size=STUDENT).model.visual
    layer, names = visual.patch_embed, visual.state_dict().keys()
    data, signs = pictures("seen", 64, nobody)
    said = learn_to_see(visual, data, torch.from_numpy(signs), data, nobody)
    assert said.shape == signs.shape
    chance = torch.nn.functional.binary_cross_entropy_with_logits(torch.zeros_like(said), torch.from_numpy(signs))
    learnt = torch.nn.functional.binary_cross_entropy_with_logits(said, torch.from_numpy(signs))
    assert learnt < chance
    assert visual.patch_embed is layer and visual.state_dict().keys() == names


def test_eyes_can_be_given_to_a_student(tmp_path: Path) -> None:
    eyes(tmp_path / "eyes", 33, nobody)
    assert list(json.loads((tmp_path / "eyes" / "seen.json").read_text())) == sorted(SIGNS)
    write_tiny(tmp_path / "student", seed=5, texts=["other words"], size=STUDENT)
    before = open_student(str(tmp_path / "student")).model.model
    give_eyes(tmp_path / "student", tmp_path / "eyes")
    after = open_student(str(tmp_path / "student")).model.model
    for part, same in (("visual", False), ("language_model", True)):
        pairs = zip(getattr(before, part).parameters(), getattr(after, part).parameters(), strict=True)
        assert all(one.equal(other) for one, other in pairs) == same


def test_neither_the_name_nor_the_place_of_a_code_tells_a_finding() -> None:
    assert set(CODES) == set(SIGNS)
    assert all(place != list(CODES).index(name) for place, name in enumerate(ASKED))
    assert not any(code in name.lower() or name.lower() in code for name, code in CODES.items())
