"""Whatever the bytes, a file renders or is refused by name, in one sentence that says what to do."""

import gzip
import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import (
    MPEG2MPML,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr_max.errors import ImageError
from cxr_max.jpeg import bare_jpeg
from cxr_max.radiograph import RENDERINGS, Header, encode, read_header, render
from tests.radiograph_files import decoded, dicom, jpeg_bytes, lut, phantom, saved


def refused(path: Path, *words: str, **options: Any) -> str:
    """The one sentence with which ``render`` and ``encode`` refuse this file."""
    with pytest.raises(ImageError) as fault:
        render(path, **options)
    with pytest.raises(ImageError):
        encode(path, **options)
    message = str(fault.value)
    assert path.name in message and "\n" not in message and message.endswith("."), message
    for word in words:
        assert word in message, message
    return message


def test_missing_empty_and_no_image(tmp_path: Path) -> None:
    for name in ("a.dcm", "a.jpg", "a.png", "a.dcm.gz", "a"):
        with pytest.raises(ImageError, match=r"cannot be found"):
            render(tmp_path / name)
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ImageError, match=r"is empty"):
            render(tmp_path / name)
        (tmp_path / name).write_bytes(b"no image at all, just words\n" * 50)
        refused(tmp_path / name)
        with pytest.raises(ImageError):
            read_header(tmp_path / name)
    (tmp_path / "folder.dcm").mkdir()
    refused(tmp_path / "folder.dcm", "no file")


