"""TOFlow: agreement with the official network, checkpoints, sizes, flows, gradients, batches and halo."""

from dataclasses import replace

import pytest
import torch
from stvsr.engine.contract.manifest import FixedFactors
from stvsr.training.checkpoints import load_official
from stvsr.training.networks.ops import upsample_bicubic
from stvsr.training.networks.spynet import SpyNet
from stvsr.training.networks.toflow import TOFLOW, TOFLOW_S, TOFlow, TOFlowConfig
from torch import Tensor, nn

from tests.support.compare import assert_close_to_range
from tests.support.networks import assert_official_state_dict, flow_layers, random_clip, untrained_parameters
from tests.support.oracle import Oracle, load_oracle

TINY = replace(TOFLOW_S, frames=5, width=8, flow_width=4)
ENLARGED = TOFlowConfig(enlarge=1)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return load_oracle("tof_basicsr")


def network_with_flows(config: TOFlowConfig) -> TOFlow:
    """Return a network with flows of about a pixel."""
    torch.manual_seed(0)
    network = TOFlow(config).eval()
    for layer in flow_layers(network.spynet):
        nn.init.normal_(layer.weight, std=5.0)
    return network


def clip(batch: int, frames: int, height: int, width: int) -> Tensor:
    return random_clip(batch, frames, height, width, seed=1)


@pytest.mark.parametrize("adapt", [True, False])
@torch.no_grad()
def test_agrees_with_the_official_network(oracle: Oracle, adapt: bool) -> None:
    network = TOFlow(replace(ENLARGED, adapt_official_weights=adapt)).eval()
    load_official(network, {f"module.{name}": value for name, value in oracle.weights.items()})
    out = network(oracle.tensor("in/x"))
    assert_close_to_range(out[:, 0], oracle.arrays[f"out/adapt_{adapt}".lower()], mean=1e-6, max=5e-6)


@torch.no_grad()
def test_flows_agree_with_the_official_network(oracle: Oracle) -> None:
    network = TOFlow(ENLARGED).eval()
    load_official(network, oracle.weights)
    frames = ((oracle.tensor("in/x") - network.mean) / network.std)[0]
    others = frames[[0, 1, 2, 4, 5, 6]]
    flow = network.spynet(frames[3].expand_as(others), others)
    assert_close_to_range(flow, oracle.arrays["tap/flows_nbr0_1_2_4_5_6"][0], mean=1e-6, max=5e-6)


def test_state_dict_is_the_official_one(oracle: Oracle) -> None:
    assert_official_state_dict(TOFlow(), oracle.record)


def test_checkpoints_with_the_names_of_dynavsr_load(oracle: Oracle) -> None:
    names = oracle.record["key_map_basicsr_to_dynavsr"]
    network = TOFlow()
    load_official(network, {names[own]: value for own, value in oracle.weights.items() if own in names})
    assert all(torch.equal(value, oracle.weights[own]) for own, value in network.state_dict().items())


@pytest.mark.parametrize(("config", "multiple"), [(TOFLOW, 4), (ENLARGED, 16), (TOFLOW_S, 8)])
def test_size_constraint_and_scale_follow_the_configuration(config: TOFlowConfig, multiple: int) -> None:
    network = TOFlow(config)
    assert network.size.multiple_of == multiple
    assert network.space == FixedFactors(factors=(config.enlarge,))


@torch.no_grad()
def test_enlarging_inside_equals_enlarged_input() -> None:
    config = replace(TINY, official_sampling=True, flow_of_small_frames=False)
    inside, outside = network_with_flows(config), network_with_flows(replace(config, enlarge=1))
    frames = clip(2, 5, 8, 12)
    large = upsample_bicubic(frames.flatten(0, 1), 4).unflatten(0, (2, 5))
    assert torch.allclose(inside(frames), outside(large), atol=1e-5)


class ConstantFlow(nn.Module):
    border = "clamp"

    def __init__(self, dx: float, dy: float) -> None:
        super().__init__()
        self.flow = torch.tensor([dx, dy]).view(1, 2, 1, 1)

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        assert fixed.shape == moving.shape
        return self.flow.expand(fixed.shape[0], 2, *fixed.shape[2:])


@torch.no_grad()
def test_flows_of_small_frames_are_scaled_to_the_enlarged_frames() -> None:
    of_small, of_large = network_with_flows(TINY), network_with_flows(replace(TINY, flow_of_small_frames=False))
    of_small.set_submodule("spynet", ConstantFlow(0.25, -0.75))
    of_large.set_submodule("spynet", ConstantFlow(1, -3))
    frames = clip(2, 5, 8, 12)
    assert torch.allclose(of_small(frames), of_large(frames), atol=1e-6)
    of_large.set_submodule("spynet", ConstantFlow(0.25, -0.75))
    assert not torch.allclose(of_small(frames), of_large(frames), atol=1e-2)


@pytest.mark.parametrize("official_sampling", [True, False])
@torch.no_grad()
def test_flow_of_each_coarser_level_counts_twice(official_sampling: bool) -> None:
    network = SpyNet(width=4, levels=3, official_sampling=official_sampling).eval()
    for level, last in enumerate(flow_layers(network)):
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        last.bias.copy_(torch.tensor([1.0, -0.5]) * 10**level)
    flow = network(*torch.rand(2, 1, 3, 8, 12))
    assert torch.allclose(flow[0, :, 3, 5], torch.tensor([124.0, -62.0]))
    assert flow[0].std((1, 2)).max() < 1e-4


@pytest.mark.parametrize("training", [True, False])
def test_every_parameter_has_a_gradient(training: bool) -> None:
    network = network_with_flows(TINY).train(training)
    means = network.get_buffer("spynet.basic_module.0.basic_module.1.running_mean")
    before = means.clone()
    out = network(clip(2, 5, 24, 40))
    assert out.shape == (2, 1, 3, 96, 160)
    out.square().mean().backward()
    assert untrained_parameters(network) == []
    assert training != torch.equal(before, means)


@torch.no_grad()
def test_batch_items_are_independent() -> None:
    network, frames = network_with_flows(TINY), clip(2, 5, 16, 24)
    assert torch.allclose(network(frames), torch.cat([network(frames[:1]), network(frames[1:])]), atol=1e-6)


@torch.no_grad()
def test_tile_equals_the_whole_frame_beyond_the_halo() -> None:
    network = network_with_flows(TINY)
    frames = clip(1, 5, 8, 176)
    whole, part = network(frames), network(frames[..., :160])
    assert network.halo_px is not None
    unaffected = 4 * (160 - network.halo_px)
    assert_close_to_range(part[..., :unaffected], whole[..., :unaffected], mean=1e-6, max=1e-5)
    assert (part - whole[..., :640]).abs().max() > 1e-2
