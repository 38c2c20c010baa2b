"""TMNet: Zooming Slow-Mo whose made frames lie at any times between the given ones.

Time modulates the offsets that align two neighbours, and each frame's features are refined by those before and after
it, ahead of the ConvLSTM.

Xu et al., "Temporal Modulation Network for Controllable Space-Time Video Super-Resolution", CVPR 2021.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ...engine.contract.manifest import ContinuousTime, RunWindow
from .alignment import DeformConvPack, Modulation, PCDAlign, Pyramid
from .blocks import LEAKY_SLOPE, blend_gaps, conv3x3, interleave, lrelu, over_frames
from .ops import upsample_bicubic
from .refinement import fusion_layers, neighbours, offset_layers
from .zsm import SlowMoNetwork, ZoomingSlowMoConfig


@dataclass(frozen=True)
class TMNetConfig(ZoomingSlowMoConfig):
    """The size of a TMNet; the defaults are the official ones."""


TMNET_S = TMNetConfig(nf=32, groups=4, front_blocks=2, back_blocks=6, residual=True)


class TimeModulation(nn.Module):
    """Features weighed, channel by channel, by a function of time that vanishes at time 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        weights: list[nn.Module] = []
        for width in (1, channels, channels):
            weights += [nn.Conv2d(width, channels, 1, bias=False), nn.LeakyReLU(LEAKY_SLOPE)]
        self.t_process = nn.Sequential(*weights)
        features = [conv3x3(channels, channels), nn.LeakyReLU(LEAKY_SLOPE)]
        features += [conv3x3(channels, channels), nn.LeakyReLU(LEAKY_SLOPE)]
        self.f_process = nn.Sequential(*features)

    def forward(self, features: Tensor, time: Tensor) -> Tensor:
        """features: (B, C, H, W); time: (B, 1, 1, 1) from -1 to 1. Returns (B, C, H, W)."""
        return self.f_process(features) * self.t_process(time)


class TimeModulatedPCDAlign(PCDAlign):
    """Aligns two feature maps to any moment between them."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, groups)
        for level in (1, 2, 3):
            for side in "AB":
                self.add_module(f"TMB_{side}_l{level}", TimeModulation(channels))

    def forward(self, first: Pyramid, second: Pyramid, time: Tensor) -> Tensor:  # type: ignore[override]
        """Levels of (B, C, H, W); time: (B, 1, 1, 1) from 0, the first's, to 1. Returns (B, 2C, H, W)."""

        def modulation(side: str, from_middle: Tensor) -> Modulation:
            return lambda level, features: self.get_submodule(f"TMB_{side}_l{level}")(features, from_middle)

        onward = self.align(1, first, second, modulation("A", 2 * time - 1))
        return torch.cat((onward, self.align(2, second, first, modulation("B", 1 - 2 * time))), dim=1)


class TMNet(SlowMoNetwork):
    """A run of N frames and a time -> those frames and one at that time in every gap, four times as large."""

    time = ContinuousTime()
    halo_px = 32

    def __init__(self, config: TMNetConfig | None = None) -> None:
        config = config or TMNetConfig()
        super().__init__(config)
        nf, groups = config.nf, config.groups
        self.window = RunWindow(frames=config.frames)
        self.pcd_align = TimeModulatedPCDAlign(nf, groups)
        self.layersAtBOffset = offset_layers(nf)
        self.layersAtB = DeformConvPack(nf, groups)
        self.layersCtBOffset = offset_layers(nf)
        self.layersCtB = DeformConvPack(nf, groups)
        self.layersFusion = fusion_layers(nf)

    def forward(self, frames: Tensor, time: Tensor | None = None) -> Tensor:
        """Frames at times 0, 1, ..., N - 1, and between two at their time + ``time``.

        frames: (B, N, 3, h, w) in [0, 1], N of 2 or more; time: (B,) from 0 to 1, or (B, K) for K frames in every gap;
        None is the middle, as 1/2 is. Returns (B, N + K * (N - 1), 3, 4h, 4w), not clamped.
        """
        if time is None:
            time = frames.new_full(frames.shape[:1], 0.5)
        given, before, after = self.pairs(frames)
        times = (time,) if time.ndim == 1 else time.unbind(1)
        made = []
        for moment in times:
            of_pairs = moment.repeat_interleave(frames.shape[1] - 1).view(-1, 1, 1, 1)
            made.append(self.fusion(self.pcd_align(before, after, of_pairs)))
        sequence = interleave(given, *made)
        out = self.enlarge(self.reconstruct(self.refine(sequence)) + sequence)
        if self.config.residual:
            out = out + over_frames(partial(upsample_bicubic, factor=4), blend_gaps(frames, *times))
        return out

    def refine(self, sequence: Tensor) -> Tensor:
        """Features of a sequence, each with what it found in the two beside it. (B, T, C, h, w) -> the same"""
        here, previous, following = (x.flatten(0, 1) for x in (sequence, *neighbours(sequence)))
        before = lrelu(self.layersAtB(previous, self.layersAtBOffset(torch.cat((previous, here), dim=1))))
        after = lrelu(self.layersCtB(following, self.layersCtBOffset(torch.cat((following, here), dim=1))))
        added = self.layersFusion(torch.cat((before, here, after), dim=1))
        return (here + added).unflatten(0, sequence.shape[:2])
