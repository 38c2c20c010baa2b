"""STINet: official state dict, description, graph, batches, gradients, residual and loss."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from stvsr.engine.contract.manifest import FixedFactors, FlowInput, RunWindow
from stvsr.training.checkpoints import load_official
from stvsr.training.networks.ops import upsample_bicubic
from stvsr.training.networks.refinement import neighbourhood_means
from stvsr.training.networks.spynet import IMAGENET_MEAN, IMAGENET_STD
from stvsr.training.networks.stinet import STINET_S, STINet, STINetConfig
from torch import Tensor, nn

from tests.support.compare import assert_close_to_range
from tests.support.networks import assert_official_state_dict, randomize_offsets
from tests.support.oracle import Oracle, load_oracle

TINY = STINetConfig(base_filter=4, feat=8, hidden=16, num_stages=2, n_resblock=1, groups=2)
MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
CONFIGS = pytest.mark.parametrize(
    "config", [pytest.param(TINY, id="official", marks=pytest.mark.slow), pytest.param(STINET_S, id="compact")]
)
UNUSED = ("DBPN.output_conv2", "h_down_gcn")


@pytest.fixture(scope="module")
def official() -> tuple[Oracle, STINet]:
    oracle = load_oracle("stinet_full_procedural", gain=0.9, offset_gain=12.0)
    for alias, name in oracle.record["aliases"].items():
        oracle.weights[alias] = oracle.weights[name]
    network = STINet().eval()
    load_official(network, {f"module.{name}": value for name, value in oracle.weights.items()})
    return oracle, network


def tiny(config: STINetConfig = TINY, **changes: Any) -> STINet:
    torch.manual_seed(0)
    network = STINet(replace(config, **changes)).eval()
    randomize_offsets(network)
    return network


def clip(batch: int, frames: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames, and flows of about two pixels."""
    generator = torch.Generator().manual_seed(0)
    forward, backward = 2 * torch.randn(2, batch, frames - 1, 2, height, width, generator=generator)
    return torch.rand(batch, frames, 3, height, width, generator=generator), forward, backward


def test_state_dict_is_the_official_one_with_shared_layers(official: tuple[Oracle, STINet]) -> None:
    oracle, network = official
    assert_official_state_dict(network, oracle.record)
    state = network.state_dict()
    for alias, name in oracle.record["aliases"].items():
        assert state[alias].data_ptr() == state[name].data_ptr()


def test_network_describes_its_inputs() -> None:
    network = STINet(STINET_S)
    assert network.window == RunWindow(frames=4)
    assert network.time == FixedFactors(factors=(2,))
    assert network.halo_px is None
    assert network.flows == (
        FlowInput(name="forward_flow", pairs=((0, 1), (1, 2), (2, 3)), method="farneback"),
        FlowInput(name="backward_flow", pairs=((1, 0), (2, 1), (3, 2)), method="farneback"),
    )
    assert sum(p.numel() for p in network.parameters()) < 1e6


def test_neighbourhood_means_of_two_frames() -> None:
    third = 1 / 3
    onward: list[list[float]] = [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0, 0.5, 0], [0, third, third, third]]
    both = [[third, third, third, 0], [third, third, 0, third], [third, 0, third, third], [0, third, third, third]]
    np.testing.assert_allclose(neighbourhood_means(2, both_ways=False), onward)
    np.testing.assert_allclose(neighbourhood_means(2, both_ways=True), both)


@CONFIGS
@pytest.mark.parametrize("frames", [2, 4])
def test_batch_items_are_independent(config: STINetConfig, frames: int) -> None:
    network, inputs = tiny(config), clip(2, frames, 5, 7)
    with torch.no_grad():
        together = network(*inputs)
        alone = torch.cat([network(*(x[i : i + 1] for x in inputs)) for i in range(2)])
        *_, final = network.reconstructions(*inputs)
    assert together.shape == (2, 2 * frames - 1, 3, 20, 28)
    assert_close_to_range(together, alone, mean=1e-6, max=1e-5)
    assert_close_to_range(final, together, mean=1e-7, max=1e-6)


@CONFIGS
def test_every_used_parameter_has_a_finite_gradient(config: STINetConfig) -> None:
    network = tiny(config)
    inputs = clip(2, 3, 4, 6)
    terms = network.loss(*inputs, truth=torch.rand(2, 5, 3, 16, 24))
    (terms.reconstruction + terms.auxiliary).backward()
    unused = [name for name, p in network.named_parameters() if name.startswith(UNUSED)]
    assert len(unused) == (4 if config.official else 0)
    for name, parameter in network.named_parameters():
        if name in unused:
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name


def test_residual_is_added_to_enlarged_frames_and_their_means() -> None:
    network, inputs = tiny(residual=True, official=False), clip(1, 3, 5, 6)
    for layer in (network.reconstruction_l.conv, network.reconstruction_h.conv, network.conv_last, network.h_blending):
        assert layer.bias is not None
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    a, b, c = inputs[0][0]
    expected = torch.stack((a, (a + b) / 2, b, (b + c) / 2, c))
    with torch.no_grad():
        low, early, final = network.reconstructions(*inputs)
    assert_close_to_range(low[0], expected, mean=1e-7, max=1e-6)
    for out in (early, final):
        assert_close_to_range(out[0], upsample_bicubic(expected, 4), mean=1e-6, max=1e-5)


def test_loss_compares_the_output_and_early_frames_at_both_resolutions() -> None:
    network, inputs = tiny(STINET_S), clip(1, 3, 4, 6)
    truth = torch.rand(1, 5, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        low, early, final = network.reconstructions(*inputs)
        reconstruction, auxiliary, output = network.loss(*inputs, truth=truth)
    assert torch.equal(output, final)
    small = nn.functional.interpolate(truth[0], scale_factor=0.25, mode="bicubic", antialias=True)
    assert reconstruction.item() == pytest.approx((final - truth).abs().mean().item(), abs=1e-4)
    errors = (early - truth).abs().mean() + (low[0] - small).abs().mean()
    assert auxiliary.item() == pytest.approx(errors.item(), abs=1e-4)
