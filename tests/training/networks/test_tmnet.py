"""TMNet: official state dict, times and batches, gradients and halo."""

import pytest
import torch
from stvsr.engine.contract.manifest import RunWindow
from stvsr.training.networks.base import Network
from stvsr.training.networks.tmnet import TMNET_S, TMNet, TMNetConfig

from tests.support.compare import assert_close_to_range
from tests.support.networks import assert_official_state_dict, random_clip, untrained_parameters
from tests.support.oracle import Oracle, load_oracle
from tests.support.procedural import filled

TINY = TMNetConfig(nf=8, groups=2, front_blocks=1, back_blocks=1)


@pytest.fixture(scope="module")
def official() -> Oracle:
    return load_oracle("tmnet_full_procedural", gain=0.8, offset_gain=16.0)


def network_with_offsets(config: TMNetConfig = TINY) -> Network:
    return filled(TMNet(config), gain=0.8)


def test_state_dict_is_the_official_one(official: Oracle) -> None:
    assert_official_state_dict(TMNet(), official.record)


@pytest.mark.parametrize(
    ("config", "frames", "times", "height", "width"),
    [
        pytest.param(TINY, 3, 3, 4, 20, marks=pytest.mark.slow),
        pytest.param(TINY, 2, 1, 12, 8, marks=pytest.mark.slow),
        (TMNET_S, 3, 1, 20, 12),
    ],
)
def test_batch_items_have_independent_times(
    config: TMNetConfig, frames: int, times: int, height: int, width: int
) -> None:
    network, run = network_with_offsets(config), random_clip(2, frames, height, width)
    time = torch.linspace(0, 1, 2 * times).view(2, times)
    with torch.no_grad():
        together = network(run, time)
        alone = torch.cat([network(run[i : i + 1], time[i : i + 1]) for i in range(2)])
    assert network.window == RunWindow(frames=config.frames)
    assert together.shape == (2, frames + times * (frames - 1), 3, 4 * height, 4 * width)
    assert_close_to_range(together, alone, mean=1e-6, max=1e-5)


@pytest.mark.slow
def test_time_may_lack_the_axis_of_times_and_defaults_to_the_middle() -> None:
    network, run = network_with_offsets(), random_clip(2, 2, 8, 12)
    with torch.no_grad():
        early, middle = (network(run, torch.full((2,), t)) for t in (0.2, 0.5))
        assert torch.equal(network(run, torch.full((2, 1), 0.2)), early)
        assert torch.equal(network(run), middle)
    assert (early - middle).abs().max() > 1e-3 * (middle.max() - middle.min())


@pytest.mark.slow
def test_every_parameter_has_a_gradient() -> None:
    network = network_with_offsets().train()
    network(random_clip(2, 3, 8, 12), torch.tensor([0.3, 1.0])).square().mean().backward()
    assert untrained_parameters(network) == []


def test_tile_with_its_halo_equals_the_whole_frame() -> None:
    network, run, core = network_with_offsets(TMNET_S), random_clip(1, 2, 16, 64), 12
    assert network.halo_px is not None
    with torch.no_grad():
        time = torch.tensor([0.3])
        whole, tile = network(run, time), network(run[..., : core + network.halo_px], time)
    assert_close_to_range(tile[..., : 4 * core], whole[..., : 4 * core], mean=1e-4, max=1e-3)
