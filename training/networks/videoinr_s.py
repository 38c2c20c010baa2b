"""VideoINR-S: a compact continuous space-time network that runs in real time on a few CPU cores.

The idea is VideoINR's (Chen et al., CVPR 2022): one encoding of two frames is decoded at any time between them and at
any target size, by implicit functions of time and of space. What differs, and why:

- motion is estimated at time t itself, coarse to fine from 1/8 of the input's size, by a small convolutional function
  of features and t: large motion costs little, and the flow from t to an input frame vanishes at that frame's own time;
- features are fused and refined at the input's size, where a pixel is 16 times cheaper than at the target's;
- only the last step, a SIREN, runs per target pixel: it reads features sampled bilinearly from a grid twice as fine as
  the input, and the target pixel's phase within that grid, which is periodic, so nothing jumps from cell to cell;
- samples are taken at pixel centres and clamped at the border, and the frames enter at their true scale.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.contract.manifest import ContinuousSpace, ContinuousTime, PairWindow, SizeConstraint
from .base import Network
from .blocks import conv3x3, lrelu, residual_stack
from .losses import Judged, charbonnier
from .motion import MotionStep, blend_pair, finer, motion_error, warp_pair
from .ops import target_coordinates

MOTION_WEIGHT = 0.1  # of a motion error of one input pixel, beside colour errors in [0, 1]


@dataclass(frozen=True)
class VideoINRSConfig:
    """Size of a VideoINR-S. Widths are channels, blocks are counts of residual blocks."""

    width: int = 48
    encoder_blocks: int = 3
    trunk_blocks: int = 8
    search_radius: int = 2
    decoder_width: int = 32


def _lerp(x: Tensor, at: Tensor, dim: int) -> Tensor:
    """Linear interpolation along ``dim`` at positions (N,) in cells, clamped to the ends."""
    last = x.shape[dim] - 1
    at = at.clamp(0, last)
    low = at.floor()
    weight = (at - low).view(-1, *[1] * (x.ndim - 1 - dim))
    low = low.long()
    below, above = x.index_select(dim, low), x.index_select(dim, (low + 1).clamp(max=last))
    return below + weight * (above - below)


def _cubic(x: Tensor, at: Tensor, dim: int) -> Tensor:
    """Cubic interpolation (a = -0.5) along ``dim`` at positions (N,) in cells, taps clamped to the ends."""
    last = x.shape[dim] - 1
    low = at.floor()
    d = (at - low).view(-1, *[1] * (x.ndim - 1 - dim))
    taps = (
        ((-0.5 * d + 1.0) * d - 0.5) * d,
        (1.5 * d - 2.5) * d * d + 1.0,
        ((-1.5 * d + 2.0) * d + 0.5) * d,
        (0.5 * d - 0.5) * d * d,
    )
    low = low.long()
    parts = [x.index_select(dim, (low + k).clamp(0, last)) * tap for k, tap in zip((-1, 0, 1, 2), taps, strict=True)]
    return parts[0] + parts[1] + parts[2] + parts[3]


def _spacing(at: Tensor) -> Tensor:
    """Mean distance between target pixels in input pixels; 0 for a single one. (N,) -> ()"""
    return (at[-1] - at[0]) / max(at.shape[0] - 1, 1)


class SpatialINR(nn.Module):
    """A SIREN that turns features and the phase of a target pixel into its colour, at any target size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.phase = nn.Linear(9, width)
        self.hidden = nn.Linear(width, width)
        self.colour = nn.Linear(width, 3)
        with torch.no_grad():
            self.hidden.weight.mul_(2.0)
            self.colour.weight.mul_(0.1)
            self.colour.bias.zero_()

    def forward(self, grid: Tensor, y: Tensor, x: Tensor, cell_y: Tensor, cell_x: Tensor) -> Tensor:
        """(B, H, W, C) pre-activations of the first layer, positions (Hout,), (Wout,) -> (B, Hout, Wout, 3)"""
        grid = _lerp(_lerp(grid, y, 1), x, 2)
        grid = torch.sin(grid + self._phase(y, x, cell_y, cell_x))
        grid = torch.sin(self.hidden(grid))
        return self.colour(grid)

    def _phase(self, y: Tensor, x: Tensor, cell_y: Tensor, cell_x: Tensor) -> Tensor:
        """What the first layer adds for a pixel's place in its cell and for its size, (Hout, Wout, C).

        The layer's inputs are sin y, cos y, cell y, sin x, cos x, cell x, sin y sin x, cos y cos x and sin y cos x, all
        of period one cell. They factor into functions of y and of x, so that one thin matrix product makes the sum.
        """
        ty, tx = 2 * math.pi * y, 2 * math.pi * x
        rows = torch.stack([ty.sin(), ty.cos(), torch.ones_like(ty)], 1)
        sin, cos, one, no = tx.sin(), tx.cos(), torch.ones_like(tx), torch.zeros_like(tx)
        of_sin_y = torch.stack([one, no, no, no, no, no, sin, no, cos], 1)
        of_cos_y = torch.stack([no, one, no, no, no, no, no, cos, no], 1)
        alone = torch.stack([no, no, cell_y * one, sin, cos, cell_x * one, no, no, no], 1)
        columns = F.linear(torch.stack([of_sin_y, of_cos_y, alone]), self.phase.weight)  # (3, Wout, C)
        columns = torch.cat([columns[:2], columns[2:] + self.phase.bias])
        return (rows @ columns.flatten(1)).unflatten(1, (x.shape[0], -1))


