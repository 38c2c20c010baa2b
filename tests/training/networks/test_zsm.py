"""Zooming Slow-Mo against the official one, and what it promises of sizes, batches, weights and tiles."""

import pytest
import torch
from stvsr.engine.contract.manifest import RunWindow
from stvsr.training.networks.base import Network
from stvsr.training.networks.blocks import interleave
from stvsr.training.networks.zsm import ZSM_S, ZoomingSlowMo, ZoomingSlowMoConfig
from torch import Tensor

from tests.support.compare import assert_close_to_range
from tests.support.oracle import Oracle, load_oracle
from tests.support.procedural import filled

TINY = ZoomingSlowMoConfig(nf=8, groups=2, front_blocks=1, back_blocks=1)


@pytest.fixture(scope="module")
def official() -> Oracle:
    return load_oracle("zsm_full_procedural", gain=0.8, offset_gain=16.0)


def made(config: ZoomingSlowMoConfig = TINY) -> Network:
    """A network with offsets of about a pixel."""
    return filled(ZoomingSlowMo(config), gain=0.8)


def clip(batch: int, frames: int, height: int, width: int) -> Tensor:
    return torch.rand(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_official_state_dict(official: Oracle) -> None:
    network = ZoomingSlowMo()
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert shapes == {name: entry["shape"] for name, entry in official.record["keys"].items()}
    assert sum(p.numel() for p in network.parameters()) == official.record["param_count"]


def test_made_features_lie_between_the_given_ones() -> None:
    given, made = torch.arange(6.0).view(2, 3, 1, 1, 1), torch.arange(10.0, 18).view(4, 2, 1, 1, 1)
    out = interleave(given, made[:, 0], made[:, 1])[..., 0, 0, 0]
    assert out.tolist() == [[0, 10, 11, 1, 12, 13, 2], [3, 14, 15, 4, 16, 17, 5]]


@pytest.mark.parametrize(
    ("config", "frames", "height", "width"), [(TINY, 2, 4, 20), (TINY, 5, 12, 8), (ZSM_S, 3, 20, 12)]
)
def test_any_run_and_size(config: ZoomingSlowMoConfig, frames: int, height: int, width: int) -> None:
    network, run = made(config), clip(2, frames, height, width)
    with torch.no_grad():
        together = network(run)
        alone = torch.cat([network(item[None]) for item in run])
    assert network.window == RunWindow(frames=config.frames)
    assert together.shape == (2, 2 * frames - 1, 3, 4 * height, 4 * width)
    assert_close_to_range(together, alone, mean=1e-6, max=1e-5)


def test_gradients_reach_every_weight() -> None:
    network = made().train()
    network(clip(2, 3, 8, 12)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_halo_is_enough() -> None:
    network, run, kept = made(ZSM_S), clip(1, 2, 16, 64), 12
    with torch.no_grad():
        whole, tile = network(run), network(run[..., : kept + network.halo_px])
    assert_close_to_range(tile[..., : 4 * kept], whole[..., : 4 * kept], mean=1e-4, max=1e-3)
