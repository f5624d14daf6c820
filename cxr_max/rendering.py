"""Stored values -> 0..255: a table of all that a value can become, which is exact and fast at any size.

The three recipes are described at ``cxr_max.radiograph.render``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from cxr_max.errors import ImageError
from cxr_max.image_file import Stored, reason, resized
from cxr_max.scratch import scratch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from cxr_max.image_file import Grey

Rendering = Literal["mimic_jpg", "voi", "percentile"]

_BAND_PIXELS: Final = 2**19
"""So much is worked on at a time: it stays in a core's cache between one step and the next."""


def to_grey(path: Path, stored: Stored, rendering: Rendering) -> Grey:
    """Grey values 0..255, 0 black, at full size: uint8 (rows, columns), valid until this thread's next call.

    Raises:
        ImageError: the file's window makes no sense (``voi`` only).
        OSError: the file cannot be read.
    """
    import cv2
    import numpy as np

    make = {"mimic_jpg": _recipe_table, "voi": _voi_table, "percentile": _percentile_table}[rendering]
    table = np.tile(make(path, _values(stored), stored), 2 ** (8 * stored.pixels.dtype.itemsize - stored.bits))
    grey = scratch("full size", stored.pixels.shape)
    start = 0
    for band in stored.bands(_band_height(stored)):
        cv2.LUT(band, table, grey[start : start + len(band)])
        start += len(band)
    return grey


def averaged_down(grey: Grey, size: tuple[int, int]) -> Grey:
    """Down to this width and height, each pixel the average of what it covers: an array of its own.

    Sampled linearly down to a power of two times the size, then averaged in whole blocks. That is nearer to the
    average of the exact areas than whole halves followed by an area interpolation, takes half the time, and holds
    for odd sides. Below a factor of two nothing is left to average afterwards, so the areas are taken.
    """
    import cv2

    given, times = grey, 0
    while grey.shape[1] >= size[0] << (times + 1) and grey.shape[0] >= size[1] << (times + 1):
        times += 1
    if times:
        columns, rows = size[0] << times, size[1] << times
        sampled = scratch("sampled", (rows, columns))
        grey = cv2.resize(grey, (columns, rows), sampled, interpolation=cv2.INTER_LINEAR)
    smaller = resized(grey, size)
    return smaller.copy() if smaller is given else smaller


