"""The optimizer: directions of equal length for matrices, the same for every memory layout, and exact resumption."""

import copy

import pytest
import torch
from stvsr.engine.contract.errors import CheckpointError
from stvsr.training.optimizer import MuonAdam
from torch import Tensor, nn


def network(layout: torch.memory_format = torch.contiguous_format) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Conv2d(8, 4, 1))
    return net.to(memory_format=layout)  # type: ignore[call-overload]


def train(net: nn.Module, optimizer: MuonAdam, steps: int, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(2, 8, 12, 12, generator=generator)).square().mean().backward()
        optimizer.step(1e-3)


def change(net: nn.Sequential, steps: int = 1) -> Tensor:
    before = net.state_dict()["0.weight"].clone()
    train(net, MuonAdam(net), steps)
    return net.state_dict()["0.weight"] - before


def test_all_directions_of_an_update_have_similar_length() -> None:
    lengths = torch.linalg.svdvals(change(network()).flatten(1))
    assert lengths.max() / lengths.min() < 2.5


def test_an_update_has_the_size_of_an_update_by_adam() -> None:
    assert change(network()).square().mean().sqrt().item() == pytest.approx(0.2e-3, rel=0.3)


def test_memory_layout_does_not_change_the_update() -> None:
    torch.testing.assert_close(change(network(torch.channels_last), 3), change(network(), 3), rtol=0, atol=2e-5)


def test_parameters_without_a_gradient_stay() -> None:
    net = network()
    optimizer = MuonAdam(net)
    train(net, optimizer, 2)
    before = copy.deepcopy(net.state_dict())
    optimizer.zero_grad()
    net[0](torch.randn(1, 8, 12, 12)).sum().backward()
    optimizer.step(1e-3)
    after = net.state_dict()
    assert not torch.equal(after["0.weight"], before["0.weight"])
    assert torch.equal(after["2.weight"], before["2.weight"])
    assert torch.equal(after["2.bias"], before["2.bias"])


def test_a_resumed_optimizer_goes_on_exactly() -> None:
    whole, half = network(), network()
    optimizer = MuonAdam(whole)
    train(whole, optimizer, 3)
    half.load_state_dict(whole.state_dict())
    resumed = MuonAdam(half)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(whole, optimizer, 3, seed=2)
    train(half, resumed, 3, seed=2)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, half.state_dict()[name]), name


def test_the_state_of_another_optimizer_is_refused() -> None:
    net = network()
    with pytest.raises(CheckpointError, match="another optimizer"):
        MuonAdam(net).load_state_dict(torch.optim.Adam(net.parameters()).state_dict())
