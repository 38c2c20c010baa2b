"""Estimation of the noise of a clip from its flattest blocks.

In blocks of 8x8 pixels the discrete cosine transform separates noise, which is alike at all frequencies, from texture,
whose power falls with frequency. The blocks that are flattest at low frequencies are measured at the highest ones, and
what texture contributes there is taken off by their middle frequencies. The estimate is low rather than high: a texture
that is taken for noise would be smoothed away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .sampling import LUMA, grey_levels, spread_frames, spread_steps

_BLOCK_PX = 8
_STEP_PX, _MOST_BLOCKS = 3, 100_000  # pixels between blocks, which overlap, and blocks of all frames, at most
_FRAMES = 6  # of a scene that are analysed at most
_FLATTEST, _FEWEST_BLOCKS = 0.01, 150  # share of the blocks that is measured, and their least number
_RANGE = (4, 250)  # grey levels: blocks with darker or brighter pixels may be clipped
_TEXTURE_RATIO = 2.7  # of a texture's power at middle frequencies to that at high ones: the least that was observed
_MOST_RATIO = 2.2  # of what is measured at middle and high frequencies; noise alone has 1
_CHI2_MEDIAN = 0.455  # of one degree of freedom

_ROW, _COLUMN = np.meshgrid(np.arange(_BLOCK_PX), np.arange(_BLOCK_PX), indexing="ij")
_ORDER = _ROW + _COLUMN
_LOW = ((_ORDER > 0) & (_ORDER <= 3)) | (_ORDER == 6)
_MIDDLE = (_ORDER == 5) | (_ORDER == 7)  # other frequencies than those that the blocks are chosen by
_HIGH = (_ROW >= 4) & (_COLUMN >= 4) & (_ORDER >= 9)


@dataclass(frozen=True)
class NoiseEstimate:
    """White noise: its standard deviation in each of red, green and blue, in grey levels, and the confidence in it.

    `luma` is the standard deviation in luma. `confidence` is the share of the measured power that is not texture's, 0
    to 1.
    """

    sigma: float
    luma: float
    confidence: float

    def record(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return {"sigma": round(self.sigma, 2), "confidence": round(self.confidence, 3)}


def estimate_noise(scenes: Sequence[Tensor]) -> NoiseEstimate:
    """Estimate the noise of a clip from frames (N, 3, h, w) in [0, 1] of each scene: that of the scene with the least.

    Frames that are smaller than a block, or clipped everywhere, have none.
    """
    estimates = [_of_levels(grey_levels(spread_frames(frames, _FRAMES))) for frames in scenes]
    return min(estimates, key=lambda estimate: estimate.luma)


def flat_noise(levels: NDArray[np.float32]) -> float:
    """Return the standard deviation of the finest structure in the flattest blocks of frames (N, h, w)."""
    measured = _flattest_power(levels)
    return 0.0 if measured is None else float(np.sqrt(measured[0]))


def _of_levels(levels: NDArray[np.float32]) -> NoiseEstimate:
    measured = _flattest_power(levels)
    if measured is None:
        return NoiseEstimate(0.0, 0.0, 0.0)
    high, middle = measured
    rounding = 1 / 12
    noise = (high * _TEXTURE_RATIO - middle) / (_TEXTURE_RATIO - 1)
    noise = min(noise, high) - rounding
    if noise <= 0 or middle > _MOST_RATIO * high:
        return NoiseEstimate(0.0, 0.0, 0.0)
    luma = float(np.sqrt(noise))
    return NoiseEstimate(luma / float(np.linalg.norm(LUMA)), luma, noise / high)


def _flattest_power(levels: NDArray[np.float32]) -> tuple[float, float] | None:
    """Return the power of the flattest blocks at high and at middle frequencies; None if there are too few blocks."""
    if min(levels.shape[1:]) < _BLOCK_PX:
        return None
    views = np.lib.stride_tricks.sliding_window_view(levels, (_BLOCK_PX, _BLOCK_PX), (1, 2))
    step = spread_steps(len(levels), levels.shape[1:], _STEP_PX, _MOST_BLOCKS)
    blocks = views[:, ::step, ::step].reshape(-1, _BLOCK_PX, _BLOCK_PX)
    blocks = blocks[(blocks.min((1, 2)) > _RANGE[0]) & (blocks.max((1, 2)) < _RANGE[1])]
    if len(blocks) < _FEWEST_BLOCKS:
        return None
    power = (_COSINES @ blocks @ _COSINES.T) ** 2
    count = max(_FEWEST_BLOCKS, int(_FLATTEST * len(blocks)))
    flattest = power[np.argpartition(power[:, _LOW].mean(1), count - 1)[:count]]
    high, middle = (float(np.median(flattest[:, part])) / _CHI2_MEDIAN for part in (_HIGH, _MIDDLE))
    return high, middle


def _cosines() -> NDArray[np.float32]:
    positions = (2 * np.arange(_BLOCK_PX) + 1) * np.arange(_BLOCK_PX)[:, None] * np.pi / (2 * _BLOCK_PX)
    scales = np.sqrt(np.where(np.arange(_BLOCK_PX) == 0, 1, 2) / _BLOCK_PX)
    matrix: NDArray[np.float32] = (scales[:, None] * np.cos(positions)).astype(np.float32)
    return matrix


_COSINES = _cosines()
