"""How fast phantoms are drawn, beside what it takes to write them as PNG."""

import io
import time
from collections.abc import Callable
from itertools import islice
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr_max.builders.sources.phantom import Case, cases
from cxr_max.builders.sources.phantom_image import draw

IMAGES = 100
RUNS = 5


def section() -> str:
    """Images per second on one core at 256 px, and the ratio to PNG encoding alone."""
    some = list(islice(cases(1), IMAGES))
    pictures = [_draw(case) for case in some]
    drawing = _per_second(lambda: [_draw(case) for case in some])
    writing = _per_second(lambda: [_encode(picture) for picture in pictures])
    return (
        "## Phantoms, 256 px, one core\n\n| what | images/s |\n| --- | --- |\n"
        f"| draw | {drawing:.0f} |\n| encode as PNG | {writing:.0f} |\n\n"
        f"Drawing takes {writing / drawing:.1f} times as long as writing (medians of {RUNS} runs of {IMAGES}).\n"
    )


def _draw(case: Case) -> NDArray[np.uint8]:
    return draw(
        case.findings, seed=case.seed, severity=case.severity, view=case.view, anatomy=case.subject.anatomy
    )


def _encode(picture: NDArray[np.uint8]) -> None:
    Image.fromarray(picture).save(io.BytesIO(), format="PNG", compress_level=1)


def _per_second(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return IMAGES / median(seconds)
