"""Blind estimation of a clip's blur kernel from the clip alone, by its self-similarity across scales.

Small patches of natural video look alike at all scales. The kernel that made a clip small is therefore the one that,
applied to the clip once more, gives patches like those of the clip itself: Michaeli and Irani, "Nonparametric Blind
Super-Resolution", ICCV 2013. Bell-Kligler et al., "Blind Super-Resolution Kernel Estimation using an Internal-GAN"
(KernelGAN), NeurIPS 2019, compare the distributions of patches by a discriminator and model the kernel by a linear
network. Here the kernel is a Gaussian of any widths and direction, and two distributions are alike when their mean
power spectra are equal up to contrast. That leaves three unknowns and some tens of equations, which Levenberg-Marquardt
steps solve in place of adversarial training.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.contract.errors import AdaptationError
from .blur import KERNEL_SIDE_PX

_PATCH_PX = 10  # of the shrunk clip; larger patches resolve directions better and leave fewer samples
_PATCH_MIN_PX = 6
_FRAMES = 4  # frames that are analysed at most, evenly spaced over the clip
_ROUNDING_POWER = 1 / 12 / 255**2  # of the noise that rounding to 8 bits adds
_LUMA = (0.299, 0.587, 0.114)  # BT.601
_PRIOR_WIDTH_PX = 2.2
_PRIOR_WEIGHT = 0.03  # of the squared distance of the covariance's logarithm from that of the prior width
_STEPS, _TRIALS = 10, 6
_DELTA = 0.05  # of finite differences, in the logarithm of pixels squared


def estimate_kernel(frames: Tensor, factor: int, side: int = KERNEL_SIDE_PX) -> Tensor:
    """Estimate the Gaussian kernel by which a clip was shrunk `factor` times.

    `frames` is (N, 3, h, w) in [0, 1]. Returns (side, side) float32, sum 1, for use with `shrink`. Raises
    AdaptationError if the frames are too small or flat.
    """
    indices = torch.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().long()
    luma = torch.einsum("nchw,c->nhw", frames[indices.to(frames.device)].float().cpu(), torch.tensor(_LUMA))
    patch = min(_PATCH_PX, (min(luma.shape[-2:]) - side) // factor)
    if patch < _PATCH_MIN_PX:
        raise AdaptationError(
            f"The blur of frames of {luma.shape[2]}x{luma.shape[1]} pixels cannot be estimated: give the kernel, or"
            f" frames of at least {factor * _PATCH_MIN_PX + side} pixels each way."
        )
    spectrum = power_spectrum(luma, patch)
    if not spectrum.max() > _ROUNDING_POWER:
        raise AdaptationError("The clip's frames are flat, so that their blur cannot be estimated: give the kernel.")
    counts = torch.full_like(spectrum, 2.0)  # the real transform leaves out the other half of the plane
    counts[:, 0] = counts[:, -1] = 1.0
    counts[0, 0] = 0.0  # brightness
    counts /= counts.sum()
    prior = torch.tensor([2 * math.log(_PRIOR_WIDTH_PX), 0.0, 2 * math.log(_PRIOR_WIDTH_PX)], dtype=torch.float64)

    def residuals(log_covariance: Tensor) -> Tensor:
        shrunk = _shrink_all_phases(luma, gaussian_of(log_covariance, side).float(), factor)
        ratio = ((power_spectrum(shrunk, patch) + _ROUNDING_POWER) / (spectrum + _ROUNDING_POWER)).log()
        mismatch = counts.sqrt() * (ratio - (counts * ratio).sum())
        deviation = (log_covariance - prior) * torch.tensor([1, math.sqrt(2), 1], dtype=torch.float64)
        return torch.cat((mismatch.flatten().double(), math.sqrt(_PRIOR_WEIGHT) * deviation))

    return gaussian_of(_least_squares(residuals, prior), side).float()


def gaussian_of(log_covariance: Tensor, side: int) -> Tensor:
    """Return the Gaussian kernel, (side, side), of a covariance given by its matrix logarithm.

    `log_covariance` is (3,): the entries (xx, xy, yy) of the logarithm of the covariance in pixels squared.
    """
    xx, xy, yy = log_covariance
    inverse = torch.linalg.matrix_exp(-torch.stack((xx, xy, xy, yy)).view(2, 2))
    positions = torch.arange(side, dtype=log_covariance.dtype) - (side - 1) / 2
    y, x = positions[:, None], positions[None, :]
    kernel = torch.exp(-(inverse[0, 0] * x * x + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y * y) / 2)
    return kernel / kernel.sum()


def power_spectrum(images: Tensor, patch: int) -> Tensor:
    """Return the mean power spectrum of patches that overlap by half, without their brightness.

    `images` is (N, h, w). Returns (patch, patch // 2 + 1).
    """
    patches = images.unfold(1, patch, patch // 2).unfold(2, patch, patch // 2).reshape(-1, patch, patch)
    taper = torch.hann_window(patch, periodic=False)
    taper = taper[:, None] * taper
    waves = torch.fft.rfft2((patches - patches.mean((1, 2), keepdim=True)) * (taper / taper.norm()))
    return waves.abs().square().mean(0)


def _shrink_all_phases(images: Tensor, kernel: Tensor, factor: int) -> Tensor:
    """Shrink images from every second starting pixel, without their borders: (N, h, w) -> (M, h', w')."""
    blurred = F.conv2d(images[:, None], kernel[None, None])[:, 0]
    h, w = (n - n % factor for n in blurred.shape[1:])
    starts = range(0, factor, 2)
    return torch.cat([blurred[:, y:h:factor, x:w:factor] for y in starts for x in starts])


def _least_squares(residuals: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Minimize a sum of squares by the Levenberg-Marquardt method with finite differences."""
    point, values = start, residuals(start)
    damping = 1e-2
    for _ in range(_STEPS):
        axes = torch.eye(len(point), dtype=point.dtype)
        jacobian = torch.stack([(residuals(point + _DELTA * axis) - values) / _DELTA for axis in axes], 1)
        normal = jacobian.T @ jacobian
        for _ in range(_TRIALS):
            step = torch.linalg.solve(normal + damping * normal.diagonal().diag(), -jacobian.T @ values).clamp(-1, 1)
            new_values = residuals(point + step)
            if new_values @ new_values < values @ values:
                break
            damping *= 6
        else:
            return point
        converged = new_values @ new_values > (1 - 1e-4) * (values @ values)
        point, values, damping = point + step, new_values, damping / 4
        if converged:
            return point
    return point
