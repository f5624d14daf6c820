"""Figures of image quality, against the image before."""

from math import inf, log10
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxr_max.image_file import Grey


def psnr(image: "Grey", other: "Grey") -> float:
    """Peak signal to noise ratio in dB: 10 log10(255^2 / mean squared difference); infinite where all is equal."""
    error = float(np.mean((image.astype(np.float64) - other) ** 2))
    return 10 * log10(255**2 / error) if error else inf


def ssim(image: "Grey", other: "Grey") -> float:
    """Mean structural similarity, at most 1 (Wang et al. 2004).

    With the paper's settings: Gaussian window of 11 x 11 and sigma 1.5, K1 0.01, K2 0.03, range 255. Windows
    that reach beyond the border are left out.
    """
    one, two = image.astype(np.float64), other.astype(np.float64)
    mean_one, mean_two = _windowed(one), _windowed(two)
    variance = _windowed(one * one) - mean_one**2 + _windowed(two * two) - mean_two**2
    covariance = _windowed(one * two) - mean_one * mean_two
    small, large = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_one * mean_two + small) * (2 * covariance + large)
    return float(np.mean(likeness / ((mean_one**2 + mean_two**2 + small) * (variance + large))))


def _windowed(values: "NDArray[np.float64]") -> "NDArray[np.float64]":
    import cv2

    averaged: NDArray[np.float64] = cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5]
    return averaged
