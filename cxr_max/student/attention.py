"""Attention over one row that holds several studies, each a shared prefix and several replies to it.

A *layout* is one tuple of lengths per study, ``(prefix, reply, reply, ...)``, in the order of the row. A token
attends to its own study's prefix and to the tokens before it in its own part; replies never see each other. It
is computed part by part with scaled dot-product attention, so that no mask over the whole row is ever made.
"""

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

Layout = tuple[tuple[int, ...], ...]

NAME: Final = "cxr_max_segmented"
"""What ``attn_implementation`` calls it. Without a layout it is transformers' own ``sdpa``."""


def segmented_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention of a row with a layout, to transformers' interface.

    Args:
        query: (1, heads, S, head size); ``key`` and ``value`` (1, key-value heads, S, head size).
        layout: its lengths add up to S.

    Returns:
        (1, S, heads, head size).
    """
    if layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **rest
        )
    grouped = query.shape[1] != key.shape[1]
    lengths = [length for study in layout for length in study]
    parts = iter(zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True))
    out = []
    for study in layout:
        q, k0, v0 = next(parts)
        out.append(F.scaled_dot_product_attention(q, k0, v0, is_causal=True, scale=scaling, enable_gqa=grouped))
        for _ in study[1:]:
            q, k, v = next(parts)
            keys, values = torch.cat([k0, k], dim=2), torch.cat([v0, v], dim=2)
            mask = _sees(q.shape[2], keys.shape[2], q.device)
            out.append(F.scaled_dot_product_attention(q, keys, values, mask, scale=scaling, enable_gqa=grouped))
    return torch.cat(out, dim=2).transpose(1, 2).contiguous(), None


def no_mask(device: torch.device) -> Tensor:
    """Tells the text model to make no mask: it hands one of four dimensions through, and nobody reads this one."""
    return torch.empty(1, 1, 0, 0, device=device)


def _sees(reply: int, total: int, device: torch.device) -> Tensor:
    """(reply, total): all of the prefix, and the reply up to itself."""
    return torch.ones(reply, total, dtype=torch.bool, device=device).tril(total - reply)


AttentionInterface.register(NAME, segmented_attention)
AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
