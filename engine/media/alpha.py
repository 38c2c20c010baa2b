"""Transparent frames: colors where nothing is seen, and frames for outputs without alpha.

Alpha is straight: the colors of a pixel are not multiplied by it. A pixel that is not seen at all may have any color,
which a network would blend into its neighbours; it gets the color of the visible pixels around it.
"""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np

from .frame import Frame, FrameReader, WrappedReader


class AlphaReader(WrappedReader):
    """Reads frames with alpha for a network, or for an output without alpha: over black.

    `is_lost` is true once a frame that was not opaque has lost its alpha.
    """

    def __init__(self, reader: FrameReader, keep: bool) -> None:
        super().__init__(reader)
        self._keep = keep
        self.is_lost = False

    def __iter__(self) -> Iterator[Frame]:
        return map(self._prepared, self._reader)

    def from_time(self, low: Fraction) -> Iterator[Frame]:
        """Yield the frames from a time on; see `FrameReader.from_time`."""
        return map(self._prepared, self._reader.from_time(low))

    def between(self, low: Fraction, high: Fraction, *, seek: bool = True) -> Iterator[Frame]:
        """Yield the frames of a part; see `FrameReader.between`."""
        return map(self._prepared, self._reader.between(low, high, seek=seek))

    def _prepared(self, frame: Frame) -> Frame:
        if frame.alpha is None or frame.alpha.min() >= 1:
            return frame
        if self._keep:
            return replace(frame, rgb=fill_hidden(frame.rgb, frame.alpha))
        self.is_lost = True
        return replace(frame, rgb=frame.rgb * frame.alpha, alpha=None)


def fill_hidden(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:  # (3, h, w), (h, w) -> (3, h, w)
    """Return colors in which pixels of no opacity have those of the nearest visible ones, about.

    Visible pixels are averaged in squares of 2, 4, 8, ... pixels; a hidden one takes the average of its smallest square
    that has any.
    """
    if alpha.min() > 0 or alpha.max() <= 0:
        return rgb
    visible = (alpha > 0).astype(np.float32)
    levels = [(rgb * visible, visible)]
    while levels[-1][1].min() <= 0 and max(levels[-1][1].shape) > 1:
        color, weight = (_halved(part) for part in levels[-1])
        levels.append((color, weight))
    filled = np.zeros_like(levels[-1][0])
    for color, weight in reversed(levels):
        height, width = weight.shape
        coarse = filled.repeat(2, 1).repeat(2, 2)[:, :height, :width] if filled.shape != color.shape else filled
        filled = np.where(weight > 0, color / np.maximum(weight, 1e-6), coarse).astype(np.float32)
    return filled


def _halved(part: np.ndarray) -> np.ndarray:
    """Return the sums of squares of 2 by 2 values, (..., h, w) -> (..., ceil(h / 2), ceil(w / 2))."""
    height, width = part.shape[-2:]
    padding = [(0, 0)] * (part.ndim - 2) + [(0, height % 2), (0, width % 2)]
    padded = np.pad(part, padding)
    return padded[..., 0::2, 0::2] + padded[..., 1::2, 0::2] + padded[..., 0::2, 1::2] + padded[..., 1::2, 1::2]
