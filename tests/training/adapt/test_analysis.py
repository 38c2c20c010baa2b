"""The findings of an analysis in clips of known degradation, and its decisions."""

import json
import math

import numpy as np
import pytest
import torch
from stvsr.engine.contract.coding import StreamCoding
from stvsr.engine.contract.errors import AdaptationError, RequestError
from stvsr.training.adapt.analysis import LOSSES, analyse, decide, read_parts
from stvsr.training.adapt.blur import gaussian_kernel, kernel_moments
from stvsr.training.adapt.compression_estimation import blockiness, estimate_compression
from stvsr.training.adapt.degradation import Degradation
from stvsr.training.adapt.noise_estimation import estimate_noise
from stvsr.training.adapt.sampling import middle, spread_steps
from stvsr.training.clips import read_clip
from torch import Tensor

from tests.support.paths import SAMPLE


@pytest.fixture(scope="module")
def sample() -> Tensor:
    """Eight frames of real video, (8, 3, 136, 240)."""
    return torch.from_numpy(np.stack(list(read_clip(SAMPLE))[:8])).permute(0, 3, 1, 2) / 255


def textured(frames: Tensor) -> Tensor:
    """Add texture as natural pictures have it, which stands still: its power falls with the square of frequency."""
    h, w = frames.shape[-2:]
    noise = torch.randn(1, h, w, generator=torch.Generator().manual_seed(5))
    frequency = torch.hypot(torch.fft.fftfreq(h)[:, None], torch.fft.rfftfreq(w)[None])
    frequency[0, 0] = torch.inf
    texture = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=(h, w))
    return (frames + 0.08 * texture / texture.std()).clamp(0, 1)


def small(size: tuple[int, int], degradation: Degradation, seed: int = 3, count: int = 6) -> Tensor:
    """Return a synthetic clip that drifts, degraded, of 8 bits: (count, 3, h, w)."""
    h, w = size
    noise = torch.randn(1, 4 * h + 64, 4 * w + 64, generator=torch.Generator().manual_seed(seed))
    frequency = torch.hypot(torch.fft.fftfreq(4 * h + 64)[:, None], torch.fft.rfftfreq(4 * w + 64)[None])
    frequency[0, 0] = torch.inf
    picture = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency**1.45, s=noise.shape[-2:])
    picture = (0.5 + 0.13 * picture / picture.std()).clamp(0, 1)
    frames = torch.stack([picture[:, 5 * t : 5 * t + 4 * h, 3 * t : 3 * t + 4 * w] for t in range(count)])
    degraded = degradation.degrader(seed)(frames.expand(-1, 3, -1, -1), 4)
    return (degraded.clamp(0, 1) * 255).round() / 255


CLIPS = [(seed, size) for seed, size in ((1, (90, 160)), (2, (120, 212)), (3, (96, 96)))]


@pytest.mark.parametrize(("seed", "size"), CLIPS)
def test_clean_clip_has_nothing_to_learn(seed: int, size: tuple[int, int]) -> None:
    decision = decide([small(size, Degradation(), seed)], 4)
    assert decision.degradation is None
    assert decision.sentence.startswith("Nothing to learn: the clip has ")
    assert json.loads(json.dumps(decision.record())) == decision.record()


@pytest.mark.parametrize(("seed", "size"), CLIPS)
@pytest.mark.parametrize(
    ("widths", "angle"), [((2.6, 2.6), 0.0), ((2.4, 1.2), 0.6), ((3.0, 1.5), -1.1), ((3.4, 2.0), 1.5)]
)
def test_blur_is_found_with_its_widths_and_direction(
    widths: tuple[float, float], angle: float, seed: int, size: tuple[int, int]
) -> None:
    decision = decide([small(size, Degradation(gaussian_kernel(widths, angle)), seed)], 4)
    assert decision.degradation is not None
    assert decision.degradation.parts == ("blur",)
    assert decision.confidence > 0.98
    kernel = decision.degradation.kernel
    assert kernel is not None
    found, direction = kernel_moments(kernel)
    assert found == pytest.approx(widths, abs=0.45)
    if widths[0] > widths[1]:
        assert abs(math.remainder(direction - angle, math.pi)) < 0.25


@pytest.mark.parametrize("sigma", [2.0, 3.0, 5.0, 10.0])
def test_noise_is_found_with_its_level_where_the_picture_is_flat(sigma: float, sample: Tensor) -> None:
    noise = torch.randn(sample.shape, generator=torch.Generator().manual_seed(0)) * sigma / 255
    noisy = ((sample + noise).clamp(0, 1) * 255).round() / 255
    estimate = estimate_noise([noisy])
    assert estimate.sigma == pytest.approx(sigma, rel=0.25)
    assert estimate.confidence > 0.35
    assert decide([noisy], 4).degradation is not None
    assert estimate_noise([noisy, sample]).sigma < 1.5  # one scene without noise


def test_texture_is_not_taken_for_noise(sample: Tensor) -> None:
    assert estimate_noise([sample]).sigma < 1.5
    assert estimate_noise([textured(sample)]).sigma < 1.5
    assert estimate_noise([small((90, 160), Degradation(), seed=4)]).sigma < 1.5


