"""Image and prompt passed once, against every reply passed as a row of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch.nn.functional as F  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration  # noqa: E402
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil  # noqa: E402

from cxr_max.student import attention  # noqa: E402
from cxr_max.student.apo import apo_loss  # noqa: E402
from cxr_max.student.chat import Chat, EncodedPrompt  # noqa: E402
from cxr_max.student.logps import core, positions, sums, token_logps  # noqa: E402
from cxr_max.student.packing import Pack, pack  # noqa: E402
from cxr_max.student.tiny import TinySize, tiny_model, tiny_tokenizer  # noqa: E402

Studies = list[tuple[EncodedPrompt, list[Tensor]]]

SIZE = TinySize(hidden=64, vision_hidden=32, vocabulary=400)
TOKENIZER = tiny_tokenizer(vocabulary=SIZE.vocabulary)
EVERYWHERE = r".*(language_model|visual).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|qkv|proj)"
BETA = 0.1
PER_TOKEN = 1e-5
"""Nats."""
GRADIENT = 1e-5
"""Norm of the difference over the norm."""
SEEN = 1e-2
"""Nats: what a mistake must show."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small matrices: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def adapted(model: Any) -> Any:
    """A model whose attention matters, under an adapter that is no identity."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        # Fresh weights are so small that every token hardly sees the others; a wrong mask would pass.
        if "language_model" in name and weight.ndim == 2:
            weight.data.mul_(4)
    wrapped = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules=EVERYWHERE, task_type="CAUSAL_LM")
    )
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.05
    return attending(wrapped.train())


def attending(model: Any, text: str = attention.NAME) -> Any:
    """``model``, its language model with an attention of this name."""
    model.get_base_model().set_attn_implementation({"text_config": text, "vision_config": "sdpa"})
    return model


@pytest.fixture
def model() -> Any:
    return adapted(tiny_model(TOKENIZER, size=SIZE))


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(
        TOKENIZER, Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 1024})
    )


def picture(width: int, height: int) -> Image.Image:
    """Smooth, and different for every size."""
    ramp = torch.arange(width) * 3 + torch.arange(height)[:, None] * 5 + width * height
    return Image.fromarray((ramp % 256).to(torch.uint8).numpy())


def replies(*lengths: int) -> list[Tensor]:
    """Random words, and the end of the turn."""
    generator = torch.Generator().manual_seed(sum(lengths))
    end = torch.tensor([TOKENIZER.convert_tokens_to_ids("<|im_end|>")])
    words = [torch.randint(8, len(TOKENIZER), (length - 1,), generator=generator) for length in lengths]
    return [torch.cat([some, end]) for some in words]


def two_studies(chat: Chat) -> Studies:
    """One image and three negatives; two images of unlike shapes and one negative."""
    return [
        (chat.prompt([picture(224, 168)], "Describe."), replies(9, 14, 1, 30)),
        (chat.prompt([picture(84, 140), picture(196, 112)], "Compare the two views, please."), replies(21, 5)),
    ]


def naive(model: Any, studies: Studies, *, types: bool = True) -> Tensor:
    """(T,): each reply alone behind its own image and prompt, by transformers' plain attention."""
    attending(model, "eager")
    rows = [_row(model, prompt, reply, types) for prompt, all_replies in studies for reply in all_replies]
    attending(model)
    return torch.cat(rows)


def _row(model: Any, prompt: EncodedPrompt, reply: Tensor, types: bool) -> Tensor:
    ids = torch.cat([prompt.input_ids, reply])[None]
    kinds = torch.cat([prompt.mm_token_type_ids, torch.zeros_like(reply)])[None]
    logits = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=prompt.pixel_values.to(next(core(model).visual.parameters()).dtype),
        image_grid_thw=prompt.image_grid_thw,
        use_cache=False,
        **({"mm_token_type_ids": kinds} if types else {}),
    ).logits[0]
    return -F.cross_entropy(logits[len(prompt.input_ids) - 1 : -1].float(), reply, reduction="none")


def loss(values: Tensor, packed: Pack) -> Tensor:
    """The mean APO loss; the reference is made up, so that rewards differ."""
    per_study = sums(values, packed.reply_lengths).split([len(study) - 1 for study in packed.layout])
    generator = torch.Generator().manual_seed(2)
    made_up = [study.detach() + 5 * torch.randn(study.shape, generator=generator) for study in per_study]
    parts = [apo_loss(a[None], b[None], BETA) for a, b in zip(per_study, made_up, strict=True)]
    return torch.cat(parts).mean()


def gradient(model: Any, value: Tensor) -> Tensor:
    """All of the adapter's, as one vector."""
    adapter = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    found = torch.autograd.grad(value, list(adapter.values()))
    dead = [name for name, part in zip(adapter, found, strict=True) if not part.any()]
    assert not dead, f"no gradient reaches {dead}"
    return torch.cat([part.flatten() for part in found])


