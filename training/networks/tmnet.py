"""TMNet: Zooming Slow-Mo with new frames at any time between the input frames.

The time modulates the offsets that align two neighbours (section 3.2), and each frame's features are refined by those
before and after it (section 3.3), ahead of the ConvLSTM.

Xu et al., "Temporal Modulation Network for Controllable Space-Time Video Super-Resolution", CVPR 2021.

N frames `(B, N, 3, h, w)` and a time in [0, 1] become 2N - 1 frames of four times the size, `(B, 2N - 1, 3, 4h, 4w)`.
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
    """The size of a TMNet; the fields are those of Zooming Slow-Mo. The defaults are the official ones."""


TMNET_S = TMNetConfig(nf=32, groups=4, front_blocks=2, back_blocks=6, residual=True)


class TimeModulation(nn.Module):
    """Modulation of each channel of features by a learned function of time that is zero at time 0.

    The layers on time have no biases, which makes their output zero for a time of zero.
    """

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
        """`features`: `(B, C, H, W)`; `time`: `(B, 1, 1, 1)` from -1 to 1. Returns `(B, C, H, W)`."""
        return self.f_process(features) * self.t_process(time)


class TimeModulatedPCDAlign(PCDAlign):
    """Alignment of two feature maps with any time between them."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, groups)
        for level in (1, 2, 3):
            for side in "AB":
                self.add_module(f"TMB_{side}_l{level}", TimeModulation(channels))

    def forward(self, first: Pyramid, second: Pyramid, time: Tensor) -> Tensor:  # type: ignore[override]
        """Align both with `time` and concatenate them.

        Levels of `(B, C, H, W)`; `time`: `(B, 1, 1, 1)` from 0, that of the first, to 1. Returns `(B, 2C, H, W)`.
        """

        def modulation(side: str, from_middle: Tensor) -> Modulation:
            return lambda level, features: self.get_submodule(f"TMB_{side}_l{level}")(features, from_middle)

        onward = self.align(1, first, second, modulation("A", 2 * time - 1))
        return torch.cat((onward, self.align(2, second, first, modulation("B", 1 - 2 * time))), dim=1)


class TMNet(SlowMoNetwork):
    """A run of frames and a time become those frames, and one at that time in every gap, at four times the size."""

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
        """Enlarge the frames at times 0, 1, ..., N - 1 and add frames between them, each at `time` within its gap.

        `frames`: `(B, N, 3, h, w)` in [0, 1], N >= 2; `time`: `(B,)` from 0 to 1, or `(B, K)` for K frames in every
        gap; None is the middle, 1/2. Returns `(B, N + K * (N - 1), 3, 4h, 4w)`, not clamped.
        """
        if time is None:
            time = frames.new_full(frames.shape[:1], 0.5)
        given, before, after = self.pairs(frames)
        times = (time,) if time.ndim == 1 else time.unbind(1)
        between = []
        for moment in times:
            of_pairs = moment.repeat_interleave(frames.shape[1] - 1).view(-1, 1, 1, 1)
            between.append(self.fusion(self.pcd_align(before, after, of_pairs)))
        sequence = interleave(given, *between)
        out = self.enlarge(self.reconstruct(self.refine(sequence)) + sequence)
        if self.config.residual:
            out = out + over_frames(partial(upsample_bicubic, factor=4), blend_gaps(frames, *times))
        return out

    def refine(self, sequence: Tensor) -> Tensor:
        """Add to each frame's features what its aligned neighbours contribute. `(B, T, C, h, w)` -> the same shape"""
        current, previous, following = (x.flatten(0, 1) for x in (sequence, *neighbours(sequence)))
        before = lrelu(self.layersAtB(previous, self.layersAtBOffset(torch.cat((previous, current), dim=1))))
        after = lrelu(self.layersCtB(following, self.layersCtBOffset(torch.cat((following, current), dim=1))))
        added = self.layersFusion(torch.cat((before, current, after), dim=1))
        return (current + added).unflatten(0, sequence.shape[:2])
