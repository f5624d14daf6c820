"""What the tiny base's eyes learn from: phantoms, and what is painted in them.

Which sign is which finding is left to be learnt from the teachers: no name is given here.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr_max.builders.sources.phantom import ASKED, BESIDE, cases, drawn
from cxr_max.eval.metrics.classification import balanced_accuracy
from cxr_max.eval.metrics.ranking import auroc
from cxr_max.lab.world import SEEDS, SIZE, population
from cxr_max.shards import canonical_json, write_text
from cxr_max.student.eyes import Pictures, encoded, write_eyes
from cxr_max.student.tiny import TinySize
from cxr_max.student.training import Watch

STUDENT: Final = TinySize(spread=128**-0.5)
"""The lab's student; with Qwen's own spread of weights a width of 128 learns several times as slowly."""
SIGNS: Final = (*ASKED, *BESIDE, "Support Devices")
TRIED_ON: Final = 600
"""Further phantoms on which it is tried what the eyes see."""
_AT_ONCE: Final = 200


def eyes(out: Path, count: int, watch: Watch) -> None:
    """Write a vision tower that sees to ``out``, and what it sees to ``out/seen.json``.

    That is, of each sign, AUROC and balanced accuracy on ``TRIED_ON`` phantoms that it never saw.
    """
    tried, truth = pictures("seen", min(TRIED_ON, count), watch)
    data, signs = pictures("school", count, watch)
    said = write_eyes(out, STUDENT, data, signs, tried, watch)
    present = truth == 1
    seen = {
        name: {
            "auroc": auroc(present[:, place], said[:, place]).measured().value,
            "balanced_accuracy": balanced_accuracy(present[:, place], said[:, place] > 0).measured().value,
        }
        for place, name in enumerate(SIGNS)
    }
    write_text(out / "seen.json", canonical_json(seen))


def pictures(which: str, count: int, watch: Watch) -> tuple[Pictures, NDArray[np.float32]]:
    """So many phantoms, and (phantoms, signs): what is painted in them, 1 or 0."""
    few = list(islice(cases(SEEDS[which], population(which)), count))

    def batches() -> Iterator[list[Image.Image]]:
        for start in range(0, count, _AT_ONCE):
            yield [Image.fromarray(drawn(case, SIZE)).convert("RGB") for case in few[start : start + _AT_ONCE]]
            watch("Drawing", min(start + _AT_ONCE, count), count)

    signs = np.array([[sign in case.findings for sign in SIGNS] for case in few], dtype=np.float32)
    return encoded(batches()), signs
