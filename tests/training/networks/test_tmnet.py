"""TMNet against the official one, and what it promises of times, batches and weights."""

import pytest
import torch
from stvsr.engine.contract.manifest import RunWindow
from stvsr.training.networks.base import Network
from stvsr.training.networks.tmnet import TMNET_S, TMNet, TMNetConfig
from torch import Tensor

from tests.support.compare import assert_close_to_range
from tests.support.oracle import Oracle, load_oracle
from tests.support.procedural import filled

TINY = TMNetConfig(nf=8, groups=2, front_blocks=1, back_blocks=1)


@pytest.fixture(scope="module")
def official() -> Oracle:
    return load_oracle("tmnet_full_procedural", gain=0.8, offset_gain=16.0)


def made(config: TMNetConfig = TINY) -> Network:
    """A network with offsets of about a pixel."""
    return filled(TMNet(config), gain=0.8)


def clip(batch: int, frames: int, height: int, width: int) -> Tensor:
    return torch.rand(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_official_state_dict(official: Oracle) -> None:
    network = TMNet()
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert shapes == {name: entry["shape"] for name, entry in official.record["keys"].items()}
    assert sum(p.numel() for p in network.parameters()) == official.record["param_count"]


@pytest.mark.parametrize(
    ("config", "frames", "times", "height", "width"),
    [(TINY, 3, 3, 4, 20), (TINY, 2, 1, 12, 8), (TMNET_S, 3, 1, 20, 12)],
)
def test_batch_items_have_times_of_their_own(
    config: TMNetConfig, frames: int, times: int, height: int, width: int
) -> None:
    network, run = made(config), clip(2, frames, height, width)
    time = torch.linspace(0, 1, 2 * times).view(2, times)
    with torch.no_grad():
        together = network(run, time)
        alone = torch.cat([network(run[i : i + 1], time[i : i + 1]) for i in range(2)])
    assert network.window == RunWindow(frames=config.frames)
    assert together.shape == (2, frames + times * (frames - 1), 3, 4 * height, 4 * width)
    assert_close_to_range(together, alone, mean=1e-6, max=1e-5)


def test_one_time_needs_no_axis_and_none_is_the_middle() -> None:
    network, run = made(), clip(2, 2, 8, 12)
    with torch.no_grad():
        early, middle = (network(run, torch.full((2,), t)) for t in (0.2, 0.5))
        assert torch.equal(network(run, torch.full((2, 1), 0.2)), early)
        assert torch.equal(network(run), middle)
    assert (early - middle).abs().max() > 1e-3 * (middle.max() - middle.min())


def test_gradients_reach_every_weight() -> None:
    network = made().train()
    network(clip(2, 3, 8, 12), torch.tensor([0.3, 1.0])).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_halo_is_enough() -> None:
    network, run, kept = made(TMNET_S), clip(1, 2, 16, 64), 12
    with torch.no_grad():
        time = torch.tensor([0.3])
        whole, tile = network(run, time), network(run[..., : kept + network.halo_px], time)
    assert_close_to_range(tile[..., : 4 * kept], whole[..., : 4 * kept], mean=1e-4, max=1e-3)
