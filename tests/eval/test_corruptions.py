"""The corruptions against closed forms, then determinism and order of severities, then bad input."""

import csv
from hashlib import sha256
from itertools import pairwise, product
from math import inf, log, log10, pi
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_max.builders.sources import phantom_image
from cxr_max.errors import RequestError
from cxr_max.eval.corruptions import (
    CHANGES_REFERENCE,
    CORRUPTIONS,
    SEVERITIES,
    blank,
    corrupt,
    describe,
    mirror,
)
from cxr_max.eval.corruptions.device import covered
from cxr_max.eval.corruptions.handling import turned
from cxr_max.eval.corruptions.physics import DECADES, QUANTA_PER_MM2, motion_kernel, quanta
from cxr_max.eval.corruptions.quality import psnr, ssim
from cxr_max.eval.corruptions.severities import BLUR, CONTRAST, FIELD_MM, MOTION, NOISE
from cxr_max.findings import FINDINGS
from cxr_max.radiograph import render

ALL = list(product(CORRUPTIONS, SEVERITIES))
MEDIAN_PSNR = {
    "noise": (42.8, 38.1, 33.9, 29.9, 25.9),
    "blur": (34.9, 33.0, 31.3, 30.2, 29.2),
    "motion": (36.0, 34.1, 33.0, 31.0, 30.1),
    "contrast": (24.7, 17.6, 13.6, 11.3, 9.2),
    "jpeg": (39.6, 37.5, 35.3, 33.6, 30.9),
    "downsampling": (35.7, 33.9, 32.7, 31.7, 30.2),
    "rotation_crop": (20.7, 18.0, 16.5, 15.7, 15.1),
    "device": (37.3, 30.7, 24.8, 23.6, 19.7),
}
"""What the module's docstring states."""


@pytest.fixture(scope="module")
def phantom() -> np.ndarray:
    return phantom_image.draw({"Pleural Effusion": "left"}, seed=3, size=256, severity=0.8)


@pytest.mark.parametrize("severity", SEVERITIES[:3])
@pytest.mark.parametrize("level", [60, 128, 200])
def test_noise_has_the_standard_deviation_of_poisson_counts_on_a_logarithmic_display(
    severity: int, level: int
) -> None:
    noisy = corrupt(np.full((1024, 1024), level, dtype=np.uint8), "noise", severity, "a").astype(float)
    pixel = FIELD_MM / 1024
    counts = NOISE[severity - 1].dose * QUANTA_PER_MM2 * pixel**2 * 10 ** (DECADES * (0.5 - level / 255))
    expected = (255 / (DECADES * log(10))) ** 2 / counts + 1 / 12  # and rounding to whole grey levels
    assert noisy.var() == pytest.approx(expected, rel=0.06)
    assert noisy.mean() == pytest.approx(level, abs=0.1)


def test_the_counts_behind_the_noise_have_a_variance_equal_to_their_mean() -> None:
    level, severity = 100, 4
    noisy = corrupt(np.full((1024, 1024), level, dtype=np.uint8), "noise", severity, "b").astype(float)
    clear = float(quanta(np.array(0.0), NOISE[severity - 1].dose, FIELD_MM / 1024))
    counts = clear * 10 ** (-noisy * DECADES / 255) - 0.5
    assert counts.mean() == pytest.approx(clear * 10 ** (-level * DECADES / 255), rel=0.01)
    assert counts.var() == pytest.approx(counts.mean(), rel=0.03)


