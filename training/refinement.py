"""Local refinement: each frame's features draw on those of the frames before and after it, aligned to it.

Of TMNet (Xu et al., CVPR 2021), and of STINet (Yue and Shi, 2022), which shares it between two sizes.
"""

import torch
from torch import Tensor, nn

from .blocks import LEAKY_SLOPE, conv3x3


def offset_layers(channels: int) -> nn.Sequential:
    """A neighbour's and a frame's features, (B, 2C, H, W) -> features of the offsets between them, (B, C, H, W)."""
    return nn.Sequential(conv3x3(2 * channels, channels), nn.LeakyReLU(LEAKY_SLOPE), conv3x3(channels, channels))


def fusion_layers(channels: int) -> nn.Sequential:
    """Three frames' aligned features, (B, 3C, H, W) -> what refines the middle one, (B, C, H, W)."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Conv2d(3 * channels, 3 * channels, 1), nn.LeakyReLU(LEAKY_SLOPE)]
    return nn.Sequential(*layers, nn.Conv2d(3 * channels, channels, 1))


def neighbours(frames: Tensor) -> tuple[Tensor, Tensor]:
    """The frame before and the frame after each; the ends are their own. (B, T, C, H, W) -> two of the same shape"""
    return torch.cat((frames[:, :1], frames[:, :-1]), 1), torch.cat((frames[:, 1:], frames[:, -1:]), 1)