@pytest.mark.parametrize("crf", [18, 23, 28, 33, 38])
def test_compression_is_found_by_bits(crf: int) -> None:
    """By those that x264 spends on the decoded frames, for codecs whose decoders state no quantisers."""
    from stvsr.training.compression import compress, compressed_bits
    from stvsr.training.resize import to_uint8

    pictures = [to_uint8(f.permute(1, 2, 0).numpy()) for f in small((96, 160), Degradation(), seed=6, count=12)]
    bits = compressed_bits(pictures, crf) / (len(pictures) * 96 * 160)
    decoded = torch.from_numpy(np.stack(list(compress(pictures, crf)))).permute(0, 3, 1, 2) / 255
    estimate = estimate_compression([decoded], StreamCoding("hevc", 0.7 * bits))
    assert estimate.evidence == "bits"
    assert estimate.crf == pytest.approx(crf, abs=4)


def test_quantisers_count_for_more_than_bits() -> None:
    frames = small((96, 160), Degradation())
    estimate = estimate_compression([frames], StreamCoding("h264", 0.2, quantiser=33.4))
    assert (estimate.evidence, estimate.confidence) == ("quantisers", 0.95)
    assert estimate.crf == pytest.approx(28.4)
    decision = decide([frames], 4, StreamCoding("h264", 0.2, quantiser=33.4))
    assert decision.degradation is not None
    assert (decision.degradation.parts, decision.degradation.crf) == (("compression",), 28)
    assert "compression as of CRF 28 (by its quantisers)" in decision.sentence
    assert decide([frames], 4, StreamCoding("h264", 3.0, quantiser=19.0)).degradation is None


def test_blocks_of_an_older_compression_are_seen(sample: Tensor) -> None:
    frames = textured(sample)
    means = torch.nn.functional.avg_pool2d(frames, 8).repeat_interleave(8, -1).repeat_interleave(8, -2)
    blocky = 0.5 * frames + 0.5 * means
    assert abs(blockiness(frames)) < 0.05
    assert blockiness(blocky) > 0.12
    estimate = estimate_compression([blocky], StreamCoding("h264", 5.0, quantiser=10.0))
    assert (estimate.evidence, estimate.crf) == ("blocks", 36.0)


def test_compression_is_not_taken_for_a_blur() -> None:
    """Fine structure is taken away as by a blur."""
    frames = small((120, 212), Degradation(crf=35), seed=7)
    found = analyse([frames], 4, StreamCoding("h264", 0.1, quantiser=40.0))
    assert found.certain() == ("compression",)


def test_parts_that_are_asked_for_are_learned_however_uncertain() -> None:
    frames = small((90, 160), Degradation())
    asked = decide([frames], 4, choice="blur+noise")
    assert asked.degradation is not None
    assert asked.degradation.kernel is not None
    assert asked.confidence == 1.0
    assert decide([frames], 4, choice="plain").degradation is not None
    always = decide([frames], 4, is_always=True)
    assert always.degradation is not None
    assert always.degradation.parts == ()
    assert always.sentence.endswith(": learned under bicubic resizing.")


def test_choices_are_read() -> None:
    assert read_parts("auto") is None
    assert read_parts("plain") == ()
    assert read_parts("compression+blur") == ("blur", "compression")
    with pytest.raises(RequestError, match="Unknown degradation 'fog': use auto, plain, or blur, noise, compression"):
        read_parts("blur+fog")


def test_frames_too_small_for_their_blur_are_analysed_without_it() -> None:
    frames = small((24, 40), Degradation())
    assert decide([frames], 4).degradation is None
    with pytest.raises(AdaptationError, match="40x24 pixels cannot be estimated"):
        decide([frames], 4, choice="blur")


def test_degradation_is_repeated_by_its_seed() -> None:
    frames = small((48, 64), Degradation())
    degradation = Degradation(gaussian_kernel((2.0, 1.0), 0.3), noise=4.0, crf=30)
    first, again, other = (degradation.degrader(seed)(frames, 4) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (6, 3, 12, 16)
    plain = degradation.without_losses()
    assert plain.parts == ("blur",)
    assert float((first - plain.degrader()(frames, 4)).std()) * 255 > 2


def test_large_frames_are_sampled() -> None:
    """The analysis of a frame of 4K takes no more memory than that of a small one, and finds the same noise."""
    assert spread_steps(6, (2160, 3840), 3, 100_000) == 23
    assert spread_steps(6, (120, 213), 3, 100_000) == 3
    smooth = torch.linspace(0.3, 0.6, 1200)[None, None, None].expand(2, 3, 800, 1200)
    noisy = smooth + torch.randn(smooth.shape, generator=torch.Generator().manual_seed(0)) * 5 / 255
    assert estimate_noise([noisy]).sigma == pytest.approx(5, rel=0.1)
    corner = middle(torch.arange(1200.0).expand(1, 800, 1200), 512, 8)
    assert corner.shape == (1, 512, 512)
    assert corner[0, 0, 0] % 8 == 0


def test_a_network_that_was_trained_on_losses_learns_a_blur_alone() -> None:
    coding = StreamCoding("h264", 0.2, quantiser=33.4)
    plain = small((90, 160), Degradation())
    sentence = decide([plain], 4, coding, trained=LOSSES).sentence
    assert sentence.startswith("Nothing to learn: the clip has compression as of CRF")
    assert sentence.endswith("and the network was trained on such clips.")
    asked = decide([plain], 4, coding, "compression", trained=LOSSES).degradation
    assert asked is not None
    assert asked.crf is not None
    blurred = small((120, 212), Degradation(gaussian_kernel((2.6, 2.6), 0.0)), seed=3)
    learned = decide([blurred], 4, trained=LOSSES).degradation
    assert learned is not None
    assert learned.kernel is not None
