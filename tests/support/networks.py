"""Inputs, initial values and checks that the tests of several networks share."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from stvsr.training.networks.alignment import DeformConvPack
from stvsr.training.networks.spynet import BasicModule, SpyNet
from torch import Tensor, nn


def random_clip(batch: int, frames: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return noise in [0, 1], `(B, N, 3, h, w)`."""
    return torch.rand(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(seed))


def randomize_offsets(network: nn.Module) -> None:
    """Initialize deformable convolutions with offsets of about a pixel instead of zero."""
    for module in network.modules():
        if isinstance(module, DeformConvPack):
            offsets = module.get_submodule(module.offset_name)
            assert isinstance(offsets, nn.Conv2d)
            nn.init.normal_(offsets.weight, std=0.3)


def flow_layers(network: SpyNet) -> Iterator[nn.Conv2d]:
    """Yield the last convolution of each level of a flow network, which computes the level's flow."""
    for level in network.basic_module:
        assert isinstance(level, BasicModule)
        last = level.basic_module[-1]
        assert isinstance(last, nn.Conv2d)
        yield last


def untrained_parameters(network: nn.Module) -> list[str]:
    """Return the names of parameters that a backward pass has left without a nonzero gradient."""
    return [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]


def assert_official_state_dict(network: nn.Module, record: Mapping[str, Any]) -> None:
    """Assert that a network has the names, shapes and parameter count in the record of an official one."""
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert shapes == {name: entry["shape"] for name, entry in record["keys"].items()}
    assert sum(p.numel() for p in network.parameters()) == record["param_count"]
