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

from .losses import charbonnier
from .ops import target_coordinates, warp

MOTION_WEIGHT = 0.1  # of a motion error of one input pixel, beside colour errors in [0, 1]


@dataclass(frozen=True)
class VideoINRSConfig:
    """Size of a VideoINR-S. Widths are channels, blocks are counts of residual blocks."""

    width: int = 48
    encoder_blocks: int = 3
    trunk_blocks: int = 8
    search_radius: int = 2
    decoder_width: int = 32


def _conv(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2)


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)


class _Residual(nn.Module):
    """``x + conv(relu(conv(x)))``. (B, C, H, W) -> (B, C, H, W)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _conv(width, width)
        self.conv2 = _conv(width, width)
        with torch.no_grad():
            self.conv2.weight.mul_(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


def correlate(first: Tensor, second: Tensor, radius: int) -> Tensor:
    """Mean product of features at every displacement, 0 outside. (B, C, H, W) twice -> (B, (2*radius+1)**2, H, W)"""
    B, C, H, W = first.shape
    shifts = 2 * radius + 1
    padded = F.pad(second, (radius, radius, radius, radius))
    # Two gathers rather than a slice for each displacement: graph runtimes pay for every node.
    shift = torch.arange(shifts, device=first.device)[:, None]
    rows = (shift + torch.arange(H, device=first.device)).flatten()
    columns = (shift + torch.arange(W, device=first.device)).flatten()
    shifted = padded.index_select(2, rows).index_select(3, columns).view(B, C, shifts, H, shifts, W)
    return (first.view(B, C, 1, H, 1, W) * shifted).mean(1).transpose(2, 3).reshape(B, shifts * shifts, H, W)


def warp_pair(first: Tensor, second: Tensor, motion: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Both frames, or their features, as seen from ``time``. (B, C, H, W) twice, (B, 5, H, W), (B, 1, 1, 1)"""
    return (
        warp(first, time * motion[:, 0:2], "clamp"),
        warp(second, (1 - time) * motion[:, 2:4], "clamp"),
    )


def blend_pair(first: Tensor, second: Tensor, motion: Tensor, time: Tensor) -> Tensor:
    """The mean of two warped frames by nearness in time and by visibility. (B, C, H, W) twice -> (B, C, H, W)"""
    visible = torch.sigmoid(motion[:, 4:])
    near = (1 - time) * visible + 1e-4
    far = time * (1 - visible) + 1e-4
    return (near * first + far * second) / (near + far)


def motion_error(motion: Tensor, told: Tensor) -> Tensor:
    """Mean distance to the teacher's motion, where known, in input pixels. (B, 5, H/k, W/k), (B, 6, H, W) -> ()"""
    k = told.shape[-1] // motion.shape[-1]
    told = F.avg_pool2d(told, k)
    known = (told[:, 4:] > 0.99).to(motion.dtype).repeat_interleave(2, 1)
    return ((k * motion[:, :4] - told[:, :4]).abs() * known).mean()


class MotionStep(nn.Module):
    """Refines the motion from time t to both frames, and the visibility of frame 0, at one pyramid level.

    Motion is (dx, dy) in pixels of this level over the whole interval: the flow to frame 0 is t * motion[:, :2], that
    to frame 1 is (1 - t) * motion[:, 2:4]; channel 4 is the logit of frame 0's visibility.
    """

    def __init__(self, features: int, width: int, radius: int) -> None:
        super().__init__()
        self.radius = radius
        searched = (2 * radius + 1) ** 2 if radius else 0
        self.conv1 = _conv(2 * features + searched + 5 + 1, width)
        self.conv2 = _conv(width, width)
        self.conv3 = _conv(width, 5)
        nn.init.normal_(self.conv3.weight, std=1e-3)
        assert self.conv3.bias is not None
        nn.init.zeros_(self.conv3.bias)

    def forward(self, first: Tensor, second: Tensor, motion: Tensor, time: Tensor) -> Tensor:
        """(B, C, H, W) twice, (B, 5, H, W), (B, 1, 1, 1) -> (B, 5, H, W)"""
        first, second = warp_pair(first, second, motion, time)
        seen = [first, second, motion, time.expand_as(motion[:, :1])]
        if self.radius:
            seen.append(correlate(first, second, self.radius))
        x = _activate(self.conv1(torch.cat(seen, 1)))
        return motion + self.conv3(_activate(self.conv2(x)))


