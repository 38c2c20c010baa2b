"""PSNR and SSIM as the field's papers compute them: on BT.601 luma in 16..235, unrounded, the border included."""

import numpy as np
from numpy.typing import NDArray

PEAK = 255.0
_Y_FROM_RGB = np.array([65.481, 128.553, 24.966])  # of [0, 1] RGB; plus 16
_SSIM_TAPS, _SSIM_SIGMA = 11, 1.5
_SSIM_C1, _SSIM_C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def luma(rgb: NDArray[np.generic]) -> NDArray[np.float64]:
    """BT.601 luma, 16..235, of RGB in 0..255. (H, W, 3) -> (H, W)"""
    return rgb.astype(np.float64) @ (_Y_FROM_RGB / PEAK) + 16.0


def psnr(actual: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    """Peak signal-to-noise ratio in dB of arrays of one shape in 0..255; infinite when they are equal."""
    error = np.mean((actual.astype(np.float64) - expected.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(PEAK**2 / error))


def ssim(actual: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    """Structural similarity of (H, W) or (H, W, C) arrays in 0..255 (Wang et al. 2004), the mean over channels.

    11x11 Gaussian window of sigma 1.5, evaluated where it lies inside the image; needs 11 pixels each way.
    """
    if min(actual.shape[:2]) < _SSIM_TAPS:
        raise ValueError(f"SSIM needs images of at least {_SSIM_TAPS} pixels each way, not {actual.shape[:2]}")
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + _SSIM_C1) * (2 * covariance + _SSIM_C2)
    denominator = (mean_a**2 + mean_b**2 + _SSIM_C1) * (var_a + var_b + _SSIM_C2)
    return float(np.mean(numerator / denominator))


def _blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian window over both axes, valid positions only. (H, W, ...) -> (H - 10, W - 10, ...)"""
    taps = np.exp(-((np.arange(_SSIM_TAPS) - _SSIM_TAPS // 2) ** 2) / (2 * _SSIM_SIGMA**2))
    taps /= taps.sum()
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(x, _SSIM_TAPS, axis)
        x = windows @ taps
    return x