class VideoINRS(Network):
    """VideoINR-S: two frames to one frame at any time in [0, 1] and any size.

    Frames are RGB in [0, 1]; outputs are unclamped.
    """

    feature_names = ("features", "half", "quarter", "eighth")
    window = PairWindow()
    space = ContinuousSpace(minimum=1.0, maximum=8.0)
    time = ContinuousTime()
    size = SizeConstraint(minimum=16, multiple_of=8)
    halo_px = 48

    def __init__(self, config: VideoINRSConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or VideoINRSConfig()
        w = c.width
        self.conv_first = conv3x3(3, w)
        self.encoder = residual_stack(w, c.encoder_blocks)
        self.down = nn.ModuleList([conv3x3(w, w, stride=2) for _ in range(3)])
        self.motion = nn.ModuleList(
            [MotionStep(w, w, c.search_radius), MotionStep(w, w, c.search_radius), MotionStep(w, w, 0)]
        )
        self.motion_last = MotionStep(w // 2, w // 2, 0)
        self.thin = nn.Conv2d(w, w // 2, 1)
        self.fuse = conv3x3(2 * w + 9 + 5 + 1, w)
        self.trunk = residual_stack(w, c.trunk_blocks)
        self.up1 = conv3x3(w, 4 * c.decoder_width)
        self.up2 = conv3x3(c.decoder_width, c.decoder_width)
        self.decoder = SpatialINR(c.decoder_width)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of both frames and their pyramid.

        ``frames``: (B, 2, 3, H, W). Returns the features and frames, (B, 2*C+6, H, W), then the features at 1/2, 1/4
        and 1/8 of the size, (B, 2*C, H/k, W/k).
        """
        B = frames.shape[0]
        flat = frames.flatten(0, 1)
        level = self.encoder(lrelu(self.conv_first(flat - 0.5)))
        levels = [level]
        for down in self.down:
            level = lrelu(down(level))
            levels.append(level)
        features, half, quarter, eighth = (x.unflatten(0, (B, 2)).flatten(1, 2) for x in levels)
        return torch.cat([features, frames.flatten(1, 2)], 1), half, quarter, eighth

    def decode(
        self, features: Tensor, half: Tensor, quarter: Tensor, eighth: Tensor, time: Tensor, y: Tensor, x: Tensor
    ) -> Tensor:
        """The frame at ``time`` (B,) in [0, 1]; ``y`` (Hout,), ``x`` (Wout,): target pixel centres in input pixels.

        Returns (B, 3, Hout, Wout).
        """
        refined, base, _ = self.refine(features, half, quarter, eighth, time)
        return self.render(refined, base, y, x)

    def render(self, refined: Tensor, base: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """What `refine` returned, drawn at target pixel centres (Hout,), (Wout,). -> (B, 3, Hout, Wout)"""
        up = F.pixel_shuffle(self.up1(refined), 2)
        up = self.up2(lrelu(up)).permute(0, 2, 3, 1)
        detail = self.decoder(up, 2 * y + 0.5, 2 * x + 0.5, _spacing(y), _spacing(x)).permute(0, 3, 1, 2)
        return detail + _cubic(_cubic(base, y, 2), x, 3)

    def refine(
        self, features: Tensor, half: Tensor, quarter: Tensor, eighth: Tensor, time: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What can be said of the frame at ``time`` (B,) at the input's size.

        Returns its features (B, C, H, W), the blend of both warped frames (B, 3, H, W), and the motion, as `MotionStep`
        says it, at 1/8, 1/4, 1/2 and all of the size, (B, 5, H/k, W/k).
        """
        w = self.config.width
        t = time.view(-1, 1, 1, 1)
        motions: list[Tensor] = []
        motion = torch.zeros_like(eighth[:, :5])
        for step, level in zip(self.motion, (eighth, quarter, half), strict=True):
            motions.append(step(level[:, :w], level[:, w:], motion, t))
            motion = finer(motions[-1])
        first, second = features[:, :w], features[:, w : 2 * w]
        motion = self.motion_last(self.thin(first), self.thin(second), motion, t)
        motions.append(motion)
        first = torch.cat([first, features[:, 2 * w : 2 * w + 3]], 1)
        second = torch.cat([second, features[:, 2 * w + 3 :]], 1)
        first, second = warp_pair(first, second, motion, t)
        base = blend_pair(first[:, w:], second[:, w:], motion, t)
        visible = torch.sigmoid(motion[:, 4:])
        seen = [first, second, base - 0.5, 0.1 * motion[:, :4], visible, t.expand_as(visible)]
        x = lrelu(self.fuse(torch.cat(seen, 1)))
        return self.trunk(x) + x, base, motions

    def loss(self, frames: Tensor, time: Tensor, truth: Tensor, motion: Tensor) -> Judged:
        """The loss of the output, and that of what it rests on: the blended frame, and the motion at every size.

        ``frames``: (B, 2, 3, H, W), ``time``: (B, K), ``truth``: (B, K, 3, Hout, Wout), ``motion``: (B, K, 6, H, W) as
        `MotionTeacher` says it.
        """
        H, W = frames.shape[-2:]
        y = target_coordinates(H, truth.shape[-2], frames.device)
        x = target_coordinates(W, truth.shape[-1], frames.device)
        features, half, quarter, eighth = self.encode(frames)
        made, support = [], frames.new_zeros(())
        for k in range(time.shape[1]):
            refined, base, motions = self.refine(features, half, quarter, eighth, time[:, k])
            made.append(self.render(refined, base, y, x))
            support = support + charbonnier(base, F.interpolate(truth[:, k], (H, W), mode="bicubic", antialias=True))
            support = support + MOTION_WEIGHT * sum(motion_error(m, motion[:, k]) for m in motions) / len(motions)
        output = torch.stack(made, 1)
        return Judged(charbonnier(output, truth), support / time.shape[1], output)

    def forward(self, frames: Tensor, time: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, 2, 3, H, W), (B,), target (height, width) -> (B, 3, height, width)"""
        y = target_coordinates(frames.shape[-2], size[0], frames.device)
        x = target_coordinates(frames.shape[-1], size[1], frames.device)
        return self.decode(*self.encode(frames), time, y, x)
