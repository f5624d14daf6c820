"""What is read straight from a file is what pydicom reads, and tables are what NumPy and OpenCV compute."""

import gzip
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from cxr_max import rendering
from cxr_max.dicom import read_dicom_pixels
from cxr_max.dicom_fast import PlainFile
from cxr_max.errors import ImageError
from cxr_max.image_file import Stored
from cxr_max.radiograph import RENDERINGS, encode, render
from cxr_max.scratch import scratch
from tests.radiograph_files import dicom, lut, phantom, recipe, saved


def values_of(stored: Stored) -> Any:
    """All pixels, by what their bits mean."""
    codes = np.vstack([band.copy() for band in stored.bands(7)])
    return rendering._values(stored)[codes & (2**stored.bits - 1)]


@st.composite
def stored_files(draw: st.DrawFn) -> tuple[bytes, bool]:
    """A DICOM file of any bits below the allocated ones filled with junk, and whether its data set is implicit."""
    allocated = draw(st.sampled_from([8, 16]))
    bits = draw(st.integers(1, allocated))
    signed = draw(st.booleans())
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    junk = generator.integers(0, 2**allocated, (rows, columns))
    dataset = dicom(junk.astype(np.int64), 8 if allocated == 8 else 16)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
    if draw(st.booleans()):
        dataset.NumberOfFrames = 1
    implicit = draw(st.booleans())
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
    return buffer.getvalue(), implicit


@settings(max_examples=150, deadline=None)
@given(file=stored_files(), packed=st.booleans())
def test_values_read_straight_are_pydicoms(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[bytes, bool], packed: bool
) -> None:
    data, _ = file
    path = tmp_path_factory.mktemp("fast") / ("a.dcm.gz" if packed else "a.dcm")
    path.write_bytes(gzip.compress(data) if packed else data)
    stored = read_dicom_pixels(path)
    assert isinstance(stored.pixels, PlainFile) != packed
    want = pydicom.dcmread(io.BytesIO(data)).pixel_array
    assert np.array_equal(values_of(stored), want)


def test_a_file_without_meta_and_one_with_trailing_padding_are_read_straight(tmp_path: Path) -> None:
    values = phantom()
    padded = dicom(values)
    padded.add_new(0xFFFCFFFC, "OB", b"\0" * 20)
    bare = pydicom.Dataset(dicom(values))
    bare.save_as(tmp_path / "bare.dcm", implicit_vr=True, little_endian=True, enforce_file_format=False)
    for path in (saved(tmp_path / "padded.dcm", padded), tmp_path / "bare.dcm"):
        stored = read_dicom_pixels(path)
        assert isinstance(stored.pixels, PlainFile) and np.array_equal(values_of(stored), values)


@pytest.mark.parametrize("change", ["compressed", "longer", "behind", "bits unknown", "colour"])
def test_whatever_is_unusual_is_left_to_pydicom(tmp_path: Path, change: str) -> None:
    dataset = dicom(phantom(), WindowCenter=1000, WindowWidth=900)
    if change == "compressed":
        dataset.compress(RLELossless)
    elif change == "longer":
        dataset.PixelData += b"\0" * 6
    elif change == "behind":
        dataset.add_new(0x7FE10010, "LO", "somebody's element")
    elif change == "bits unknown":
        del dataset.BitsStored
    else:
        dataset.SamplesPerPixel = 3
    path = saved(tmp_path / "a.dcm", dataset)
    try:
        assert not isinstance(read_dicom_pixels(path).pixels, PlainFile)
    except ImageError as fault:
        assert change in {"bits unknown", "colour"} and "a.dcm" in str(fault)


def test_a_window_that_stands_behind_the_pixels_counts(tmp_path: Path) -> None:
    """No writer does that, but a data set out of order must not change what is sent."""
    want = render(saved(tmp_path / "a.dcm", dicom(phantom(), WindowCenter=1000, WindowWidth=900)), "voi")
    plain = saved(tmp_path / "b.dcm", dicom(phantom())).read_bytes()
    tail = io.BytesIO()
    windowed = pydicom.Dataset()
    windowed.WindowCenter, windowed.WindowWidth = 1000, 900
    pydicom.dcmwrite(tail, windowed, implicit_vr=False, little_endian=True, enforce_file_format=False)
    (tmp_path / "b.dcm").write_bytes(plain + tail.getvalue())
    assert np.array_equal(render(tmp_path / "b.dcm", "voi"), want)


