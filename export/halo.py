"""Measure how frames can be cut into tiles: how far a pixel's surroundings affect it, and on which grid."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Upscale = Callable[[np.ndarray], np.ndarray]  # frames (B, 3, h, w) in [0, 1] -> (B, 3, s * h, s * w)

HALOS_PX = (8, 16, 32, 48, 64)  # tried in this order
TOLERANCE = 1 / 1024  # of the value range: a quarter of a step of 8 bits
_GRID_PX = 16  # no network works on a coarser grid without stating it
_CORE_PX = 16  # side of the part that is compared


class Tiling(NamedTuple):
    """The overlap and the grid of tiles."""

    halo_px: int | None  # around a core; None: not at all
    step_px: int  # origins of tiles are multiples of it


def measure_tiling(upscale: Upscale, scale: int, multiple_of: int = 1, minimum: int = 1) -> Tiling:
    """Return the smallest halo and step, in input pixels, with which a tile's core equals that of a larger frame.

    Frames of noise with edges are enlarged whole, and as tiles with the core and the halo alone. No halo of `HALOS_PX`
    is enough if what lies far away counts, as in networks that average over the frame. A step of more than
    `multiple_of` is needed by networks that work on a grid of their own inside.
    """

    def agrees(halo: int, origin: int) -> bool:
        core = _up(max(_CORE_PX, minimum - 2 * halo), multiple_of)
        frames = _noise(core + 2 * halo + 2 * origin)
        whole = upscale(frames.copy())
        tile = upscale(np.ascontiguousarray(frames[..., origin:-origin, origin:-origin]))
        first = _part(whole, (origin + halo) * scale, core * scale)
        second = _part(tile, halo * scale, core * scale)
        return bool(np.abs(np.clip(first, 0, 1) - np.clip(second, 0, 1)).max() <= TOLERANCE)

    coarse = math.lcm(multiple_of, _GRID_PX)
    for tried in HALOS_PX:
        halo = _up(tried, multiple_of)
        if not agrees(halo, _up(halo, coarse)):
            continue
        steps = [step for k in (1, 2, 4, 8) if coarse % (step := k * multiple_of) == 0 and step < coarse]
        step = next((step for step in steps if agrees(_up(halo, step), _up(halo, coarse) + step)), coarse)
        return Tiling(_up(halo, step), step)
    return Tiling(None, multiple_of)


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


def _part(frames: np.ndarray, start: int, side: int) -> np.ndarray:
    return frames[..., start : start + side, start : start + side]


def _noise(side: int) -> np.ndarray:  # (2, 3, side, side) float32
    """Return two frames in [0, 1]: noise of coarse blocks with fine noise, over a gradient of brightness."""
    random = np.random.default_rng(side)
    coarse = random.random((2, 3, side // 4 + 1, side // 4 + 1)).repeat(4, 2).repeat(4, 3)[..., :side, :side]
    gradient = np.linspace(0, 1, side)[None, :] * np.linspace(1, 0, side)[:, None]
    return (0.6 * coarse + 0.2 * random.random((2, 3, side, side)) + 0.2 * gradient).astype(np.float32)
