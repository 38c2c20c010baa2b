"""Measure how far the surroundings of a pixel affect it: the halo that tiles need around their cores."""

from collections.abc import Callable

import numpy as np

Upscale = Callable[[np.ndarray], np.ndarray]  # frames (B, 3, h, w) in [0, 1] -> (B, 3, s * h, s * w)

HALOS_PX = (8, 16, 32, 48, 64)  # tried in this order
TOLERANCE = 1 / 1024  # of the value range: a quarter of a step of 8 bits
_CORE_PX = 16  # side of the part that is compared


def measure_halo(upscale: Upscale, scale: int, multiple_of: int = 1, minimum: int = 1) -> int | None:
    """Return the smallest halo, in input pixels, with which a tile's core equals that of a larger frame.

    Frames of noise with edges are enlarged whole, and as tiles with the core and the halo alone. Returns None if no
    halo of `HALOS_PX` is enough: what lies far away counts, as in networks that average over the frame.
    """
    for tried in HALOS_PX:
        halo = -(-tried // multiple_of) * multiple_of
        core = -(-max(_CORE_PX, minimum - 2 * halo) // multiple_of) * multiple_of
        side = core + 4 * halo
        frames = _noise(side)
        whole = upscale(frames)
        tile = upscale(np.ascontiguousarray(frames[..., halo:-halo, halo:-halo]))
        first = _part(whole, 2 * halo * scale, core * scale)
        second = _part(tile, halo * scale, core * scale)
        if np.abs(np.clip(first, 0, 1) - np.clip(second, 0, 1)).max() <= TOLERANCE:
            return halo
    return None


def _part(frames: np.ndarray, start: int, side: int) -> np.ndarray:
    return frames[..., start : start + side, start : start + side]


def _noise(side: int) -> np.ndarray:  # (2, 3, side, side) float32
    """Return two frames in [0, 1]: noise of coarse blocks with fine noise, over a gradient of brightness."""
    random = np.random.default_rng(side)
    coarse = random.random((2, 3, side // 4 + 1, side // 4 + 1)).repeat(4, 2).repeat(4, 3)[..., :side, :side]
    gradient = np.linspace(0, 1, side)[None, :] * np.linspace(1, 0, side)[:, None]
    return (0.6 * coarse + 0.2 * random.random((2, 3, side, side)) + 0.2 * gradient).astype(np.float32)