def test_a_file_cut_short_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.dcm", dicom(phantom()))

    def cut(*arguments: Any) -> Any:
        path.write_bytes(path.read_bytes()[:-100])
        return original(*arguments)

    original = rendering._values
    monkeypatch.setattr(rendering, "_values", cut)
    for name in RENDERINGS:
        path = saved(tmp_path / f"{name}.dcm", dicom(phantom(), WindowCenter=9, WindowWidth=9))
        with pytest.raises(ImageError, match=rf"{name}.dcm cannot be read .*cut short"):
            render(path, name)


def test_a_deflated_file_is_inflated_as_far_as_an_image_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cxr_max.dicom

    dataset = dicom(phantom())
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    want = render(saved(tmp_path / "a.dcm", dicom(phantom())))
    assert np.array_equal(render(saved(tmp_path / "b.dcm", dataset)), want)
    dataset.add_new(0x00090010, "LO", "somebody")
    dataset.add_new(0x00091001, "OB", b"\0" * 1_000_000)
    bomb = saved(tmp_path / "c.dcm", dataset)
    assert bomb.stat().st_size < 20_000
    assert np.array_equal(render(bomb), want)
    monkeypatch.setattr(cxr_max.dicom, "MAX_PIXELS", 100_000)
    with pytest.raises(ImageError, match=r"c\.dcm is truncated"):
        render(bomb)


def test_burned_in_annotation_is_told_whichever_way_pixels_are_read(tmp_path: Path) -> None:
    dataset = dicom(phantom(), BurnedInAnnotation="YES")
    assert encode(saved(tmp_path / "a.dcm", dataset)).burned_in
    dataset.compress(RLELossless)
    assert encode(saved(tmp_path / "b.dcm", dataset)).burned_in
    assert not encode(saved(tmp_path / "c.dcm", dicom(phantom(), BurnedInAnnotation="NO"))).burned_in


# Tables


def stored_of(pixels: Any, bits: int | None = None) -> Stored:
    return Stored(pixels, False, None, bits or 8 * pixels.itemsize)


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kind=st.sampled_from(["u1", "<u2", "<i2"]),
    spread=st.integers(1, 2**16),
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.005, 0.995, 0.5, 0.0, 1.0]),
)
def test_counts_and_quantiles_are_numpys(
    shape: tuple[int, int], kind: str, spread: int, seed: int, share: float
) -> None:
    dtype = np.dtype(kind)
    low = np.iinfo(dtype).min
    drawn = np.random.default_rng(seed).integers(low, low + min(spread, 256**dtype.itemsize), shape)
    pixels = drawn.astype(dtype)
    stored = stored_of(pixels)
    counts = rendering._counts(stored)
    values = rendering._values(stored)
    assert {int(values[code]): int(n) for code, n in enumerate(counts) if n} == dict(
        zip(*(column.tolist() for column in np.unique(pixels, return_counts=True)), strict=True)
    )
    assert rendering._quantile(values, counts, share) == np.quantile(pixels, share)


