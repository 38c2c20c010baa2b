"""EDVR: agreement with the official network, checkpoints of both official codes, halo and gradients."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stvsr.training.checkpoints import load_official
from stvsr.training.networks.edvr import EDVR, EDVR_L, EDVR_M, EDVR_S, EDVRConfig
from torch import Tensor

from tests.support.compare import assert_close_to_range
from tests.support.networks import assert_official_state_dict, random_clip, randomize_offsets, untrained_parameters
from tests.support.oracle import Oracle, load_oracle

SIZES = {"edvr_m": (EDVR_M, 1.0, 16.0), "edvr_l_procedural": (EDVR_L, 0.8, 12.0)}


@pytest.fixture(scope="module", params=SIZES)
def official(request: pytest.FixtureRequest) -> tuple[Oracle, EDVR]:
    config, gain, offset_gain = SIZES[request.param]
    oracle = load_oracle(request.param, gain, offset_gain)
    network = EDVR(config).eval()
    load_official(network, {f"module.{name}": value for name, value in oracle.weights.items()})
    return oracle, network


def network_with_offsets(config: EDVRConfig) -> EDVR:
    torch.manual_seed(0)
    network = EDVR(config)
    randomize_offsets(network)
    return network


def clip(batch: int, config: EDVRConfig, height: int, width: int) -> Tensor:
    return random_clip(batch, config.num_frame, height, width, seed=1)


def test_state_dict_is_the_official_one(official: tuple[Oracle, EDVR]) -> None:
    oracle, network = official
    assert_official_state_dict(network, oracle.record)


@pytest.mark.parametrize("inner", ["params", "params_ema", "state_dict"])
def test_checkpoints_with_nested_weights_load(inner: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    source, network = EDVR(EDVR_S), EDVR(EDVR_S)
    torch.save({inner: {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "c.pth")
    load_official(network, tmp_path / "c.pth")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in network.state_dict().items())


def test_checkpoints_with_the_names_of_the_first_code_load() -> None:
    oracle = load_oracle("edvr_m")
    names = oracle.record["key_map_basicsr_to_original"]
    network = EDVR()
    assert network.aliases() == {other: own for own, other in names.items() if other != own}
    load_official(network, {names[own]: value for own, value in oracle.weights.items()})
    assert all(torch.equal(value, oracle.weights[own]) for own, value in network.state_dict().items())


@pytest.mark.parametrize(
    "config",
    [EDVR_S, replace(EDVR_S, with_tsa=False), replace(EDVR_S, num_frame=7)],
    ids=["compact", "without-attention", "seven-frames"],
)
def test_every_parameter_has_a_gradient(config: EDVRConfig) -> None:
    network = network_with_offsets(config)
    out = network(clip(2, config, 12, 20))
    assert out.shape == (2, 1, 3, 48, 80)
    out.square().mean().backward()
    assert untrained_parameters(network) == []


def test_parameter_count_without_attention_is_the_official_one() -> None:
    assert sum(p.numel() for p in EDVR(replace(EDVR_M, with_tsa=False)).parameters()) == 2996259


@pytest.mark.slow
@torch.no_grad()
def test_tile_equals_the_whole_frame_beyond_the_halo(official: tuple[Oracle, EDVR]) -> None:
    _, network = official
    frames = clip(1, network.config, 16, 80)
    whole, part = network(frames), network(frames[..., :64])
    unaffected = 4 * (64 - network.halo_px)
    assert_close_to_range(part[..., :unaffected], whole[..., :unaffected], mean=1e-5, max=1e-4)
    assert (part - whole[..., :256]).abs().max() > 1e-2
