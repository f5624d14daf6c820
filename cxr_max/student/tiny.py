"""``tiny``: a random Qwen2.5-VL with its own tokenizer, made on the spot without a download.

It has the architecture, the tokens and the files of the real one, so that everything that trains, generates and
serves can be tried, tested and timed on a CPU. It knows nothing before it is trained.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from cxr_max import progression, prompts
from cxr_max.findings import FINDINGS

SPECIAL_TOKENS: Final = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen's chat markup, for images and text."""
MAX_PIXELS: Final = 28 * 28 * 4096


@dataclass(frozen=True, slots=True)
class TinySize:
    """How small. The defaults make about 0.9 million parameters."""

    hidden: int = 128
    layers: int = 2
    heads: int = 4
    key_value_heads: int = 2
    vision_hidden: int = 64
    vision_layers: int = 2
    vision_heads: int = 4
    vocabulary: int = 2048
    spread: float = 0.02
    """Standard deviation of the random weights. Qwen's own suits its width; 1 / sqrt(hidden) suits a small one."""


def write_tiny(folder: Path, *, seed: int = 0, texts: Iterable[str] = (), size: TinySize | None = None) -> None:
    """Write a tiny model as a folder that loads wherever a Qwen2.5-VL does.

    Args:
        seed: of the weights.
        texts: what the tokenizer shall know the words of, besides the shipped prompts; the more of the later
            training texts, the shorter they become.
    """
    size = size or TinySize()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer(texts, size.vocabulary)
    tokenizer.save_pretrained(folder)
    _write_image_processor(folder)
    tiny_model(tokenizer, seed=seed, size=size).save_pretrained(folder)


def tiny_tokenizer(texts: Iterable[str] = (), vocabulary: int = 2048) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Qwen's special tokens and chat markup; it can encode any text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    shipped = [prompts.load(name).text for name in prompts.names()]
    # A few hundred merges are for what tiny models are trained on: findings, one picture at a time.
    shipped = [text for text in shipped if not progression.asked_in(text)]
    backend.train_from_iterator([*shipped, *FINDINGS, *texts], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_model(
    tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, size: TinySize | None = None
) -> Qwen2_5_VLForConditionalGeneration:
    """Random weights, float32, the same for the same seed; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(_config(tokenizer, size or TinySize()))
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    return model


def _config(tokenizer: PreTrainedTokenizerFast, size: TinySize) -> Qwen2_5_VLConfig:
    token = tokenizer.convert_tokens_to_ids
    half = size.hidden // size.heads // 2
    # M-RoPE's sections (time, height, width) share half of a head's width.
    time = half // 4
    height = (half - time) // 2
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": size.hidden,
        "intermediate_size": size.hidden * 4,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.key_value_heads,
        "max_position_embeddings": 32768,
        "initializer_range": size.spread,
        "rms_norm_eps": 1e-6,
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [time, height, half - time - height],
        },
    }
    vision = {
        "depth": size.vision_layers,
        "hidden_size": size.vision_hidden,
        "intermediate_size": size.vision_hidden * 2,
        "num_heads": size.vision_heads,
        "out_hidden_size": size.hidden,
        "window_size": 112,
        "initializer_range": size.spread,
        "fullatt_block_indexes": [size.vision_layers - 1],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def tiny_image_processor() -> Qwen2VLImageProcessorPil:
    """Qwen's, for pictures from 28 x 28 pixels up."""
    return Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": MAX_PIXELS})


def _write_image_processor(folder: Path) -> None:
    tiny_image_processor().save_pretrained(folder)
    # Other programs find the processor's class here; the video half is theirs to ask for.
    path = folder / "preprocessor_config.json"
    settings = {**json.loads(path.read_text("utf-8")), "processor_class": "Qwen2_5_VLProcessor"}
    path.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    video = {**settings, "video_processor_type": "Qwen2VLVideoProcessor"}
    video.pop("image_processor_type", None)
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video, indent=2) + "\n", "utf-8")
