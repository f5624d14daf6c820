"""The phantoms: the same everywhere, true to their labels, on the right side, and written once."""

import hashlib
import os
import subprocess
import sys
from collections import defaultdict
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cxr_max.builders.sources import phantom, phantom_image
from cxr_max.builders.sources.base import Source
from cxr_max.builders.sources.phantom import DRAWN, PhantomSource, cases
from cxr_max.errors import RequestError, StorageError
from cxr_max.findings import FINDINGS, LATERAL, Side
from cxr_max.records import SPLITS, Study

SIDED = [name for name in DRAWN if name in LATERAL]
MIDLINE = [name for name in DRAWN if name not in LATERAL]
POPULATION = 5000


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> list[Study]:
    path = tmp_path_factory.mktemp("none")
    return [phantom._study(one, path, 256) for one in islice(cases(7), POPULATION)]


def take(source: PhantomSource, count: int) -> list[Study]:
    return list(islice(source.studies(), count))


def change(
    name: str, side: Side | None, severity: float, view: str = "PA", seed: int = 5
) -> npt.NDArray[np.float64]:
    """What a finding adds to the same chest without noise."""
    plain, drawn = (
        phantom_image.draw(findings, seed=seed, severity=severity, view=view, noise=0).astype(float)  # type: ignore[arg-type]
        for findings in ({}, {name: side})
    )
    return np.asarray(drawn - plain)


# The pixels


