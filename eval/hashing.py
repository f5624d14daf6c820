"""Image sets -> perceptual hashes for the leak check; each picture is read once, whatever is asked later."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

from cxr_max.builders.pixels import Pixels
from cxr_max.errors import ImageError
from cxr_max.eval.leaks import HASH, HashedImage, phash
from cxr_max.records import Asked
from cxr_max.shards import disk_refusals_named

Watch = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""
_AT_ONCE: Final = 64
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS hashes (source_sha256 TEXT, rendering TEXT, hash TEXT, phash BLOB,"
    " PRIMARY KEY (source_sha256, rendering, hash)) WITHOUT ROWID"
)


def hashed_images(
    image_sets: Sequence[Asked], pixels: Pixels, cache: Path, what: str, watch: Watch
) -> list[HashedImage]:
    """Every picture of the image sets with its perceptual hash; without one where it cannot be read.

    Args:
        cache: an SQLite file, made where it is missing.
        what: named to the watch.

    Raises:
        StorageError: the disk refused.
    """
    with disk_refusals_named(cache), closing(sqlite3.connect(cache)) as db:
        db.execute(_SCHEMA)
        known = {
            (source, rendering): found
            for source, rendering, found in db.execute(
                "SELECT source_sha256, rendering, phash FROM hashes WHERE hash = ?", (HASH,)
            )
        }
        missing = [asked for asked in image_sets if any(_key(asked, s) not in known for s in asked.source_sha256)]
        done = len(image_sets) - len(missing)
        watch(what, done, len(image_sets))
        for asked, found in _computed(missing, pixels):
            done += 1
            watch(what, done, len(image_sets))
            if found is None:
                continue
            for source, one in zip(asked.source_sha256, found, strict=True):
                known[_key(asked, source)] = one
                row = (source, asked.rendering, HASH, one)
                db.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)", row)
            if done % _AT_ONCE == 0:
                db.commit()
        db.commit()
    return [
        HashedImage(asked.study_id, asked.subject_id, asked.source, image, source, known.get(_key(asked, source)))
        for asked in image_sets
        for image, source in zip(asked.image_ids, asked.source_sha256, strict=True)
    ]


def _key(asked: Asked, source: str) -> tuple[str, str]:
    return source, asked.rendering


def _computed(
    image_sets: Sequence[Asked], pixels: Pixels
) -> Iterator[tuple[Asked, tuple[bytes | None, ...] | None]]:
    """In order, some at a time; ``None`` where a picture cannot be read."""
    rest = iter(image_sets)
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="hash") as pool:
        while few := list(islice(rest, _AT_ONCE)):
            yield from zip(few, pool.map(lambda asked: _hashes(asked, pixels), few), strict=True)


def _hashes(asked: Asked, pixels: Pixels) -> tuple[bytes | None, ...] | None:
    import cv2
    import numpy as np

    try:
        images = pixels.encoded(asked)
    except ImageError:
        return None
    decoded = (cv2.imdecode(np.frombuffer(one.jpeg, dtype=np.uint8), cv2.IMREAD_GRAYSCALE) for one in images)
    return tuple(phash(np.asarray(grey, dtype=np.uint8)) for grey in decoded)
