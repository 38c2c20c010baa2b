"""Weights generated from the names and shapes of a state dict, so that oracles of full-size networks stay small.

NumPy's legacy RandomState returns the same numbers in every version.
"""

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from stvsr.training.networks.base import Network
from torch import Tensor


def procedural_weights(
    shapes: Mapping[str, tuple[int, ...]], gain: float = 1.0, offset_gain: float = 16.0
) -> dict[str, Tensor]:
    """Return weights that keep signals of order 1 and make deformable offsets of about a pixel.

    `gain` scales all convolutions and linear layers, `offset_gain` those that compute deformable offsets.
    """
    return {name: torch.from_numpy(_tensor(name, tuple(shape), gain, offset_gain)) for name, shape in shapes.items()}


def filled(network: Network, gain: float, offset_gain: float = 16.0) -> Network:
    """Load procedural weights into a network and return it in evaluation mode; no layer of it is zero then."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict(procedural_weights(shapes, gain, offset_gain))
    return network.eval()


def _tensor(name: str, shape: tuple[int, ...], gain: float, offset_gain: float) -> np.ndarray:
    if "num_batches_tracked" in name:
        return np.zeros(shape, np.int64)
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        value = 0.5 + random.rand(*shape)
    elif name.endswith("running_mean"):
        value = 0.1 * random.randn(*shape)
    elif len(shape) >= 2:
        value = random.randn(*shape) * (gain / np.sqrt(np.prod(shape[1:])))
        if "conv_offset" in name:
            value = value * offset_gain
    elif name.endswith("act.weight"):
        value = 0.05 + 0.35 * random.rand(*shape)
    elif name.endswith(".weight"):
        value = 1 + 0.1 * random.randn(*shape)
    else:
        value = 0.05 * random.randn(*shape)
    return np.asarray(value, np.float32).reshape(shape)


def videoinr_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return procedural weights of VideoINR for sine inputs of about one radian and flows of about two pixels."""
    last_gains = {"feat_imnet": 1.0, "flow_imnet": 2.0, "encode_imnet": 0.4}
    weights = procedural_weights(shapes, gain=0.8, offset_gain=16.0)
    for name, value in weights.items():
        network, *rest = name.split(".")
        if network in last_gains and name.endswith("weight"):
            sine_gain = 0.15 if rest[1] == "0" else 1 / 15
            gain = sine_gain if "linear" in rest else last_gains[network]
            value.mul_(float(np.float32(gain)))
    return weights
