"""Zooming Slow-Mo: a frame into every gap of a run, and all of them four times as large, in one stage.

The features of two neighbours are aligned to the moment between them. A bidirectional deformable ConvLSTM reads given
and made features as one sequence, and residual blocks and pixel shuffles turn each into a frame.

Xiang et al., "Zooming Slow-Mo: Fast and Accurate One-Stage Space-Time Video Super-Resolution", CVPR 2020.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ...engine.contract.manifest import FixedFactors, RunWindow, SizeConstraint
from .alignment import PCDAlign, Pyramid, pyramid
from .base import Network
from .blocks import blend_gaps, conv3x3, enlarge4, interleave, lrelu, over_frames, residual_stack
from .convlstm import BidirectionalDeformableConvLSTM
from .ops import upsample_bicubic


@dataclass(frozen=True)
class SlowMoConfig:
    """The size of Zooming Slow-Mo and of the networks that grew from it."""

    nf: int = 64  # channels of features
    groups: int = 8  # of channels that share deformable offsets
    front_blocks: int = 5  # residual blocks before alignment
    back_blocks: int = 40  # residual blocks after the ConvLSTM


@dataclass(frozen=True)
class ZoomingSlowMoConfig(SlowMoConfig):
    """The size of a Zooming Slow-Mo; the defaults are the official ones."""

    frames: int = 4  # that an exported run takes
    residual: bool = False  # adds the frames enlarged, and their blends in the gaps, which official networks do not


ZSM_S = ZoomingSlowMoConfig(nf=32, groups=4, front_blocks=2, back_blocks=6, residual=True)


class SlowMoNetwork(Network):
    """What Zooming Slow-Mo, TMNet and VideoINR share: the layers, and the features of given and of made frames."""

    size = SizeConstraint(minimum=4, multiple_of=4)

    def __init__(self, config: SlowMoConfig) -> None:
        super().__init__()
        self.config = config
        nf, groups = config.nf, config.groups
        self.conv_first = conv3x3(3, nf)
        self.feature_extraction = residual_stack(nf, config.front_blocks)
        self.fea_L2_conv1 = conv3x3(nf, nf, stride=2)
        self.fea_L2_conv2 = conv3x3(nf, nf)
        self.fea_L3_conv1 = conv3x3(nf, nf, stride=2)
        self.fea_L3_conv2 = conv3x3(nf, nf)
        self.pcd_align = PCDAlign(nf, groups)
        self.fusion = nn.Conv2d(2 * nf, nf, 1)
        self.ConvBLSTM = BidirectionalDeformableConvLSTM(nf, groups)
        self.recon_trunk = residual_stack(nf, config.back_blocks)
        self.upconv1 = conv3x3(nf, 4 * nf)
        self.upconv2 = conv3x3(nf, 4 * nf)
        self.HRconv = conv3x3(nf, nf)
        self.conv_last = conv3x3(nf, 3)

    def moments(self, frames: Tensor) -> Tensor:
        """Features of N frames and of the middles between them. (B, N, 3, h, w) -> (B, 2N - 1, C, h, w)"""
        given, before, after = self.pairs(frames)
        middles = self.fusion(self.pcd_align(before, after))
        return self.reconstruct(interleave(given, middles))

    def pairs(self, frames: Tensor) -> tuple[Tensor, Pyramid, Pyramid]:
        """Features of N frames, (B, N, C, h, w), and pyramids of every two neighbours, levels of (B * (N - 1), C, ...).

        frames: (B, N, 3, h, w).
        """
        level1 = self.feature_extraction(lrelu(self.conv_first(frames.flatten(0, 1))))
        levels = pyramid(level1, self.fea_L2_conv1, self.fea_L2_conv2, self.fea_L3_conv1, self.fea_L3_conv2)
        levels = [level.unflatten(0, frames.shape[:2]) for level in levels]
        before = [level[:, :-1].flatten(0, 1) for level in levels]
        after = [level[:, 1:].flatten(0, 1) for level in levels]
        return levels[0], before, after

    def reconstruct(self, sequence: Tensor) -> Tensor:
        """Features of a sequence that have seen one another. (B, T, C, h, w) -> the same"""
        return over_frames(self.recon_trunk, self.ConvBLSTM(sequence))

    def enlarge(self, features: Tensor) -> Tensor:
        """(B, T, C, h, w) -> frames, (B, T, 3, 4h, 4w)."""
        head = self.upconv1, self.upconv2, self.HRconv, self.conv_last
        # One after another: a frame's features at the large size take 64 times the memory of the frame.
        return torch.stack([enlarge4(frame, *head) for frame in features.unbind(1)], 1)


class ZoomingSlowMo(SlowMoNetwork):
    """A run of N frames -> 2N - 1 frames of four times the size."""

    time = FixedFactors(factors=(2,))
    halo_px = 32

    def __init__(self, config: ZoomingSlowMoConfig | None = None) -> None:
        super().__init__(config or ZoomingSlowMoConfig())
        self.window = RunWindow(frames=self.config.frames)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, N, 3, h, w) in [0, 1], N of 2 or more -> (B, 2N - 1, 3, 4h, 4w), not clamped."""
        made = self.enlarge(self.moments(frames))
        return (
            made + over_frames(partial(upsample_bicubic, factor=4), blend_gaps(frames))
            if self.config.residual
            else made
        )
