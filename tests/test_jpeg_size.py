"""The size of a JPEG by its header alone, as Pillow reads it."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cxr_max.jpeg import bare_jpeg, size_of


def written(width: int, height: int, mode: str = "L", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((height, width), np.uint8)).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


@given(st.integers(1, 3000), st.integers(1, 300), st.sampled_from(["L", "RGB"]), st.booleans())
def test_any_jpeg(width: int, height: int, mode: str, progressive: bool) -> None:
    data = written(width, height, mode, progressive=progressive, comment=b"\xff\xc0" * 40)
    assert size_of(data) == (width, height)
    bare = bare_jpeg(data)
    assert bare is not None and size_of(bare) == (width, height)


@pytest.mark.parametrize("data", [b"", b"jpeg", b"\xff\xd8", written(40, 30)[:20], b"\xff\xd8\xff\xc0\x00"])
def test_what_has_no_frame_has_no_size(data: bytes) -> None:
    assert size_of(data) is None


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_end(data: bytes) -> None:
    size_of(b"\xff\xd8" + data)
