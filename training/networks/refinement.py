"""Refinement of every frame's features: local, by the frames before and after it, and global, by a graph of all frames.

The local one is of TMNet (Xu et al., CVPR 2021), and of STINet (Yue and Shi, 2022), which shares it between two sizes
and adds the global one.
"""

import numpy as np
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


def neighbourhood_means(frames: int, both_ways: bool) -> list[list[float]]:
    """A matrix whose rows average each node of STINet's graph and those that have an edge to it.

    The nodes are the high features of all frames, then the low ones. Edges lead from earlier frames to later ones of
    the same size, and from a frame's high features to its low ones; or both ways. -> 2 * frames rows and columns
    """
    earlier, same = np.tri(frames, k=-1), np.eye(frames)
    edges = np.block([[earlier, 0 * same], [same, earlier]])  # [to, from]
    if both_ways:
        edges = edges + edges.T
    edges = edges + np.eye(2 * frames)
    return (edges / edges.sum(1, keepdims=True)).tolist()


class SAGEConv(nn.Module):
    """A layer of GraphSAGE (Hamilton, Ying and Leskovec, 2017) that weighs the mean over each node's neighbourhood."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.fc_neigh = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.xavier_uniform_(self.fc_neigh.weight)

    def forward(self, nodes: Tensor, means: Tensor) -> Tensor:
        """nodes: (B, V, C); means: (V, V). -> (B, V, out)."""
        return self.fc_neigh(means @ nodes) + self.bias
