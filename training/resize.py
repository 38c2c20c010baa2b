"""Antialiased bicubic resizing of images by the conventions of MATLAB's `imresize`, and their 8-bit form."""

import math

import numpy as np
from numpy.typing import NDArray

from ..engine.contract.resize import resize_matrix


def imresize(
    image: NDArray[np.floating], size: tuple[int, int] | None = None, scale: float | None = None
) -> NDArray[np.floating]:
    """Resize an image (H, W, ...) to `size` (height, width), or by `scale` to whole pixels rounded up.

    Raises ValueError unless exactly one of the two is given.
    """
    if (size is None) == (scale is None):
        raise ValueError("imresize takes either a size or a scale")
    if size is None:
        assert scale is not None
        size = (math.ceil(image.shape[0] * scale), math.ceil(image.shape[1] * scale))
    rows = resize_matrix(image.shape[0], size[0], scale).astype(image.dtype)
    columns = resize_matrix(image.shape[1], size[1], scale).astype(image.dtype)
    return np.moveaxis(np.tensordot(columns, np.tensordot(rows, image, (1, 0)), (1, 1)), 0, 1)


def to_uint8(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return values in [0, 1] as 0 to 255, rounded and clipped."""
    return np.clip(np.rint(image * 255.0), 0, 255).astype(np.uint8)
