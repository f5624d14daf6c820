"""Planted leaks are found, strangers are not accused, and the search equals comparing every pair."""

import csv
from dataclasses import replace
from functools import cache
from itertools import combinations, islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_max.builders.sources import phantom, phantom_image
from cxr_max.eval.leaks import (
    NEAR,
    NEAR_PHANTOM,
    HashedImage,
    LeakReport,
    distance,
    find_leaks,
    near_distance,
    nearest,
    phash,
)
from cxr_max.radiograph import render


@cache
def drawn(number: int) -> np.ndarray:
    """The phantom of study ``number``."""
    case = next(islice(phantom.cases(0), number, None))
    return phantom_image.draw(
        case.findings,
        seed=case.seed,
        size=256,
        severity=case.severity,
        view=case.view,
        anatomy=case.subject.anatomy,
        sex=case.subject.sex,
    )


def hashed(image: np.ndarray) -> bytes:
    code = phash(image)
    assert code is not None
    return code


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0)


def scaled(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def padded(image: np.ndarray) -> np.ndarray:
    rows, columns = image.shape
    side = max(rows, columns) + 40
    square = np.zeros((side, side), dtype=np.uint8)
    square[20 : 20 + rows, 30 : 30 + columns] = image
    return square


def contrasted(image: np.ndarray, slope: float) -> np.ndarray:
    return np.clip(127.5 + slope * (image - 127.5), 0, 255).astype(np.uint8)


def cropped(image: np.ndarray, fraction: float) -> np.ndarray:
    rows, columns = (int(side * fraction / 2) for side in image.shape)
    return image[rows : image.shape[0] - rows, columns : image.shape[1] - columns]


def image(number: int, code: bytes | None = None, **fields: str) -> HashedImage:
    """A picture of a study of a patient of its own."""
    base = {
        "study_id": f"s{number}",
        "subject_id": f"p{number}",
        "source": "folder",
        "image_id": f"i{number}",
        "source_sha256": f"{number:064x}",
    }
    return HashedImage(**(base | fields), phash=code)


def flipped(code: bytes, bits: int) -> bytes:
    """Another hash at that distance, the bits spread evenly over it."""
    changed = bytearray(code)
    for bit in np.linspace(0, 511, bits).astype(int):
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def random_codes(count: int, seed: int) -> list[bytes]:
    return [row.tobytes() for row in np.random.default_rng(seed).integers(0, 256, (count, 64), dtype=np.uint8)]


def test_the_distance_counts_differing_bits() -> None:
    code = bytes(64)
    assert distance(code, code) == 0
    assert distance(code, bytes([255] * 64)) == 512
    assert distance(code, b"\x03" + bytes(63)) == 2
    assert distance(code, flipped(code, 37)) == 37


def test_a_wave_along_one_side_sets_the_bit_of_its_frequency() -> None:
    """A brighter left half has a positive first coefficient along x; the mirrored one a negative."""
    ramp = np.tile(np.linspace(250, 5, 256), (256, 1)).astype(np.uint8)
    first_two = [np.unpackbits(np.frombuffer(hashed(one), dtype=np.uint8))[:2] for one in (ramp, ramp[:, ::-1])]
    assert first_two[0][0] == 1 and first_two[1][0] == 0
    down = [np.unpackbits(np.frombuffer(hashed(one), dtype=np.uint8))[:2] for one in (ramp.T, ramp.T[::-1])]
    assert down[0][1] == 1 and down[1][1] == 0


def test_a_monotone_change_of_greys_changes_nothing() -> None:
    """Averaging comes before ranking, so that holds where neighbours within a pixel of the hash are alike."""
    blocks = np.random.default_rng(0).integers(40, 200, (64, 64), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    assert hashed(blocks) == hashed(blocks + 30)
    assert hashed(blocks) == hashed((blocks.astype(float) ** 1.3 / 1.3**8).clip(0, 255).astype(np.float32))


def test_padding_is_cut_off() -> None:
    one = drawn(0)
    assert distance(hashed(one), hashed(padded(one))) <= 8


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_picture_of_nothing_has_no_hash(grey: int) -> None:
    assert phash(np.full((200, 100), grey, dtype=np.uint8)) is None


@settings(max_examples=30, deadline=None)
@given(number=st.integers(0, 40), quality=st.integers(75, 100), factor=st.floats(0.5, 1.0))
def test_a_copy_encoded_and_resized_again_is_near(number: int, quality: int, factor: float) -> None:
    one = drawn(number)
    assert distance(hashed(one), hashed(jpeg(scaled(one, factor), quality))) <= NEAR


@pytest.mark.parametrize("number", range(8))
def test_an_encoded_or_halved_phantom_is_within_the_distance_of_phantoms(number: int) -> None:
    one = drawn(number)
    for copy in (jpeg(one, 80), scaled(one, 0.5), padded(one)):
        assert distance(hashed(one), hashed(copy)) <= NEAR_PHANTOM


def test_no_phantom_is_taken_for_another_subjects() -> None:
    codes = [hashed(drawn(number)) for number in range(0, 160, 2)]  # one study of each subject
    assert min(distance(one, other) for one, other in combinations(codes, 2)) > NEAR_PHANTOM


@pytest.fixture(scope="module")
def real() -> list[tuple[str, np.ndarray]]:
    """(patient, picture) of every real radiograph at hand."""
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cxr"
    if not folder.is_dir():
        pytest.skip("real radiographs are not at hand (../shared/data/cxr)")
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return [(row["patient_id"], render(folder / row["file"])) for row in csv.DictReader(file)]


def test_no_real_radiograph_is_taken_for_another_patients(real: list[tuple[str, np.ndarray]]) -> None:
    codes = [(patient, hashed(one)) for patient, one in real]
    strangers = [
        distance(one, other) for (patient, one), (another, other) in combinations(codes, 2) if patient != another
    ]
    assert len(strangers) > 2500
    assert min(strangers) > 2 * NEAR
    assert np.mean(strangers) == pytest.approx(245, abs=3)


def test_copies_of_real_radiographs_are_found(real: list[tuple[str, np.ndarray]]) -> None:
    for _, one in real:
        code = hashed(one)
        square = cv2.resize(one, (224, 224), interpolation=cv2.INTER_AREA)
        worked_over = jpeg(contrasted(scaled(one, 0.6), 0.85), 60)
        for copy in (jpeg(one, 30), scaled(one, 0.5), square, padded(one), worked_over, cropped(one, 0.02)):
            assert distance(code, hashed(copy)) <= NEAR


def test_the_search_finds_what_comparing_every_pair_finds() -> None:
    theirs = random_codes(300, 0)
    ours = random_codes(40, 1) + [flipped(theirs[7 * n], n) for n in range(40)]
    limit = 215  # random hashes are 256 apart, with a standard deviation of 11
    best, place = nearest(ours, theirs, limit)
    for row, code in enumerate(ours):
        every = [distance(code, other) for other in theirs]
        expected = min(every) if min(every) <= limit else -1
        assert best[row] == expected
        assert place[row] == (every.index(expected) if expected >= 0 else -1)


def test_the_search_goes_beyond_one_block() -> None:
    theirs = random_codes(70_000, 2)
    best, place = nearest([flipped(theirs[69_999], 5), flipped(theirs[3], 64), theirs[0]], theirs, NEAR)
    assert best.tolist() == [5, 64, 0] and place.tolist() == [69_999, 3, 0]


def test_the_limit_itself_is_near_and_one_more_is_not() -> None:
    code = random_codes(1, 3)[0]
    best, place = nearest([flipped(code, NEAR), flipped(code, NEAR + 1)], [code], NEAR)
    assert best.tolist() == [NEAR, -1] and place.tolist() == [0, -1]


@pytest.mark.parametrize("first", [0, 256])
def test_the_limit_holds_wherever_the_bits_differ(first: int) -> None:
    """Half of the bits is compared before the others."""
    code = np.zeros(512, dtype=np.uint8)
    changed = code.copy()
    changed[first : first + NEAR] = 1
    best, _ = nearest([np.packbits(changed).tobytes()], [np.packbits(code).tobytes()], NEAR)
    assert best.tolist() == [NEAR]


def test_of_equally_near_ones_the_first_is_named() -> None:
    code = random_codes(1, 4)[0]
    assert nearest([code], [flipped(code, 2), code, code], NEAR)[1].tolist() == [1]


@pytest.mark.parametrize(("ours", "theirs"), [(0, 3), (3, 0), (0, 0)])
def test_nothing_to_compare_is_no_match(ours: int, theirs: int) -> None:
    best, place = nearest(random_codes(ours, 0), random_codes(theirs, 1), NEAR)
    assert best.tolist() == place.tolist() == [-1] * ours


def test_hashes_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="hash the pictures again"):
        nearest([bytes(8)], [bytes(64)], NEAR)


def test_planted_leaks_are_found_and_told_apart() -> None:
    codes = random_codes(20, 5)
    training = [image(100 + n, codes[n]) for n in range(10)]
    evaluated = [
        image(0, codes[10]),
        image(1, codes[11], subject_id="p100"),
        image(2, codes[12], source_sha256=training[1].source_sha256),
        image(3, flipped(codes[2], 12)),
        image(4, codes[13]),
    ]
    report = find_leaks(evaluated, training)
    assert [(leak.study_id, leak.kind, leak.training_study_id, leak.distance) for leak in report.leaks] == [
        ("s1", "subject", "s100", None),
        ("s2", "equal", "s101", None),
        ("s3", "near", "s102", 12),
    ]
    assert report.counts == {"subject": 1, "equal": 1, "near": 1}
    assert (report.leaked, report.studies, report.images, report.training_images) == (3, 5, 5, 10)
    assert report.leaked_studies == {("folder", "s1"), ("folder", "s2"), ("folder", "s3")}


def test_an_equal_picture_is_not_also_near_but_its_patient_is_named() -> None:
    code = random_codes(1, 6)[0]
    report = find_leaks([image(0, code)], [image(0, code)])
    assert [leak.kind for leak in report.leaks] == ["subject", "equal"]
    assert report.leaked == 1


def test_a_study_keeps_its_nearest_picture_and_its_first_equal_one() -> None:
    codes = random_codes(2, 7)
    training = [image(100, codes[0]), image(101, codes[1])]
    farther, nearer = flipped(codes[0], 30), flipped(codes[1], 4)
    two = [image(0, farther, image_id="a"), image(0, nearer, image_id="b")]
    for order in (two, two[::-1]):
        (leak,) = find_leaks(order, training).leaks
        assert (leak.image_id, leak.training_image_id, leak.distance) == ("b", "i101", 4)
    equal = [replace(one, source_sha256=other.source_sha256) for one, other in zip(two, training, strict=True)]
    assert find_leaks(equal, training).leaks[0].image_id == "a"


def test_both_forms_of_mimic_share_their_patients_but_other_sources_do_not() -> None:
    ours = image(0, source="mimic-cxr-jpg", subject_id="10000032")
    assert find_leaks([ours], [image(1, source="mimic-cxr", subject_id="10000032")]).counts["subject"] == 1
    assert find_leaks([ours], [image(1, source="folder", subject_id="10000032")]).leaked == 0


def test_phantoms_must_be_nearer_than_radiographs() -> None:
    code = random_codes(1, 8)[0]
    training = [image(100, code, source="phantom")]
    apart = flipped(code, NEAR_PHANTOM + 1)
    assert find_leaks([image(0, apart, source="phantom")], training).leaked == 0
    assert find_leaks([image(0, apart)], training).counts["near"] == 1
    assert near_distance("phantom") < near_distance("mimic-cxr-jpg")


def test_pictures_without_a_hash_are_counted_and_still_compared_by_file_and_patient() -> None:
    report = find_leaks([image(0), image(1)], [image(1), image(2, random_codes(1, 9)[0])])
    assert (report.unhashed, report.training_unhashed) == (2, 1)
    assert report.leaked_studies == {("folder", "s1")}


def test_the_result_does_not_depend_on_the_order_of_what_is_scored() -> None:
    codes = random_codes(6, 10)
    training = [image(100 + n, code) for n, code in enumerate(codes)]
    evaluated = [image(n, flipped(code, 3 * n)) for n, code in enumerate(codes)]
    assert find_leaks(evaluated, training) == find_leaks(evaluated[::-1], training)


def test_no_training_release_means_no_leak() -> None:
    report = find_leaks([image(0, bytes(64))], [])
    assert isinstance(report, LeakReport) and report.leaked == 0 and report.training_images == 0
    assert find_leaks([], []).studies == 0
