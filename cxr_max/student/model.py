"""A student on disk -> a model that trains, generates and is saved again, in the files that transformers reads."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import cached_file
from transformers.utils.logging import disable_progress_bar

from cxr_max.errors import RequestError
from cxr_max.student import attention
from cxr_max.student.chat import Chat
from cxr_max.student.settings import Lora
from cxr_max.student.weights import ADAPTER, fingerprint

FAMILIES: Final = ("qwen2_5_vl", "qwen3_vl")
_LANGUAGE: Final = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
_WITH_VISION: Final = (
    r".*(language_model|visual).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|qkv|proj)"
)
_PROCESSOR_FILES: Final = (
    "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json", "chat_template.json",
    "chat_template.jinja", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
    "merges.txt", "added_tokens.json", "generation_config.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Student:
    """A model with what turns text and images into its tokens."""

    model: Any
    """A Qwen2.5-VL or Qwen3-VL, within peft's wrapper where there is an adapter."""
    chat: Chat
    base: str
    """The name or folder of the weights under an adapter, or of all weights."""
    fingerprint: str
    """sha256 of what the weights were loaded from: equal fingerprints are the same model."""


def open_student(
    name: str,
    *,
    lora: Lora | None = None,
    dtype: str = "auto",
    max_pixels: int | None = None,
    trainable: bool = False,
) -> Student:
    """Load a model by its name on the Hub or its folder: whole weights, or an adapter over them.

    Args:
        lora: a new adapter where the folder has none; ``None`` trains all weights.
        dtype: ``float32``, ``bfloat16``, or ``auto``: bfloat16 where there is a GPU, else float32.
        max_pixels: images are scaled down to at most so many pixels.
        trainable: for training; otherwise nothing in it may change.

    Raises:
        RequestError: there is no such model, it is of another family, or its chat template shows it no image.
    """
    disable_progress_bar()
    folder = Path(name)
    adapted = (folder / ADAPTER).is_file()
    base = json.loads((folder / ADAPTER).read_text("utf-8"))["base_model_name_or_path"] if adapted else name
    try:
        family = AutoConfig.from_pretrained(base).model_type
        if family not in FAMILIES:
            raise RequestError(f"{base} is a {family}, and the student is one of {', '.join(FAMILIES)}.")
        chat = Chat(AutoTokenizer.from_pretrained(base), _image_processor(base), max_pixels)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            base,
            dtype=_dtype(dtype),
            attn_implementation={"text_config": attention.NAME, "vision_config": "sdpa"},
        )
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise RequestError(f"The model {base} cannot be loaded ({first}): check its name or folder.") from error
    if torch.cuda.is_available():
        model = model.to("cuda")
    if adapted:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    elif trainable and lora is not None:
        model = _with_adapter(model, lora, base)
    model.train(trainable)
    return Student(model, chat, base, fingerprint(name))


def _with_adapter(model: Any, lora: Lora, base: str) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_WITH_VISION if lora.vision else _LANGUAGE,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )
    return get_peft_model(model, config)


def _image_processor(base: str) -> Any:
    """The PIL one: pixels shall not depend on whether torchvision is installed."""
    return Qwen2VLImageProcessorPil.from_pretrained(base)


def _dtype(name: str) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def save_student(
    student: Student, folder: Path, *, merged: bool = False, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Write what transformers, peft and vLLM load: an adapter as one, whole weights whole.

    Args:
        merged: an adapter is added into its base's weights, and these are written.
        weights: of a model that is sharded over several processes, all of it; it cannot be merged as it is.

    Raises:
        OSError: the disk refused.
    """
    model = student.model
    if merged and hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, state_dict=weights)
    for name in _PROCESSOR_FILES:
        found = cached_file(student.base, name, _raise_exceptions_for_missing_entries=False)
        if found is not None and not (folder / name).exists():
            shutil.copyfile(found, folder / name)
    if student.chat.max_pixels is not None:
        _limit_pixels(folder / "preprocessor_config.json", student.chat.max_pixels)


def _limit_pixels(path: Path, max_pixels: int) -> None:
    """Whoever serves the student shall show it images of the size that it was trained on."""
    settings = json.loads(path.read_text("utf-8"))
    least = min(settings.get("size", {}).get("shortest_edge", max_pixels), max_pixels)
    settings |= {"size": {"shortest_edge": least, "longest_edge": max_pixels}}
    legacy = {"min_pixels": least, "max_pixels": max_pixels}
    settings |= {name: value for name, value in legacy.items() if name in settings}
    path.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
