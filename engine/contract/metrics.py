"""PSNR and SSIM as the papers of the field compute them.

Papers measure BT.601 luma in 16 to 235, unrounded, on whole frames: no border is cropped.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PEAK = 255.0
_Y_FROM_RGB = np.array([65.481, 128.553, 24.966])  # for RGB in [0, 1]; an offset of 16 is added
SSIM_PX = 11  # side of the window, and so of the smallest image
_SSIM_SIGMA = 1.5
_SSIM_C1, _SSIM_C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


class Figure(NamedTuple):
    """A figure of a video against another one: its name for readers, and the digits that say something."""

    title: str
    digits: int


FIGURES = {
    "psnr_y_db": Figure("PSNR dB", 2),
    "ssim_y": Figure("SSIM", 4),
    "vmaf": Figure("VMAF", 2),
    "lpips": Figure("LPIPS", 4),  # of all figures the one in which less is better
}


def luma(rgb: NDArray[np.generic]) -> NDArray[np.float64]:
    """Convert RGB in 0 to 255 to BT.601 luma in 16 to 235. (H, W, 3) -> (H, W)"""
    return rgb.astype(np.float64) @ (_Y_FROM_RGB / PEAK) + 16.0


def psnr(actual: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    """Return the peak signal-to-noise ratio, in dB, of two arrays of one shape in 0 to 255; inf if they are equal."""
    error = np.mean((actual.astype(np.float64) - expected.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(PEAK**2 / error))


def ssim(actual: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    """Return the structural similarity of two (H, W) or (H, W, C) arrays in 0 to 255 (Wang et al. 2004).

    The 11x11 Gaussian window has a sigma of 1.5 and is evaluated at all positions inside the image. The result is the
    mean over positions and channels. Raises ValueError for images of fewer than 11 pixels each way.
    """
    if min(actual.shape[:2]) < SSIM_PX:
        raise ValueError(
            f"SSIM needs images of at least {SSIM_PX} pixels each way, not {actual.shape[1]}x{actual.shape[0]}"
        )
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + _SSIM_C1) * (2 * covariance + _SSIM_C2)
    denominator = (mean_a**2 + mean_b**2 + _SSIM_C1) * (var_a + var_b + _SSIM_C2)
    return float(np.mean(numerator / denominator))


def _blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the Gaussian window along both axes, at valid positions only. (H, W, ...) -> (H - 10, W - 10, ...)"""
    taps = np.exp(-((np.arange(SSIM_PX) - SSIM_PX // 2) ** 2) / (2 * _SSIM_SIGMA**2))
    taps /= taps.sum()
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(x, SSIM_PX, axis)
        x = windows @ taps
    return x
