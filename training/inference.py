"""Run a network on a batch, whatever its kind of window."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .networks.base import Network, decode_pair
from .networks.ops import target_coordinates


def run_network(network: Network, inputs: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Run a network on its inputs and return all its output frames, (B, M, 3, H, W), not clamped.

    `inputs` are those of `Network.forward`. The network of a pair takes times (B, K) and returns a frame of `size`
    (H, W) at each of the K times; the output size of other networks follows from their inputs.
    """
    if network.window.kind != "pair":
        return network(*inputs)
    net: Any = network
    frames, time = inputs
    features = net.encode(frames)
    y, x = (target_coordinates(n, m, frames.device) for n, m in zip(frames.shape[-2:], size, strict=True))
    outputs = [decode_pair(network, features, time[:, k], y, x) for k in range(time.shape[1])]
    return torch.stack(outputs, 1)
