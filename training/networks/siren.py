"""Implicit functions: multilayer perceptrons with sine activations (SIREN), applied at every pixel.

Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions", NeurIPS 2020, section 3.
"""

import math
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OMEGA = 30.0  # radians per unit of a sine layer's linear output


class SineLayer(nn.Module):
    """The layer sin(OMEGA * (Wx + b)) with the initialization of the paper."""

    def __init__(self, in_features: int, out_features: int, is_first: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        bound = 1 / in_features if is_first else math.sqrt(6 / in_features) / OMEGA
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in, H, W)` -> `(B, out, H, W)`"""
        return torch.sin(OMEGA * pointwise(x, self.linear.weight, self.linear.bias))


class Siren(nn.Module):
    """Sine layers followed by a linear layer.

    The first layer is linear up to its sine. A caller may apply it to parts of the input separately (`mix`), each at
    the resolution where that is cheapest, sum the results, and pass the sum on (`finish`).
    """

    def __init__(self, in_features: int, hidden_features: tuple[int, ...], out_features: int) -> None:
        super().__init__()
        sizes = (in_features, *hidden_features)
        layers = [SineLayer(*pair, is_first=i == 0) for i, pair in enumerate(pairwise(sizes))]
        last = nn.Linear(sizes[-1], out_features)
        bound = math.sqrt(6 / sizes[-1]) / OMEGA
        nn.init.uniform_(last.weight, -bound, bound)
        self.net = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in, H, W)` -> `(B, out, H, W)`"""
        return self.finish(self.mix(x, 0))

    def mix(self, x: Tensor, first_channel: int) -> Tensor:
        """Return the share of the first layer's sum that comes from input channels `first_channel` on.

        `(B, c, H, W)` -> `(B, hidden, H, W)`
        """
        weight = cast(SineLayer, self.net[0]).linear.weight
        return pointwise(x, weight[:, first_channel : first_channel + x.shape[1]])

    def finish(self, mixed: Tensor) -> Tensor:
        """Apply the rest of the network to the sum of all shares. `(B, hidden, H, W)` -> `(B, out, H, W)`"""
        first, last = cast(SineLayer, self.net[0]), cast(nn.Linear, self.net[-1])
        x = torch.sin(OMEGA * (mixed + first.linear.bias[:, None, None]))
        x = self.net[1:-1](x)
        return pointwise(x, last.weight, last.bias)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear layer at every pixel. `(B, in, H, W)`, `(out, in)`, `(out,)` -> `(B, out, H, W)`"""
    return F.conv2d(x, weight[:, :, None, None], bias)
