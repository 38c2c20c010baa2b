"""Blur kernels: shapes and directions, shrinking by a kernel, and estimation from a clip."""

import math

import numpy as np
import pytest
import torch
from stvsr.engine.contract.errors import AdaptationError
from stvsr.engine.contract.resize import cubic_kernel
from stvsr.training.adapt.blur import (
    KERNEL_SIDE_PX,
    KERNEL_WIDTHS_PX,
    gaussian_kernel,
    gaussian_of_covariance,
    kernel_moments,
    random_kernel,
    rescaled,
    shrink,
)
from stvsr.training.adapt.blur_estimation import estimate_blur, estimate_kernel
from stvsr.training.adapt.pseudo import bicubic, blurring
from stvsr.training.clips import find_clips, read_clip
from stvsr.training.resize import imresize
from torch import Tensor

from tests.support.paths import SHARED

VALIDATION = SHARED / "data" / "val"


def relative_error(estimate: Tensor, kernel: Tensor) -> float:
    """Return the norm of the difference of two kernels over that of the second."""
    return ((estimate - kernel).norm() / kernel.norm()).item()


@pytest.mark.parametrize("side", [23, 24])
@pytest.mark.parametrize(("widths", "angle"), [((2.5, 1.0), 0.0), ((3.0, 1.2), 0.6), ((2.0, 1.5), -1.2)])
def test_gaussian_kernel_has_its_widths_and_direction(widths: tuple[float, float], angle: float, side: int) -> None:
    kernel = gaussian_kernel(widths, angle, side)
    assert kernel.shape == (side, side)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(kernel, kernel.flip(0, 1))
    measured, direction = kernel_moments(kernel)
    assert measured == pytest.approx(widths, rel=0.01)
    assert direction == pytest.approx(angle, abs=0.01)


def test_kernel_angle_is_from_x_towards_y() -> None:
    along_x, along_y = gaussian_kernel((3, 1), 0), gaussian_kernel((3, 1), math.pi / 2)
    assert along_x[12, 20] > 100 * along_x[20, 12]
    torch.testing.assert_close(along_y, along_x.T)
    down_right = gaussian_kernel((3, 1), math.pi / 4)
    assert down_right[17, 17] > 100 * down_right[17, 6]


def test_gaussian_of_a_covariance_has_its_widths_and_direction() -> None:
    covariance = torch.tensor([[4.0, 1.5], [1.5, 2.0]], dtype=torch.float64)
    values, axes = torch.linalg.eigh(covariance)
    x, y = axes[:, 1]
    expected = gaussian_kernel((values[1].sqrt(), values[0].sqrt()), math.atan2(y, x))
    torch.testing.assert_close(gaussian_of_covariance(covariance).float(), expected)


