"""Antialiased bicubic resizing of images by the conventions of MATLAB's `imresize`, and rounding to 8 bits."""

import math

import numpy as np
from numpy.typing import NDArray

from ..engine.contract.resize import resize_matrix


def imresize(
    image: NDArray[np.floating], size: tuple[int, int] | None = None, scale: float | None = None
) -> NDArray[np.floating]:
    """Resize an image (H, W, ...) to `size` (height, width), or by `scale` to whole pixels, rounded up.

    The values have any range; the dtype stays. Raises ValueError unless exactly one of `size` and `scale` is given.
    """
    if (size is None) == (scale is None):
        raise ValueError("imresize takes either a size or a scale")
    if size is None:
        assert scale is not None
        size = (math.ceil(image.shape[0] * scale), math.ceil(image.shape[1] * scale))
    rows = resize_matrix(image.shape[0], size[0], scale).astype(image.dtype)
    columns = resize_matrix(image.shape[1], size[1], scale).astype(image.dtype)
    return np.moveaxis(np.tensordot(columns, np.tensordot(rows, image, (1, 0)), (1, 1)), 0, 1)


def downscale(frames: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize frames in [0, 1] to `size` (h, w) and round them to 8 bits. (N, H, W, 3) -> (N, h, w, 3)"""
    return np.stack([to_uint8(imresize(frame, size)) for frame in frames])


def to_uint8(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Convert values in [0, 1] to 0 to 255, rounded; values outside the range are clipped."""
    return np.clip(np.rint(image * 255.0), 0, 255).astype(np.uint8)
