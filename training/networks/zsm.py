"""Zooming Slow-Mo: a new frame in every gap of a run, and all frames at four times the size, in one stage.

The features of two neighbours are aligned with the middle between them (section 3.1). A bidirectional deformable
ConvLSTM reads the features of input frames and new frames as one sequence (section 3.2); residual blocks and pixel
shuffles turn each into a frame (section 3.3).

Xiang et al., "Zooming Slow-Mo: Fast and Accurate One-Stage Space-Time Video Super-Resolution", CVPR 2020.

N frames `(B, N, 3, h, w)` become 2N - 1 frames `(B, 2N - 1, 3, 4h, 4w)`.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ...engine.contract.manifest import FixedFactors, RunWindow, SizeConstraint
from .alignment import PCDAlign, Pyramid, pyramid, pyramid_layers
from .base import Network
from .blocks import blend_gaps, conv3x3, enlarge4, interleave, lrelu, over_frames, residual_stack
from .convlstm import BidirectionalDeformableConvLSTM
from .ops import upsample_bicubic


@dataclass(frozen=True)
class SlowMoConfig:
    """The size of Zooming Slow-Mo and of the networks derived from it."""

    nf: int = 64  # channels of features
    groups: int = 8  # groups of channels, each with its own deformable offsets
    front_blocks: int = 5  # residual blocks before alignment
    back_blocks: int = 40  # residual blocks after the ConvLSTM


@dataclass(frozen=True)
class ZoomingSlowMoConfig(SlowMoConfig):
    """The size of a Zooming Slow-Mo. The defaults are the official ones."""

    frames: int = 4  # input frames of an exported graph
    # Add the bicubic enlargement of the frames, and of their blends in the gaps, to the output; official networks do
    # not.
    residual: bool = False


ZSM_S = ZoomingSlowMoConfig(nf=32, groups=4, front_blocks=2, back_blocks=6, residual=True)


class SlowMoNetwork(Network):
    """The layers that Zooming Slow-Mo, TMNet and VideoINR share."""

    size = SizeConstraint(minimum=4, multiple_of=4)

    def __init__(self, config: SlowMoConfig) -> None:
        super().__init__()
        self.config = config
        nf, groups = config.nf, config.groups
        self.conv_first = conv3x3(3, nf)
        self.feature_extraction = residual_stack(nf, config.front_blocks)
        self.fea_L2_conv1, self.fea_L2_conv2, self.fea_L3_conv1, self.fea_L3_conv2 = pyramid_layers(nf)
        self.pcd_align = PCDAlign(nf, groups)
        self.fusion = nn.Conv2d(2 * nf, nf, 1)
        self.ConvBLSTM = BidirectionalDeformableConvLSTM(nf, groups)
        self.recon_trunk = residual_stack(nf, config.back_blocks)
        self.upconv1 = conv3x3(nf, 4 * nf)
        self.upconv2 = conv3x3(nf, 4 * nf)
        self.HRconv = conv3x3(nf, nf)
        self.conv_last = conv3x3(nf, 3)

    def moments(self, frames: Tensor) -> Tensor:
        """Return features of N frames and of the middles between them. `(B, N, 3, h, w)` -> `(B, 2N - 1, C, h, w)`"""
        given, before, after = self.pairs(frames)
        middles = self.fusion(self.pcd_align(before, after))
        return self.reconstruct(interleave(given, middles))

    def pairs(self, frames: Tensor) -> tuple[Tensor, Pyramid, Pyramid]:
        """Return the features of N frames, and two pyramids with the earlier and the later frame of each gap.

        `frames`: `(B, N, 3, h, w)`. The features are `(B, N, C, h, w)`, the pyramid levels
        `(B * (N - 1), C, h/k, w/k)`.
        """
        level1 = self.feature_extraction(lrelu(self.conv_first(frames.flatten(0, 1))))
        levels = pyramid(level1, self.fea_L2_conv1, self.fea_L2_conv2, self.fea_L3_conv1, self.fea_L3_conv2)
        levels = [level.unflatten(0, frames.shape[:2]) for level in levels]
        before = [level[:, :-1].flatten(0, 1) for level in levels]
        after = [level[:, 1:].flatten(0, 1) for level in levels]
        return levels[0], before, after

    def reconstruct(self, sequence: Tensor) -> Tensor:
        """Combine the features of a sequence over time. `(B, T, C, h, w)` -> `(B, T, C, h, w)`"""
        return over_frames(self.recon_trunk, self.ConvBLSTM(sequence))

    def enlarge(self, features: Tensor) -> Tensor:
        """Turn features into frames. `(B, T, C, h, w)` -> `(B, T, 3, 4h, 4w)`"""
        head = self.upconv1, self.upconv2, self.HRconv, self.conv_last
        # One frame at a time: a frame's features at the output size take 64 times the memory of the frame.
        return torch.stack([enlarge4(frame, *head) for frame in features.unbind(1)], 1)


class ZoomingSlowMo(SlowMoNetwork):
    """A run of N frames becomes 2N - 1 frames of four times the size."""

    time = FixedFactors(factors=(2,))
    halo_px = 32

    def __init__(self, config: ZoomingSlowMoConfig | None = None) -> None:
        super().__init__(config or ZoomingSlowMoConfig())
        self.window = RunWindow(frames=self.config.frames)

    def forward(self, frames: Tensor) -> Tensor:
        """`(B, N, 3, h, w)` in [0, 1], N >= 2 -> `(B, 2N - 1, 3, 4h, 4w)`, not clamped"""
        out = self.enlarge(self.moments(frames))
        if self.config.residual:
            out = out + over_frames(partial(upsample_bicubic, factor=4), blend_gaps(frames))
        return out
