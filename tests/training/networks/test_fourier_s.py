"""Fourier-S and its field: target sizes, both ways to render, behaviour in time and space, and gradients."""

import numpy as np
import pytest
import torch
from stvsr.training.networks.field import FourierField
from stvsr.training.networks.fourier_s import FourierS, FourierSConfig
from stvsr.training.networks.ops import cubic_at, cubic_at_phases, interleave_phases, target_coordinates
from torch import Tensor

from tests.support.networks import untrained_parameters

SMALL = FourierSConfig(features=8, width=8, trunk_blocks=1, motion_features=16, terms=6)


@pytest.fixture
def network() -> FourierS:
    torch.manual_seed(0)
    network = FourierS(SMALL).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # larger than the initial weights, so that every layer has an effect
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.fixture
def frames() -> Tensor:
    coarse = torch.rand(2 * 2, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(32, 64), mode="bilinear").unflatten(0, (2, 2))


@pytest.mark.parametrize("size", [(128, 256), (32, 64), (77, 131), (33, 240)])
def test_output_has_the_target_size_with_a_separate_time_for_each_pair(
    network: FourierS, frames: Tensor, size: tuple[int, int]
) -> None:
    assert network(frames, torch.tensor([0.0, 0.6]), size).shape == (2, 3, *size)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (1, 1), (2, 3), (8, 1)])
def test_both_decoders_agree_at_integer_factors(network: FourierS, frames: Tensor, rows: int, columns: int) -> None:
    maps = network.refine(*network.encode(frames), torch.tensor([0.25, 1.0]))
    y, x = target_coordinates(32, 32 * rows), target_coordinates(64, 64 * columns)
    anywhere = network.decode(*maps, y=y, x=x)
    phases = target_coordinates(1, rows), target_coordinates(1, columns)
    integer = network.decode_integer(*maps, y=phases[0], x=phases[1])
    assert anywhere.std() > 0.01
    assert torch.allclose(integer, anywhere, atol=1e-5)


def test_part_of_a_target_equals_that_part_of_the_whole(network: FourierS, frames: Tensor) -> None:
    maps = network.refine(*network.encode(frames), torch.tensor([0.25, 0.5]))
    y, x = target_coordinates(32, 77), target_coordinates(64, 131)
    whole = network.decode(*maps, y=y, x=x)
    part = network.decode(*maps, y=y[10:30], x=x[100:])
    assert torch.allclose(part, whole[..., 10:30, 100:], atol=1e-5)


def test_untrained_blend_at_an_input_time_is_that_input(frames: Tensor) -> None:
    torch.manual_seed(0)
    untrained = FourierS(SMALL)
    features = untrained.encode(frames)
    for time, index in ((0.0, 0), (1.0, 1)):
        _, base = untrained.refine(*features, torch.full((2,), time))
        assert (base - frames[:, index]).abs().max() < 1e-3


def test_output_is_continuous_in_time(network: FourierS, frames: Tensor) -> None:
    moments = [network(frames, torch.full((2,), t), (64, 128)) for t in np.linspace(0.4, 0.42, 11)]
    steps = torch.stack(moments).diff(dim=0).abs().amax()
    assert steps < 0.05 * (moments[0].max() - moments[0].min())


def test_losses_have_a_gradient_for_every_parameter_that_they_train(network: FourierS, frames: Tensor) -> None:
    truth = torch.rand(2, 2, 3, 128, 256)
    motion = torch.cat([torch.randn(2, 2, 4, 32, 64), torch.ones(2, 2, 2, 32, 64)], 2)
    time = torch.tensor([[0.0, 0.5], [1.0, 0.25]])
    terms = network.loss(frames, time, truth, motion)
    (terms.reconstruction + terms.auxiliary).backward()
    assert terms.output.shape == truth.shape
    assert untrained_parameters(network) == []
    network.zero_grad()
    network.motion_loss(frames, time, truth[..., :32, :64], motion).backward()
    untrained = {name.split(".")[0] for name in untrained_parameters(network)}
    assert untrained == {"fuse", "trunk", "last", "field"}


def test_motion_is_estimated_at_five_sizes(network: FourierS, frames: Tensor) -> None:
    motions = network.motions(*network.encode(frames), torch.full((2, 1, 1, 1), 0.5))
    assert [tuple(m.shape[-2:]) for m in motions] == [(1, 2), (2, 4), (4, 8), (8, 16), (16, 32)]


def test_the_field_is_the_sum_of_its_damped_sinusoids() -> None:
    torch.manual_seed(3)
    field = FourierField(5)
    coefficients = torch.randn(1, 10, 4, 6)
    y, x = target_coordinates(4, 10), target_coordinates(6, 21)
    with torch.no_grad():
        actual = field.at(coefficients, y, x)[0].double()
        w, colour = field.frequency.double(), field.colour.double()
        damping = torch.exp(-0.5 * field.spread.double() ** 2 * ((w[0] * 4 / 10) ** 2 + (w[1] * 6 / 21) ** 2))
    for row, column in ((0, 0), (3, 7), (9, 20)):
        i, j = round(float(y[row])), round(float(x[column]))
        i, j = min(max(i, 0), 3), min(max(j, 0), 5)
        phase = w[0] * (y[row].double() - i) + w[1] * (x[column].double() - j)
        u, v = coefficients[0, :, i, j].double().chunk(2)
        expected = colour @ (damping * (u * phase.sin() + v * phase.cos()))
        assert torch.allclose(actual[:, row, column], expected, atol=1e-5)


def test_a_coarse_target_shows_less_detail() -> None:
    torch.manual_seed(3)
    field, coefficients = FourierField(8), torch.randn(1, 16, 8, 8)
    middle = torch.zeros(1)
    with torch.no_grad():
        fine = field._damping(1 / 4, 1 / 4)
        coarse = field._damping(1.0, 1.0)
    assert (coarse < fine).all()
    assert field.at_phases(coefficients, middle, middle).shape == (1, 3, 1, 1, 8, 8)


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_cubic_phases_are_cubic_interpolation(factor: int) -> None:
    frames = torch.rand(2, 3, 7, 9)
    phases = target_coordinates(1, factor)
    y, x = target_coordinates(7, 7 * factor), target_coordinates(9, 9 * factor)
    actual = interleave_phases(cubic_at_phases(frames, phases, phases))
    assert torch.allclose(actual, cubic_at(cubic_at(frames, y, 2), x, 3), atol=1e-5)
