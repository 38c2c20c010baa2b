"""Training losses.

All are means where papers write sums: their weights then hold for every size of batch, clip and patch.
"""

import copy
from collections.abc import Callable, Mapping
from itertools import permutations
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .spynet import IMAGENET_MEAN, IMAGENET_STD

CHARBONNIER_EPSILON = 1e-3  # of the [0, 1] range: a quarter of an 8-bit step

PENALTY_WEIGHT = 0.1  # of the perceptual and of the motion loss in STINet, equation 4

_VGG19_CONVOLUTIONS = (2, 2, 4, 4, 4)  # in each block; a pooling that halves the size follows every block


def charbonnier(actual: Tensor, expected: Tensor, epsilon: float = CHARBONNIER_EPSILON) -> Tensor:
    """Mean of sqrt(difference^2 + epsilon^2), a smooth L1 (Charbonnier et al. 1994). Tensors of one shape -> ()"""
    return torch.sqrt((actual - expected).square() + epsilon**2).mean()


class Judged(NamedTuple):
    """What a network that judges more than its output returns to the trainer."""

    reconstruction: Tensor  # (): the loss of its output
    auxiliary: Tensor  # (): the loss of what its output rests on
    made: Tensor  # (B, M, 3, H, W): the output itself


def both_resolutions(
    final: Tensor,
    early_high: Tensor,
    early_low: Tensor,
    true_high: Tensor,
    true_low: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor] = F.mse_loss,
) -> tuple[Tensor, Tensor]:
    """l_rec and l'_rec of STINet, equation 4: of final frames, and of what its first phase makes at both resolutions.

    high: (B, T, 3, s * h, s * w); low: (B, T, 3, h, w). Returns two scalars.
    """
    return distance(final, true_high), distance(early_high, true_high) + distance(early_low, true_low)


class Perceptual(nn.Module):
    """Mean squared error of the features that VGG-19 has of frames.

    Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015; as a loss:
    Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", 2016.
    """

    def __init__(self, weights: Mapping[str, Tensor], layer: str = "relu5_4") -> None:
        """weights: of torchvision's VGG-19, ``features.N.weight`` and ``.bias``, up to ``layer`` or further.

        layer: ``conv1_1``, ``relu1_1`` ... ``relu5_4``, ``pool5``. Raises ``ValueError`` where either does not fit.
        """
        super().__init__()
        names = _vgg19_layers()
        if layer not in names:
            raise ValueError(f"VGG-19 has no layer {layer!r}; it has {', '.join(names)}.")
        names = names[: names.index(layer) + 1]
        convolutions = [n for n, name in enumerate(names) if name.startswith("conv")]
        needed = [f"features.{n}.{part}" for n in convolutions for part in ("weight", "bias")]
        if missing := [key for key in needed if key not in weights]:
            raise ValueError(f"For {layer} these weights of VGG-19 are missing: {', '.join(missing)}.")
        self.features = nn.Sequential(*(_vgg19_layer(name, n, weights) for n, name in enumerate(names)))
        self.requires_grad_(False)

    def forward(self, actual: Tensor, expected: Tensor) -> Tensor:
        """Both (..., 3, H, W), RGB in [0, 1] -> ()."""
        with torch.no_grad():
            there = self.features(_normalized(expected).flatten(0, -4))
        return F.mse_loss(self.features(_normalized(actual).flatten(0, -4)), there)


class MotionConsistency(nn.Module):
    """l_mcl of STINet: flows between any two frames are to be true ones (equation 2), and to grow with time (3).

    Yue and Shi, "Enhancing Space-Time Video Super-Resolution via Spatial-Temporal Feature Interaction", 2022.
    """

    def __init__(self, flow: nn.Module) -> None:
        """flow: as `SpyNet`, from frames that are normalised; a copy of it is kept, which is not trained."""
        super().__init__()
        self.flow = copy.deepcopy(flow).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """The flow network stays in evaluation mode: its batch statistics are those of its own training."""
        return super().train(False)

    def forward(self, actual: Tensor, expected: Tensor) -> Tensor:
        """Both (B, T, 3, H, W), RGB in [0, 1], of a size that the flow network takes -> ().

        Raises ``ValueError`` for fewer than three frames.
        """
        if actual.shape[1] < 3:
            raise ValueError(
                f"the consistency of motion takes three frames or more, and the network makes {actual.shape[1]}"
            )
        pairs = list(permutations(range(actual.shape[1]), 2))  # no flow leads from a frame to itself
        flows = self._flows(actual, pairs)
        with torch.no_grad():
            true_flows = self._flows(expected, pairs)
        middles = range(1, actual.shape[1] - 1)
        near = flows[:, [pairs.index((t - 1, t)) for t in middles]]
        far = flows[:, [pairs.index((t - 1, t + 1)) for t in middles]]
        return F.mse_loss(flows, true_flows) + motion_reversal(near, far)

    def _flows(self, frames: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
        """From the first to the second frame of each pair. (B, T, 3, H, W) -> (B, P, 2, H, W)"""
        frames = _normalized(frames)
        fixed, moving = (frames[:, list(side)].flatten(0, 1) for side in zip(*pairs, strict=True))
        return self.flow(fixed, moving).unflatten(0, (frames.shape[0], len(pairs)))


def motion_reversal(near: Tensor, far: Tensor) -> Tensor:
    """l_rel of STINet, equation 3: how much of a motion to the next frame the frame after it takes back, in pixels.

    near, far: flows from the same frame to the next and to the one after it, of one shape. Returns ().
    """
    return F.relu(near.sign() * (near - far)).mean()


def _normalized(frames: Tensor) -> Tensor:
    """RGB in [0, 1] by ImageNet's mean and deviation. (..., 3, H, W)"""
    mean, std = (frames.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (frames - mean) / std


def _vgg19_layers() -> list[str]:
    """Names in the order of torchvision's ``features``."""
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
