"""How many input tokens an image is charged as, by each service's own documented formula.

Every formula is of a picture sent in full detail, which is what the teachers are sent. A service's own count
may still differ, so a reply's cost comes from the reply's usage, never from here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, sqrt
from typing import Final
from urllib.parse import urlsplit

Formula = Callable[[int, int], int]
"""Width and height in pixels -> tokens."""


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """The tokens of one image."""

    tokens: int
    documented: bool
    """Whether the service documents how it counts; else this is an estimate."""


@lru_cache(maxsize=65536)
def image_tokens(width: int, height: int, *, endpoint: str, wire: str, model: str) -> ImageTokens:
    """The input tokens of an image of this many pixels.

    Args:
        endpoint: the service's URL: who answers there decides, not how it is spoken to.
        wire: ``openai``, ``anthropic`` or ``gemini``, for services whose host says nothing.
        model: as the roster names it.
    """
    formula = _formula(urlsplit(endpoint).hostname or "", wire, model)
    return ImageTokens((formula or _estimate)(width, height), formula is not None)


def _formula(host: str, wire: str, model: str) -> Formula | None:
    if host == "api.openai.com":
        return _openai(model)
    if host == "api.anthropic.com":
        return _anthropic
    if host == "generativelanguage.googleapis.com":
        return _gemini if model.startswith(("gemini-2.0-", "gemini-2.5-")) else None
    if host == "api.x.ai":
        return _xai
    if host.startswith("dashscope") and host.endswith(".aliyuncs.com"):
        return _qwen_vl_max if model.startswith(("qwen-vl-max", "qwen-vl-plus")) else None
    return _open_weights(model) if wire == "openai" else None


# OpenAI, "Images and vision", section "Calculating costs".

_PATCHES: Final = {
    "gpt-5-mini": 1.62, "gpt-5-nano": 2.46, "gpt-4.1-mini": 1.62, "gpt-4.1-nano": 2.46, "o4-mini": 1.72,
}  # fmt: skip
"""Tokens per patch."""
_TILES: Final = {
    "gpt-5": (70, 140), "gpt-5-chat-latest": (70, 140), "gpt-4o": (85, 170), "gpt-4.1": (85, 170),
    "gpt-4.5-preview": (85, 170), "gpt-4o-mini": (2833, 5667), "o1": (75, 150), "o1-pro": (75, 150),
    "o3": (75, 150),
}  # fmt: skip
"""Tokens per image and per tile."""
_MOST_PATCHES: Final = 1536
_DATE: Final = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def _openai(model: str) -> Formula | None:
    family = _DATE.sub("", model)
    if family in _PATCHES:
        return lambda width, height: ceil(openai_patches(width, height) * _PATCHES[family])
    if family in _TILES:
        base, tile = _TILES[family]
        return lambda width, height: base + tile * openai_tiles(width, height)
    return None


def openai_patches(width: int, height: int) -> int:
    """Patches of 32 x 32 that cover the image, shrunk until at most 1,536 do."""
    if ceil(width / 32) * ceil(height / 32) <= _MOST_PATCHES:
        return ceil(width / 32) * ceil(height / 32)
    scale = sqrt(32 * 32 * _MOST_PATCHES / (width * height))
    across, down = width * scale / 32, height * scale / 32
    # Shrunk a little more, so that a whole number of patches fits one of the sides.
    scale = min(floor(across) / across, floor(down) / down) if min(across, down) >= 1 else 1.0
    return min(ceil(_near(across * scale)) * ceil(_near(down * scale)), _MOST_PATCHES)


def openai_tiles(width: int, height: int) -> int:
    """Tiles of 512 x 512, once the image fits 2,048 x 2,048 and its shorter side 768."""
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    return ceil(_near(width * scale / 512)) * ceil(_near(height * scale / 512))


def _near(value: float) -> float:
    """Without the rounding error that would make ``ceil`` count one more."""
    return round(value, 9)


# Anthropic, "Vision", sections "Evaluate image size" and "Calculate image costs".

_LONG_EDGE: Final = 1568
_MOST_TOKENS: Final = 1600


def _anthropic(width: int, height: int) -> int:
    """Width x height / 750, once the image has at most 1,568 pixels a side and about 1,600 tokens."""
    scale = min(1.0, _LONG_EDGE / max(width, height))
    return min(_MOST_TOKENS, max(1, ceil(_near(width * scale * height * scale / 750))))


# Google, Gemini API, "Image understanding", section "Token calculation"; for 2.0 and 2.5.

_TILE_TOKENS: Final = 258


def _gemini(width: int, height: int) -> int:
    """258 per tile; one tile up to 384 x 384, else tiles of the shorter side / 1.5, of 256 to 768 pixels."""
    if width <= 384 and height <= 384:
        return _TILE_TOKENS
    unit = min(max(floor(min(width, height) / 1.5), 256), 768)
    return _TILE_TOKENS * ceil(width / unit) * ceil(height / unit)


# xAI, "Image understanding", section "Image token usage".


def _xai(width: int, height: int) -> int:
    """256 per tile of 448 x 448, at most 6 of them, and one more."""
    return 256 * (min(ceil(width / 448) * ceil(height / 448), 6) + 1)


# Alibaba, Model Studio, "Visual understanding"; Qwen's model cards for the open weights.

_OPEN_WEIGHTS: Final = {"qwen2-vl": 28, "qwen2.5-vl": 28, "qwen3-vl": 32}
"""Pixels a side of what becomes one token."""
_QWEN_MOST_TOKENS: Final = 16384


def _qwen_vl_max(width: int, height: int) -> int:
    """A token per 28 x 28 pixels, 4 to 1,280 of them, and one on either side."""
    return patch_tokens(width, height, side=28, least=4, most=1280) + 2


def _open_weights(model: str) -> Formula | None:
    name = model.rpartition("/")[2].lower()
    side = next((side for family, side in _OPEN_WEIGHTS.items() if name.startswith(family)), None)
    if side is None:
        return None
    return lambda width, height: patch_tokens(width, height, side=side, least=4, most=_QWEN_MOST_TOKENS) + 2


def patch_tokens(width: int, height: int, *, side: int, least: int, most: int) -> int:
    """Patches once both sides are whole numbers of them, and their number is within bounds (``smart_resize``)."""
    across, down = max(1, round(width / side)), max(1, round(height / side))
    if across * down > most:
        scale = sqrt(width * height / (most * side * side))
        across, down = max(1, floor(width / scale / side)), max(1, floor(height / scale / side))
    elif across * down < least:
        scale = sqrt(least * side * side / (width * height))
        across, down = ceil(width * scale / side), ceil(height * scale / side)
    return across * down


def _estimate(width: int, height: int) -> int:
    """For services that do not say: a token per 28 x 28 pixels, about what most vision encoders take."""
    return ceil(width / 28) * ceil(height / 28)
