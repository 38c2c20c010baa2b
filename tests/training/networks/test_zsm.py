"""Zooming Slow-Mo: official state dict, sizes and batches, gradients and halo."""

import pytest
import torch
from stvsr.engine.contract.manifest import RunWindow
from stvsr.training.networks.base import Network
from stvsr.training.networks.blocks import interleave
from stvsr.training.networks.zsm import ZSM_S, ZoomingSlowMo, ZoomingSlowMoConfig

from tests.support.compare import assert_close_to_range
from tests.support.networks import assert_official_state_dict, random_clip, untrained_parameters
from tests.support.oracle import Oracle, load_oracle
from tests.support.procedural import filled

TINY = ZoomingSlowMoConfig(nf=8, groups=2, front_blocks=1, back_blocks=1)


@pytest.fixture(scope="module")
def official() -> Oracle:
    return load_oracle("zsm_full_procedural", gain=0.8, offset_gain=16.0)


def network_with_offsets(config: ZoomingSlowMoConfig = TINY) -> Network:
    return filled(ZoomingSlowMo(config), gain=0.8)


def test_state_dict_is_the_official_one(official: Oracle) -> None:
    assert_official_state_dict(ZoomingSlowMo(), official.record)


def test_interleave_inserts_new_frames_in_the_gaps() -> None:
    frames, between = torch.arange(6.0).view(2, 3, 1, 1, 1), torch.arange(10.0, 18).view(4, 2, 1, 1, 1)
    out = interleave(frames, between[:, 0], between[:, 1])[..., 0, 0, 0]
    assert out.tolist() == [[0, 10, 11, 1, 12, 13, 2], [3, 14, 15, 4, 16, 17, 5]]


@pytest.mark.parametrize(
    ("config", "frames", "height", "width"),
    [(TINY, 2, 4, 20), pytest.param(TINY, 5, 12, 8, marks=pytest.mark.slow), (ZSM_S, 3, 20, 12)],
)
def test_network_accepts_any_run_and_size(config: ZoomingSlowMoConfig, frames: int, height: int, width: int) -> None:
    network, run = network_with_offsets(config), random_clip(2, frames, height, width)
    with torch.no_grad():
        together = network(run)
        alone = torch.cat([network(item[None]) for item in run])
    assert network.window == RunWindow(frames=config.frames)
    assert together.shape == (2, 2 * frames - 1, 3, 4 * height, 4 * width)
    assert_close_to_range(together, alone, mean=1e-6, max=1e-5)


def test_every_parameter_has_a_gradient() -> None:
    network = network_with_offsets().train()
    network(random_clip(2, 3, 8, 12)).square().mean().backward()
    assert untrained_parameters(network) == []


def test_tile_with_its_halo_equals_the_whole_frame() -> None:
    network, run, core = network_with_offsets(ZSM_S), random_clip(1, 2, 16, 64), 12
    assert network.halo_px is not None
    with torch.no_grad():
        whole, tile = network(run), network(run[..., : core + network.halo_px])
    assert_close_to_range(tile[..., : 4 * core], whole[..., : 4 * core], mean=1e-4, max=1e-3)
