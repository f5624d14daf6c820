"""Does the training release hold patients or pictures of the studies that are scored?

Two checks. A *subject* leaks when the release has any study of the same patient. A *picture* leaks when the
release has the same file (``source_sha256``), or a picture that its perceptual hash cannot tell apart.

The hash is the DCT hash (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions")
made longer, because chest radiographs look alike: with the usual 64 bits, two patients can differ in fewer bits
than two copies of one picture do. Borders of one grey are cut off, the rest is averaged to 64 x 64 pixels, grey
values become ranks (so contrast and gamma fall out), a square root of a Hann window plays down the rim, and the
bits are the signs of the 512 lowest AC coefficients of the two-dimensional DCT-II, in order of u + v.

Distances are Hamming distances of 512 bits. ``NEAR`` was chosen on 76 public radiographs of 40 patients:

==========================================  ============================  ===================
a picture and its copy                      median / 95th pct / largest   missed at ``NEAR``
==========================================  ============================  ===================
JPEG quality 75                             2 / 5 / 7                     0
JPEG quality 30                             6 / 15 / 24                   0
halved                                      1 / 7 / 10                    0
squeezed to 224 x 224                       2 / 10 / 18                   0
contrast 0.8 or 1.2                         1 / 5 / 14                    0
gamma 0.7 or 1.4                            1 / 12 / 22                   0
contrast, resizing and JPEG 60 together     6 / 14 / 47                   0
padded to a square                          0 / 0 / 7                     0
noise of 8 grey levels                      7 / 14 / 22                   0
Gaussian blur of 0.4% of the longer side    4 / 20 / 47                   0
cropped by 2%                               32 / 45 / 48                  0
histogram equalised                         5 / 14 / 128                  1.3%
a marker drawn in                           13 / 36 / 134                 1.3%
local histogram equalisation (CLAHE)        48 / 73 / 83                  12%
rotated by 2 degrees                        58 / 72 / 98                  24%
cropped by 5%                               80 / 100 / 110                99%
==========================================  ============================  ===================

Pictures of different patients are 245 apart on the average (standard deviation 17); of 2,772 such pairs the
nearest are 158 apart, so none is mistaken. How many would be in a large collection is an extrapolation: a normal
tail says none, and carrying on the slope of the lowest hundredth says 2 in 10^9 pairs, some ten of 25,000 studies
against 250,000 pictures. Two pictures of one patient were 144 apart or more. To find crops of 5% too, the
distance would have to be 110, where that slope says thousands, so they are left to the check of subjects.

Phantoms share one anatomy with a few parameters and little else: of 4,497,000 pairs of different subjects the
nearest are 18 apart, and 17,033 no more than 64. Hence a distance of their own, at which none is mistaken, and
which still finds JPEG quality 75, halving and padding, misses 7% of copies with contrast, size and JPEG changed
together, and most that were cropped, turned or made noisy.

Not found either: mirrored copies, inverted grey values, and pictures without anything in them, which have no hash.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cxr_max.image_file import Grey

HASH: Final = "dct-rank-512-1"
"""Name, bits and version of the perceptual hash: hashes of different versions cannot be compared."""
BITS: Final = 512
NEAR: Final = 64
"""Two radiographs at this distance or nearer are held to be one."""
NEAR_PHANTOM: Final = 16
"""The same for phantoms, whose chests differ in a few dozen numbers only."""

Kind = Literal["subject", "equal", "near"]
KINDS: Final[tuple[Kind, ...]] = ("subject", "equal", "near")

_SIDE: Final = 64
_WORDS: Final = BITS // 64
_FIRST: Final = _WORDS // 2
"""Words that are compared for all pairs; the others only where these do not exceed the distance by themselves."""
_BLOCK: Final = 65_536
_FLAT: Final = 8.0
"""Grey levels between the 5th and 95th percentile of a line that holds nothing."""
_SAME_PATIENTS: Final[Mapping[str, str]] = {
    "mimic-cxr-jpg": "mimic-cxr", "ms-cxr-t": "mimic-cxr", "chestx-det10": "chestxray14",
}  # fmt: skip
"""Sources that number the patients of one collection."""

_Words = NDArray[np.uint64]
_Counts = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class HashedImage:
    """One picture of a study, with what it is recognised by."""

    study_id: str
    subject_id: str
    source: str
    image_id: str
    source_sha256: str
    """Of the file as the data set ships it."""
    phash: bytes | None
    """As ``phash`` gives it; ``None`` where the pixels are not at hand or show nothing."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Why one evaluated study is not unseen. Of several reasons of a kind, the nearest and first."""

    kind: Kind
    source: str
    study_id: str
    image_id: str | None
    """The evaluated picture; ``None`` where the subject is what leaks."""
    training_source: str
    training_study_id: str
    training_image_id: str | None
    distance: int | None
    """Hamming distance of the hashes; for ``near`` only."""


