"""Training losses.

Every loss is a mean where the papers write sums, so that its weight suits any size of batch, clip and patch.
"""

import copy
from collections.abc import Callable, Mapping
from itertools import permutations
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.contract.errors import CheckpointError, RequestError
from .ops import constant
from .spynet import IMAGENET_MEAN, IMAGENET_STD

CHARBONNIER_EPSILON = 1e-3  # of the [0, 1] range: a quarter of an 8-bit step

PENALTY_WEIGHT = 0.1  # of the perceptual loss and of the motion loss in STINet, equation 4

_VGG19_CONVOLUTIONS = (2, 2, 4, 4, 4)  # in each block; every block ends with pooling that halves the size


def charbonnier(actual: Tensor, expected: Tensor, epsilon: float = CHARBONNIER_EPSILON) -> Tensor:
    """Return the mean of sqrt(difference^2 + epsilon^2), a smooth L1 loss (Charbonnier et al. 1994).

    Both tensors have the same shape. Returns `()`.
    """
    return torch.sqrt((actual - expected).square() + epsilon**2).mean()


class LossTerms(NamedTuple):
    """The losses that a network with auxiliary losses computes itself, and its output."""

    reconstruction: Tensor  # (): the loss of the output
    auxiliary: Tensor  # (): the loss of intermediate results
    output: Tensor  # (B, M, 3, H, W)


def reconstruction_losses(
    final: Tensor,
    early_high: Tensor,
    early_low: Tensor,
    true_high: Tensor,
    true_low: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor] = F.mse_loss,
) -> tuple[Tensor, Tensor]:
    """Return the losses l_rec and l'_rec of STINet, equation 4.

    l_rec is the distance of the final frames from the truth. l'_rec adds the distances of the first phase's frames at
    both resolutions. Final and high frames: `(B, T, 3, s * h, s * w)`; low frames: `(B, T, 3, h, w)`. Returns two
    scalars.
    """
    return distance(final, true_high), distance(early_high, true_high) + distance(early_low, true_low)


class Perceptual(nn.Module):
    """The mean squared error between VGG-19 features of two clips.

    The network: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015.
    The loss: Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", 2016.
    """

    def __init__(self, weights: Mapping[str, Tensor], layer: str = "relu5_4") -> None:
        """Build VGG-19 up to `layer`, with frozen weights.

        `weights`: those of torchvision's VGG-19, `features.N.weight` and `features.N.bias`, at least up to `layer`.
        `layer`: `conv1_1`, `relu1_1`, ..., `relu5_4` or `pool5`.

        Raises ValueError if VGG-19 has no such layer, and CheckpointError if weights are missing.
        """
        super().__init__()
        names = _vgg19_layers()
        if layer not in names:
            raise ValueError(f"VGG-19 has no layer {layer!r}; it has {', '.join(names)}.")
        names = names[: names.index(layer) + 1]
        convolutions = [n for n, name in enumerate(names) if name.startswith("conv")]
        needed = [f"features.{n}.{part}" for n in convolutions for part in ("weight", "bias")]
        if missing := [key for key in needed if key not in weights]:
            raise CheckpointError(
                "The perceptual loss needs weights of torchvision's VGG-19: choose a checkpoint that has those that are"
                f" missing: {', '.join(missing)}."
            )
        self.features = nn.Sequential(*(_vgg19_layer(name, n, weights) for n, name in enumerate(names)))
        self.requires_grad_(False)

    def forward(self, actual: Tensor, expected: Tensor) -> Tensor:
        """Compare two clips, both `(..., 3, H, W)`, RGB in [0, 1]. Returns `()`; no gradient reaches `expected`."""
        with torch.no_grad():
            expected_features = self.features(_normalized(expected).flatten(0, -4))
        return F.mse_loss(self.features(_normalized(actual).flatten(0, -4)), expected_features)


class MotionConsistency(nn.Module):
    """The motion loss l_mcl of STINet: flows match the true ones (equation 2) and grow with time (equation 3).

    Yue and Shi, "Enhancing Space-time Video Super-resolution via Spatial-temporal Feature Interaction", 2022.
    """

    def __init__(self, flow: nn.Module) -> None:
        """Keep a frozen copy of `flow`, a network that takes normalized frames as `SpyNet` does."""
        super().__init__()
        self.flow = copy.deepcopy(flow).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Keep the flow network in evaluation mode, with the batch statistics of its own training."""
        return super().train(False)

    def forward(self, actual: Tensor, expected: Tensor) -> Tensor:
        """Compare the motion of two clips, both `(B, T, 3, H, W)`, RGB in [0, 1]. Returns `()`.

        H and W suit the flow network. Raises RequestError for fewer than three frames.
        """
        if actual.shape[1] < 3:
            raise RequestError(
                "The motion consistency loss needs three frames or more, and the network outputs"
                f" {actual.shape[1]}: train without it."
            )
        pairs = list(permutations(range(actual.shape[1]), 2))  # without the zero flow from a frame to itself
        flows = self._flows(actual, pairs)
        with torch.no_grad():
            true_flows = self._flows(expected, pairs)
        middles = range(1, actual.shape[1] - 1)
        near = flows[:, [pairs.index((t - 1, t)) for t in middles]]
        far = flows[:, [pairs.index((t - 1, t + 1)) for t in middles]]
        return F.mse_loss(flows, true_flows) + motion_reversal(near, far)

    def _flows(self, frames: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
        """Return the flows from the first to the second frame of each pair. `(B, T, 3, H, W)` -> `(B, P, 2, H, W)`"""
        frames = _normalized(frames)
        fixed, moving = (frames[:, list(side)].flatten(0, 1) for side in zip(*pairs, strict=True))
        return self.flow(fixed, moving).unflatten(0, (frames.shape[0], len(pairs)))


def motion_reversal(near: Tensor, far: Tensor) -> Tensor:
    """Return l_rel of STINet, equation 3: the part of each motion that the following frame reverses, in pixels.

    `near` and `far` are flows from the same frame to the next frame and to the one after it, in one shape. Returns
    `()`.
    """
    return F.relu(near.sign() * (near - far)).mean()


def _normalized(frames: Tensor) -> Tensor:
    """Normalize RGB in [0, 1] by ImageNet's mean and standard deviation. `(..., 3, H, W)`"""
    mean, std = (constant(v, frames).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (frames - mean) / std


def _vgg19_layers() -> list[str]:
    """Return the layer names in the order of torchvision's `features`."""
    names = []
    for block, convolutions in enumerate(_VGG19_CONVOLUTIONS, 1):
        for n in range(1, convolutions + 1):
            names += [f"conv{block}_{n}", f"relu{block}_{n}"]
        names.append(f"pool{block}")
    return names


def _vgg19_layer(name: str, number: int, weights: Mapping[str, Tensor]) -> nn.Module:
    if name.startswith("relu"):
        return nn.ReLU()
    if name.startswith("pool"):
        return nn.MaxPool2d(2)
    weight, bias = weights[f"features.{number}.weight"], weights[f"features.{number}.bias"]
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
