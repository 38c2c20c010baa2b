"""RBPN: agreement with the official network, description, batches, gradients, residual and halo."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from stvsr.engine.contract.manifest import FixedFactors, FlowInput, SlidingWindow
from stvsr.training.checkpoints import load_official
from stvsr.training.networks.ops import upsample_bicubic
from stvsr.training.networks.rbpn import RBPN, RBPN_S, RBPNConfig
from torch import Tensor, nn

from tests.support.compare import assert_close_to_range
from tests.support.networks import assert_official_state_dict
from tests.support.oracle import Oracle, load_oracle

CONFIGS = {
    "rbpn_small": RBPNConfig(base_filter=64, feat=32, n_resblock=2, frames=5),
    "rbpn_full_procedural": RBPNConfig(),
}
TINY = RBPNConfig(base_filter=8, feat=4, num_stages=2, n_resblock=1, frames=3)


@pytest.fixture(scope="module", params=CONFIGS)
def official(request: pytest.FixtureRequest) -> tuple[Oracle, RBPN]:
    oracle = load_oracle(request.param, gain=0.7)
    network = RBPN(CONFIGS[request.param]).eval()
    load_official(network, {f"module.{name}": value for name, value in oracle.weights.items()})
    return oracle, network


def tiny(seed: int = 0, **changes: Any) -> RBPN:
    torch.manual_seed(seed)
    return RBPN(replace(TINY, **changes)).eval()


def clip(config: RBPNConfig, batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return frames, and flows of about two pixels."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(batch, config.frames, 3, height, width, generator=generator)
    return frames, 2 * torch.randn(batch, config.frames - 1, 2, height, width, generator=generator)


def test_state_dict_is_the_official_one(official: tuple[Oracle, RBPN]) -> None:
    oracle, network = official
    assert_official_state_dict(network, oracle.record)


def test_agrees_with_the_official_network(official: tuple[Oracle, RBPN]) -> None:
    oracle, network = official
    others, middle = oracle.tensor("in/neighbor"), network.config.frames // 2
    frames = torch.cat((others[:, :middle], oracle.tensor("in/x")[:, None], others[:, middle:]), 1)
    with torch.no_grad():
        out = network(frames, oracle.tensor("in/flow"))
    assert_close_to_range(out[:, 0], oracle.arrays["out/y"], mean=1e-6, max=1e-5)


def test_network_describes_its_inputs() -> None:
    network = RBPN(RBPN_S)
    assert network.window == SlidingWindow(frames=5, padding="replicate")
    assert network.flows == (FlowInput(name="flow", pairs=((2, 0), (2, 1), (2, 3), (2, 4)), method="farneback"),)
    assert network.space == FixedFactors(factors=(4,))
    assert sum(p.numel() for p in network.parameters()) < 1e6


@pytest.mark.parametrize(("scale", "kernel"), [(2, 6), (4, 8), (8, 12)])
def test_batch_items_are_independent(scale: int, kernel: int) -> None:
    network = tiny(scale=scale, residual=True)
    assert network.get_parameter("DBPN.up1.up_conv1.deconv.weight").shape[2:] == (kernel, kernel)
    frames, flow = clip(TINY, 2, 9, 7)
    with torch.no_grad():
        together = network(frames, flow)
        alone = torch.cat([network(frames[i : i + 1], flow[i : i + 1]) for i in range(2)])
    assert together.shape == (2, 1, 3, scale * 9, scale * 7)
    assert_close_to_range(together, alone, mean=1e-6, max=1e-5)


def test_every_parameter_has_a_finite_gradient() -> None:
    network = RBPN(RBPN_S)
    network(*clip(RBPN_S, 2, 7, 9)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_residual_is_added_to_the_enlarged_target() -> None:
    frames, flow = clip(TINY, 1, 6, 5)
    plain, residual = tiny(), tiny(residual=True)
    residual.load_state_dict(plain.state_dict())
    with torch.no_grad():
        added = residual(frames, flow) - plain(frames, flow)
    assert_close_to_range(added[:, 0], upsample_bicubic(frames[:, 1], 4), mean=1e-6, max=1e-5)


def test_tile_equals_the_whole_frame_beyond_the_halo() -> None:
    network = tiny(n_resblock=2, frames=5)
    frames, flow = clip(network.config, 1, 6, 60)
    cut = 44
    with torch.no_grad():
        whole, part = network(frames, flow), network(frames[..., :cut], flow[..., :cut])
    inside = 4 * (cut - network.halo_px)
    assert_close_to_range(part[..., :inside], whole[..., :inside], mean=1e-6, max=1e-5)
    assert not torch.allclose(part, whole[..., : 4 * cut], atol=1e-3)  # within the halo it differs


@pytest.mark.slow
def test_training_lowers_the_loss() -> None:
    network = tiny(base_filter=16, feat=8, residual=True).train()
    frames, flow = clip(TINY, 1, 8, 8)
    truth = nn.functional.interpolate(frames[:, 1], scale_factor=4)[:, None]
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(20):
        loss = (network(frames, flow) - truth).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
