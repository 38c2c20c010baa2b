"""The weights that an adaptation changes: what is learned, what stays, and how it is merged."""

import pytest
import torch
from stvsr.training.adapt.restore import restored_frames
from stvsr.training.adapt.selection import CHOICES, Adapts, merge, select
from stvsr.training.networks.base import Network
from torch import Tensor

from tests.support.procedural import filled
from tests.support.small_networks import small_networks, zero_flow


def small_fourier() -> Network:
    return small_networks()["fourier-s"].eval()


def changed(network: Network, adapts: Adapts) -> dict[str, Tensor]:
    """Change all that is learned by a little, merge it, and return the change of each weight that changed."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        for parameter in select(network, adapts):
            parameter.add_(0.01)
    merge(network)
    after = network.state_dict()
    assert after.keys() == before.keys()
    return {name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])}


@pytest.mark.parametrize("adapts", CHOICES)
def test_motion_of_the_default_network_is_not_learned(adapts: Adapts) -> None:
    names = changed(small_fourier(), adapts)
    assert names
    assert {name.split(".")[0] for name in names} <= {"fuse", "trunk", "last", "field"}


def test_scales_multiply_each_channel() -> None:
    network = small_fourier()
    before = network.get_parameter("last.weight").clone()
    change = changed(network, "scales")
    torch.testing.assert_close(change["last.weight"], 0.01 * before)
    torch.testing.assert_close(change["last.bias"], torch.full_like(change["last.bias"], 0.01))


def test_low_rank_updates_have_a_low_rank() -> None:
    change = changed(small_fourier(), "low-rank")["last.weight"].flatten(1)
    assert min(change.shape) > 4
    assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 4


def test_last_layers_alone_are_learned() -> None:
    names = changed(small_networks()["edvr"], "last")
    assert {name.rsplit(".", 1)[0] for name in names} == {"upconv2", "conv_hr", "conv_last"}


@pytest.mark.parametrize("name", ["edvr", "rbpn", "toflow", "tmnet", "videoinr-s", "fourier-s"])
@pytest.mark.parametrize("adapts", CHOICES)
def test_merged_network_computes_what_was_learned(name: str, adapts: Adapts) -> None:
    """The selected weights of every kind of network are read where it computes, under their old names."""
    network = filled(small_networks()[name], gain=0.5, offset_gain=4.0).eval()
    frames = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    first = next(iter(restored_frames(network, frames, [1], zero_flow)))
    learned = select(network, adapts)
    assert torch.allclose(next(iter(restored_frames(network, frames, [1], zero_flow))), first, atol=1e-6)
    with torch.no_grad():
        for parameter in learned:
            parameter.add_(0.003)
    second = next(iter(restored_frames(network, frames, [1], zero_flow)))
    merge(network)
    third = next(iter(restored_frames(network, frames, [1], zero_flow)))
    assert not torch.equal(first, second)
    torch.testing.assert_close(second, third, atol=1e-5, rtol=0)
