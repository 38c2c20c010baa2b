"""Tiles of a picture, blended where they overlap: a weighted mean, whose weights fall off towards feathered borders.

A canvas collects tiles in any order; `normalised` makes the picture of it.
"""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import launcher as module

_BLOCK = (32, 8, 1)

VARIANTS: tuple[module.Defines, ...] = ((("DTYPE", "float"),), (("DTYPE", "half"),))


def new_canvas(like: Any, channels: int, size: tuple[int, int]) -> Any:
    """Return an empty canvas where the array `like` is. -> (channels + 1, *size) float32: sums, and their weights."""
    canvas = module.empty(like, (channels + 1, *size), np.float32)
    canvas[...] = 0
    return canvas


def add_tile(canvas: Any, tile: Any, place: tuple[int, int], feathers: tuple[int, int, int, int]) -> None:
    """Add a tile to a canvas, in place.

    tile: (C, h, w), float32 or float16. place: of its first row and column in the canvas, where it may reach beyond the
    borders. feathers: widths in pixels, at its top, bottom, left and right, over which its weight rises evenly from 0
    to 1; with 0 the weight is 1 up to the border. Two tiles whose feathers are as wide as their overlap have weights
    that sum to 1. Raises ValueError for a tile of another number of channels, or feathers below 0.
    """
    channels = canvas.shape[0] - 1
    if tile.ndim != 3 or tile.shape[0] != channels:
        raise ValueError(f"a tile of shape {tile.shape} does not fit a canvas of {channels} channels")
    if min(feathers) < 0:
        raise ValueError(f"feathers of {feathers} pixels are below 0; hand over widths")
    if not tile.size:
        return
    extents = (channels, *tile.shape[1:], *canvas.shape[1:], *place, *feathers)
    launch = _launch(*tile.shape[1:])
    defines = (module.dtype_define(tile.dtype),)
    module.launch("blend", defines, "add_tile", launch, tile, canvas, *(np.int32(n) for n in extents))


def normalised(canvas: Any, dtype: DTypeLike = np.float32) -> Any:
    """Return the picture of a canvas, 0 where no tile is. (C + 1, H, W) -> (C, H, W), float32 or float16"""
    planes, height, width = canvas.shape
    picture = module.empty(canvas, (planes - 1, height, width), dtype)
    if picture.size:
        extents = (np.int32(n) for n in (planes - 1, height, width))
        defines = (module.dtype_define(dtype),)
        module.launch("blend", defines, "normalise", _launch(height, width), canvas, picture, *extents)
    return picture


def _launch(height: int, width: int) -> module.Launch:
    return module.Launch((-(-width // _BLOCK[0]), -(-height // _BLOCK[1]), 1), _BLOCK)
