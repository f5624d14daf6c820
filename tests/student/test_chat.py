"""Text and images to tokens and back, and the tiny model that they are tried on."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from PIL import Image  # noqa: E402
from transformers import AutoModelForImageTextToText, AutoTokenizer  # noqa: E402
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil  # noqa: E402

from cxr_max.errors import RequestError  # noqa: E402
from cxr_max.student.chat import Chat  # noqa: E402
from cxr_max.student.tiny import SPECIAL_TOKENS, TinySize, tiny_model, tiny_tokenizer, write_tiny  # noqa: E402

SIZE = TinySize(hidden=64, vision_hidden=32, vocabulary=400)
PIXELS = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 1024}


def chat_of(tokenizer: Any, max_pixels: int | None = None) -> Chat:
    """With an image processor of 14-pixel patches, four of them a token."""
    return Chat(tokenizer, Qwen2VLImageProcessorPil(size=PIXELS), max_pixels)


CHAT = chat_of(tiny_tokenizer(vocabulary=SIZE.vocabulary))


def token(name: str) -> int:
    """The id of a special token."""
    return int(CHAT.tokenizer.convert_tokens_to_ids(name))


def grey(width: int, height: int) -> Image.Image:
    """An even picture."""
    return Image.new("L", (width, height), 128)


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_a_special_token_written_out_in_a_reply_is_text(special: str) -> None:
    text = f"No effusion.{special} Normal heart."
    ids = CHAT.reply(text)
    assert ids[-1] == token("<|im_end|>")
    assert not set(ids[:-1].tolist()) & {token(name) for name in SPECIAL_TOKENS}
    assert CHAT.text(ids) == text


@given(st.text())
def test_any_reply_comes_back_as_it_was(text: str) -> None:
    assert CHAT.text(CHAT.reply(text)) == text


@pytest.mark.parametrize(
    "text", ["", " ", " . , !", "a  b\n\n c ?", "don 't", "L\u2019\u00e9panchement \U0001fac1", "\x00"]
)
def test_blanks_and_foreign_letters_come_back_as_they_were(text: str) -> None:
    assert CHAT.text(CHAT.reply(text)) == text


def test_what_follows_the_end_of_the_turn_is_left_out() -> None:
    assert CHAT.text(torch.cat([CHAT.reply("Clear lungs."), CHAT.reply("And more.")])) == "Clear lungs."


def test_a_reply_that_was_cut_short_is_read_to_its_end() -> None:
    assert CHAT.text(CHAT.reply("Clear lungs.")[:-1]) == "Clear lungs."


def test_the_prompt_is_qwens_markup() -> None:
    prompt = CHAT.prompt([grey(84, 56)], "Describe.")
    pads = "<|image_pad|>" * 6
    assert CHAT.tokenizer.decode(prompt.input_ids) == (
        f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>Describe.<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("sizes", [[(84, 84)], [(448, 448)], [(112, 252), (84, 56)], [(100, 61)]])
def test_an_image_has_a_token_for_every_four_patches(sizes: list[tuple[int, int]]) -> None:
    prompt = CHAT.prompt([grey(*size) for size in sizes], "Describe.")
    patches = prompt.image_grid_thw.prod(dim=1)
    assert len(patches) == len(sizes)
    assert len(prompt.pixel_values) == patches.sum()
    assert prompt.mm_token_type_ids.sum() == patches.sum() // 4
    assert torch.equal(prompt.mm_token_type_ids == 1, prompt.input_ids == token("<|image_pad|>"))


def test_an_image_of_448_pixels_has_256_tokens() -> None:
    assert CHAT.prompt([grey(448, 448)], "Describe.").mm_token_type_ids.sum() == 256


def test_an_image_is_scaled_down_to_the_most_pixels_allowed() -> None:
    small = chat_of(CHAT.tokenizer, max_pixels=112 * 112).prompt([grey(448, 448)], "Describe.")
    assert small.image_grid_thw.tolist() == [[1, 8, 8]]


def test_a_grey_picture_is_the_same_as_its_rgb() -> None:
    one, other = (CHAT.prompt([image], "Describe.") for image in (grey(84, 84), grey(84, 84).convert("RGB")))
    assert torch.equal(one.pixel_values, other.pixel_values)


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}",
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for p in m['content'] %}{{ p['text'] }}"
        "{% endfor %}<|im_end|>\n{% endfor %}",
    ],
)
def test_a_chat_template_without_image_tokens_is_refused(template: str | None) -> None:
    tokenizer = tiny_tokenizer(vocabulary=SIZE.vocabulary)
    tokenizer.chat_template = template
    with pytest.raises(RequestError, match=r"Qwen2\.5-VL"):
        chat_of(tokenizer)


def test_a_chat_template_that_takes_text_only_is_refused() -> None:
    tokenizer = tiny_tokenizer(vocabulary=SIZE.vocabulary)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}"
    with pytest.raises(RequestError, match=r"Qwen2\.5-VL"):
        chat_of(tokenizer)


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_a_special_token_written_out_in_a_prompt_is_text(special: str) -> None:
    plain, asked = (CHAT.prompt([grey(84, 84)], text) for text in ("A reply said: .", f"A reply said: {special}."))
    assert (asked.input_ids == token(special)).sum() == (plain.input_ids == token(special)).sum()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    write_tiny(folder, seed=3, texts=["pneumothorax pneumothorax costophrenic"] * 3, size=SIZE)
    return folder


def test_a_tiny_model_loads_where_a_qwen2_5_vl_does(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    chat = Chat(tokenizer, Qwen2VLImageProcessorPil.from_pretrained(folder))
    prompt = chat.prompt([grey(84, 84)], "Describe.")
    out = model.generate(
        input_ids=prompt.input_ids[None],
        attention_mask=torch.ones_like(prompt.input_ids)[None],
        mm_token_type_ids=prompt.mm_token_type_ids[None],
        pixel_values=prompt.pixel_values,
        image_grid_thw=prompt.image_grid_thw,
        max_new_tokens=4,
        do_sample=False,
    )
    assert torch.equal(out[0, : len(prompt.input_ids)], prompt.input_ids)
    assert 0 < out.shape[1] - len(prompt.input_ids) <= 4


def test_its_tokenizer_comes_back_from_disk_as_it_was(folder: Path) -> None:
    chat = Chat(AutoTokenizer.from_pretrained(folder), Qwen2VLImageProcessorPil.from_pretrained(folder))
    text = "A pneumothorax <|im_end|> , with  blanks ."
    assert chat.text(chat.reply(text)) == text
    assert chat.reply(text)[-1] == chat.tokenizer.eos_token_id
    assert chat.tokenizer.padding_side == "left"


def test_a_tokenizer_that_saw_the_words_needs_fewer_tokens() -> None:
    seen = tiny_tokenizer(["zygapophyseal " * 20] * 20)
    text = "zygapophyseal zygapophyseal"
    assert len(chat_of(seen).reply(text)) < len(chat_of(tiny_tokenizer()).reply(text))


def test_the_same_seed_gives_the_same_weights_on_disk(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        write_tiny(tmp_path / name, seed=seed, size=SIZE)
    one, same, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "same", "other"))
    assert one == same
    assert one != other
    assert (tmp_path / "one" / "tokenizer.json").read_bytes() == (
        tmp_path / "same" / "tokenizer.json"
    ).read_bytes()


def test_making_one_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tiny_model(CHAT.tokenizer, seed=9, size=SIZE)
    assert torch.equal(torch.rand(3), expected)


def test_images_are_seen_in_the_order_given() -> None:
    small, large = grey(28, 28), grey(56, 84)
    one, other = CHAT.prompt([small, large], "Compare."), CHAT.prompt([large, small], "Compare.")
    assert one.image_grid_thw.tolist() == other.image_grid_thw.tolist()[::-1]
    dark, bright = Image.new("L", (56, 56), 20), Image.new("L", (56, 56), 230)
    seen = CHAT.prompt([dark, bright], "Compare.").pixel_values
    assert seen[: len(seen) // 2].mean() < 0 < seen[len(seen) // 2 :].mean()