def _band_height(stored: Stored) -> int:
    return max(1, _BAND_PIXELS // int(stored.pixels.shape[1]))


def _values(stored: Stored) -> NDArray[np.integer[Any]]:
    """What the low bits of a pixel mean, by these bits (DICOM PS3.5 8.1.1)."""
    import numpy as np

    dtype = stored.pixels.dtype
    unused = 8 * dtype.itemsize - stored.bits
    codes = np.arange(2**stored.bits, dtype=f"u{dtype.itemsize}")
    # An arithmetic shift carries the sign down.
    values: NDArray[np.integer[Any]] = (codes << unused).view(dtype) >> unused
    return values


def _counts(stored: Stored) -> NDArray[np.int64]:
    """How many pixels hold each of these values."""
    import cv2
    import numpy as np

    counts = np.zeros(2**stored.bits, np.int64)
    for band in stored.bands(_band_height(stored)):
        # Handed out as float32, which is exact for a band.
        found = cv2.calcHist([band], [0], None, [len(counts)], [0, len(counts)]).ravel()
        if found.sum() < band.size:
            found = np.bincount(band.ravel() & (len(counts) - 1), minlength=len(counts))
        counts += found.astype(np.int64)
    return counts


def _recipe_table(path: Path, values: NDArray[Any], stored: Stored) -> Grey:
    """MIMIC-CXR-JPG's normalisation, which truncates, then equalisation; a constant image turns one grey."""
    import numpy as np

    counts = _counts(stored)
    seen = values[counts > 0]
    low, high = int(seen.min()), int(seen.max())
    scaled = (values.astype(np.float64) - low) / max(high - low, 1) * 255
    table = np.clip(scaled, 0, 255).astype(np.uint8)
    table = 255 - table if stored.white_is_zero else table
    equalised: Grey = _equalising(np.bincount(table, counts, 256).astype(np.int64))[table]
    return equalised


def _equalising(counts: NDArray[np.int64]) -> Grey:
    """The table of ``cv2.equalizeHist`` for these counts of the 256 greys, bit for bit, in float32 as there."""
    import numpy as np

    lowest = int(np.flatnonzero(counts)[0])
    above = int(counts.sum() - counts[lowest])
    if above == 0:
        return np.full(256, lowest, np.uint8)
    cumulated = np.cumsum(counts) - counts[lowest]
    scale = np.float32(255) / np.float32(above)
    table: Grey = np.rint(np.clip(cumulated.astype(np.float32) * scale, 0, 255)).astype(np.uint8)
    return table


def _percentile_table(path: Path, values: NDArray[Any], stored: Stored) -> Grey:
    import numpy as np

    counts = _counts(stored)
    low, high = (_quantile(values, counts, share) for share in (0.005, 0.995))
    return _stretched(values.astype(np.float64), low, high, stored.white_is_zero)


def _quantile(values: NDArray[Any], counts: NDArray[np.int64], share: float) -> float:
    """As ``numpy.quantile`` of all pixels, interpolated linearly, from how many hold each value."""
    import numpy as np

    seen = np.flatnonzero(counts)
    order = seen[np.argsort(values[seen], kind="stable")]
    at_most = np.cumsum(counts[order])
    place = share * (int(at_most[-1]) - 1)
    below, above = (
        float(values[order[np.searchsorted(at_most, whole, side="right")]])
        for whole in (np.floor(place), np.ceil(place))
    )
    part = place % 1
    # As NumPy does: from the nearer end, so that rounding errors stay small.
    return below + (above - below) * part if part < 0.5 else above - (above - below) * (1 - part)


def _stretched(values: NDArray[np.float64], low: float, high: float, white_is_zero: bool) -> Grey:
    """Scale low..high to 0..255, rounded and clipped; an empty range splits into black and white."""
    import numpy as np

    unit = np.clip((values - low) / (high - low), 0, 1) if high > low else (values > low).astype(np.float64)
    grey = np.rint(unit * 255).astype(np.uint8)
    return 255 - grey if white_is_zero else grey


def _voi_table(path: Path, every: NDArray[Any], stored: Stored) -> Grey:
    import numpy as np
    from pydicom.pixels import apply_modality_lut, apply_windowing

    dataset = stored.dataset
    if dataset is None:
        raise AssertionError("voi is refused for pictures before their pixels are read")
    try:
        values = np.asarray(apply_modality_lut(every, dataset), dtype=np.float64)
        if dataset.get("VOILUTSequence"):
            values, low, high = _voi_lut(values, dataset)
        elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
            # Beyond the window lie the two ends of its output range, whatever the bit depth and rescale.
            low, high = apply_windowing(np.array([-np.inf, np.inf]), dataset)
            values = (apply_windowing(values, dataset) - low) / (high - low)
            low, high = 0.0, 1.0
        else:
            seen = values[_counts(stored) > 0]
            low, high = float(seen.min()), float(seen.max())
        if not (np.isfinite(values).all() and np.isfinite([low, high]).all()):
            raise ValueError("values that are not numbers")
    except Exception as fault:  # pydicom raises anything on LUTs and windows that make no sense
        raise ImageError(
            f"The window of {path.name} cannot be applied ({reason(fault)}): ask mimic_jpg or percentile of it."
        ) from fault
    return _stretched(values, low, high, stored.white_is_zero)


def _voi_lut(values: NDArray[np.float64], dataset: Dataset) -> tuple[NDArray[np.float64], float, float]:
    """The first VOI LUT's output for each value, and its output range (DICOM PS3.3 C.11.2.1.1).

    Done here because pydicom's own look-up wraps around for tables of 8 bits. The range is of the bits that
    the entries need: a file that declares 16 bits for entries of 12 would come out black.
    """
    import numpy as np

    item = dataset.VOILUTSequence[0]
    count, first = int(item.LUTDescriptor[0]) or 65536, int(item.LUTDescriptor[1])
    if isinstance(item.LUTData, bytes):
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        entries = np.frombuffer(item.LUTData, f"{order}u2", count)
    else:
        entries = np.atleast_1d(np.asarray(item.LUTData))[:count]
    index = np.clip(values - first, 0, len(entries) - 1).astype(np.intp)
    return entries[index].astype(np.float64), 0.0, float(2 ** int(entries.max()).bit_length() - 1)
