"""Resizes and blurs videos in space and time, and makes a finer video agree with the coarser ones it was made from.

Videos are (T, C, H, W). A camera's exposure lasts until its next frame begins, so a slower camera sees means of
frames: a rectangle in time. In space it is antialiased cubic resizing.

Zuckerman et al., "Across Scales & Across Dimensions: Temporal Super-Resolution using Deep Internal Learning", 2020,
section 4.2; Irani and Peleg, "Improving Resolution by Image Registration", 1991.
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
    """The linear map of one axis, (n_out, n_in): antialiased cubic, ends mirrored, rows sum to 1.

    The middle of the output lies on the middle of the input, also where ``scale`` is not n_out / n_in, because the
    caller's length was rounded up; `stvsr.training.resize.resize_matrix` lets their first edges meet there, and is
    the same elsewhere.
    """
    return cubic_matrix(n_in, (np.arange(n_out) - (n_out - 1) / 2) / scale + (n_in - 1) / 2, scale)


def resize_axis(video: Tensor, dim: int, size: int, scale: float | None = None) -> Tensor:
    """One axis resized to ``size`` samples; ``scale`` is size over length unless that was rounded up."""
    length = video.shape[dim]
    if size == length and scale in (None, 1.0):
        return video
    matrix = torch.tensor(centred_matrix(length, size, size / length if scale is None else scale))
    return torch.tensordot(video, matrix.to(video), ([dim], [1])).movedim(-1, dim)


def resize_space(video: Tensor, size: tuple[int, int]) -> Tensor:
    """(T, C, h, w) -> (T, C, H, W) of ``size`` (H, W), not clamped."""
    return resize_axis(resize_axis(video, -2, size[0]), -1, size[1])


def scale_space(video: Tensor, scale: float) -> Tensor:
    """The same by a factor, to whole pixels rounded up."""
    for dim in (-2, -1):
        video = resize_axis(video, dim, math.ceil(video.shape[dim] * scale), scale)
    return video


def expose(video: Tensor, factor: int, dim: int = 0) -> Tensor:
    """What a camera ``factor`` times slower sees: means of that many samples, one where there were as many.

    Samples at the end that do not fill an exposure are left out; the official code takes zeros for the missing ones.
    """
    groups = video.shape[dim] // factor
    return video.narrow(dim, 0, groups * factor).unflatten(dim, (groups, factor)).mean(dim % video.ndim + 1)


def back_project_time(video: Tensor, coarse: Tensor) -> Tensor:
    """The nearest video whose means over time are ``coarse``. (k * T, C, H, W), (T, C, H, W) -> (k * T, C, H, W)"""
    factor, rest = divmod(video.shape[0], coarse.shape[0])
    if rest:
        raise ValueError(f"{video.shape[0]} frames are not a multiple of the {coarse.shape[0]} to agree with")
    return video + (coarse - expose(video, factor)).repeat_interleave(factor, 0)


def back_project_space(video: Tensor, small: Tensor, rounds: int = 1) -> Tensor:
    """A video that agrees better with ``small`` when it is resized to its size. (T, C, H, W), (T, C, h, w)"""
    large, less = (video.shape[-2], video.shape[-1]), (small.shape[-2], small.shape[-1])
    for _ in range(rounds):
        video = video + resize_space(small - resize_space(video, less), large)
    return video


def back_project(small: Tensor, coarse: Tensor) -> Tensor:
    """A video as fine in time as ``small`` and in space as ``coarse``, made from and agreeing with both, not clamped.

    small: (k * T, C, h, w); coarse: (T, C, H, W). Returns (k * T, C, H, W), whose means over time are ``coarse`` but
    for rounding; with ``small`` it agrees after one round of back-projection, as far as ``coarse`` allows.
    """
    size = (coarse.shape[-2], coarse.shape[-1])
    return back_project_time(back_project_space(resize_space(small, size), small), coarse)
