"""The weights that an adaptation changes: all, or those that learn quickly, which are merged into the network's own."""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..networks.base import Network

Adapts = Literal["all", "scales", "last", "low-rank"]
CHOICES: tuple[Adapts, ...] = get_args(Adapts)

_LAST_LAYERS = 3  # with weights, in the order in which the network lists them
_RANK = 4  # of the updates of a layer's matrix


class Scaled(nn.Module):
    """A weight, (outputs, ...), of which each output channel is multiplied by a factor that is learned."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(weight.shape[0], *[1] * (weight.dim() - 1)).to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the scaled weight, of the same shape."""
        return weight * (1 + self.gain)


class LowRank(nn.Module):
    """A weight, (outputs, ...), to which a matrix of low rank is added that is learned."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        rank = min(_RANK, rows, columns)
        generator = torch.Generator().manual_seed(rows * columns)
        self.left = nn.Parameter(torch.zeros(rows, rank).to(weight))
        self.right = nn.Parameter(torch.randn(rank, columns, generator=generator).to(weight) / columns**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the sum, of the same shape."""
        return weight + (self.left @ self.right).view_as(weight)


def select(network: Network, adapts: Adapts) -> list[nn.Parameter]:
    """Prepare a network to learn a choice of its weights, and return what is to be learned; `merge` ends it.

    Only modules below `Network.adapted` take part; all other weights are frozen.
    """
    network.requires_grad_(False)
    layers = list(_layers(network))
    if adapts == "last":
        layers = [layer for layer in layers if hasattr(layer, "weight")][-_LAST_LAYERS:] + [
            layer for layer in layers if not hasattr(layer, "weight")
        ]
    learned: list[nn.Parameter] = []
    for layer in layers:
        for name, parameter in list(layer.named_parameters(recurse=False)):
            if adapts in ("scales", "low-rank") and parameter.dim() > 1 and name == "weight":
                update = Scaled(parameter) if adapts == "scales" else LowRank(parameter)
                parametrize.register_parametrization(layer, name, update)
                learned += update.parameters()
            else:
                parameter.requires_grad_()
                learned.append(parameter)
    return learned


def merge(network: Network) -> None:
    """Merge what was learned into the network's own weights: names and shapes are those before `select`."""
    for layer in list(network.modules()):
        if parametrize.is_parametrized(layer):
            for name in list(layer.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(layer, name, leave_parametrized=True)


def _layers(network: Network) -> Iterator[nn.Module]:
    """Yield the modules that may be adapted and have parameters of their own."""
    for name, module in network.named_modules():
        if name.startswith(network.adapted) and list(module.parameters(recurse=False)):
            yield module
