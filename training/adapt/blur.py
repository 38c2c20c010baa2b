"""Blur kernels: anisotropic Gaussians, and the degradation that a kernel defines.

A kernel holds the weights of the large pixels around the centre of a small pixel, which lies at the large position
`factor * i + (factor - 1) / 2`, as in all resizing of this package. For even factors its side is therefore even and its
centre lies between its middle pixels, so that blurred small frames are aligned with bicubic ones.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL_SIDE_PX = 24  # large pixels: three times the largest width on each side
KERNEL_WIDTHS_PX = (1.0, 4.0)  # range of the standard deviations of random kernels, in large pixels


def gaussian_kernel(widths_px: tuple[float, float], angle: float, side: int = KERNEL_SIDE_PX) -> Tensor:
    """Return an anisotropic Gaussian kernel, (side, side) float32, sum 1.

    `widths_px` are the standard deviations along the first axis and across it, in large pixels. `angle` is the
    direction of the first axis, in radians from x towards y.
    """
    positions = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = positions[:, None], positions[None, :]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    kernel = torch.exp(-((along / widths_px[0]) ** 2 + (across / widths_px[1]) ** 2) / 2)
    return (kernel / kernel.sum()).float()


def gaussian_of_covariance(covariance: Tensor, side: int = KERNEL_SIDE_PX) -> Tensor:
    """Return the Gaussian kernel, (side, side), sum 1, of a covariance (2, 2) in pixels squared, x first."""
    inverse = torch.linalg.inv(covariance)
    positions = torch.arange(side, dtype=covariance.dtype) - (side - 1) / 2
    y, x = positions[:, None], positions[None, :]
    kernel = torch.exp(-(inverse[0, 0] * x * x + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y * y) / 2)
    return kernel / kernel.sum()


def rescaled(kernel: Tensor, old_factor: int, factor: int) -> Tensor:
    """Return the Gaussian that is as wide at `factor` as a kernel at `old_factor`, in pixels of the small frames."""
    (first, second), angle = kernel_moments(kernel)
    ratio = factor / old_factor
    side = round(kernel.shape[0] * ratio)
    return gaussian_kernel((first * ratio, second * ratio), angle, max(factor, side + (side - factor) % 2))


def random_kernel(random: np.random.Generator, side: int = KERNEL_SIDE_PX) -> Tensor:
    """Draw an anisotropic Gaussian, (side, side): both widths uniform in `KERNEL_WIDTHS_PX`, any direction."""
    first, second = random.uniform(*KERNEL_WIDTHS_PX, size=2)
    return gaussian_kernel((first, second), random.uniform(0, math.pi), side)


def shrink(frames: Tensor, kernel: Tensor, factor: int) -> Tensor:
    """Blur frames with a kernel and keep every `factor`-th pixel; border pixels are replicated.

    `frames` is (..., H, W), with H and W multiples of `factor`. `kernel` is (side, side), with `side - factor` even
    and not negative. Returns (..., H / factor, W / factor). Raises ValueError for other sizes.
    """
    side = kernel.shape[0]
    H, W = frames.shape[-2:]
    if kernel.shape != (side, side) or side < factor or (side - factor) % 2:
        raise ValueError(
            f"a kernel of shape {tuple(kernel.shape)} cannot be centred on {factor}x{factor} pixels: make it square,"
            f" with side {factor} or an even number more"
        )
    if H % factor or W % factor:
        raise ValueError(f"frames of {W}x{H} pixels are not whole multiples of {factor}: crop them first")
    padding = (side - factor) // 2
    planes = F.pad(frames.reshape(-1, 1, H, W), (padding,) * 4, mode="replicate")
    small = F.conv2d(planes, kernel.to(planes)[None, None], stride=factor)
    return small.view(*frames.shape[:-2], H // factor, W // factor)


def kernel_moments(kernel: Tensor) -> tuple[tuple[float, float], float]:
    """Return the widths of a kernel in pixels, the larger one first, and the angle of the wider axis.

    They are those of the Gaussian with the same second moments; a width is 0 where the moment is negative. The angle is
    in radians from x towards y, in -pi/2 to pi/2.
    """
    weights = kernel.double() / kernel.double().sum()
    side = kernel.shape[0]
    positions = torch.arange(side, dtype=torch.float64)
    y, x = torch.meshgrid(positions, positions, indexing="ij")
    y, x = y - (weights * y).sum(), x - (weights * x).sum()
    xx, yy, xy = ((weights * m).sum().item() for m in (x * x, y * y, x * y))
    spread = math.hypot((xx - yy) / 2, xy)
    widths = [math.sqrt(max((xx + yy) / 2 + sign * spread, 0.0)) for sign in (1, -1)]
    return (widths[0], widths[1]), math.atan2(2 * xy, xx - yy) / 2
