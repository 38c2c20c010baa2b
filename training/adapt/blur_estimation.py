"""Blind estimation of the blur by which a clip was made small, from the spectrum of its frames.

The power of natural pictures falls with frequency along a smooth curve, which differs between pictures in its slope and
in its directions. A blur multiplies the power by a known curve, which falls with the square of frequency. So the
logarithm of a clip's power spectrum is the sum of two unknowns:

- the content: a few smooth functions of frequency and direction, whose coefficients are normally distributed
  (`_CONTENT`, fitted to 25 clips that were made small by bicubic resizing);
- the blur: the difference of its spectrum from that of bicubic resizing, aliases included.

All kernels of a grid, and bicubic resizing itself, are compared by their posterior probability. It gives the estimate,
and a confidence: one minus the probability that the clip was made small by bicubic resizing. Unlike the blur, the
directions of the content hardly change with frequency, so that grass or water is not taken for an anisotropic blur.

Michaeli and Irani, "Nonparametric Blind Super-Resolution", ICCV 2013, and KernelGAN (Bell-Kligler et al., NeurIPS 2019)
estimate the kernel under which patches look alike across scales. That compares the spectrum with itself at a quarter of
the frequency, where it says little about the content's own directions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...engine.contract.errors import AdaptationError
from ...engine.contract.resize import cubic_kernel
from .blur import KERNEL_SIDE_PX, gaussian_of_covariance, kernel_moments
from .sampling import LUMA, spread_frames, spread_steps

PATCH_PX = 32  # of the clip; its spectrum resolves the directions of the content
_FRAMES, _MOST_PATCHES = 6, 12_000  # of a scene that are analysed at most
_LOWEST = 2.5 / PATCH_PX  # frequency in cycles a pixel; below it the taper of a patch mixes frequencies
_HIGHEST = 0.47  # along each axis
_REFERENCE = 0.2  # frequency at which the logarithm of frequency is 0
ROUNDING_POWER = 1 / 12 / 255**2  # of the noise that rounding to 8 bits adds
_ABOVE_NOISE = 4.0  # frequencies with less power than this multiple of the noise are left out
_FEWEST = 60  # frequencies that an estimate needs
_WIDTHS = np.arange(0.25, 1.001, 1 / 16)  # standard deviations of the kernels, in pixels of the clip
_ANGLES = np.arange(12) * math.pi / 12 - math.pi / 2
PICTURE_SLOPE = 2.9  # power of frequency by which the power of large frames falls; aliases alone depend on it
_PLAIN = 0.5  # probability of bicubic resizing before the clip is seen
# The content's coefficients of `_content_basis`: mean and standard deviation.
_CONTENT = np.array(
    [
        *((0, 10), (-2.83, 0.45), (-0.84, 0.35), (-0.1, 0.4), (0, 0.3), (0.27, 0.3)),
        *((0, 0.2), (0, 0.25), (0, 0.15), (0, 0.15), (0, 0.1)),
    ]
)
_RESIDUAL = 0.56  # of the content's logarithm: twice the one measured (0.29), as neighbouring frequencies share errors


@dataclass(frozen=True)
class BlurEstimate:
    """The Gaussian that explains a clip best, and how sure it is that the clip was not made small by bicubic resizing.

    `kernel` is (side, side), sum 1, for use with `shrink`. `confidence` is from 0 to 1. `strength` is the root mean
    square of the difference of the logarithm of power from that of bicubic resizing: at 0.5 a network that was trained
    on bicubic resizing loses some tenths of a dB.
    """

    kernel: Tensor
    confidence: float
    strength: float

    def record(self) -> dict[str, Any]:
        """Return the estimate as JSON values; widths in pixels of the large frames, the angle in radians.

        The kernel is a list of rows, of the weights of large pixels.
        """
        widths, angle = kernel_moments(self.kernel)
        return {
            "widths_px": [round(width, 2) for width in widths],
            "angle": round(angle, 2),
            "confidence": round(self.confidence, 3),
            "strength": round(self.strength, 2),
            "kernel": [[round(weight, 5) for weight in row] for row in self.kernel.tolist()],
        }


def estimate_kernel(frames: Tensor, factor: int) -> Tensor:
    """Estimate the Gaussian kernel by which a clip was shrunk `factor` times; see `estimate_blur`."""
    return estimate_blur([frames], factor).kernel


def estimate_blur(scenes: Sequence[Tensor], factor: int, noise: float = 0.0, lost: float = 0.0) -> BlurEstimate:
    """Estimate the Gaussian blur by which a clip was shrunk `factor` times, from the frames of one scene or more.

    `scenes` holds frames (N, 3, h, w) in [0, 1]. `noise` is the standard deviation of white noise in the luma of the
    frames, and `lost` that of what compression took away, in grey levels: frequencies with less power say nothing of
    the blur. Raises AdaptationError if the frames are too small, or have no structure above the noise.
    """
    templates = _templates(factor)
    floor = ROUNDING_POWER + (noise / 255) ** 2
    scores, measured = np.zeros(len(templates.curves)), 0
    for frames in scenes:
        power = mean_spectrum(frames)[templates.mask]
        seen = power > _ABOVE_NOISE * (floor + (lost / 255) ** 2)
        if seen.sum() >= _FEWEST:
            scores += _log_likelihoods(np.log(power - floor, where=seen, out=np.zeros_like(power)), seen, templates)
            measured += 1
    if not measured:
        raise AdaptationError(
            "The clip's frames are flat, or have nothing but noise, so that their blur cannot be estimated."
        )
    logs = scores + templates.priors
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    plain, blurred = float(weights[0]), weights[1:] / weights[1:].sum()
    curve = blurred @ templates.curves[1:]
    covariance = np.einsum("k,kij->ij", blurred, templates.covariances)
    side = KERNEL_SIDE_PX * factor // 4 // 2 * 2 + factor % 2
    kernel = gaussian_of_covariance(torch.from_numpy(covariance * factor**2), max(side, factor)).float()
    return BlurEstimate(kernel, 1 - plain, float(np.sqrt(np.mean((curve - curve.mean()) ** 2))))


def mean_spectrum(frames: Tensor) -> NDArray[np.float64]:
    """Return the mean power spectrum of the luma of some frames, (N, 3, h, w): (PATCH_PX, PATCH_PX // 2 + 1).

    Patches overlap by half, unless frames are large; their brightness is left out. White noise has its variance as
    power at each frequency. Raises AdaptationError if the frames are too small.
    """
    luma = torch.einsum("nchw,c->nhw", spread_frames(frames, _FRAMES).float().cpu(), torch.tensor(LUMA))
    if min(luma.shape[-2:]) < PATCH_PX:
        raise AdaptationError(
            f"The blur of frames of {luma.shape[2]}x{luma.shape[1]} pixels cannot be estimated: it needs frames of at"
            f" least {PATCH_PX} pixels each way."
        )
    step = spread_steps(len(luma), luma.shape[1:], PATCH_PX // 2, _MOST_PATCHES)
    patches = luma.unfold(1, PATCH_PX, step).unfold(2, PATCH_PX, step)
    patches = patches.reshape(-1, PATCH_PX, PATCH_PX)
    taper = torch.hann_window(PATCH_PX, periodic=False)
    taper = taper[:, None] * taper
    waves = torch.fft.rfft2((patches - patches.mean((1, 2), keepdim=True)) * (taper / taper.norm()))
    power: NDArray[np.float64] = waves.abs().square().mean(0).double().numpy()
    return power


@dataclass(frozen=True)
class _Templates:
    """The changes of the logarithm of a spectrum by a grid of kernels; the first is bicubic resizing, with zeros."""

    mask: NDArray[np.bool_]  # (PATCH_PX, PATCH_PX // 2 + 1): frequencies that are compared
    mean: NDArray[np.float64]  # (K,): of the content
    factors: NDArray[np.float64]  # (K, C): the content's functions by their standard deviations
    curves: NDArray[np.float64]  # (1 + kernels, K)
    covariances: NDArray[np.float64]  # (kernels, 2, 2), x first, in pixels of the clip squared
    priors: NDArray[np.float64]  # (1 + kernels,): logarithms of probabilities


@lru_cache(maxsize=4)
def _templates(factor: int) -> _Templates:
    rows = np.fft.fftfreq(PATCH_PX)[:, None] + np.zeros((1, PATCH_PX // 2 + 1))
    columns = np.fft.rfftfreq(PATCH_PX)[None] + np.zeros((PATCH_PX, 1))
    mask = (np.hypot(rows, columns) > _LOWEST) & (abs(rows) <= _HIGHEST) & (columns <= _HIGHEST)
    x, y = columns[mask], rows[mask]
    shapes = [(a, b, t) for a in _WIDTHS for b in _WIDTHS if b <= a for t in (_ANGLES if b < a else _ANGLES[:1])]
    covariances = np.stack([_covariance(*shape) for shape in shapes])
    shares = np.array([1.0 if b == a else 1 / len(_ANGLES) for a, b, _ in shapes])
    waves, steps = _aliases(x, y, factor)
    plain, powers = np.zeros(len(x)), np.zeros((len(shapes), len(x)))
    for (u, v), step in zip(waves, steps, strict=True):
        plain += step * (bicubic_response(u, factor) * bicubic_response(v, factor)) ** 2
        forms = np.stack((u * u, 2 * u * v, v * v)) * factor**2
        entries = np.stack((covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]), 1)
        powers += step * np.exp(-4 * math.pi**2 * entries @ forms)
    basis = _content_basis(x, y)
    priors = np.log(np.concatenate(([_PLAIN], (1 - _PLAIN) * shares / shares.sum())))
    curves = np.concatenate((np.zeros((1, len(x))), np.log(powers) - np.log(plain)))
    return _Templates(mask, basis @ _CONTENT[:, 0], basis * _CONTENT[:, 1], curves, covariances, priors)


def _covariance(first: float, second: float, angle: float) -> NDArray[np.float64]:
    axes = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return axes @ np.diag([first**2, second**2]) @ axes.T


def _content_basis(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the functions that sum to the logarithm of a content's power, (K, C), at frequencies in cycles a pixel."""
    log, angle = np.log(np.hypot(x, y) / _REFERENCE), np.arctan2(y, x)
    waves = [np.cos(2 * angle), np.sin(2 * angle), np.cos(4 * angle), np.sin(4 * angle)]
    return np.stack([np.ones_like(log), log, log * log, *waves, *(log * wave for wave in waves)], 1)


def _aliases(
    x: NDArray[np.float64], y: NDArray[np.float64], factor: int
) -> tuple[list[tuple[NDArray[np.float64], NDArray[np.float64]]], list[NDArray[np.float64]]]:
    """Return the frequencies of large frames, in cycles a large pixel, that fall on those of the clip, and their power.

    The power is that of natural pictures, and 0 for frequencies that large frames do not have.
    """
    waves, powers = [], []
    reach = range(-(factor // 2), factor // 2 + 1)
    for i, j in product(reach, reach):
        u, v = (x + i) / factor, (y + j) / factor
        exists = (abs(u) <= 0.5) & (abs(v) <= 0.5)
        waves.append((u, v))
        powers.append(exists * np.hypot(u, v) ** -PICTURE_SLOPE)
    return waves, powers


def bicubic_response(frequency: NDArray[np.floating], factor: int) -> NDArray[np.floating]:
    """Return the amplitude that antialiased bicubic resizing passes, along one axis, at cycles a large pixel (...)."""
    positions = np.arange(4 * factor) - (4 * factor - 1) / 2
    taps = cubic_kernel(positions / factor)
    response: NDArray[np.floating] = np.cos(2 * math.pi * frequency[..., None] * positions) @ (taps / taps.sum())
    return response


def _log_likelihoods(logs: NDArray[np.float64], seen: NDArray[np.bool_], templates: _Templates) -> NDArray[np.float64]:
    """Return the logarithm of the likelihood of a spectrum, (K,), for each curve, up to a constant."""
    factors = templates.factors[seen]
    covariance = factors @ factors.T + np.eye(len(factors)) * _RESIDUAL**2
    rest = (logs - templates.mean - templates.curves)[:, seen].T
    return -(rest * np.linalg.solve(covariance, rest)).sum(0) / 2