def assert_equal(model: Any, studies: Studies) -> None:
    """Log-probs and gradients of both ways."""
    packed = pack(studies)
    ours, theirs = token_logps(model, packed), naive(model, studies)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < PER_TOKEN
    our_gradient, their_gradient = (gradient(model, loss(values, packed)) for values in (ours, theirs))
    assert (our_gradient - their_gradient).norm() / their_gradient.norm() < GRADIENT


@pytest.mark.parametrize("negatives", [1, 3, 7])
def test_log_probs_and_gradients_are_those_of_separate_rows(model: Any, chat: Chat, negatives: int) -> None:
    lengths = (17, 40, 1, 2, 25, 33, 8, 60)[: 1 + negatives]
    assert_equal(model, [(chat.prompt([picture(168, 112)], "Describe the radiograph."), replies(*lengths))])


@pytest.mark.parametrize(("width", "height"), [(84, 84), (84, 252), (224, 224), (448, 448)])
def test_an_image_of_any_size_passes_once_for_all_replies(model: Any, chat: Chat, width: int, height: int) -> None:
    assert_equal(model, [(chat.prompt([picture(width, height)], "Describe."), replies(12, 20))])


def test_two_studies_a_step_one_with_two_images_are_those_of_separate_rows(model: Any, chat: Chat) -> None:
    assert_equal(model, two_studies(chat))


def test_the_loss_equals_that_of_separate_rows(model: Any, chat: Chat) -> None:
    studies = two_studies(chat)
    packed = pack(studies)
    theirs = loss(naive(model, studies), packed)
    assert theirs.item() > 0.1
    assert loss(token_logps(model, packed), packed).item() == pytest.approx(theirs.item(), abs=1e-5)


def test_gradient_checkpointing_changes_nothing(model: Any, chat: Chat) -> None:
    studies = two_studies(chat)
    packed = pack(studies)
    plain = gradient(model, loss(token_logps(model, packed), packed))
    model.enable_input_require_grads()
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    assert core(model).language_model.layers[0].gradient_checkpointing
    values = token_logps(model, packed)
    assert (values - naive(model, studies)).abs().max() < PER_TOKEN
    again = gradient(model, loss(values, packed))
    assert (again - plain).norm() / plain.norm() < GRADIENT


