"""Antialiased bicubic resizing by the conventions of MATLAB's `imresize`, and the sizes of frames that are made small.

Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -1/2; the ends are mirrored with
their edge pixels.
"""

import math
from functools import lru_cache

import numpy as np

_SUPPORT = 4.0  # width of the cubic kernel, in pixels
_LEAST_PX = 2  # sides of a frame that is made small


def cubic_kernel(x: np.ndarray) -> np.ndarray:
    """Return Keys' cubic convolution kernel with a = -1/2 at distances `x`."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x * x + 1.0
    outer = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))


def cubic_taps(n_in: int, centres: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the input samples that each output sample is made of, and their weights.

    `centres`, (n_out,), are the positions of output samples in the input. `scale` is output over input: below 1 the
    kernel widens, against aliasing. Both results are (n_out, taps); the weights are float64 and sum to 1 over the taps.
    """
    narrow = min(scale, 1.0)
    first = np.floor(centres - _SUPPORT / narrow / 2) + 1
    indices = first[:, None] + np.arange(math.ceil(_SUPPORT / narrow) + 2)
    weights = cubic_kernel(((centres[:, None] - indices) * narrow).astype(np.float64))
    weights /= weights.sum(1, keepdims=True)
    mirrored = np.mod(indices.astype(int), 2 * n_in)
    return np.minimum(mirrored, 2 * n_in - 1 - mirrored), weights


@lru_cache(maxsize=256)
def resize_matrix(n_in: int, n_out: int, scale: float | None = None) -> np.ndarray:
    """Return the linear map of one axis, (n_out, n_in) float64, read-only.

    `scale` is n_out / n_in unless the caller's scale was rounded up to whole pixels.
    """
    scale = n_out / n_in if scale is None else scale
    return cubic_matrix(n_in, _centres(n_out, scale), scale)


def cubic_matrix(n_in: int, centres: np.ndarray, scale: float) -> np.ndarray:
    """Return the linear map of one axis to output samples at `centres`, (n_out, n_in) float64, read-only."""
    indices, weights = cubic_taps(n_in, centres, scale)
    matrix = np.zeros((len(centres), n_in))
    np.add.at(matrix, (np.arange(len(centres))[:, None], indices), weights)
    matrix.setflags(write=False)
    return matrix


def resized(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:  # (..., h, w) -> (..., H, W) float32
    """Resize frames to `size` (H, W); what a cubic overshoots is not clipped."""
    frames = frames.astype(np.float32, copy=False)
    for axis, length in zip((-2, -1), size, strict=True):
        if frames.shape[axis] != length:
            frames = _resized_axis(frames, axis, length)
    return frames


def shrink(frame: np.ndarray, factor: int) -> np.ndarray:  # (3, H, W) -> (3, H // factor, W // factor)
    """Make a frame smaller by a whole factor, clipped to [0, 1]."""
    if factor == 1:
        return frame
    return np.clip(resized(frame, (frame.shape[1] // factor, frame.shape[2] // factor)), 0, 1)


def coarse_size(size: tuple[int, ...], coarse: int) -> tuple[int, int]:
    """Return the (height, width) of frames of `size` made `coarse` times smaller, rounded up, at least two pixels."""
    height, width = (max(_LEAST_PX, -(-side // coarse)) for side in size)
    return height, width


def _centres(n_out: int, scale: float) -> np.ndarray:
    return (np.arange(n_out) + 0.5) / scale - 0.5


def _resized_axis(frames: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Sum the taps one by one: faster than a matrix product, which is mostly of zeros."""
    resized_frames = np.zeros((*frames.shape[:axis], length, *frames.shape[axis:][1:]), np.float32)
    for indices, weights in zip(*_float32_taps(frames.shape[axis], length), strict=True):
        resized_frames += frames.take(indices, axis) * (weights[:, None] if axis == -2 else weights)
    return resized_frames


@lru_cache(maxsize=64)
def _float32_taps(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the taps as two (taps, n_out), without those that weigh nothing anywhere."""
    scale = n_out / n_in
    indices, weights = (taps.T for taps in cubic_taps(n_in, _centres(n_out, scale), scale))
    used = weights.any(1)
    return indices[used], weights.astype(np.float32)[used]
