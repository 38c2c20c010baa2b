"""Frames of a blurred clip, filtered so that they look as if bicubic resizing had made them small.

The network learns from what it restores itself. Of blurred frames it restores blurred ones, which teach it little; of
filtered ones it restores sharper targets, before it has learned anything.

The filter is the linear one with the least error (Wiener), given the kernel, the power of natural pictures, aliases
included, and the noise of rounding. Hussein, Tirer and Giryes, "Correction Filter for Single Image Super-Resolution",
CVPR 2020, put such a filter, without noise, before a network that was trained on bicubic resizing.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .blur_estimation import PICTURE_SLOPE, ROUNDING_POWER, bicubic_response
from .sampling import grey_levels

_SHARE = 0.75  # of the correction: some estimates of a blur are too wide, and undoing them wholly sharpens too much
_MARGIN_PX = 24  # by which frames are reflected at their borders
_SCALED_BY = (0.06, 0.2)  # cycles a pixel: frequencies at which the power of the clip is measured


def corrected(frames: Tensor, kernel: Tensor, factor: int, noise: float = 0.0) -> Tensor:
    """Filter frames, (N, 3, h, w) in [0, 1], that a kernel made small, by most of the way: the same shape and range.

    `kernel` is (side, side), as `blur.shrink` takes it for `factor`. `noise` is the standard deviation, in grey levels,
    of white noise in the frames' luma.
    """
    margins = [min(_MARGIN_PX, n - 1) for n in frames.shape[-2:]]
    padded = F.pad(frames, (margins[1],) * 2 + (margins[0],) * 2, mode="reflect")
    h, w = padded.shape[-2:]
    response = torch.from_numpy(_wiener(padded, kernel, factor, ROUNDING_POWER + (noise / 255) ** 2)).to(frames)
    filtered = torch.fft.irfft2(torch.fft.rfft2(padded) * response[:, : w // 2 + 1], s=(h, w))
    filtered = filtered[..., margins[0] : h - margins[0], margins[1] : w - margins[1]]
    return torch.lerp(frames, filtered, _SHARE).clamp(0, 1)


def _wiener(frames: Tensor, kernel: Tensor, factor: int, noise: float) -> NDArray[np.floating]:
    """Return the response of the filter at all frequencies of frames (N, 3, h, w): (h, w)."""
    h, w = frames.shape[-2:]
    y, x = np.fft.fftfreq(factor * h)[:, None], np.fft.fftfreq(factor * w)[None]  # cycles a large pixel
    power = (np.hypot(y, x) + 1 / (factor * max(h, w))) ** -PICTURE_SLOPE
    blur, plain = _kernel_response(kernel, y, x), bicubic_response(y, factor) * bicubic_response(x, factor)
    wanted, given = (_folded(power * blur * wave, factor) for wave in (plain, blur))
    levels = grey_levels(frames) / 255
    measured = (np.abs(np.fft.fft2(levels)) ** 2).mean(0) / (h * w)
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w))
    chosen = (frequency > _SCALED_BY[0]) & (frequency < _SCALED_BY[1])
    scale = max(measured[chosen].mean() - noise, noise) / given[chosen].mean()
    response: NDArray[np.floating] = scale * wanted / (scale * given + noise)
    response[0, 0] = 1.0  # brightness stays
    return response


def _kernel_response(kernel: Tensor, y: NDArray[np.floating], x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the response of a kernel that is symmetric about its centre, at frequencies (H, 1) and (1, W): (H, W)."""
    centre = (kernel.shape[0] - 1) / 2
    waves = np.fft.fft2(kernel.double().numpy(), (y.size, x.size))
    return (waves * np.exp(2j * np.pi * centre * (y + x))).real


def _folded(values: NDArray[np.floating], factor: int) -> NDArray[np.floating]:
    """Add what aliasing adds: (factor * h, factor * w) -> (h, w)."""
    h, w = (n // factor for n in values.shape)
    folded: NDArray[np.floating] = values.reshape(factor, h, factor, w).sum((0, 2))
    return folded