def test_pixels_are_grey_bytes_of_the_asked_size() -> None:
    for size in (64, 256, 330):
        pixels = phantom_image.draw({}, seed=1, size=size, severity=0.5)
        assert pixels.shape == (size, size) and pixels.dtype == np.uint8
        assert pixels.min() < 30 and pixels.max() > 220


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_another_process_draws_the_same_bytes(hash_seed: str) -> None:
    code = (
        "import hashlib; from itertools import islice\n"
        "from cxr_max.builders.sources import phantom, phantom_image\n"
        "pixels = phantom_image.draw({'Edema': None, 'Pneumonia': 'left'}, seed=3, severity=0.8, view='AP')\n"
        "print(hashlib.sha256(pixels.tobytes()).hexdigest(), list(islice(phantom.cases(4), 50)))"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    pixels = phantom_image.draw({"Edema": None, "Pneumonia": "left"}, seed=3, severity=0.8, view="AP")
    assert there == f"{hashlib.sha256(pixels.tobytes()).hexdigest()} {list(islice(cases(4), 50))}"


def test_seed_changes_the_noise_and_the_anatomy_seed_the_person() -> None:
    one, two = (phantom_image.draw({}, seed=s, severity=0.5, anatomy=9).astype(float) for s in (1, 2))
    other = phantom_image.draw({}, seed=1, severity=0.5, anatomy=10).astype(float)
    assert 0 < np.abs(one - two).mean() < np.abs(one - other).mean()


@pytest.mark.parametrize("view", ["PA", "AP"])
@pytest.mark.parametrize("name", SIDED)
def test_a_finding_of_the_patients_left_is_on_the_images_right(name: str, view: str) -> None:
    for seed in range(3):
        left = np.abs(change(name, "left", 0.7, view, seed))
        right = np.abs(change(name, "right", 0.7, view, seed))
        assert left[:, :128].sum() == 0 and left[:, 128:].mean() > 0.3
        assert right[:, 128:].sum() == 0 and right[:, :128].mean() > 0.3


@pytest.mark.parametrize("name", SIDED)
def test_bilateral_is_left_and_right(name: str) -> None:
    both = change(name, "bilateral", 0.7)
    assert np.array_equal(both, change(name, "left", 0.7) + change(name, "right", 0.7))


@pytest.mark.parametrize("name", MIDLINE)
def test_a_finding_without_a_side_shows(name: str) -> None:
    for view in ("PA", "AP"):
        assert np.abs(change(name, None, 0.7, view)).mean() > 0.15


@pytest.mark.parametrize(
    ("name", "rows", "sign"),
    [
        ("Cardiomegaly", (0.40, 0.76), 1),
        ("Pleural Effusion", (0.50, 0.85), 1),
        ("Pneumothorax", (0.10, 0.52), -1),
        ("Atelectasis", (0.45, 0.85), 1),
        ("Edema", (0.25, 0.75), 1),
        ("Lung Lesion", (0.20, 0.65), 1),
    ],
)
def test_a_finding_is_where_it_belongs(name: str, rows: tuple[float, float], sign: int) -> None:
    """Opaque is bright; a pneumothorax is dark, and at the top."""
    for seed in range(3):
        signed = sign * change(name, "left" if name in LATERAL else None, 0.8, seed=seed)
        difference = np.maximum(signed, 0)
        first, last = (int(256 * part) for part in rows)
        assert difference[first:last].sum() > 0.7 * difference.sum() > 0


@pytest.mark.parametrize("view", ["PA", "AP"])
@pytest.mark.parametrize("name", DRAWN)
def test_more_severe_shows_more(name: str, view: str) -> None:
    for seed in range(3):
        effects = [
            np.abs(change(name, "left" if name in LATERAL else None, severity, view, seed)).mean()
            for severity in (0.35, 0.5, 0.65, 0.8, 1.0)
        ]
        assert effects == sorted(effects) and effects[-1] > 1.25 * effects[0] > 0


def test_pneumonia_is_patchy_and_consolidation_is_one_dense_area() -> None:
    """Of the lung that changes at all, more of a consolidated one is near its densest."""
    dense = {name: [] for name in ("Pneumonia", "Consolidation")}  # type: dict[str, list[float]]
    for name, shares in dense.items():
        for seed in range(8):
            difference = change(name, "right", 0.8, seed=seed)
            shares.append(float((difference > 0.6 * difference.max()).sum() / (difference > 5).sum()))
    assert np.mean(dense["Consolidation"]) > 1.5 * np.mean(dense["Pneumonia"])


def test_ap_has_a_larger_heart_and_a_higher_diaphragm() -> None:
    pa, ap = (
        phantom_image.draw({}, seed=2, severity=0.5, view=view, noise=0).astype(float) for view in ("PA", "AP")
    )
    assert ap[100:200].mean() > pa[100:200].mean() + 3


def test_noise_can_be_left_out() -> None:
    clean, noisy = (
        phantom_image.draw({}, seed=2, severity=0.5, noise=noise).astype(float) for noise in (0.0, 1.0)
    )
    assert 0.5 < (noisy - clean).std() < 8


@pytest.mark.parametrize(
    ("findings", "severity", "size"),
    [
        ({"Pneumothorax": None}, 0.5, 256),
        ({"Cardiomegaly": "left"}, 0.5, 256),
        ({"Fracture": "left"}, 0.5, 256),
        ({}, 0.0, 256),
        ({}, 1.1, 256),
        ({}, 0.5, 255),
        ({}, 0.5, 32),
    ],
)
def test_what_cannot_be_drawn_is_refused(findings: dict[str, Side | None], severity: float, size: int) -> None:
    with pytest.raises(ValueError):
        phantom_image.draw(findings, seed=1, severity=severity, size=size)


# The attributes


def test_difficulty_is_uniform(population: list[Study]) -> None:
    """Kolmogorov-Smirnov distance under its 0.1 % bound, in the whole and among the healthy."""
    healthy = [study for study in population if study.reference_findings["No Finding"] == 1]  # type: ignore[index]
    for group in (population, healthy):
        sample = np.sort([study.difficulty or 0.0 for study in group])
        distance = np.abs(sample - (np.arange(len(sample)) + 0.5) / len(sample)).max()
        assert distance < 1.95 / np.sqrt(len(sample))


def test_severity_falls_with_difficulty() -> None:
    for one in islice(cases(0), 100):
        assert one.severity == pytest.approx(0.35 + 0.65 * (1 - one.difficulty))


def test_prevalences(population: list[Study]) -> None:
    share = {
        name: np.mean([study.reference_findings[name] == 1 for study in population])  # type: ignore[index]
        for name in FINDINGS
    }
    assert all(0.10 <= share[name] <= 0.30 for name in DRAWN), share
    assert 0.25 <= share["No Finding"] <= 0.32
    assert share["Fracture"] == share["Pleural Other"] == share["Enlarged Cardiomediastinum"] == 0
    assert 0.2 <= np.mean([study.radiographs[0].view == "AP" for study in population]) <= 0.4


def test_a_demo_of_64_shows_every_finding_and_every_split() -> None:
    demo = list(islice(cases(0), 64))
    assert {name for one in demo for name in one.findings} == set(DRAWN)
    assert {one.subject.split for one in demo} == set(SPLITS)


def test_labels_follow_chexperts_rules(population: list[Study]) -> None:
    for study in population:
        findings, sides = study.reference_findings, study.reference_sides
        assert findings is not None and sides is not None
        assert tuple(findings) == tuple(sides) == FINDINGS
        assert set(findings.values()) <= {0, 1}
        disease = any(findings[name] == 1 for name in DRAWN if name != "Support Devices")
        assert findings["No Finding"] == (not disease)
        opacity = any(findings[name] == 1 for name in phantom.OPACITIES)
        assert findings["Lung Opacity"] == opacity


def test_sides_stand_exactly_where_they_mean_something(population: list[Study]) -> None:
    for study in population:
        for name in FINDINGS:
            expected = study.reference_findings[name] == 1 and name in LATERAL  # type: ignore[index]
            assert (study.reference_sides[name] is not None) == expected  # type: ignore[index]


def test_subjects_keep_their_split_sex_and_age(population: list[Study]) -> None:
    subjects: dict[str, list[Study]] = defaultdict(list)
    for study in population:
        subjects[study.subject_id].append(study)
    for first, second in subjects.values():
        assert first.split == second.split and first.sex == second.sex
        assert first.acquired_at and second.acquired_at and first.age and second.age
        assert 59 < (second.acquired_at - first.acquired_at).days < 401
        assert 0 <= second.age - first.age <= 2 and 17 <= first.age <= 97
    splits = [first.split for first, _ in subjects.values()]
    assert [splits.count(split) for split in SPLITS] == [2000, 250, 250]


def test_identifiers_are_those_promised() -> None:
    names = [(one.study_id, one.subject.subject_id) for one in islice(cases(3), 3)]
    assert names == [
        ("phantom-3-0000000", "phantom-3-p0000000"),
        ("phantom-3-0000001", "phantom-3-p0000000"),
        ("phantom-3-0000002", "phantom-3-p0000001"),
    ]


def test_another_seed_is_another_population() -> None:
    one, two = ([case.difficulty for case in islice(cases(seed), 20)] for seed in (0, 1))
    assert not set(one) & set(two)


# The source


def test_the_source_keeps_the_contract(tmp_path: Path) -> None:
    source: Source = PhantomSource(directory=tmp_path / "new")
    assert not (tmp_path / "new").exists(), "opening touches nothing"
    assert source.info.name == "phantom" and source.info.data_use == "open"
    assert (source.total, source.prerendered, source.warnings) == (None, True, ())
    study = next(source.studies())
    (radiograph,) = study.radiographs
    assert radiograph.path == tmp_path / "new" / f"256px-v{phantom.VERSION}" / "phantom-0-0000000.png"
    assert (radiograph.rows, radiograph.columns) == (256, 256)


def test_the_file_is_a_plain_grey_png_of_the_case(tmp_path: Path) -> None:
    study = take(PhantomSource(2, directory=tmp_path, size=128), 1)[0]
    one = next(cases(2))
    with Image.open(study.radiographs[0].path) as image:
        assert (image.format, image.mode, image.size, image.info) == ("PNG", "L", (128, 128), {})
        pixels = np.asarray(image)
    drawn = phantom_image.draw(
        one.findings,
        seed=one.seed,
        size=128,
        severity=one.severity,
        view=one.view,
        anatomy=one.subject.anatomy,
        sex=one.subject.sex,
    )
    assert np.array_equal(pixels, drawn)


def test_a_second_run_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = take(PhantomSource(directory=tmp_path, size=64), 6)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(phantom_image, "draw", lambda *_, **__: pytest.fail("drew an image that is there"))
    assert take(PhantomSource(directory=tmp_path, size=64), 6) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == written


def test_only_what_is_missing_or_empty_is_drawn(tmp_path: Path) -> None:
    paths = [study.radiographs[0].path for study in take(PhantomSource(directory=tmp_path, size=64), 4)]
    before = [path.read_bytes() for path in paths]
    paths[1].unlink()
    paths[2].write_bytes(b"")
    take(PhantomSource(directory=tmp_path, size=64), 4)
    assert [path.read_bytes() for path in paths] == before


def test_only_finished_pictures_are_left(tmp_path: Path) -> None:
    take(PhantomSource(directory=tmp_path, size=64), 5)
    assert sorted(path.name for path in (tmp_path / f"64px-v{phantom.VERSION}").iterdir()) == [
        f"phantom-0-{number:07d}.png" for number in range(5)
    ]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match="No space"):
        take(PhantomSource(directory=tmp_path, size=64), 1)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_seeds_and_sizes_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="seed"):
        PhantomSource(-1, directory=tmp_path)
    for size in (0, 63, 255):
        with pytest.raises(RequestError, match="size"):
            PhantomSource(directory=tmp_path, size=size)


def test_listing_the_source_imports_no_numerics() -> None:
    code = "import sys, cxr_max.builders.sources.phantom; print('numpy' in sys.modules or 'PIL' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
