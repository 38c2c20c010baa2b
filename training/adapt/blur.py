"""Blur kernels: anisotropic Gaussians, and how a kernel makes frames small.

A kernel holds the weights of large pixels around the centre of a small one, which lies at large position
`factor * i + (factor - 1) / 2`, as in every resizing here. Its side is thus even for even factors, its centre lies
between its middle pixels, and what it makes small lies where bicubic resizing would put it.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.contract.resize import cubic_kernel

KERNEL_SIDE_PX = 24  # of large pixels: three of the largest width to each side
KERNEL_WIDTHS_PX = (1.0, 4.0)  # standard deviations of drawn kernels, in large pixels


def gaussian_kernel(widths_px: tuple[float, float], angle: float, side: int = KERNEL_SIDE_PX) -> Tensor:
    """A Gaussian whose first axis lies at ``angle``, in radians from x towards y. -> (side, side), sum 1

    ``widths_px``: standard deviations along the first axis and across it, in large pixels.
    """
    place = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = place[:, None], place[None, :]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    kernel = torch.exp(-((along / widths_px[0]) ** 2 + (across / widths_px[1]) ** 2) / 2)
    return (kernel / kernel.sum()).float()


def bicubic_kernel(factor: int) -> Tensor:
    """What antialiased bicubic resizing to a ``factor``-th weighs pixels by. -> (4 * factor, 4 * factor), sum 1"""
    taps = cubic_kernel((np.arange(4 * factor) - (4 * factor - 1) / 2) / factor)
    kernel = torch.from_numpy(np.outer(taps, taps))
    return (kernel / kernel.sum()).float()


def random_kernel(random: np.random.Generator, side: int = KERNEL_SIDE_PX) -> Tensor:
    """An anisotropic Gaussian: both widths uniform in ``KERNEL_WIDTHS_PX``, any direction. -> (side, side)"""
    first, second = random.uniform(*KERNEL_WIDTHS_PX, size=2)
    return gaussian_kernel((first, second), random.uniform(0, math.pi), side)


def shrink(frames: Tensor, kernel: Tensor, factor: int) -> Tensor:
    """Blur by a kernel and keep every ``factor``-th pixel; beyond the border its pixels go on.

    frames: (..., H, W), whole multiples of ``factor``; kernel: (side, side), of which ``side - factor`` is even.
    Returns (..., H / factor, W / factor). Raises ``ValueError`` for other sizes.
    """
    side = kernel.shape[0]
    H, W = frames.shape[-2:]
    if kernel.shape != (side, side) or side < factor or (side - factor) % 2:
        raise ValueError(
            f"a kernel of {tuple(kernel.shape)} has no pixels around the centre of {factor} x {factor}: "
            f"make it square, of side {factor} and an even number more"
        )
    if H % factor or W % factor:
        raise ValueError(f"frames of {W}x{H} are not whole multiples of {factor}: crop them first")
    padding = (side - factor) // 2
    planes = F.pad(frames.reshape(-1, 1, H, W), (padding,) * 4, mode="replicate")
    small = F.conv2d(planes, kernel.to(planes)[None, None], stride=factor)
    return small.view(*frames.shape[:-2], H // factor, W // factor)


def kernel_moments(kernel: Tensor) -> tuple[tuple[float, float], float]:
    """The widths of a kernel in pixels, the larger one first, and the angle of that axis, -pi/2 to pi/2 from x to y.

    They are those of the Gaussian that has the kernel's second moments; a width is 0 where the moment is negative.
    """
    weights = kernel.double() / kernel.double().sum()
    side = kernel.shape[0]
    place = torch.arange(side, dtype=torch.float64)
    y, x = torch.meshgrid(place, place, indexing="ij")
    y, x = y - (weights * y).sum(), x - (weights * x).sum()
    xx, yy, xy = ((weights * m).sum().item() for m in (x * x, y * y, x * y))
    spread = math.hypot((xx - yy) / 2, xy)
    widths = [math.sqrt(max((xx + yy) / 2 + sign * spread, 0.0)) for sign in (1, -1)]
    return (widths[0], widths[1]), math.atan2(2 * xy, xx - yy) / 2
