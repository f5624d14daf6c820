"""Every transfer syntax of chest radiography, at every depth, gives the same picture as the plain file."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from cxr_max.errors import ImageError
from cxr_max.radiograph import RENDERINGS, encode, render
from tests.jpeg_lossless import jpeg_lossless
from tests.radiograph_files import decoded, dicom, phantom, recipe, saved

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"
DEPTHS = [(8, False), (8, True), (10, False), (12, False), (12, True), (14, False), (15, False), (15, True)]
DEPTHS += [(16, False), (16, True)]
UNCOMPRESSED = {
    "implicit little endian": ImplicitVRLittleEndian,
    "explicit little endian": ExplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "explicit big endian": ExplicitVRBigEndian,
}
LOSSLESS = {
    "RLE": RLELossless,
    "JPEG 2000 lossless": JPEG2000Lossless,
    "JPEG-LS lossless": JPEGLSLossless,
    "JPEG Lossless": JPEGLossless,
    "JPEG Lossless SV1": JPEGLosslessSV1,
}
LOSSY = {"JPEG 2000": JPEG2000, "JPEG-LS near-lossless": JPEGLSNearLossless}


def require(syntax: str) -> None:
    if UID(syntax).is_encapsulated and not get_decoder(syntax).available_plugins:
        pytest.skip(f"no decoder for {UID(syntax).name} is installed")


def values_of(bits: int, signed: bool) -> Any:
    low = -(2 ** (bits - 1)) if signed else 0
    return phantom(44, 37, low=low, high=low + 2**bits - 1)


def big_endian(dataset: pydicom.FileDataset, values: Any) -> Any:
    """The same data set with its bytes swapped; pydicom converts none that was made little endian."""
    kind = ("i" if dataset.PixelRepresentation else "u") + str(dataset.BitsAllocated // 8)
    swapped = pydicom.Dataset(dataset)
    swapped.file_meta = dataset.file_meta
    data = values.astype(f">{kind}").tobytes()
    swapped.PixelData = data + b"\0" * (len(data) % 2)
    return swapped


def written(path: Path, values: Any, bits: int, signed: bool, syntax: str, **attributes: Any) -> Path:
    """The values as a DICOM file in this transfer syntax."""
    dataset = dicom(values, bits, signed, **attributes)
    if syntax in {JPEGLossless, JPEGLosslessSV1}:
        frame = jpeg_lossless(values.astype("<u2") & (2**bits - 1), bits)
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].is_undefined_length = True
    elif UID(syntax).is_encapsulated:
        options = {JPEG2000: {"j2k_psnr": [70]}, JPEGLSNearLossless: {"jls_error": 2}}.get(UID(syntax), {})
        dataset.compress(UID(syntax), **options)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    if syntax == ExplicitVRBigEndian:
        return saved(path, big_endian(dataset, values))
    return saved(path, dataset)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
@pytest.mark.parametrize("name", [*UNCOMPRESSED, *LOSSLESS])
def test_lossless_syntaxes_give_the_picture(
    tmp_path: Path, name: str, bits: int, signed: bool, photometric: str
) -> None:
    syntax = {**UNCOMPRESSED, **LOSSLESS}[name]
    require(syntax)
    values = values_of(bits, signed)
    path = written(tmp_path / "a.dcm", values, bits, signed, syntax, PhotometricInterpretation=photometric)
    low, high = values.min(), values.max()
    unit = (values - low) / (high - low)
    want = np.rint(255 * (1 - unit if photometric == "MONOCHROME1" else unit))
    assert np.abs(render(path, "voi") - want).max() <= 1
    assert np.abs(render(path) - recipe(values, photometric == "MONOCHROME1")).max() <= 1


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (12, True), (16, False)])
@pytest.mark.parametrize("name", LOSSY)
def test_lossy_syntaxes_give_nearly_the_picture(tmp_path: Path, name: str, bits: int, signed: bool) -> None:
    require(LOSSY[name])
    values = values_of(bits, signed)
    path = written(tmp_path / "a.dcm", values, bits, signed, LOSSY[name])
    want = (values - values.min()) / (values.max() - values.min()) * 255
    assert np.abs(render(path, "voi") - want).mean() < 2


def test_jpeg_baseline_gives_nearly_the_picture(tmp_path: Path) -> None:
    values = values_of(8, False)
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, "JPEG", quality=97)
    dataset = dicom(values, 8)
    dataset.PixelData = encapsulate([buffer.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    assert np.abs(render(saved(tmp_path / "a.dcm", dataset), "voi").astype(int) - values).mean() < 3


@pytest.mark.parametrize("name", ["RLE", "JPEG 2000 lossless"])
def test_fragments_of_one_frame_are_joined(tmp_path: Path, name: str) -> None:
    values = values_of(12, False)
    path = written(tmp_path / "a.dcm", values, 12, False, LOSSLESS[name])
    dataset = pydicom.dcmread(path)
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    pieces = 1 if name == "RLE" else 3
    dataset.PixelData = encapsulate([frame], fragments_per_frame=pieces)
    assert np.array_equal(render(saved(tmp_path / "b.dcm", dataset)), render(path))


@pytest.mark.parametrize("name", ["JPEG 2000 lossless", "JPEG-LS lossless", "JPEG Lossless SV1"])
def test_a_stream_of_another_size_than_the_header_is_refused(tmp_path: Path, name: str) -> None:
    require(LOSSLESS[name])
    values = values_of(12, False)
    dataset = pydicom.dcmread(written(tmp_path / "a.dcm", values, 12, False, LOSSLESS[name]))
    dataset.Rows = 4400
    with pytest.raises(ImageError, match=r"44 x 37 pixels where its header says 4400 x 37"):
        render(saved(tmp_path / "b.dcm", dataset))


def test_rle_of_far_too_few_bytes_is_refused(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(written(tmp_path / "a.dcm", values_of(12, False), 12, False, RLELossless))
    dataset.Rows = dataset.Columns = 19_000
    with pytest.raises(ImageError, match=r"too few bytes"):
        render(saved(tmp_path / "b.dcm", dataset))


# pydicom's own test files

GREY = {
    "693_J2KI.dcm": (512, 512),
    "CT_small.dcm": (128, 128),
    "J2K_pixelrep_mismatch.dcm": (512, 512),
    "JPEG2000.dcm": (1024, 256),
    "JPEGLSNearLossless_08.dcm": (45, 10),
    "JPEGLSNearLossless_16.dcm": (50, 10),
    "JPGExtended.dcm": (1024, 256),
    "MR_small.dcm": (64, 64),
    "MR_small_RLE.dcm": (64, 64),
    "MR_small_bigendian.dcm": (64, 64),
    "MR_small_expb.dcm": (64, 64),
    "MR_small_implicit.dcm": (64, 64),
    "MR_small_jp2klossless.dcm": (64, 64),
    "MR_small_jpeg_ls_lossless.dcm": (64, 64),
    "MR_small_padded.dcm": (64, 64),
    "examples_overlay.dcm": (300, 484),
    "image_dfl.dcm": (512, 512),
    "zipMR.gz": (64, 64),
}
"""Those of one grey frame that are whole, and their rows and columns."""


def bundled() -> list[Path]:
    return sorted(path for path in BUNDLED.rglob("*") if path.is_file() and path.suffix in {".dcm", ".gz", ""})


def test_pydicoms_test_files_render_or_are_refused_with_a_reason() -> None:
    rendered, refused = set(), {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in bundled():
            for rendering in RENDERINGS:
                try:
                    sent = encode(path, rendering)
                except ImageError as fault:
                    assert path.name in str(fault) and "\n" not in str(fault) and str(fault).endswith(".")
                    refused[path.name] = str(fault)
                else:
                    assert decoded(sent.jpeg).shape == (sent.height, sent.width)
                    rendered.add(path.name)
    assert len(rendered | set(refused)) > 70
    for name in GREY.keys() - rendered:
        assert "No decoder" in refused[name]
    assert not rendered & set(refused)


@pytest.mark.parametrize("name", GREY)
def test_a_bundled_grey_file_is_the_recipe_of_its_pixels(name: str, tmp_path: Path) -> None:
    path = BUNDLED / name
    if not path.is_file():
        pytest.skip("this pydicom does not bundle it")
    try:
        got = render(path, long_side=None)
    except ImageError as fault:
        if "No decoder" in str(fault):
            pytest.skip(str(fault))
        raise
    if path.suffix == ".gz":
        import gzip

        (tmp_path / "a.dcm").write_bytes(gzip.decompress(path.read_bytes()))
        path = tmp_path / "a.dcm"
    dataset = pydicom.dcmread(path)
    assert got.shape == GREY[name]
    want = recipe(dataset.pixel_array, dataset.PhotometricInterpretation == "MONOCHROME1")
    assert np.abs(got - want).max() <= 1
