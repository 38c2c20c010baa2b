"""Ada-VSR: a temporal and a spatial module of plain convolutions, made to be meta-trained and then adapted to a video.

Gupta et al., "Ada-VSR: Adaptive Video Super-Resolution with Meta-Learning", ACM Multimedia 2021.

The paper gives the modules' tasks and losses, and no layers; these are ours:
- F interpolates into each gap by cubic convolution, and adds a residual to given frames too, which may be blurred. Its
  blocks look at the planes (t, x) and (t, y), the temporal profiles, with one weight, at (y, x) with another, and fuse
  the three; given and made frames have each their own first layer, by which the others can tell them apart.
- S fuses three frames in its first layer, and has residual blocks and the pixel-shuffle head of its family. It adds to
  the bicubic enlargement.
- The last layers start at zero, so that meta-training starts from both interpolations.
- Losses are means where the paper has sums: steps are then as large for small videos as for large ones.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.contract.manifest import FixedFactors, RunWindow, SlidingWindow
from .base import Network
from .blocks import conv3x3, enlarge4, initialize_weights, interleave, lrelu, over_frames, residual_stack
from .dtsr import start_at_zero, with_neighbours
from .ops import upsample_bicubic


@dataclass(frozen=True)
class TemporalModuleConfig:
    """Width in channels, and the count of profile blocks."""

    width: int = 64
    blocks: int = 24


@dataclass(frozen=True)
class SpatialModuleConfig:
    """Width in channels, and the count of residual blocks."""

    width: int = 64
    blocks: int = 40


ADAVSR_TEMPORAL, ADAVSR_TEMPORAL_S = TemporalModuleConfig(), TemporalModuleConfig(width=32, blocks=10)
ADAVSR_SPATIAL, ADAVSR_SPATIAL_S = SpatialModuleConfig(), SpatialModuleConfig(width=48, blocks=8)


class ProfileBlock(nn.Module):
    """Adds to features of a video what convolutions over its three kinds of planes see."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = conv3x3(channels, channels)
        self.temporal = conv3x3(channels, channels)  # rows of its kernel are moments, columns are x or y
        self.fuse = nn.Conv2d(3 * channels, channels, 1)
        initialize_weights(self, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T, C, H, W)"""
        # A convolution over (t, x) is one over x of frames with their neighbours.
        around = with_neighbours(F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1)))
        weight, bias = self.temporal.weight.flatten(1, 2), self.temporal.bias
        planes = (
            self.spatial(x.flatten(0, 1)),
            F.conv2d(around, weight[:, :, None, :], bias, padding=(0, 1)),
            F.conv2d(around, weight[:, :, :, None], bias, padding=(1, 0)),
        )
        return x + self.fuse(F.relu(torch.cat(planes, 1))).unflatten(0, x.shape[:2])


class TemporalModule(Network):
    """F, a run of N frames -> 2N - 1 frames of the same size."""

    window = RunWindow(frames=4)
    space = FixedFactors(factors=(1,))
    time = FixedFactors(factors=(2,))

    def __init__(self, config: TemporalModuleConfig = ADAVSR_TEMPORAL) -> None:
        super().__init__()
        self.config = config
        self.halo_px = config.blocks + 2
        self.conv_given = conv3x3(3, config.width)
        self.conv_made = conv3x3(3, config.width)
        self.blocks = nn.Sequential(*(ProfileBlock(config.width) for _ in range(config.blocks)))
        self.conv_last = conv3x3(config.width, 3)
        start_at_zero(self.conv_last)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, N, 3, h, w) in [0, 1], N of 2 or more -> (B, 2N - 1, 3, h, w), not clamped."""
        middles = cubic_middles(frames).flatten(0, 1)
        features = interleave(over_frames(self.conv_given, frames), self.conv_made(middles))
        residual = over_frames(self.conv_last, self.blocks(lrelu(features)))
        return interleave(frames, middles) + residual


class SpatialModule(Network):
    """S, three frames -> the middle one, four times as large."""

    window = SlidingWindow(frames=3, padding="replicate")

    def __init__(self, config: SpatialModuleConfig = ADAVSR_SPATIAL) -> None:
        super().__init__()
        self.config = config
        self.halo_px = 2 * config.blocks + 3
        width = config.width
        self.conv_first = conv3x3(9, width)
        self.trunk = residual_stack(width, config.blocks)
        self.upconv1 = conv3x3(width, 4 * width)
        self.upconv2 = conv3x3(width, 4 * width)
        self.HRconv = conv3x3(width, width)
        self.conv_last = conv3x3(width, 3)
        start_at_zero(self.conv_last)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, 3, h, w) in [0, 1] -> (B, 1, 3, 4h, 4w), not clamped."""
        features = self.trunk(lrelu(self.conv_first(frames.flatten(1, 2))))
        detail = enlarge4(features, self.upconv1, self.upconv2, self.HRconv, self.conv_last)
        return (detail + upsample_bicubic(frames[:, 1], 4))[:, None]


def cubic_middles(frames: Tensor) -> Tensor:
    """Frames half-way between neighbours by cubic convolution (Keys 1981, a = -1/2); end frames are repeated.

    (B, N, C, h, w) -> (B, N - 1, C, h, w)
    """
    padded = torch.cat((frames[:, :1], frames, frames[:, -1:]), 1)
    near, far = frames[:, :-1] + frames[:, 1:], padded[:, :-3] + padded[:, 3:]
    return (9 * near - far) / 16


# A module, or a function of frames that runs it with other weights, as `torch.func.functional_call` does.
Module = Callable[[Tensor], Tensor]


def enlarge_video(spatial: Module, video: Tensor) -> Tensor:
    """S on every frame of a video, whose end frames are repeated. (B, T, 3, h, w) -> (B, T, 3, 4h, 4w)"""
    padded = torch.cat((video[:, :1], video, video[:, -1:]), 1)
    windows = torch.stack((padded[:, :-2], video, padded[:, 2:]), 2)
    return spatial(windows.flatten(0, 1))[:, 0].unflatten(0, video.shape[:2])


def spatial_loss(spatial: Module, small: Tensor, large: Tensor) -> Tensor:
    """How far S is from the truth (equation 1). (B, T, 3, h, w), (B, T, 3, 4h, 4w) -> ()"""
    return F.l1_loss(enlarge_video(spatial, small), large)


def temporal_loss(temporal: Module, slow: Tensor, fast: Tensor) -> Tensor:
    """How far F is from the truth (equation 2). (B, N, 3, h, w), (B, 2N - 1, 3, h, w) -> ()"""
    return F.l1_loss(temporal(slow), fast)


def task_loss(temporal: Module, spatial: Module, slow_small: Tensor, small: Tensor, large: Tensor) -> Tensor:
    """How far F, and S after it, are from a task's truth (equations 3 and 4, of one step).

    slow_small: (B, N, 3, h, w); small: (B, 2N - 1, 3, h, w); large: (B, 2N - 1, 3, 4h, 4w). Returns ().
    """
    made = temporal(slow_small)
    return F.l1_loss(made, small) + spatial_loss(spatial, made, large)