def _finer(motion: Tensor) -> Tensor:
    """Motion of the next finer level: twice the size, twice the pixels; the visibility stays. (B, 5, H, W)"""
    motion = F.interpolate(motion, scale_factor=2.0, mode="bilinear", align_corners=False)
    return torch.cat([2 * motion[:, :4], motion[:, 4:]], 1)


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


class VideoINRS(nn.Module):
    """VideoINR-S: two frames to one frame at any time in [0, 1] and any size.

    Frames are RGB in [0, 1]; outputs are unclamped.
    """

    feature_names = ("features", "half", "quarter", "eighth")
    size_minimum = 16
    size_multiple = 8

    def __init__(self, config: VideoINRSConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or VideoINRSConfig()
        w = c.width
        self.conv_first = _conv(3, w)
        self.encoder = nn.Sequential(*[_Residual(w) for _ in range(c.encoder_blocks)])
        self.down = nn.ModuleList([_conv(w, w, stride=2) for _ in range(3)])
        self.motion = nn.ModuleList(
            [MotionStep(w, w, c.search_radius), MotionStep(w, w, c.search_radius), MotionStep(w, w, 0)]
        )
        self.motion_last = MotionStep(w // 2, w // 2, 0)
        self.thin = _conv(w, w // 2, size=1)
        self.fuse = _conv(2 * w + 9 + 5 + 1, w)
        self.trunk = nn.Sequential(*[_Residual(w) for _ in range(c.trunk_blocks)])
        self.up1 = _conv(w, 4 * c.decoder_width)
        self.up2 = _conv(c.decoder_width, c.decoder_width)
        self.decoder = SpatialINR(c.decoder_width)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of both frames and their pyramid.

        ``frames``: (B, 2, 3, H, W). Returns the features and frames, (B, 2*C+6, H, W), then the features at 1/2, 1/4
        and 1/8 of the size, (B, 2*C, H/k, W/k).
        """
        B = frames.shape[0]
        flat = frames.flatten(0, 1)
        level = self.encoder(_activate(self.conv_first(flat - 0.5)))
        levels = [level]
        for down in self.down:
            level = _activate(down(level))
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
        up = self.up2(_activate(up)).permute(0, 2, 3, 1)
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
            motion = _finer(motions[-1])
        first, second = features[:, :w], features[:, w : 2 * w]
        motion = self.motion_last(self.thin(first), self.thin(second), motion, t)
        motions.append(motion)
        first = torch.cat([first, features[:, 2 * w : 2 * w + 3]], 1)
        second = torch.cat([second, features[:, 2 * w + 3 :]], 1)
        first, second = warp_pair(first, second, motion, t)
        base = blend_pair(first[:, w:], second[:, w:], motion, t)
        visible = torch.sigmoid(motion[:, 4:])
        seen = [first, second, base - 0.5, 0.1 * motion[:, :4], visible, t.expand_as(visible)]
        x = _activate(self.fuse(torch.cat(seen, 1)))
        return self.trunk(x) + x, base, motions

    def loss(self, frames: Tensor, time: Tensor, truth: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of the output, and that of what it rests on: the blended frame, and the motion at every size.

        ``frames``: (B, 2, 3, H, W), ``time``: (B, K), ``truth``: (B, K, 3, Hout, Wout), ``motion``: (B, K, 6, H, W) as
        `MotionTeacher` says it. Returns two scalars.
        """
        H, W = frames.shape[-2:]
        y = target_coordinates(H, truth.shape[-2], frames.device)
        x = target_coordinates(W, truth.shape[-1], frames.device)
        features, half, quarter, eighth = self.encode(frames)
        reconstruction, support = frames.new_zeros(()), frames.new_zeros(())
        for k in range(time.shape[1]):
            refined, base, motions = self.refine(features, half, quarter, eighth, time[:, k])
            reconstruction = reconstruction + charbonnier(self.render(refined, base, y, x), truth[:, k])
            support = support + charbonnier(base, F.interpolate(truth[:, k], (H, W), mode="bicubic", antialias=True))
            support = support + MOTION_WEIGHT * sum(motion_error(m, motion[:, k]) for m in motions) / len(motions)
        return reconstruction / time.shape[1], support / time.shape[1]

    def forward(self, frames: Tensor, time: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, 2, 3, H, W), (B,), target (height, width) -> (B, 3, height, width)"""
        y = target_coordinates(frames.shape[-2], size[0], frames.device)
        x = target_coordinates(frames.shape[-1], size[1], frames.device)
        return self.decode(*self.encode(frames), time, y, x)
