"""Estimates a clip's blur kernel from the clip alone, by the recurrence of what it shows across scales.

Small patches of natural video look alike at all scales, so that the kernel which made a clip small is the one which,
making it smaller still, gives patches like the clip's own: Michaeli and Irani, "Nonparametric Blind Super-Resolution",
ICCV 2013; as likeness of their distributions: Bell-Kligler et al., "Blind Super-Resolution Kernel Estimation using an
Internal-GAN" (KernelGAN), NeurIPS 2019. Here the kernel is a Gaussian of any widths and direction instead of a linear
network, and distributions are alike when their mean power spectra are, up to contrast, instead of to a discriminator:
three unknowns and some tens of equations, solved by Levenberg and Marquardt's steps in place of adversarial training.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.contract.errors import AdaptationError
from .blur import KERNEL_SIDE_PX

_PATCH_PX = 10  # of the smaller clip; larger ones tell directions better and leave fewer samples
_PATCH_MIN_PX = 6
_FRAMES = 4  # as many as are looked at, evenly over the clip
_ROUNDING = 1 / 12 / 255**2  # power of the noise that 8 bits add
_LUMA = (0.299, 0.587, 0.114)
_USUAL_WIDTH_PX = 2.2
_PRIOR = 0.03  # weight of the squared distance of the logarithmic covariance from that of the usual width
_STEPS, _TRIALS = 10, 6
_DELTA = 0.05  # of finite differences, in the logarithm of pixels squared


def estimate_kernel(frames: Tensor, factor: int, side: int = KERNEL_SIDE_PX) -> Tensor:
    """The Gaussian kernel that made a clip small by ``factor``. (N, 3, h, w) in [0, 1] -> (side, side), sum 1

    It weighs pixels as `shrink` does. Raises ``AdaptationError`` for a clip that is too small or shows nothing.
    """
    places = torch.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().long()
    grey = torch.einsum("nchw,c->nhw", frames[places.to(frames.device)].float().cpu(), torch.tensor(_LUMA))
    smallest = (min(grey.shape[-2:]) - side) // factor
    patch = min(_PATCH_PX, smallest)
    if patch < _PATCH_MIN_PX:
        least = factor * _PATCH_MIN_PX + side
        raise AdaptationError(
            f"the blur of frames of {grey.shape[2]}x{grey.shape[1]} pixels cannot be estimated: give the kernel, or"
            f" frames of {least} pixels or more each way"
        )
    own = power_spectrum(grey, patch)
    if not own.max() > _ROUNDING:
        raise AdaptationError("the clip's frames are flat and tell nothing of their blur: give the kernel")
    counts = torch.full_like(own, 2.0)  # the transform leaves out the other half of the plane
    counts[:, 0] = counts[:, -1] = 1.0
    counts[0, 0] = 0.0  # brightness
    counts /= counts.sum()
    usual = torch.tensor([2 * math.log(_USUAL_WIDTH_PX), 0.0, 2 * math.log(_USUAL_WIDTH_PX)], dtype=torch.float64)

    def residuals(logarithm: Tensor) -> Tensor:
        smaller = _all_phases(grey, gaussian_of(logarithm, side).float(), factor)
        ratio = ((power_spectrum(smaller, patch) + _ROUNDING) / (own + _ROUNDING)).log()
        unlike = counts.sqrt() * (ratio - (counts * ratio).sum())
        unusual = math.sqrt(_PRIOR) * (logarithm - usual) * torch.tensor([1, math.sqrt(2), 1], dtype=torch.float64)
        return torch.cat((unlike.flatten().double(), unusual))

    return gaussian_of(_least_squares(residuals, usual), side).float()


def gaussian_of(logarithm: Tensor, side: int) -> Tensor:
    """The Gaussian whose covariance has this logarithm, of (xx, xy, yy) in pixels squared. (3,) -> (side, side)"""
    xx, xy, yy = logarithm
    inverse = torch.linalg.matrix_exp(-torch.stack((xx, xy, xy, yy)).view(2, 2))
    place = torch.arange(side, dtype=logarithm.dtype) - (side - 1) / 2
    y, x = place[:, None], place[None, :]
    kernel = torch.exp(-(inverse[0, 0] * x * x + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y * y) / 2)
    return kernel / kernel.sum()


def power_spectrum(pictures: Tensor, patch: int) -> Tensor:
    """Mean power of patches that overlap by half, less their brightness. (N, h, w) -> (patch, patch // 2 + 1)"""
    patches = pictures.unfold(1, patch, patch // 2).unfold(2, patch, patch // 2).reshape(-1, patch, patch)
    taper = torch.hann_window(patch, periodic=False)
    taper = taper[:, None] * taper
    waves = torch.fft.rfft2((patches - patches.mean((1, 2), keepdim=True)) * (taper / taper.norm()))
    return waves.abs().square().mean(0)


def _all_phases(pictures: Tensor, kernel: Tensor, factor: int) -> Tensor:
    """Pictures made small from every second first pixel on, where the kernel lies inside. (N, h, w) -> (M, h', w')"""
    blurred = F.conv2d(pictures[:, None], kernel[None, None])[:, 0]
    h, w = (n - n % factor for n in blurred.shape[1:])
    starts = range(0, factor, 2)
    return torch.cat([blurred[:, y:h:factor, x:w:factor] for y in starts for x in starts])


def _least_squares(residuals: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Where the sum of squares is least, by Levenberg and Marquardt's method with finite differences."""
    place, now = start, residuals(start)
    damping = 1e-2
    for _ in range(_STEPS):
        slopes = torch.stack(
            [(residuals(place + _DELTA * axis) - now) / _DELTA for axis in torch.eye(len(place), dtype=place.dtype)], 1
        )
        normal = slopes.T @ slopes
        for _ in range(_TRIALS):
            step = torch.linalg.solve(normal + damping * normal.diagonal().diag(), -slopes.T @ now).clamp(-1, 1)
            then = residuals(place + step)
            if then @ then < now @ now:
                break
            damping *= 6
        else:
            return place
        converged = then @ then > (1 - 1e-4) * (now @ now)
        place, now, damping = place + step, then, damping / 4
        if converged:
            return place
    return place
