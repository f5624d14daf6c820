"""Image tokens: the documentations' own examples, the open model's own code, and bounds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_max.image_tokens import image_tokens, openai_patches, patch_tokens
from cxr_max.teachers.roster import load

OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com"
GEMINI, XAI = "https://generativelanguage.googleapis.com", "https://api.x.ai/v1"
QWEN = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
SIDES = st.integers(1, 12_000)
ROSTER = load()


def tokens(width: int, height: int, endpoint: str, model: str, wire: str = "openai") -> int:
    found = image_tokens(width, height, endpoint=endpoint, wire=wire, model=model)
    assert found.documented
    return found.tokens


@pytest.mark.parametrize(
    ("width", "height", "model", "expected"),
    [
        (1024, 1024, "gpt-4o", 765),
        (2048, 4096, "gpt-4o", 1105),
        (1024, 1024, "gpt-4.1", 765),
        (1024, 1024, "gpt-4o-mini", 2833 + 4 * 5667),
        (1024, 1024, "gpt-5", 70 + 4 * 140),
        (512, 512, "o3-2025-04-16", 75 + 150),
        (1024, 1024, "gpt-5-mini", 1659),
        (1024, 1024, "gpt-5-nano", 2520),
        (1800, 2400, "gpt-4.1-mini", 2353),
        (4000, 1474, "gpt-4.1-mini", 2348),
    ],
)
def test_openai(width: int, height: int, model: str, expected: int) -> None:
    """Its guide's examples (765, 1,105; 1,024 and 1,452 patches) and, of the last, its price page's calculator."""
    assert tokens(width, height, OPENAI, model) == expected


@pytest.mark.parametrize(
    ("width", "height", "patches"), [(1024, 1024, 1024), (1800, 2400, 1452), (2048, 768, 1536), (1, 1, 1)]
)
def test_openai_patches(width: int, height: int, patches: int) -> None:
    assert openai_patches(width, height) == patches


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(200, 200, 54), (1000, 1000, 1334), (1092, 1092, 1590), (8000, 8000, 1600), (3136, 100, 105)],
)
def test_anthropic(width: int, height: int, expected: int) -> None:
    """Its guide's table (about 54, 1,334 and 1,590), the cap, and an image shrunk to 1568 x 50."""
    assert tokens(width, height, ANTHROPIC, "claude-sonnet-4-20250514", "anthropic") == expected


@pytest.mark.parametrize(
    ("width", "height", "tiles"),
    [(384, 384, 1), (100, 20, 1), (385, 384, 4), (960, 540, 6), (1024, 1024, 4), (4000, 4000, 36), (1024, 300, 8)],
)
def test_gemini(width: int, height: int, tiles: int) -> None:
    """Its guide's example is 960 x 540 with a unit of 360: 3 x 2 tiles."""
    assert tokens(width, height, GEMINI, "gemini-2.5-flash-lite", "gemini") == 258 * tiles


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(448, 448, 512), (449, 448, 768), (1024, 1024, 1792), (9000, 9000, 1792)]
)
def test_xai(width: int, height: int, expected: int) -> None:
    """(tiles + 1) x 256, and never above the 1,792 that its guide gives."""
    assert tokens(width, height, XAI, "grok-4") == expected


def test_qwen() -> None:
    """8 x 16 patches of 28 pixels, as in the published example of 224 x 448, and the two tokens around."""
    assert tokens(224, 448, QWEN, "qwen-vl-max") == 8 * 16 + 2
    assert tokens(1024, 1024, QWEN, "qwen-vl-max") <= 1280 + 2
    mine = "http://127.0.0.1:8000/v1"
    assert tokens(1024, 1024, mine, "Qwen/Qwen2.5-VL-7B-Instruct") == 37 * 37 + 2
    assert tokens(1024, 1024, mine, "Qwen/Qwen3-VL-8B-Instruct") == 32 * 32 + 2


@pytest.fixture(scope="module")
def smart_resize() -> Any:
    return pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl").smart_resize


@given(st.integers(28, 6_000), st.integers(28, 6_000), st.sampled_from([1280, 16384]))
def test_qwen_counts_as_its_own_preprocessing_does(smart_resize: Any, width: int, height: int, most: int) -> None:
    try:
        tall, wide = smart_resize(height, width, factor=28, min_pixels=4 * 28 * 28, max_pixels=most * 28 * 28)
    except ValueError:  # it refuses ratios beyond 200
        return
    assert patch_tokens(width, height, side=28, least=4, most=most) == tall * wide // 28**2


@pytest.mark.parametrize(
    ("endpoint", "model", "wire"),
    [
        (OPENAI, "gpt-5.2", "openai"),
        (OPENAI, "gpt-5-nano-tuned", "openai"),
        (GEMINI, "gemini-3-pro", "gemini"),
        ("https://open.bigmodel.cn/api/paas/v4", "glm-4.5v", "openai"),
        ("https://api.moonshot.ai/v1", "moonshot-v1-32k-vision-preview", "openai"),
        ("https://api.openai.com.example/v1", "gpt-5-nano", "openai"),
        ("simulated:", "sim-gemini-2.5-flash-lite", "gemini"),
    ],
)
def test_what_nobody_documents_is_an_estimate_and_says_so(endpoint: str, model: str, wire: str) -> None:
    found = image_tokens(1024, 1024, endpoint=endpoint, wire=wire, model=model)
    assert (found.tokens, found.documented) == (37 * 37, False)


@given(SIDES, SIDES)
def test_every_teacher_of_the_roster_gets_a_bounded_count(width: int, height: int) -> None:
    bounds = {"gpt-5-nano": 3779, "claude-sonnet-4": 1600, "grok-4": 1792, "qwen-vl-max": 1282}
    for name, spec in ROSTER.items():
        found = image_tokens(width, height, endpoint=spec.endpoint, wire=spec.wire, model=spec.model).tokens
        assert 1 <= found <= bounds.get(name, 10**6), name


@given(SIDES, SIDES)
def test_a_turned_image_counts_the_same(width: int, height: int) -> None:
    for spec in ROSTER.values():
        asked = {"endpoint": spec.endpoint, "wire": spec.wire, "model": spec.model}
        assert image_tokens(width, height, **asked) == image_tokens(height, width, **asked), spec.name