def test_counts_leave_out_unused_bits(tmp_path: Path) -> None:
    codes = np.array([[0x0FFF, 0xFFFF, 0x1000, 5]], np.uint16)
    counts = rendering._counts(stored_of(codes, 12))
    assert counts[[0xFFF, 0, 5]].tolist() == [2, 1, 1] and counts.sum() == 4


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), greys=st.integers(1, 256), size=st.integers(1, 300))
def test_equalisation_is_opencvs_bit_for_bit(seed: int, greys: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    image = (generator.integers(0, greys, (size, 7)) * generator.random()).astype(np.uint8)
    table = rendering._equalising(np.bincount(image.ravel(), minlength=256))
    assert np.array_equal(table[image], cv2.equalizeHist(image))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
def test_mimic_jpg_is_the_recipe_over_many_bands(tmp_path: Path, photometric: str, signed: bool) -> None:
    values = phantom(1500, 1000, low=-1800 if signed else 0, high=1900)
    path = saved(tmp_path / "a.dcm", dicom(values, 12, signed, PhotometricInterpretation=photometric))
    assert rendering._band_height(read_dicom_pixels(path)) < 1500
    got = render(path, long_side=None).astype(int)
    assert np.abs(got - recipe(values, photometric == "MONOCHROME1")).max() <= 1


def test_padding_values_are_values_like_others(tmp_path: Path) -> None:
    values = phantom(low=300, high=4000)
    values[:8] = 0
    plain = render(saved(tmp_path / "a.dcm", dicom(values)))
    dataset = dicom(values)
    dataset.add_new("PixelPaddingValue", "US", 0)
    assert np.array_equal(render(saved(tmp_path / "b.dcm", dataset)), plain)


def test_the_first_of_several_windows_and_luts_is_taken(tmp_path: Path) -> None:
    first, second = lut(0, 8, np.arange(4096) // 16), lut(0, 8, np.zeros(4096, int))
    one = render(saved(tmp_path / "a.dcm", dicom(phantom(), VOILUTSequence=[first])), "voi")
    both = render(saved(tmp_path / "b.dcm", dicom(phantom(), VOILUTSequence=[first, second])), "voi")
    assert np.array_equal(one, both) and one.std() > 20


# Sizes


def area_mean(image: Any, rows: int, columns: int) -> Any:
    """The exact average over each target pixel's area, in float64."""

    def weights(whole: int, parts: int) -> Any:
        edges = np.arange(parts + 1) * whole / parts
        pixel = np.arange(whole)
        overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
        return np.clip(overlap, 0, None) * parts / whole

    return weights(image.shape[0], rows) @ image.astype(float) @ weights(image.shape[1], columns).T


@pytest.mark.parametrize(
    ("rows", "columns", "size"),
    [(3056, 2544, (852, 1024)), (1501, 1003, (401, 600)), (900, 700, (597, 768)), (2048, 1024, (256, 512))],
)
def test_averaging_down_is_the_mean_of_areas(rows: int, columns: int, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).normal(0, 3, (rows, columns))
    image = np.clip(phantom(rows, columns, high=255) * 0.8 + 20 + noise, 0, 255).round().astype(np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 1.0)
    got = rendering.averaged_down(image, size)
    assert got.shape == size[::-1] and got.dtype == np.uint8
    error = got - area_mean(image, *got.shape)
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 50 and abs(error.mean()) < 0.15


def test_a_power_of_two_is_averaged_exactly() -> None:
    image = phantom(512, 256, high=255).astype(np.uint8)
    want = image.reshape(128, 4, 64, 4).mean(axis=(1, 3))
    assert np.abs(rendering.averaged_down(image, (64, 128)) - want).max() <= 1


@pytest.mark.parametrize("long_side", [None, 60, 40, 20])
def test_an_image_stays_as_it_was_while_others_are_rendered(tmp_path: Path, long_side: int | None) -> None:
    first = saved(tmp_path / "first.dcm", dicom(phantom()))
    other = saved(tmp_path / "other.dcm", dicom(phantom()[::-1]))
    grey = render(first, "mimic_jpg", long_side)
    before = grey.copy()
    assert (render(other, "mimic_jpg", long_side) != before).any()
    assert (grey == before).all() and grey.flags.writeable


def test_threads_that_render_different_sizes_do_not_disturb_each_other(tmp_path: Path) -> None:
    paths = [
        saved(tmp_path / f"{rows}.dcm", dicom(phantom(rows, columns)))
        for rows, columns in ((300, 240), (410, 200), (128, 512), (37, 41))
    ]
    wanted = {path: encode(path, "mimic_jpg", 64).sha256 for path in paths}
    many = paths * 40
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda path: encode(path, "mimic_jpg", 64).sha256, many))
    assert found == [wanted[path] for path in many]


def test_only_so_much_memory_is_kept_for_the_next_image() -> None:
    small = scratch("a test", (4, 5))
    assert small.shape == (4, 5) and np.shares_memory(small, scratch("a test", (2, 3)))
    assert not np.shares_memory(small, scratch("another", (4, 5)))
    large = scratch("a test", (2**13, 2**12 + 1))
    assert not np.shares_memory(large, scratch("a test", (2**13, 2**12 + 1)))
    assert np.shares_memory(small, scratch("a test", (5, 4)))