def test_more_tokens_than_logits_are_held_at_once_change_nothing(
    model: Any, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxr_max.student.logps._CHUNK", 7)
    assert_equal(model, two_studies(chat))


def test_in_bfloat16_the_error_is_that_of_separate_rows(model: Any, chat: Chat) -> None:
    studies = two_studies(chat)
    with torch.no_grad():
        exact = naive(model, studies)
        model.to(torch.bfloat16)
        ours, theirs = token_logps(model, pack(studies)), naive(model, studies)
    ours_off, theirs_off = ((values - exact).abs() for values in (ours, theirs))
    # bfloat16 keeps eight bits of a logit; neither way is nearer to float32 than the other.
    assert ours.dtype == torch.float32
    assert theirs_off.mean() > 1e-3
    assert ours_off.mean() < 1.5 * theirs_off.mean()
    assert ours_off.max() < 2 * theirs_off.max()


def test_replies_and_studies_do_not_see_each_other(model: Any, chat: Chat) -> None:
    studies = two_studies(chat)
    changed: Studies = [
        (studies[0][0], [studies[0][1][0], *replies(3, 22, 7)]),
        (chat.prompt([picture(112, 112)], "Something else."), replies(4, 4)),
    ]
    with torch.no_grad():
        before, after = token_logps(model, pack(studies)), token_logps(model, pack(changed))
    assert (before[:9] - after[:9]).abs().max() < PER_TOKEN


def test_the_order_of_studies_and_replies_does_not_matter(model: Any, chat: Chat) -> None:
    studies = two_studies(chat)
    turned = [(prompt, some[::-1]) for prompt, some in studies[::-1]]
    with torch.no_grad():
        values = token_logps(model, pack(studies)).split(pack(studies).reply_lengths)
        again = token_logps(model, pack(turned)).split(pack(turned).reply_lengths)
    assert all((a - b).abs().max() < PER_TOKEN for a, b in zip(values, reversed(again), strict=True))


def with_mistake(model: Any, packed: Pack, layout: attention.Layout, position_ids: Tensor) -> Tensor:
    """(T,): as ``token_logps``, with another layout or other positions."""
    with torch.no_grad():
        logits = model(
            input_ids=packed.input_ids,
            mm_token_type_ids=packed.mm_token_type_ids,
            pixel_values=packed.pixel_values,
            image_grid_thw=packed.image_grid_thw,
            position_ids=position_ids,
            layout=layout,
            logits_to_keep=packed.predicting,
            use_cache=False,
        ).logits[0]
    return -F.cross_entropy(logits, packed.targets, reduction="none")


def test_without_a_mistake_the_controls_are_equal_too(model: Any, chat: Chat) -> None:
    studies = two_studies(chat)
    packed = pack(studies)
    values = with_mistake(model, packed, packed.layout, positions(model, packed))
    assert (values - naive(model, studies)).abs().max() < PER_TOKEN


@pytest.mark.parametrize("mistake", ["studies see each other", "replies see each other"])
def test_control_a_leaky_mask_is_seen(model: Any, chat: Chat, mistake: str) -> None:
    studies = two_studies(chat) if mistake.startswith("studies") else two_studies(chat)[:1]
    packed = pack(studies)
    causal = ((packed.input_ids.shape[1],),)
    values = with_mistake(model, packed, causal, positions(model, packed))
    off = (values - naive(model, studies)).abs()
    assert off.max() > SEEN
    # What stands first in the row has nothing before it to leak.
    assert off[: packed.reply_lengths[0]].max() < PER_TOKEN


def restarted(packed: Pack, right: Tensor, starts: Sequence[Sequence[int]]) -> Tensor:
    """``right``, its replies starting at these positions instead."""
    wrong, start = right.clone(), 0
    for (prompt, *lengths), firsts in zip(packed.layout, starts, strict=True):
        start += prompt
        for length, first in zip(lengths, firsts, strict=True):
            wrong[:, :, start : start + length] = first + torch.arange(length)
            start += length
    return wrong


def test_control_positions_that_run_on_from_reply_to_reply_are_seen(model: Any, chat: Chat) -> None:
    studies = two_studies(chat)
    packed = pack(studies)
    right = positions(model, packed)
    starts, start = [], 0
    for prompt, *lengths in packed.layout:
        following = int(right[:, :, start : start + prompt].max()) + 1
        starts.append([following + sum(lengths[:i]) for i in range(len(lengths))])
        start += prompt + sum(lengths)
    values = with_mistake(model, packed, packed.layout, restarted(packed, right, starts))
    off = (values - naive(model, studies)).abs()
    assert off.max() > SEEN
    assert off[: packed.reply_lengths[0]].max() < PER_TOKEN


def test_control_positions_that_restart_at_the_length_of_the_prompt_are_seen(model: Any, chat: Chat) -> None:
    studies = two_studies(chat)
    packed = pack(studies)
    starts = [[prompt] * len(lengths) for prompt, *lengths in packed.layout]
    values = with_mistake(model, packed, packed.layout, restarted(packed, positions(model, packed), starts))
    assert (values - naive(model, studies)).abs().max() > SEEN


def test_control_separate_rows_without_token_types_are_seen(model: Any, chat: Chat) -> None:
    studies = two_studies(chat)
    with torch.no_grad():
        off = (token_logps(model, pack(studies)) - naive(model, studies, types=False)).abs()
    assert off.max() > SEEN


def test_the_base_under_the_adapter_is_another_model(model: Any, chat: Chat) -> None:
    studies = two_studies(chat)
    with torch.no_grad(), model.disable_adapter():
        base = token_logps(model, pack(studies))
        assert (base - naive(model, studies)).abs().max() < PER_TOKEN
    assert (base - token_logps(model, pack(studies))).abs().max() > SEEN


def test_qwen3_vl_goes_through_the_same_code(chat: Chat) -> None:
    of_16 = Qwen2VLImageProcessorPil(
        patch_size=16, size={"shortest_edge": 32 * 32, "longest_edge": 32 * 32 * 1024}
    )
    assert_equal(adapted(_tiny_qwen3()), two_studies(replace(chat, image_processor=of_16)))


def _tiny_qwen3() -> Any:
    token = TOKENIZER.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(TOKENIZER),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "mrope_section": [3, 3, 2], "mrope_interleaved": True
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": 64,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen3VLForConditionalGeneration(config)


def test_a_pack_needs_replies_with_tokens(chat: Chat) -> None:
    prompt = chat.prompt([picture(84, 84)], "Describe.")
    for studies in ([], [(prompt, [])], [(prompt, [torch.zeros(0, dtype=torch.int64)])]):
        with pytest.raises(ValueError, match="pack"):
            pack(studies)


def test_a_pack_names_what_predicts_and_what_is_predicted(chat: Chat) -> None:
    studies = two_studies(chat)
    packed = pack(studies)
    row = torch.cat([part for prompt, some in studies for part in (prompt.input_ids, *some)])
    assert torch.equal(packed.input_ids, row[None])
    assert torch.equal(packed.targets, torch.cat([reply for _, some in studies for reply in some]))
    assert packed.reply_lengths == [9, 14, 1, 30, 21, 5]
    first, second = len(studies[0][0].input_ids), len(studies[1][0].input_ids)
    predicting = packed.predicting.tolist()
    assert predicting[:9] == list(range(first - 1, first + 8))
    assert predicting[9] == first - 1
    assert predicting[9 + 14] == first - 1
    assert predicting[54] == first + 54 + second - 1
