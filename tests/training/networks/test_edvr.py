from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stvsr.training.checkpoints import load_official
from stvsr.training.networks.alignment import DeformConvPack
from stvsr.training.networks.edvr import EDVR, EDVR_L, EDVR_M, EDVR_S, EDVRConfig
from torch import Tensor, nn

from tests.support.compare import assert_close_to_range
from tests.support.oracle import Oracle, load_oracle

SIZES = {"edvr_m": (EDVR_M, 1.0, 16.0), "edvr_l_procedural": (EDVR_L, 0.8, 12.0)}


@pytest.fixture(scope="module", params=SIZES)
def official(request: pytest.FixtureRequest) -> tuple[Oracle, EDVR]:
    config, gain, offset_gain = SIZES[request.param]
    oracle = load_oracle(request.param, gain, offset_gain)
    network = EDVR(config).eval()
    load_official(network, {f"module.{name}": value for name, value in oracle.weights.items()})
    return oracle, network


def moving(config: EDVRConfig) -> EDVR:
    """A network whose offsets are about a pixel rather than zero."""
    torch.manual_seed(0)
    network = EDVR(config)
    for module in network.modules():
        if isinstance(module, DeformConvPack):
            nn.init.normal_(module.get_submodule("conv_offset").weight, std=0.3)
    return network


def clip(batch: int, config: EDVRConfig, height: int, width: int) -> Tensor:
    shape = (batch, config.num_frame, 3, height, width)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_official_state_dict(official: tuple[Oracle, EDVR]) -> None:
    oracle, network = official
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert shapes == {name: entry["shape"] for name, entry in oracle.record["keys"].items()}
    assert sum(p.numel() for p in network.parameters()) == oracle.record["param_count"]


@pytest.mark.parametrize("inner", ["params", "params_ema", "state_dict"])
def test_official_checkpoints_hold_their_weights_one_level_down(inner: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    source, network = EDVR(EDVR_S), EDVR(EDVR_S)
    torch.save({inner: {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "c.pth")
    load_official(network, tmp_path / "c.pth")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in network.state_dict().items())


def test_checkpoints_of_the_first_code_load() -> None:
    oracle = load_oracle("edvr_m")
    names = oracle.record["key_map_basicsr_to_original"]
    network = EDVR()
    assert network.aliases() == {other: own for own, other in names.items() if other != own}
    load_official(network, {names[own]: value for own, value in oracle.weights.items()})
    assert all(torch.equal(value, oracle.weights[own]) for own, value in network.state_dict().items())


@pytest.mark.parametrize("changes", [{}, {"with_tsa": False}, {"num_frame": 7}])
def test_every_parameter_is_trained(changes: dict[str, int]) -> None:
    config = replace(EDVR_S, **changes)
    network = moving(config)
    out = network(clip(2, config, 12, 20))
    assert out.shape == (2, 1, 3, 48, 80)
    out.square().mean().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_size_without_attention_is_the_official_one() -> None:
    assert sum(p.numel() for p in EDVR(replace(EDVR_M, with_tsa=False)).parameters()) == 2996259


@torch.no_grad()
def test_beyond_the_halo_a_cut_changes_nothing(official: tuple[Oracle, EDVR]) -> None:
    _, network = official
    frames = clip(1, network.config, 16, 80)
    whole, part = network(frames), network(frames[..., :64])
    seen = 4 * (64 - network.halo_px)
    assert_close_to_range(part[..., :seen], whole[..., :seen], mean=1e-5, max=1e-4)
    assert (part - whole[..., :256]).abs().max() > 1e-2
