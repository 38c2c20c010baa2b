"""Antialiased bicubic resizing by the conventions of MATLAB's ``imresize``: how the field makes frames small."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_SUPPORT = 4.0  # width of the cubic kernel, in pixels


def cubic_kernel(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x * x + 1.0
    outer = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))


@lru_cache(maxsize=256)
def resize_matrix(n_in: int, n_out: int, scale: float | None = None) -> NDArray[np.float64]:
    """The linear map of one axis, (n_out, n_in): rows sum to 1, borders are mirrored, smaller scales are antialiased.

    ``scale`` is n_out / n_in unless the caller's scale was rounded up to whole pixels.
    """
    scale = n_out / n_in if scale is None else scale
    return cubic_matrix(n_in, (np.arange(n_out) + 0.5) / scale - 0.5, scale)


def cubic_matrix(n_in: int, centres: NDArray[np.floating], scale: float) -> NDArray[np.float64]:
    """The same for output samples at ``centres``, (n_out,), which are places in the input; not to be written to."""
    shrink = min(scale, 1.0)  # antialiasing widens the kernel
    first = np.floor(centres - _SUPPORT / shrink / 2) + 1
    taps = first[:, None] + np.arange(math.ceil(_SUPPORT / shrink) + 2)
    weights = cubic_kernel(((centres[:, None] - taps) * shrink).astype(np.float64))
    weights /= weights.sum(1, keepdims=True)
    mirrored = np.mod(taps.astype(int), 2 * n_in)
    mirrored = np.where(mirrored < n_in, mirrored, 2 * n_in - 1 - mirrored)
    matrix = np.zeros((len(centres), n_in))
    np.add.at(matrix, (np.arange(len(centres))[:, None], mirrored), weights)
    matrix.setflags(write=False)
    return matrix


def imresize(
    image: NDArray[np.floating], size: tuple[int, int] | None = None, scale: float | None = None
) -> NDArray[np.floating]:
    """Resizes two axes to ``size`` (height, width), or by ``scale`` to whole pixels rounded up. (H, W, ...)"""
    if (size is None) == (scale is None):
        raise ValueError("imresize takes either a size or a scale")
    if size is None:
        assert scale is not None
        size = (math.ceil(image.shape[0] * scale), math.ceil(image.shape[1] * scale))
    rows = resize_matrix(image.shape[0], size[0], scale).astype(image.dtype)
    columns = resize_matrix(image.shape[1], size[1], scale).astype(image.dtype)
    return np.moveaxis(np.tensordot(columns, np.tensordot(rows, image, (1, 0)), (1, 1)), 0, 1)


def to_uint8(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """[0, 1] to 0..255, rounded and clipped."""
    return np.clip(np.rint(image * 255.0), 0, 255).astype(np.uint8)