def test_a_tenth_of_the_dose_is_a_tenth_of_the_quanta() -> None:
    grey = np.arange(0.0, 256.0)
    assert quanta(grey, 0.1, 0.4) == pytest.approx(quanta(grey, 1.0, 0.4) / 10)
    assert quanta(np.array(0.0), 1, 1) / quanta(np.array(255.0), 1, 1) == pytest.approx(10**DECADES)
    assert quanta(np.array(127.5), 1, 1) == pytest.approx(QUANTA_PER_MM2)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_passes_half_of_the_modulation_at_the_stated_frequency(severity: int) -> None:
    pixel = FIELD_MM / 1024
    wanted = BLUR[severity - 1].mtf50
    cycles = round(wanted * FIELD_MM)  # whole periods
    wave = np.sin(2 * pi * cycles * np.arange(1024) / 1024)
    image = np.tile(np.rint(127.5 + 100 * wave), (64, 1)).astype(np.uint8)
    blurred = corrupt(image, "blur", severity, "a").astype(float)[32, 128:-128]
    clean = image.astype(float)[32, 128:-128]
    transfer = (blurred - 127.5) @ (clean - 127.5) / ((clean - 127.5) @ (clean - 127.5))
    sigma, frequency = BLUR[severity - 1].sigma_mm, cycles / (1024 * pixel)
    assert transfer == pytest.approx(np.exp(-2 * (pi * sigma * frequency) ** 2), abs=0.015)
    assert transfer == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("length", [3.0, 7.3, 20.0, 31.0])
@pytest.mark.parametrize("angle", [0.0, 0.4, pi / 2, 2.5])
def test_the_motion_kernel_is_a_line_of_the_stated_length_and_direction(length: float, angle: float) -> None:
    kernel = motion_kernel(length, angle).astype(float)
    y, x = np.indices(kernel.shape) - kernel.shape[0] // 2
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert (kernel * x).sum() == pytest.approx(0, abs=1e-4)
    spread = np.array([[(kernel * a * b).sum() for a in (x, y)] for b in (x, y)])
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    # The variance of an even spread is length^2 / 12; sharing among pixels adds at most 1/4 on each axis.
    assert 0 <= along @ spread @ along - length**2 / 12 <= 0.26
    assert 0 <= across @ spread @ across <= 0.26


def test_a_horizontal_motion_kernel_is_a_box() -> None:
    row = motion_kernel(8, 0.0)[motion_kernel(8, 0.0).shape[0] // 2]
    assert row[2:-2] == pytest.approx(np.full(len(row) - 4, 1 / 8), abs=1e-3)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_motion_spreads_a_point_over_the_stated_fraction_of_the_longer_side(severity: int) -> None:
    image = np.zeros((1001, 801), dtype=np.uint8)
    image[500, 400] = 255
    image = cv2.dilate(image, np.ones((9, 9), dtype=np.uint8))  # bright enough to be seen after spreading
    moved = corrupt(image, "motion", severity, "k").astype(float)
    y, x = np.argwhere(moved > 0).T - np.array([[500], [400]])
    weights = moved[moved > 0] / moved.sum()
    spread = (weights * (x**2 + y**2)).sum() - 2 * (81 - 1) / 12
    assert spread == pytest.approx((MOTION[severity - 1].length * 1001) ** 2 / 12, rel=0.25, abs=0.6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_is_a_straight_line_up_or_down(severity: int) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    chosen, signs = CONTRAST[severity - 1], set()
    for key in "abcdefgh":
        got = corrupt(ramp, "contrast", severity, key)[0].astype(float)
        sign = 1 if got.mean() > 127.5 else -1
        signs.add(sign)
        line = 127.5 + chosen.contrast * (np.arange(256) - 127.5) + sign * chosen.shift
        assert got == pytest.approx(np.clip(line, 0, 255), abs=0.51)
    assert signs == {-1, 1}


def test_jpeg_is_what_the_encoder_makes_of_that_quality(phantom: np.ndarray) -> None:
    _, data = cv2.imencode(".jpg", phantom, [cv2.IMWRITE_JPEG_QUALITY, 40])
    assert (corrupt(phantom, "jpeg", 1, "a") == cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)).all()


def test_down_sampling_by_two_averages_four_pixels() -> None:
    checks = (np.indices((64, 64)).sum(0) % 2 * 200).astype(np.uint8)
    assert (corrupt(checks, "downsampling", 1, "a") == 100).all()


def test_turning_keeps_the_centre_and_magnifies_by_what_was_cut_off() -> None:
    matrix = turned((101, 81), 30, 0.1, (0.5, 0.5))
    assert matrix @ [40, 50, 1] == pytest.approx([40, 50])
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(1 / 0.9**2)
    # Counter-clockwise as seen: what was right of the centre goes up (y falls).
    assert (matrix @ [50, 50, 1])[1] == pytest.approx(50 - 10 * np.sin(np.radians(30)) / 0.9)


@pytest.mark.parametrize("place", [0.0, 1.0])
def test_cropping_loses_only_the_far_or_the_near_end(place: float) -> None:
    matrix = turned((100, 100), 0, 0.2, (place, place))
    near, far = matrix @ [-0.5, -0.5, 1], matrix @ [99.5, 99.5, 1]
    assert near == pytest.approx([-0.5 - 25 * place] * 2)
    assert far == pytest.approx([99.5 + 25 * (1 - place)] * 2)


def test_a_turned_image_is_black_outside_and_keeps_its_shape() -> None:
    turned_image = corrupt(np.full((200, 160), 200, dtype=np.uint8), "rotation_crop", 5, "a")
    assert turned_image.shape == (200, 160)
    assert turned_image[100, 80] == 200
    assert set(np.unique(turned_image[[0, 0, -1, -1], [0, -1, 0, -1]])) & set(range(50))


def test_devices_only_brighten_and_cover_more_with_each_severity(phantom: np.ndarray) -> None:
    shares = []
    for severity in SEVERITIES:
        assert (corrupt(phantom, "device", severity, "a") >= phantom).all()
        film = covered((1024, 860), severity, np.random.default_rng(0))
        shares.append(float((film.cover > 0.05).mean()))
        assert film.cover.min() >= 0 and film.cover.max() <= 1
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.001, abs=0.001) and shares[4] == pytest.approx(0.11, abs=0.03)


