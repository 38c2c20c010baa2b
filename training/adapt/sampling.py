"""The frames of a clip that an analysis looks at, and their luma."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # BT.601


def spread_frames(frames: Tensor, most: int) -> Tensor:
    """Return at most `most` frames of (N, ...), evenly spaced over all of them."""
    indices = torch.linspace(0, len(frames) - 1, min(most, len(frames))).round().long()
    return frames[indices.to(frames.device)]


def spread_steps(count: int, size: Sequence[int], step: int, most: int) -> int:
    """Return a step in pixels, `step` or more, at which `count` frames of a size (h, w) have at most `most` windows."""
    return max(step, math.ceil(math.sqrt(count * size[0] * size[1] / most)))


def middle(frames: Tensor, side: int, multiple: int = 1) -> Tensor:
    """Return the middle of frames (..., h, w), at most `side` pixels each way.

    Its corner is at multiples of `multiple` pixels.
    """
    top, left = (max(0, n - side) // 2 // multiple * multiple for n in frames.shape[-2:])
    return frames[..., top : top + side, left : left + side]


def busiest(frames: Tensor, side: int) -> Tensor:
    """Return the part of frames (N, 3, h, w) with the most detail, at most `side` pixels each way."""
    h, w = (min(n, side) for n in frames.shape[-2:])
    luma = torch.einsum("nchw,c->nhw", frames, torch.tensor(LUMA).to(frames))
    detail = torch.stack([step.abs().mean(0) for step in torch.gradient(luma, dim=(1, 2))]).sum(0)
    sums = F.avg_pool2d(detail[None, None], (h, w), stride=8)[0, 0]
    top, left = (8 * int(index) for index in divmod(int(sums.argmax()), sums.shape[1]))
    return frames[..., top : top + h, left : left + w]


def grey_levels(frames: Tensor) -> NDArray[np.float32]:
    """Return the luma of frames, (N, 3, h, w) in [0, 1], in grey levels: (N, h, w) in [0, 255]."""
    levels: NDArray[np.float32] = (torch.einsum("nchw,c->nhw", frames.float().cpu(), torch.tensor(LUMA)) * 255).numpy()
    return levels
