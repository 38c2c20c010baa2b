"""VideoINR-S: target sizes and parts, behaviour in time and space, and gradients."""

import numpy as np
import pytest
import torch
from stvsr.training.networks.motion import correlate
from stvsr.training.networks.ops import target_coordinates
from stvsr.training.networks.videoinr_s import VideoINRS, VideoINRSConfig
from torch import Tensor

from tests.support.networks import untrained_parameters

SMALL = VideoINRSConfig(width=8, encoder_blocks=1, trunk_blocks=1, decoder_width=8)


@pytest.fixture
def network() -> VideoINRS:
    torch.manual_seed(0)
    network = VideoINRS(SMALL).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # larger than the initial weights, so that every layer has an effect
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.fixture
def frames() -> Tensor:
    coarse = torch.rand(2 * 2, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(24, 40), mode="bilinear").unflatten(0, (2, 2))


@pytest.mark.parametrize("size", [(96, 160), (24, 40), (77, 131), (25, 200)])
def test_output_has_the_target_size_with_a_separate_time_for_each_pair(
    network: VideoINRS, frames: Tensor, size: tuple[int, int]
) -> None:
    assert network(frames, torch.tensor([0.0, 0.6]), size).shape == (2, 3, *size)


def test_part_of_a_target_equals_that_part_of_the_whole(network: VideoINRS, frames: Tensor) -> None:
    features = network.encode(frames)
    time = torch.tensor([0.25, 0.5])
    y, x = target_coordinates(24, 77), target_coordinates(40, 131)
    whole = network.decode(*features, time=time, y=y, x=x)
    part = network.decode(*features, time=time, y=y[10:30], x=x[100:])
    assert torch.allclose(part, whole[..., 10:30, 100:], atol=1e-5)


def test_untrained_blend_at_an_input_time_is_that_input(frames: Tensor) -> None:
    torch.manual_seed(0)
    untrained = VideoINRS(SMALL)
    features = untrained.encode(frames)
    for time, index in ((0.0, 0), (1.0, 1)):
        _, base, _ = untrained.refine(*features, torch.full((2,), time))
        assert (base - frames[:, index]).abs().max() < 1e-3


def test_output_is_continuous_in_space_and_time(network: VideoINRS, frames: Tensor) -> None:
    features = network.encode(frames)
    y, x = torch.linspace(3, 9, 4001), target_coordinates(40, 80)
    rows = network.decode(*features, time=torch.tensor([0.5, 0.5]), y=y, x=x)
    assert rows.diff(dim=2).abs().max() < 0.02 * (rows.max() - rows.min())
    moments = [network(frames, torch.full((2,), t), (48, 80)) for t in np.linspace(0.4, 0.42, 11)]
    steps = torch.stack(moments).diff(dim=0).abs().amax()
    assert steps < 0.05 * (moments[0].max() - moments[0].min())


def test_loss_has_a_gradient_for_every_parameter(network: VideoINRS, frames: Tensor) -> None:
    truth = torch.rand(2, 2, 3, 96, 160)
    motion = torch.cat([torch.randn(2, 2, 4, 24, 40), torch.ones(2, 2, 2, 24, 40)], 2)
    terms = network.loss(frames, torch.tensor([[0.0, 0.5], [1.0, 0.25]]), truth, motion)
    (terms.reconstruction + terms.auxiliary).backward()
    assert untrained_parameters(network) == []


def test_correlation_is_the_mean_product_at_each_displacement() -> None:
    first, second = torch.randn(2, 5, 6, 9), torch.randn(2, 5, 6, 9)
    padded = torch.nn.functional.pad(second, (2, 2, 2, 2))
    actual = correlate(first, second, 2)
    for k in range(25):
        dy, dx = divmod(k, 5)
        expected = (first * padded[..., dy : dy + 6, dx : dx + 9]).mean(1)
        assert torch.allclose(actual[:, k], expected, atol=1e-6)


@pytest.mark.parametrize("radius", [1, 2])
def test_the_gradient_of_the_correlation_is_that_of_its_definition(radius: int) -> None:
    maps = [torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda first, second: correlate(first, second, radius), maps)