def test_a_line_covers_its_length_times_its_width_and_a_disc_its_area() -> None:
    from cxr_max.eval.corruptions.device import Film

    film = Film((860, 860))  # half a mm per pixel
    film.line([(100, 100), (200, 100)], 10, 1.0)
    assert film.cover.sum() / 4 == pytest.approx(100 * 10 + pi * 25, rel=0.01)
    film = Film((860, 860))
    film.line([(100, 100)], 30, 0.5)
    assert film.cover.sum() / 4 == pytest.approx(0.5 * pi * 15**2, rel=0.01)
    film = Film((860, 860))
    film.box((200, 200), (60, 40), 10, 1.0)
    assert film.cover.sum() / 4 == pytest.approx(60 * 40 - (4 - pi) * 100, rel=0.01)


@pytest.mark.parametrize("key", "abcdefgh")
def test_the_marker_stands_on_its_own_side(key: str) -> None:
    """The left marker belongs to the patient's left, which is the image's right."""
    film = covered((400, 400), 1, np.random.default_rng(int.from_bytes(key.encode())))
    y, x = np.nonzero(film.cover > 0.5)
    is_r = film.cover[y.min() : y.min() + 3, x.min() : x.max() + 1].max(0).mean() > 0.6  # R has a bar on top
    assert (x.max() < 100) == is_r and (x.min() > 300) == (not is_r)


def test_psnr_and_ssim_have_their_closed_forms() -> None:
    grey = np.full((32, 32), 100, dtype=np.uint8)
    assert psnr(grey, grey + 5) == pytest.approx(10 * log10(255**2 / 25))
    assert psnr(grey, grey) == inf
    small = (0.01 * 255) ** 2
    assert ssim(grey, grey + 50) == pytest.approx((2 * 100 * 150 + small) / (100**2 + 150**2 + small))
    assert ssim(grey, grey) == pytest.approx(1)


def test_ssim_equals_the_definition_with_another_filter(phantom: np.ndarray) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    other = corrupt(phantom, "noise", 5, "a")
    one, two = phantom.astype(float), other.astype(float)

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, 1.5, radius=5)[5:-5, 5:-5]

    a, b, covariance = mean(one), mean(two), mean(one * two) - mean(one) * mean(two)
    varied = mean(one**2) - a**2 + mean(two**2) - b**2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = ((2 * a * b + c1) * (2 * covariance + c2) / ((a**2 + b**2 + c1) * (varied + c2))).mean()
    assert ssim(phantom, other) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("name", "severity"), ALL)
