"""Ada-VSR: a temporal and a spatial module of plain convolutions, meta-trained for quick adaptation to one video.

Gupta et al., "Ada-VSR: Adaptive Video Super-Resolution with Meta-Learning", ACM Multimedia 2021, equations 1 to 4. The
temporal module F turns N frames `(B, N, 3, h, w)` into 2N - 1 frames of the same size; the spatial module S turns three
frames `(B, 3, 3, h, w)` into the middle one at four times the size, `(B, 1, 3, 4h, 4w)`.

There is no public code. The paper defines the modules' tasks and losses but no layers; these choices are ours:

- F interpolates a frame into each gap by cubic convolution and adds a residual to all frames, including the input
  frames, which may be blurred. Its blocks convolve the planes (t, x) and (t, y), the temporal profiles, with one shared
  weight, and the plane (y, x) with another, and fuse the three. Input frames and interpolated frames have separate
  first layers, so that later layers can tell them apart.
- S fuses three frames in its first layer and continues with residual blocks and the pixel-shuffle head that the other
  networks here use. It adds its output to the bicubic enlargement.
- The last layers start at zero, so that meta-training starts from both interpolations.
- Losses are means where the paper writes sums, so that gradient steps do not depend on the size of the video.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.contract.manifest import FixedFactors, RunWindow, SlidingWindow
from .base import Network
from .blocks import (
    conv3x3,
    enlarge4,
    initialize_weights,
    interleave,
    lrelu,
    over_frames,
    residual_stack,
    start_at_zero,
    with_neighbours,
)
from .ops import upsample_bicubic


@dataclass(frozen=True)
class TemporalModuleConfig:
    """The size of the temporal module."""

    width: int = 64  # channels
    blocks: int = 24  # profile blocks


@dataclass(frozen=True)
class SpatialModuleConfig:
    """The size of the spatial module."""

    width: int = 64  # channels
    blocks: int = 40  # residual blocks


ADAVSR_TEMPORAL, ADAVSR_TEMPORAL_S = TemporalModuleConfig(), TemporalModuleConfig(width=32, blocks=10)
ADAVSR_SPATIAL, ADAVSR_SPATIAL_S = SpatialModuleConfig(), SpatialModuleConfig(width=48, blocks=8)


class ProfileBlock(nn.Module):
    """A residual block of 2-D convolutions over the three kinds of planes of a video."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = conv3x3(channels, channels)
        self.temporal = conv3x3(channels, channels)  # the kernel's rows run along time, its columns along x or y
        self.fuse = nn.Conv2d(3 * channels, channels, 1)
        initialize_weights(self, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, C, H, W)` -> `(B, T, C, H, W)`"""
        # A convolution over (t, x) is a convolution over x of frames stacked with their neighbours.
        stacked = with_neighbours(F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1)))
        weight, bias = self.temporal.weight.flatten(1, 2), self.temporal.bias
        planes = (
            self.spatial(x.flatten(0, 1)),
            F.conv2d(stacked, weight[:, :, None, :], bias, padding=(0, 1)),
            F.conv2d(stacked, weight[:, :, :, None], bias, padding=(1, 0)),
        )
        return x + self.fuse(F.relu(torch.cat(planes, 1))).unflatten(0, x.shape[:2])


class TemporalModule(Network):
    """F: a run of N frames becomes 2N - 1 frames of the same size."""

    window = RunWindow(frames=4)
    space = FixedFactors(factors=(1,))
    time = FixedFactors(factors=(2,))

    def __init__(self, config: TemporalModuleConfig = ADAVSR_TEMPORAL) -> None:
        super().__init__()
        self.config = config
        self.halo_px = config.blocks + 2
        self.conv_given = conv3x3(3, config.width)  # of input frames
        self.conv_made = conv3x3(3, config.width)  # of interpolated frames
        self.blocks = nn.Sequential(*(ProfileBlock(config.width) for _ in range(config.blocks)))
        self.conv_last = conv3x3(config.width, 3)
        start_at_zero(self.conv_last)

    def forward(self, frames: Tensor) -> Tensor:
        """`(B, N, 3, h, w)` in [0, 1], N >= 2 -> `(B, 2N - 1, 3, h, w)`, not clamped"""
        middles = cubic_middles(frames).flatten(0, 1)
        features = interleave(over_frames(self.conv_given, frames), self.conv_made(middles))
        residual = over_frames(self.conv_last, self.blocks(lrelu(features)))
        return interleave(frames, middles) + residual


class SpatialModule(Network):
    """S: three frames become the middle one at four times the size."""

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
        """`(B, 3, 3, h, w)` in [0, 1] -> `(B, 1, 3, 4h, 4w)`, not clamped"""
        features = self.trunk(lrelu(self.conv_first(frames.flatten(1, 2))))
        detail = enlarge4(features, self.upconv1, self.upconv2, self.HRconv, self.conv_last)
        return (detail + upsample_bicubic(frames[:, 1], 4))[:, None]


def cubic_middles(frames: Tensor) -> Tensor:
    """Interpolate frames half-way between neighbours by cubic convolution (Keys 1981, a = -1/2).

    The first and last frame are repeated beyond the ends. `(B, N, C, h, w)` -> `(B, N - 1, C, h, w)`
    """
    padded = torch.cat((frames[:, :1], frames, frames[:, -1:]), 1)
    near, far = frames[:, :-1] + frames[:, 1:], padded[:, :-3] + padded[:, 3:]
    return (9 * near - far) / 16


# A module, or a function that runs it with other weights, as `torch.func.functional_call` does.
FrameFunction = Callable[[Tensor], Tensor]


def enlarge_video(spatial: FrameFunction, video: Tensor) -> Tensor:
    """Apply S to every frame of a video; the first and last frame are repeated beyond the ends.

    `(B, T, 3, h, w)` -> `(B, T, 3, 4h, 4w)`
    """
    padded = torch.cat((video[:, :1], video, video[:, -1:]), 1)
    windows = torch.stack((padded[:, :-2], video, padded[:, 2:]), 2)
    return spatial(windows.flatten(0, 1))[:, 0].unflatten(0, video.shape[:2])


def spatial_loss(spatial: FrameFunction, small: Tensor, large: Tensor) -> Tensor:
    """Return the mean absolute error of S (equation 1).

    `small`: `(B, T, 3, h, w)`; `large`, the truth: `(B, T, 3, 4h, 4w)`. Returns `()`.
    """
    return F.l1_loss(enlarge_video(spatial, small), large)


def task_loss(
    temporal: FrameFunction, spatial: FrameFunction, slow_small: Tensor, small: Tensor, large: Tensor
) -> Tensor:
    """Return the loss of one task: that of F (equation 2) plus that of S after F (equations 3 and 4, for one step).

    `slow_small`, the input: `(B, N, 3, h, w)`; `small`, the truth for F: `(B, 2N - 1, 3, h, w)`; `large`, the truth for
    S: `(B, 2N - 1, 3, 4h, 4w)`. Returns `()`.
    """
    doubled = temporal(slow_small)
    return F.l1_loss(doubled, small) + spatial_loss(spatial, doubled, large)
