"""Memory for pictures that no caller ever sees, used again by the same thread for the next image.

A fresh array of some megabytes may be given back to the system and cleared page by page the next time: up to a
fifth of the time of rendering an image, depending on what else the process allocates.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_BYTES: Final = 2**25
"""Of one array that is kept: twice the largest detector's. Only a larger one is made afresh."""


class _Kept(threading.local):
    """Each thread's own arrays, by what they are used for; they go with the thread."""

    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[np.uint8]] = {}


_kept: Final = _Kept()


def scratch(use: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 of this shape, holding anything; valid until this thread asks for the same ``use`` again."""
    import numpy as np

    size = shape[0] * shape[1]
    array = _kept.arrays.get(use)
    if array is None or array.size < size:
        array = np.empty(size, np.uint8)
        if size <= _MOST_BYTES:
            _kept.arrays[use] = array
    return array[:size].reshape(shape)
