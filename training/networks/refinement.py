"""Refinement of the features of all frames, in TMNet and STINet.

Local refinement draws on the frames before and after each frame (the locally-temporal feature comparison of Xu et al.,
TMNet, CVPR 2021, section 3.3). STINet (Yue and Shi, 2022) shares it between two resolutions, and adds a global
refinement by a graph network over all frames.
"""

import numpy as np
import torch
from torch import Tensor, nn

from .blocks import LEAKY_SLOPE, conv3x3
from .ops import Rows


def offset_layers(channels: int) -> nn.Sequential:
    """Return layers that compute offset features from a neighbour's and a frame's features.

    `(B, 2C, H, W)` -> `(B, C, H, W)`
    """
    return nn.Sequential(conv3x3(2 * channels, channels), nn.LeakyReLU(LEAKY_SLOPE), conv3x3(channels, channels))


def fusion_layers(channels: int) -> nn.Sequential:
    """Return layers that compute a residual for the middle one of three aligned frames.

    `(B, 3C, H, W)` -> `(B, C, H, W)`
    """
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Conv2d(3 * channels, 3 * channels, 1), nn.LeakyReLU(LEAKY_SLOPE)]
    return nn.Sequential(*layers, nn.Conv2d(3 * channels, channels, 1))


def neighbours(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frame before and the frame after each frame; the first and last frame are their own neighbours.

    `(B, T, C, H, W)` -> two tensors of the same shape
    """
    return torch.cat((frames[:, :1], frames[:, :-1]), 1), torch.cat((frames[:, 1:], frames[:, -1:]), 1)


def neighbourhood_means(frames: int, both_ways: bool) -> Rows:
    """Return the matrix, 2T x 2T for T frames, that averages each node of STINet's graph with its predecessors.

    The nodes are the high-resolution features of all frames, then the low-resolution ones. Edges lead from earlier to
    later frames at the same resolution, and from a frame's high-resolution to its low-resolution features; with
    `both_ways`, edges lead in both directions.
    """
    earlier, same = np.tri(frames, k=-1), np.eye(frames)
    edges = np.block([[earlier, 0 * same], [same, earlier]])  # [to, from]
    if both_ways:
        edges = edges + edges.T
    edges = edges + np.eye(2 * frames)
    return tuple(map(tuple, (edges / edges.sum(1, keepdims=True)).tolist()))


class SAGEConv(nn.Module):
    """A GraphSAGE layer (Hamilton, Ying and Leskovec, 2017) with one weight for a node and its neighbours.

    The layer applies its weight to the mean over each node's neighbourhood, which includes the node itself.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.fc_neigh = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.xavier_uniform_(self.fc_neigh.weight)

    def forward(self, nodes: Tensor, means: Tensor) -> Tensor:
        """Apply the layer to V nodes. `nodes`: `(B, V, C)`; `means`: `(V, V)`, rows that sum to 1. -> `(B, V, out)`"""
        return self.fc_neigh(means @ nodes) + self.bias
