"""Resizing of videos in space and time, and back-projection of a fine video onto the coarse ones it was made from.

Videos are (T, C, H, W). The exposure of a camera lasts until its next frame begins, so the frames of a slower camera
are means of frames: in time the degradation is a box filter, in space it is antialiased cubic resizing.

Zuckerman et al., "Across Scales & Across Dimensions: Temporal Super-Resolution using Deep Internal Learning", 2020,
section 4.2; Irani and Peleg, "Improving Resolution by Image Registration", 1991.

These functions are in PyTorch, for training. `stvsr.engine.pipeline.back_projection` has its own in NumPy, as the
engine must not import PyTorch; `tests/engine/pipeline/test_back_projection.py` compares the two.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...engine.contract.resize import cubic_matrix


@lru_cache(maxsize=256)
def centred_matrix(n_in: int, n_out: int, scale: float) -> NDArray[np.float64]:
    """Return the linear map of one axis, (n_out, n_in): antialiased cubic, ends mirrored, rows sum to 1.

    The middle of the output is aligned with the middle of the input, also if `scale` is not n_out / n_in because the
    caller rounded the length up. There `stvsr.engine.contract.resize.resize_matrix` aligns the first edges instead; the
    two are otherwise the same.
    """
    return cubic_matrix(n_in, (np.arange(n_out) - (n_out - 1) / 2) / scale + (n_in - 1) / 2, scale)


def resize_axis(video: Tensor, dim: int, size: int, scale: float | None = None) -> Tensor:
    """Resize one axis to `size` samples; pass `scale` if it is not `size` over length because of rounding."""
    length = video.shape[dim]
    if size == length and scale in (None, 1.0):
        return video
    matrix = torch.tensor(centred_matrix(length, size, size / length if scale is None else scale))
    return torch.tensordot(video, matrix.to(video), ([dim], [1])).movedim(-1, dim)


def resize_space(video: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize frames to `size` (H, W): (T, C, h, w) -> (T, C, H, W), not clamped."""
    return resize_axis(resize_axis(video, -2, size[0]), -1, size[1])


def scale_space(video: Tensor, scale: float) -> Tensor:
    """Resize frames by a factor, to whole pixels rounded up: (T, C, h, w) -> (T, C, H, W), not clamped."""
    for dim in (-2, -1):
        video = resize_axis(video, dim, math.ceil(video.shape[dim] * scale), scale)
    return video


def expose(video: Tensor, factor: int, dim: int = 0) -> Tensor:
    """Average every `factor` samples of an axis, as a camera that is `factor` times slower does.

    Samples at the end that do not fill an exposure are left out; the official code pads them with zeros.
    """
    groups = video.shape[dim] // factor
    return video.narrow(dim, 0, groups * factor).unflatten(dim, (groups, factor)).mean(dim % video.ndim + 1)


def back_project_time(video: Tensor, coarse: Tensor) -> Tensor:
    """Return the nearest video whose means over time are `coarse`.

    `video` is (k * T, C, H, W), as is the result, and `coarse` is (T, C, H, W). Raises ValueError if the length of the
    one is not a multiple of the other's.
    """
    factor, rest = divmod(video.shape[0], coarse.shape[0])
    if rest:
        raise ValueError(f"{video.shape[0]} frames are not a multiple of the {coarse.shape[0]} frames to project onto")
    return video + (coarse - expose(video, factor)).repeat_interleave(factor, 0)


def back_project_space(video: Tensor, small: Tensor, rounds: int = 1) -> Tensor:
    """Correct a video, (T, C, H, W), so that shrinking it comes nearer to `small`, (T, C, h, w), with every round."""
    large_size, small_size = (video.shape[-2], video.shape[-1]), (small.shape[-2], small.shape[-1])
    for _ in range(rounds):
        video = video + resize_space(small - resize_space(video, small_size), large_size)
    return video


def back_project(small: Tensor, coarse: Tensor) -> Tensor:
    """Combine a video that is fine in time and one that is fine in space, not clamped.

    `small` is (k * T, C, h, w) and `coarse` is (T, C, H, W). Returns (k * T, C, H, W), whose means over time are
    `coarse` up to rounding. With `small` it agrees as one round of back-projection achieves and `coarse` allows.
    """
    size = (coarse.shape[-2], coarse.shape[-1])
    return back_project_time(back_project_space(resize_space(small, size), small), coarse)
