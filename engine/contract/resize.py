"""Antialiased bicubic resizing (Keys 1981, a = -1/2, mirrored ends), as training makes inputs small."""

import math
from functools import lru_cache

import numpy as np


def resized(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:  # (..., h, w) -> (..., H, W) float32
    """Resize to `size` (H, W); what a cubic overshoots is not clipped."""
    frames = frames.astype(np.float32, copy=False)
    for axis, length in zip((-2, -1), size, strict=True):
        if frames.shape[axis] != length:
            frames = _resized_axis(frames, axis, length)
    return frames


def _resized_axis(frames: np.ndarray, axis: int, length: int) -> np.ndarray:
    places, weights = _taps(frames.shape[axis], length)
    made = np.zeros((*frames.shape[:axis], length, *frames.shape[axis:][1:]), np.float32)
    for place, weight in zip(places, weights, strict=True):
        made += frames.take(place, axis) * (weight[:, None] if axis == -2 else weight)
    return made


@lru_cache(maxsize=64)
def _taps(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which samples each new one is made of, and by how much of each: two (taps, n_out)."""
    scale = n_out / n_in
    narrow = min(scale, 1.0)  # antialiasing widens the kernel
    centres = (np.arange(n_out) + 0.5) / scale - 0.5
    first = np.floor(centres - 2 / narrow) + 1
    places = first + np.arange(math.ceil(4 / narrow) + 1)[:, None]
    distance = np.abs(places - centres) * narrow
    weights = np.where(
        distance <= 1,
        (1.5 * distance - 2.5) * distance**2 + 1,
        np.where(distance <= 2, ((-0.5 * distance + 2.5) * distance - 4) * distance + 2, 0),
    )
    weights /= weights.sum(0)
    some = weights.any(1)  # a tap that weighs nothing anywhere is left out
    places = np.mod(places.astype(int), 2 * n_in)
    return np.minimum(places, 2 * n_in - 1 - places)[some], weights.astype(np.float32)[some]