def test_truncated_dicom(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.dcm", dicom(phantom())).read_bytes()
    for length in (140, 300, len(data) - 5000, len(data) - 2):
        (tmp_path / "b.dcm").write_bytes(data[:length])
        refused(tmp_path / "b.dcm", "truncated", "fetch it again")
        (tmp_path / "b.dcm.gz").write_bytes(gzip.compress(data)[: length // 2])
        refused(tmp_path / "b.dcm.gz", "truncated")
    for syntax in (RLELossless, JPEG2000Lossless):
        dataset = dicom(phantom())
        dataset.compress(syntax)
        data = saved(tmp_path / "a.dcm", dataset).read_bytes()
        (tmp_path / "b.dcm").write_bytes(data[: len(data) - 800])
        refused(tmp_path / "b.dcm", "truncated")


def test_pixels_shorter_than_rows_times_columns(tmp_path: Path) -> None:
    dataset = dicom(phantom())
    dataset.Rows = 61
    refused(saved(tmp_path / "a.dcm", dataset), "truncated", "5760 of 5856 bytes")


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg(tmp_path: Path, mode: str, progressive: bool) -> None:
    picture = Image.fromarray(phantom(300, 200, high=255).astype(np.uint8)).convert(mode)
    picture.save(tmp_path / "a.jpg", progressive=progressive)
    data = (tmp_path / "a.jpg").read_bytes()
    for length in (2, 20, 200, len(data) // 2, len(data) * 9 // 10):
        (tmp_path / "b.jpg").write_bytes(data[:length])
        refused(tmp_path / "b.jpg", "fetch it again")
        refused(tmp_path / "b.jpg", long_side=90)


def test_a_whole_jpeg_that_does_not_decode_is_not_sent(tmp_path: Path) -> None:
    data = bytearray(jpeg_bytes(phantom(high=255).astype(np.uint8)))
    tables = data.index(b"\xff\xc4") + 5
    data[tables : tables + 16] = b"\xff" * 16
    (tmp_path / "a.jpg").write_bytes(data)
    assert bare_jpeg(bytes(data)) is not None
    refused(tmp_path / "a.jpg", "damaged")


def test_truncated_png(tmp_path: Path) -> None:
    for kind in (np.uint8, np.uint16):
        Image.fromarray(phantom(high=255).astype(kind)).save(tmp_path / "a.png")
        data = (tmp_path / "a.png").read_bytes()
        for length in (10, 50, len(data) // 2):
            (tmp_path / "b.png").write_bytes(data[:length])
            refused(tmp_path / "b.png", "fetch it again")


def test_frames_colour_and_depth_are_refused_by_name(tmp_path: Path) -> None:
    values = phantom()
    frames = dicom(values, NumberOfFrames=3, PixelData=values.astype("<u2").tobytes() * 3)
    refused(saved(tmp_path / "a.dcm", frames), "multi-frame (3 frames)")
    colour = dicom(np.zeros((60, 48, 3)), 8, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    colour.PlanarConfiguration = 0
    refused(saved(tmp_path / "b.dcm", colour), "not grey", "RGB")
    refused(saved(tmp_path / "c.dcm", dicom(values, PhotometricInterpretation="PALETTE COLOR")), "not grey")
    refused(saved(tmp_path / "d.dcm", dicom(values, BitsAllocated=32)), "32 bits")
    headless = dicom(values)
    del headless.PixelData
    refused(saved(tmp_path / "e.dcm", headless), "holds no pixels")
    refused(saved(tmp_path / "f.dcm", dicom(values, Rows=65535, Columns=65535)), "too many")
    refused(saved(tmp_path / "g.dcm", dicom(values, WindowCenter=5, WindowWidth=0)), "window", rendering="voi")


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        (JPEGLosslessSV1, ["JPEG Lossless", "pip install 'cxr-max[gpl]'", "GPL-3"]),
        (JPEGExtended12Bit, ["JPEG Extended", "pip install 'cxr-max[gpl]'", "GPL-3"]),
        (JPEGLSLossless, ["JPEG-LS", "pip install pyjpegls"]),
        (MPEG2MPML, ["MPEG2", "no radiograph"]),
    ],
)
def test_a_missing_decoder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str, words: list[str]
) -> None:
    from pydicom.pixels import get_decoder
    from pydicom.pixels.decoders.base import Decoder

    if syntax != MPEG2MPML and get_decoder(syntax).available_plugins not in {(), ("pillow",)}:
        # As on a machine without the optional decoders.
        kept = property(lambda self: tuple(name for name in self._available if name == "pillow"))
        monkeypatch.setattr(Decoder, "available_plugins", kept)
    dataset = dicom(phantom())
    dataset.compress(RLELossless)
    dataset.file_meta.TransferSyntaxUID = syntax
    refused(saved(tmp_path / "a.dcm", dataset), *words)


def test_a_jpeg_2000_bomb_is_refused_at_once(tmp_path: Path) -> None:
    dataset = dicom(phantom())
    dataset.compress(JPEG2000Lossless)
    data = bytearray(saved(tmp_path / "a.dcm", dataset).read_bytes())
    struct.pack_into(">II", data, data.index(b"\xff\x4f\xff\x51") + 8, 60000, 60000)
    (tmp_path / "a.dcm").write_bytes(data)
    refused(tmp_path / "a.dcm", "60000 x 60000", "60 x 48")


def test_picture_bombs_and_odd_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(phantom(high=255).astype(np.uint8))
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.tif", save_all=True, append_images=[picture])
    refused(tmp_path / "b.tif", "several pictures")
    Image.fromarray(phantom().astype(np.float32)).save(tmp_path / "c.tif")
    refused(tmp_path / "c.tif", "floating-point")
    Image.fromarray(phantom(high=70000).astype(np.int32)).save(tmp_path / "d.tif")
    refused(tmp_path / "d.tif", "outside 0 to 65535")
    Image.fromarray(phantom().astype(np.uint16)).save(tmp_path / "e.png")
    (tmp_path / "e.png").rename(tmp_path / "e.jpg")
    refused(tmp_path / "e.jpg", "PNG")
    Image.fromarray(np.zeros((1, 65501), np.uint8)).save(tmp_path / "f.png")
    with pytest.raises(ImageError, match=r"too long for JPEG"):
        encode(tmp_path / "f.png", long_side=None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused(tmp_path / "a.png", "too many pixels")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert render(tmp_path / "a.png").shape == (60, 48)


def _small_dicoms() -> list[bytes]:
    files = []
    for syntax in (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless):
        dataset = dicom(phantom(40, 36), WindowCenter=2000, WindowWidth=1000, RescaleSlope=1, RescaleIntercept=0)
        dataset.VOILUTSequence = [lut(0, 8, np.arange(64))]
        if syntax != ExplicitVRLittleEndian:
            dataset.compress(syntax)
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files


SMALL_DICOMS = _small_dicoms()
SMALL_JPEGS = [
    jpeg_bytes(phantom(40, 36, high=255).astype(np.uint8), comment=b"Jane", progressive=progressive)
    for progressive in (False, True)
]


@st.composite
def damaged(draw: st.DrawFn, files: list[bytes]) -> bytes:
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)) | st.just(len(data)))])


def survives(path: Path, data: bytes, rendering: Any) -> None:
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for act in (lambda: encode(path, rendering, 20), lambda: read_header(path)):
            try:
                result = act()
            except ImageError as fault:
                assert path.name in str(fault) and "\n" not in str(fault)
            else:
                assert isinstance(result, Header) or max(decoded(result.jpeg).shape) <= 20


FUZZ = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FUZZ
@given(data=damaged(SMALL_DICOMS), rendering=st.sampled_from(RENDERINGS))
def test_damaged_dicom_renders_or_is_refused(tmp_path: Path, data: bytes, rendering: str) -> None:
    survives(tmp_path / "a.dcm", data, rendering)


@FUZZ
@given(data=damaged(SMALL_JPEGS))
def test_damaged_jpeg_renders_or_is_refused(tmp_path: Path, data: bytes) -> None:
    survives(tmp_path / "a.jpg", data, "mimic_jpg")
