"""Frames that a blur made small, filtered as if bicubic resizing had: how close they come, and what is left alone."""

import math
from itertools import islice

import numpy as np
import pytest
import torch
from stvsr.training.adapt.blur import gaussian_kernel
from stvsr.training.adapt.correction import corrected
from stvsr.training.adapt.degradation import Degradation
from stvsr.training.adapt.pseudo import bicubic, blurring
from stvsr.training.clips import read_clip
from torch import Tensor

from tests.support.paths import SAMPLE


def sample(frames: int = 3) -> Tensor:
    pictures = torch.from_numpy(np.stack(list(islice(read_clip(SAMPLE), frames)))).permute(0, 3, 1, 2).float() / 255
    return pictures[..., : pictures.shape[-2] // 12 * 12, : pictures.shape[-1] // 12 * 12]


def rounded(frames: Tensor) -> Tensor:
    return (frames.clamp(0, 1) * 255).round() / 255


def distance_db(frames: Tensor, other: Tensor) -> float:
    return -10 * math.log10(float((frames - other).square().mean()))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_correction_comes_closer_to_bicubic_frames(factor: int) -> None:
    """Also at the borders, for kernels of even and odd sides, and after rounding to 8 bits."""
    large = sample()
    kernel = gaussian_kernel((0.7 * factor, 0.4 * factor), 0.6, 6 * factor - factor % 2)
    blurred, plain = rounded(blurring(kernel)(large, factor)), rounded(bicubic(large, factor))
    filtered = corrected(blurred, kernel, factor)
    assert distance_db(filtered, plain) > distance_db(blurred, plain) + 4
    border = torch.ones(plain.shape[-2:], dtype=torch.bool)
    border[3:-3, 3:-3] = False
    old, new, true = (frames[..., border] for frames in (blurred, filtered, plain))
    assert distance_db(new, true) > distance_db(old, true)


def test_correction_of_a_blur_that_is_too_wide_does_no_harm() -> None:
    """Estimated widths exceed the true ones by up to a sixth."""
    large = sample()
    blurred = rounded(blurring(gaussian_kernel((2.4, 1.2), 0.6))(large, 4))
    filtered = corrected(blurred, gaussian_kernel((2.8, 1.4), 0.6), 4)
    plain = bicubic(large, 4)
    assert distance_db(filtered, plain) > distance_db(blurred, plain) + 1


def test_correction_does_not_amplify_noise() -> None:
    kernel, sigma = gaussian_kernel((2.6, 2.6), 0.0), 6.0
    noise = sigma / 255 * torch.randn(2, 1, 64, 80, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    flat = (0.5 + noise).clamp(0, 1)
    assert corrected(flat, kernel, 4, sigma).std() < 1.1 * flat.std() < corrected(flat, kernel, 4).std()


def test_flat_frames_stay_as_they_are() -> None:
    frames = torch.full((2, 3, 20, 24), 0.4)
    torch.testing.assert_close(corrected(frames, gaussian_kernel((2.6, 2.6), 0.0), 4), frames, atol=1e-5, rtol=0)


def test_only_a_blur_is_corrected_and_less_where_much_was_lost() -> None:
    kernel = gaussian_kernel((2.4, 1.2), 0.6)
    frames = rounded(blurring(kernel)(sample(), 4))
    assert Degradation(noise=5.0, crf=30).corrector() is None
    changes = []
    for degradation in (Degradation(kernel), Degradation(kernel, noise=3.0), Degradation(kernel, crf=40)):
        correct = degradation.corrector()
        assert correct is not None
        changes.append(float((correct(frames, 4) - frames).diff(dim=-1).square().mean()))
    assert changes[0] > changes[1] > 0
    assert changes[0] > changes[2] > 0
