"""The log-probability of every token of every reply in a pack, image and prompt passed once."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cxr_max.student.attention import no_mask
from cxr_max.student.packing import Pack

_CHUNK = 512
"""Tokens whose float32 logits are in memory at once: 0.3 GB at Qwen's 152,000 words."""


def token_logps(model: nn.Module, pack: Pack) -> Tensor:
    """(T,): log pi(token | image, prompt, the reply so far), in nats, float32, reply after reply.

    Equal to passing every (prompt, reply) as a row of its own. Split by ``pack.reply_lengths``.

    Args:
        model: a Qwen2.5-VL or Qwen3-VL with ``attention.NAME`` as its text model's attention; bare, or wrapped by
            peft, DDP or FSDP.
    """
    logits = model(
        input_ids=pack.input_ids,
        mm_token_type_ids=pack.mm_token_type_ids,
        pixel_values=pack.pixel_values.to(_vision_dtype(model)),
        image_grid_thw=pack.image_grid_thw,
        position_ids=positions(model, pack),
        attention_mask=no_mask(pack.input_ids.device),
        layout=pack.layout,
        logits_to_keep=pack.predicting,
        use_cache=False,
    ).logits[0]
    chunks = zip(logits.split(_CHUNK), pack.targets.split(_CHUNK), strict=True)
    if len(logits) <= _CHUNK or not torch.is_grad_enabled():
        return torch.cat([_of_targets(*chunk) for chunk in chunks])
    return torch.cat([checkpoint(_of_targets, *chunk, use_reentrant=False) for chunk in chunks])


def _of_targets(logits: Tensor, targets: Tensor) -> Tensor:
    return -F.cross_entropy(logits.float(), targets, reduction="none")


def positions(model: nn.Module, pack: Pack) -> Tensor:
    """(3, 1, S): M-RoPE positions. Every reply goes on where its own study's prompt ended.

    That is one past the prompt's *largest* position, not its length: an image takes up fewer positions than
    tokens.
    """
    parts, start, image = [], 0, 0
    for prompt, *replies in pack.layout:
        ids = pack.input_ids[:, start : start + prompt]
        types = pack.mm_token_type_ids[:, start : start + prompt]
        images = _images(types[0])
        grid = pack.image_grid_thw[image : image + images]
        of_prompt = core(model).get_rope_index(ids, mm_token_type_ids=types, image_grid_thw=grid)[0]
        following = of_prompt.max() + 1
        parts.append(of_prompt)
        for length in replies:
            steps = following + torch.arange(length, device=ids.device)
            parts.append(steps.view(1, 1, -1).expand(3, 1, -1))
        start, image = start + prompt + sum(replies), image + images
    return torch.cat(parts, dim=-1)


def _images(types: Tensor) -> int:
    """Runs of image tokens."""
    before = F.pad(types[:-1], (1, 0))
    return int(((types == 1) & (before != 1)).sum())


def core(model: nn.Module) -> Any:
    """The Qwen2.5-VL or Qwen3-VL inside of what wraps it: DDP or FSDP, peft, the language-model head.

    Raises:
        TypeError: there is none.
    """
    for inner in model.modules():
        if hasattr(inner, "get_rope_index"):
            return inner
    raise TypeError(f"{type(model).__name__} holds no Qwen2.5-VL or Qwen3-VL")


def _vision_dtype(model: nn.Module) -> torch.dtype:
    dtype: torch.dtype = next(core(model).visual.parameters()).dtype
    return dtype


def sums(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """(replies,): ``values`` (T,) added up reply by reply."""
    return torch.stack([part.sum() for part in values.split(list(lengths))])