def test_random_kernels_are_uniform_and_reproducible() -> None:
    random = np.random.default_rng(0)
    moments = [kernel_moments(random_kernel(random, 32)) for _ in range(600)]
    widths = np.array([w for w, _ in moments])
    low, high = KERNEL_WIDTHS_PX
    assert low * 0.98 < widths.min() < widths.max() < high * 1.02
    # The larger of two uniform numbers is 2/3 of the way on average, the smaller one 1/3.
    assert widths.mean(0) == pytest.approx((low + (high - low) * 2 / 3, low + (high - low) / 3), abs=0.1)
    quarters = np.histogram([a for _, a in moments], 4, (-math.pi / 2, math.pi / 2))[0]
    assert ((quarters - 150) ** 2 / 150).sum() < 16.3  # chi-square of 3 degrees at 0.001
    first, second = (random_kernel(np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(first, second)


def test_shrink_weighs_the_pixels_around_each_centre() -> None:
    generator = torch.Generator().manual_seed(0)
    kernel, frames = torch.rand(6, 6, generator=generator), torch.rand(2, 3, 12, 20, generator=generator)
    small = shrink(frames, kernel, 4)
    assert small.shape == (2, 3, 3, 5)
    window = frames[:, :, 4 * 1 - 1 : 4 * 1 + 5, 4 * 3 - 1 : 4 * 3 + 5]  # one pixel beyond the four on each side
    torch.testing.assert_close(small[:, :, 1, 3], (window * kernel).sum((2, 3)))
    edge = frames[:, :, [0, 0, 1, 2, 3, 4]][..., [0, 0, 1, 2, 3, 4]]
    torch.testing.assert_close(small[:, :, 0, 0], (edge * kernel).sum((2, 3)))


def bicubic_kernel(factor: int) -> Tensor:
    """Return the weights of antialiased bicubic shrinking by an even factor, as a kernel."""
    taps = torch.from_numpy(cubic_kernel((np.arange(KERNEL_SIDE_PX) - (KERNEL_SIDE_PX - 1) / 2) / factor))
    kernel = taps[:, None] * taps
    return (kernel / kernel.sum()).float()


def test_shrunk_pixels_are_aligned_with_bicubic_resizing() -> None:
    frame = torch.rand(1, 1, 80, 96, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(imresize(frame[0, 0].numpy(), (20, 24)))
    inner = (slice(2, -2), slice(2, -2))  # borders are mirrored there and repeated here
    torch.testing.assert_close(shrink(frame, bicubic_kernel(4), 4)[0, 0][inner], expected[inner])
    ramp = torch.arange(96.0).expand(1, 80, 96)
    torch.testing.assert_close(
        shrink(ramp, gaussian_kernel((3, 1), 0.5), 4)[0, 10, 4:-4], 4 * torch.arange(4.0, 20.0) + 1.5
    )


@pytest.mark.parametrize(
    ("kernel", "size", "words"),
    [
        ((7, 7), (8, 8), "an even number more"),
        ((8, 6), (8, 8), "make it square"),
        ((2, 2), (8, 8), "with side 4"),
        ((8, 8), (8, 10), "10x8 pixels are not whole multiples of 4"),
    ],
)
def test_shrink_refuses_kernels_and_frames_of_wrong_size(
    kernel: tuple[int, int], size: tuple[int, int], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        shrink(torch.zeros(1, 3, *size), torch.zeros(kernel), 4)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_kernel_at_another_factor_is_as_wide_in_small_pixels(factor: int) -> None:
    kernel = gaussian_kernel((3.0, 1.6), 0.5)
    other = rescaled(kernel, 4, factor)
    assert other.sum().item() == pytest.approx(1, abs=1e-5)
    widths, angle = kernel_moments(other)
    assert widths == pytest.approx([width * factor / 4 for width in kernel_moments(kernel)[0]], rel=0.02)
    assert angle == pytest.approx(0.5, abs=0.02)
    assert shrink(torch.zeros(1, 3, 4 * factor, 5 * factor), other, factor).shape == (1, 3, 4, 5)


def natural_noise(seed: int, side: int = 512) -> Tensor:
    """Return noise whose power falls with the square of frequency, as in natural images: (2, 3, side, side)."""
    noise = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(seed))
    y, x = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    frequency = torch.hypot(y, x)
    frequency[0, 0] = torch.inf
    pictures = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=(side, side))
    return (0.5 + 0.12 * pictures / pictures.std()).clamp(0, 1).expand(2, 3, side, side)


@pytest.mark.parametrize(("widths", "angle"), [((1.5, 1.5), 0.0), ((3.5, 1.5), 0.6), ((3.0, 2.0), -1.1)])
def test_kernel_is_estimated_from_frames_that_it_shrank(widths: tuple[float, float], angle: float) -> None:
    kernel = gaussian_kernel(widths, angle)
    clip = (shrink(natural_noise(seed=1), kernel, 4) * 255).round() / 255
    estimate = estimate_kernel(clip, 4)
    assert estimate.shape == (KERNEL_SIDE_PX, KERNEL_SIDE_PX)
    assert estimate.sum().item() == pytest.approx(1, abs=1e-5)
    assert relative_error(estimate, kernel) < 0.2
    assert kernel_moments(estimate)[0] == pytest.approx(widths, rel=0.2)
    if widths[0] > widths[1]:
        assert kernel_moments(estimate)[1] == pytest.approx(angle, abs=0.15)


@pytest.mark.slow
@pytest.mark.skipif(not VALIDATION.is_dir(), reason="needs the validation clips of ../shared")
def test_kernels_of_real_clips_are_estimated_better_than_by_assuming_bicubic() -> None:
    random = np.random.default_rng(3)
    errors, assumed = [], []
    for path in find_clips(VALIDATION):
        frames = list(read_clip(path))
        frames = [frames[k] for k in np.linspace(0, len(frames) - 1, 4).astype(int)]
        large = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 255
        for _ in range(6):
            kernel = random_kernel(random)
            small = (shrink(large, kernel, 4) * 255).round() / 255
            errors.append(relative_error(estimate_kernel(small, 4), kernel))
            assumed.append(relative_error(bicubic_kernel(4), kernel))
    print(f"relative error {np.mean(errors):.3f} in the mean, {np.median(errors):.3f} median; {np.mean(assumed):.3f}")
    assert np.mean(errors) < 0.25
    assert np.mean(errors) < 0.4 * np.mean(assumed)


def test_bicubic_resizing_is_not_taken_for_a_blur() -> None:
    """Nor is it by content with a direction of its own: here waves that run along one axis."""
    plain, across = natural_noise(seed=2), natural_noise(seed=3)
    directed = (plain + 0.5 * (across.cumsum(-1) / across.cumsum(-1).std() * 0.1)).clamp(0, 1)
    for frames in (plain, directed):
        assert estimate_blur([bicubic(frames, 4)], 4).confidence < 0.5
    blurred = estimate_blur([blurring(gaussian_kernel((2.6, 1.4), 0.5))(directed, 4)], 4)
    assert blurred.confidence > 0.98
    assert blurred.strength > 0.3


def test_scenes_confirm_each_other() -> None:
    blur = blurring(gaussian_kernel((2.0, 1.0), 0.5))
    scenes = [blur(natural_noise(seed), 4) for seed in (4, 5, 6)]
    alone = [estimate_blur([scene], 4) for scene in scenes]
    together = estimate_blur(scenes, 4)
    assert together.confidence > max(estimate.confidence for estimate in alone)


def test_frequencies_below_the_noise_are_left_out() -> None:
    """Noise fills the spectrum that a blur has emptied."""
    generator = torch.Generator().manual_seed(0)
    clip = blurring(gaussian_kernel((2.6, 2.6), 0))(natural_noise(seed=1), 4)
    noisy = clip + torch.randn(clip.shape, generator=generator) * 5 / 255
    sigma = 5 * math.hypot(0.299, 0.587, 0.114)  # of the luma
    unaware, aware = estimate_blur([noisy], 4), estimate_blur([noisy], 4, sigma)
    errors = [abs(kernel_moments(e.kernel)[0][0] - 2.6) for e in (unaware, aware)]
    assert errors[1] < 0.5 * errors[0]


def test_flat_and_small_frames_are_refused() -> None:
    with pytest.raises(AdaptationError, match="are flat"):
        estimate_kernel(torch.full((2, 3, 90, 160), 0.3), 4)
    with pytest.raises(AdaptationError, match=r"160x30 pixels .* at least 32 pixels"):
        estimate_kernel(torch.rand(2, 3, 30, 160), 4)