@dataclass(frozen=True, slots=True)
class LeakReport:
    """The evaluated studies that the training release has seen, and how thoroughly that was looked at."""

    leaks: tuple[Leak, ...]
    """By source, study and kind; at most one per study and kind. An equal picture is not also near."""
    counts: Mapping[Kind, int]
    """Evaluated studies per kind; a study may be in several."""
    leaked: int
    """Evaluated studies with any."""
    studies: int
    """Evaluated studies."""
    images: int
    training_images: int
    unhashed: int
    """Evaluated pictures without a hash: only their file and patient were compared."""
    training_unhashed: int
    hash: str = HASH

    @property
    def leaked_studies(self) -> frozenset[tuple[str, str]]:
        """(source, study_id) of what must be left out, or marked as seen."""
        return frozenset((leak.source, leak.study_id) for leak in self.leaks)


def phash(image: "Grey") -> bytes | None:
    """The perceptual hash, 64 bytes, most telling bits first; ``None`` for a picture that shows nothing.

    Args:
        image: uint8 (rows, columns).
    """
    import cv2

    shown = _trimmed(image)
    small = cv2.resize(shown.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    if np.ptp(small) < 1:
        return None
    window = _window()
    ranks = _ranks(small)
    coefficients = cv2.dct((ranks - (ranks * window).sum() / window.sum()) * window)
    return np.packbits(coefficients.ravel()[_lowest()] > 0).tobytes()


def distance(one: bytes, other: bytes) -> int:
    """Hamming distance of two hashes, 0 to 512. Of unrelated pictures it is about 245."""
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def _trimmed(image: "Grey") -> "Grey":
    """Without the lines at the borders that hold one grey, such as padding to a square and collimation.

    Lines are averaged to 64 pixels first, and percentiles are taken of them, so that neither noise nor a marker
    in the border keeps it. Kept whole when less than a quarter of a side would be left.
    """
    import cv2

    rows, columns = image.shape
    along = cv2.resize(image, (min(columns, _SIDE), rows), interpolation=cv2.INTER_AREA)
    down = cv2.resize(image, (columns, min(rows, _SIDE)), interpolation=cv2.INTER_AREA)
    return image[_span(along), _span(down.T)]


def _span(lines: "Grey") -> slice:
    """From the first to the last line that holds something."""
    low, high = np.percentile(lines, [5, 95], axis=1)
    held = np.flatnonzero(high - low > _FLAT)
    if not len(held) or held[-1] + 1 - held[0] < len(lines) / 4:
        return slice(None)
    return slice(int(held[0]), int(held[-1]) + 1)


def _ranks(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean ranks, 0 to 1: equal greys rank equally, or a saturated area would get a slope."""
    _, inverse, counts = np.unique(small, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / small.size
    ranks: NDArray[np.float32] = middle.astype(np.float32)[inverse].reshape(small.shape)
    return ranks


@lru_cache(maxsize=1)
def _window() -> NDArray[np.float32]:
    side = np.sqrt(np.hanning(_SIDE + 2)[1:-1])
    return np.outer(side, side).astype(np.float32)


@lru_cache(maxsize=1)
def _lowest() -> _Counts:
    """Places of the lowest AC coefficients, along the diagonals of constant u + v."""
    u, v = np.indices((_SIDE, _SIDE))
    return np.lexsort((u.ravel(), (u + v).ravel()))[1 : BITS + 1]


def nearest(
    evaluated: Sequence[bytes], training: Sequence[bytes], limit: int, threads: int = 2
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each evaluated hash the nearest training hash, where one is at most ``limit`` away.

    Exact: no pair is passed over. Half of the bits is compared for all pairs (exclusive or, then a count of
    bits), the rest only where that half is within the limit already.

    Returns:
        Distances and places in ``training``, one each per evaluated hash; -1 where there is none. Of equally
        near ones the first.
    """
    theirs = np.ascontiguousarray(_words(training).T)
    ours = _words(evaluated)
    parts = np.array_split(np.arange(len(ours)), max(threads, 1) * 8)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        found = list(pool.map(lambda part: _nearest(ours[part], theirs, limit), parts))
    return np.concatenate([best for best, _ in found]), np.concatenate([place for _, place in found])


def _words(hashes: Sequence[bytes]) -> _Words:
    """(n, 8) words of 64 bits."""
    if any(len(one) != BITS // 8 for one in hashes):
        raise ValueError(f"a hash has another length than {BITS // 8} bytes: hash the pictures again ({HASH})")
    return np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(len(hashes), _WORDS)


def _nearest(ours: _Words, theirs: _Words, limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``theirs`` is (8, m). Works in blocks that stay in the processor's cache, on buffers made once."""
    best = np.full(len(ours), limit + 1, dtype=np.int64)
    place = np.full(len(ours), -1, dtype=np.int64)
    differing = np.empty(_BLOCK, dtype=np.uint64)
    counts = np.empty((2, _BLOCK), dtype=np.uint16)
    for start in range(0, theirs.shape[1], _BLOCK):
        block = theirs[:, start : start + _BLOCK]
        size = block.shape[1]
        for row, words in enumerate(ours):
            half = _distances(words, block, differing[:size], counts[:, :size])
            near = np.flatnonzero(half < best[row])
            if not len(near):
                continue
            rest = np.bitwise_count(block[_FIRST:, near] ^ words[_FIRST:, None]).sum(0, dtype=np.int64)
            total = half[near] + rest
            first = int(total.argmin())
            if total[first] < best[row]:
                best[row], place[row] = total[first], start + near[first]
    return np.where(place < 0, -1, best), place


def _distances(words: _Words, block: _Words, differing: _Words, counts: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Over the first half of the bits, written into the buffers."""
    total: NDArray[np.uint16] = counts[0]
    count: NDArray[np.uint16] = counts[1]
    for word in range(_FIRST):
        np.bitwise_xor(block[word], words[word], out=differing)
        np.bitwise_count(differing, out=count if word else total)
        if word:
            np.add(total, count, out=total)
    return total


def find_leaks(evaluated: Sequence[HashedImage], training: Sequence[HashedImage]) -> LeakReport:
    """Compare what is scored with what was trained on.

    Patients are the same when their collection and identifier are: MIMIC-CXR, MIMIC-CXR-JPG and MS-CXR-T are one
    collection, ChestX-ray14 and ChestX-Det10 another; ChestX-Det has numbered its patients anew. Two folders of
    pictures that number their patients alike are taken for one as well, which errs on the safe side.

    Args:
        evaluated: every picture of every evaluated study.
        training: every picture of the release's training split.
    """
    found = {
        (leak.source, leak.study_id, leak.kind): leak
        for leaks in (_subject_leaks(evaluated, training), _equal_leaks(evaluated, training))
        for leak in leaks
    }
    for leak in _near_leaks(evaluated, training):
        if (leak.source, leak.study_id, "equal") not in found:
            found[leak.source, leak.study_id, "near"] = leak
    leaks = tuple(found[key] for key in sorted(found, key=lambda key: (*key[:2], KINDS.index(key[2]))))
    counts = Counter(leak.kind for leak in leaks)
    return LeakReport(
        leaks=leaks,
        counts={kind: counts[kind] for kind in KINDS},
        leaked=len({(leak.source, leak.study_id) for leak in leaks}),
        studies=len({(image.source, image.study_id) for image in evaluated}),
        images=len(evaluated),
        training_images=len(training),
        unhashed=sum(image.phash is None for image in evaluated),
        training_unhashed=sum(image.phash is None for image in training),
    )


def _patient(image: HashedImage) -> tuple[str, str]:
    return _SAME_PATIENTS.get(image.source, image.source), image.subject_id


def _subject_leaks(evaluated: Iterable[HashedImage], training: Iterable[HashedImage]) -> Iterator[Leak]:
    seen: dict[tuple[str, str], HashedImage] = {}
    for image in training:
        seen.setdefault(_patient(image), image)
    for image in evaluated:
        if (other := seen.get(_patient(image))) is not None:
            yield _leak("subject", image, other, None)


def _equal_leaks(evaluated: Sequence[HashedImage], training: Iterable[HashedImage]) -> Iterator[Leak]:
    """From the last to the first, so that a study keeps its first one."""
    seen: dict[str, HashedImage] = {}
    for image in training:
        seen.setdefault(image.source_sha256, image)
    for image in reversed(evaluated):
        if (other := seen.get(image.source_sha256)) is not None:
            yield _leak("equal", image, other, None)


def _near_leaks(evaluated: Iterable[HashedImage], training: Iterable[HashedImage]) -> Iterator[Leak]:
    """From the farthest to the nearest, so that a study keeps its nearest one."""
    ours = [(image, image.phash) for image in evaluated if image.phash is not None]
    theirs = [(image, image.phash) for image in training if image.phash is not None]
    limit = max((near_distance(image.source) for image, _ in ours), default=NEAR)
    best, place = nearest([code for _, code in ours], [code for _, code in theirs], limit)
    for index in np.argsort(-best, kind="stable").tolist():
        image = ours[index][0]
        if place[index] >= 0 and best[index] <= near_distance(image.source):
            yield _leak("near", image, theirs[place[index]][0], int(best[index]))


def near_distance(source: str) -> int:
    """At which Hamming distance two pictures count as one, by the source of the evaluated one."""
    return NEAR_PHANTOM if source == "phantom" else NEAR


def _leak(kind: Kind, image: HashedImage, other: HashedImage, distance: int | None) -> Leak:
    pictures = kind != "subject"
    return Leak(
        kind=kind,
        source=image.source,
        study_id=image.study_id,
        image_id=image.image_id if pictures else None,
        training_source=other.source,
        training_study_id=other.study_id,
        training_image_id=other.image_id if pictures else None,
        distance=distance,
    )