def test_the_same_image_always_gets_the_same_corruption(name: str, severity: int, phantom: np.ndarray) -> None:
    before = phantom.copy()
    first = corrupt(phantom, name, severity, "key")
    corrupt(phantom, CORRUPTIONS[0], 1, "something else in between")
    assert (corrupt(phantom, name, severity, "key") == first).all()
    assert (phantom == before).all()
    assert first.dtype == np.uint8 and first.shape == phantom.shape
    assert (first != phantom).any()


@pytest.mark.parametrize("name", ["noise", "motion", "rotation_crop", "device"])
def test_another_image_gets_another_draw(name: str, phantom: np.ndarray) -> None:
    assert (corrupt(phantom, name, 3, "one") != corrupt(phantom, name, 3, "two")).any()


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("key", ["a", "b", "c"])
def test_each_severity_is_worse_than_the_one_before_on_a_phantom(name: str, key: str, phantom: np.ndarray) -> None:
    figures = [psnr(phantom, corrupt(phantom, name, severity, key)) for severity in SEVERITIES]
    assert all(milder > severer for milder, severer in pairwise(figures)), figures


@pytest.mark.slow
def test_the_stated_figures_are_those_of_real_radiographs(shared: Path) -> None:
    with (shared / "cxr" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        paths = [shared / "cxr" / row["file"] for row in csv.DictReader(file)]
    images = [(render(path), sha256(path.read_bytes()).hexdigest()) for path in paths]
    for name in CORRUPTIONS:
        figures = np.array(
            [[psnr(image, corrupt(image, name, one, key)) for one in SEVERITIES] for image, key in images]
        )
        assert np.median(figures, axis=0) == pytest.approx(MEDIAN_PSNR[name], abs=0.1), name
        assert (np.diff(figures, axis=1) >= 0).any(1).sum() <= (name == "downsampling"), name


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(16, 90), st.integers(16, 90)),
    case=st.sampled_from(ALL),
    kind=st.sampled_from(["black", "white", "random"]),
)
def test_any_shape_and_content_stays_an_image_of_that_shape(
    shape: tuple[int, int], case: tuple[str, int], kind: str
) -> None:
    filled = {"black": 0, "white": 255}
    image = (
        np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        if kind == "random"
        else np.full(shape, filled[kind], dtype=np.uint8)
    )
    made = corrupt(image, *case, "key")
    assert made.shape == shape and made.dtype == np.uint8


def test_mirroring_twice_is_nothing_and_once_exchanges_the_sides(phantom: np.ndarray) -> None:
    assert (mirror(mirror(phantom)) == phantom).all()
    assert (mirror(phantom)[:, 0] == phantom[:, -1]).all()
    assert mirror(phantom).flags.c_contiguous


def test_a_blank_is_one_grey() -> None:
    assert blank((5, 7)).shape == (5, 7)
    assert blank((5, 7)).dtype == np.uint8 and (blank((5, 7)) == 128).all()


def test_every_corruption_is_described_by_its_numbers() -> None:
    assert len({describe(name, severity) for name, severity in ALL}) == 40
    assert "1/64" in describe("noise", 3) and "MTF50 0.27" in describe("blur", 1)
    assert "1.4%" in describe("motion", 3) and "6 degrees" in describe("rotation_crop", 2)


def test_what_is_painted_in_is_a_finding_that_cannot_be_scored() -> None:
    assert CHANGES_REFERENCE.keys() <= set(CORRUPTIONS)
    assert all(findings <= set(FINDINGS) for findings in CHANGES_REFERENCE.values())


@pytest.mark.parametrize(("name", "severity"), [("fog", 1), ("noise", 0), ("noise", 6)])
def test_unknown_names_and_severities_are_refused(name: str, severity: int, phantom: np.ndarray) -> None:
    with pytest.raises(RequestError, match=r"choose one of"):
        corrupt(phantom, name, severity, "a")
    with pytest.raises(RequestError):
        describe(name, severity)


@pytest.mark.parametrize(
    "image", [np.zeros((32, 32)), np.zeros((32, 32, 3), dtype=np.uint8), np.zeros((8, 32), dtype=np.uint8)]
)
def test_what_is_no_grey_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        corrupt(image, "noise", 1, "a")
