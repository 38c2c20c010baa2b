"""VideoINR-S: a compact continuous space-time network that runs in real time on a few CPU cores.

It follows the idea of VideoINR (Chen et al., CVPR 2022, section 3): implicit functions of time and space decode one
encoding of two frames at any time between them and at any target size. The differences, with their reasons:

- Motion is estimated at time t itself, from coarse to fine starting at 1/8 of the input's size, by a small
  convolutional function of features and t. Large motion costs little, and the flow from t to an input frame vanishes at
  that frame's own time.
- Features are fused and refined at the input's size, where a pixel costs 1/16 of the work at the target's size.
- Only the last step, a SIREN, runs per target pixel. It reads features sampled bilinearly from a grid twice as fine as
  the input, and the target pixel's phase within that grid, which is periodic, so the output is continuous across cells.
- Samples are taken at pixel centres and clamped at the border, and the frames enter at their true scale.

Two frames `(B, 2, 3, H, W)` and a time in [0, 1] become one frame `(B, 3, Hout, Wout)`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.contract.manifest import ContinuousSpace, ContinuousTime, PairWindow, SizeConstraint
from .base import Network
from .blocks import conv3x3, lrelu, residual_stack
from .losses import LossTerms, charbonnier
from .motion import MOTION_WEIGHT, MotionStep, blend_pair, finer, motion_error, warp_pair
from .ops import cubic_at, spacing, target_coordinates


@dataclass(frozen=True)
class VideoINRSConfig:
    """The size of a VideoINR-S."""

    width: int = 48  # channels of features
    encoder_blocks: int = 3  # residual blocks of each frame's encoder
    trunk_blocks: int = 8  # residual blocks after the fusion of both frames
    search_radius: int = 2  # of the correlation at 1/8 and 1/4 of the input's size, in pixels of that level
    decoder_width: int = 32  # channels of the implicit decoder


def _lerp(x: Tensor, at: Tensor, dim: int) -> Tensor:
    """Interpolate linearly along `dim` at positions `(N,)` in cells, clamped to the ends."""
    last = x.shape[dim] - 1
    at = at.clamp(0, last)
    low = at.floor()
    weight = (at - low).view(-1, *[1] * (x.ndim - 1 - dim))
    low = low.long()
    below, above = x.index_select(dim, low), x.index_select(dim, (low + 1).clamp(max=last))
    return below + weight * (above - below)


class SpatialINR(nn.Module):
    """A SIREN that computes the colour of a target pixel from features and from its phase, at any target size."""

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
        """Compute the colours of a target.

        `grid`: `(B, H, W, C)`, the share of the first layer's sum that comes from features; `y`: `(Hout,)`, `x`:
        `(Wout,)`, target pixel centres in cells of the grid; `cell_y`, `cell_x`: `()`, their spacing in input pixels.
        Returns `(B, Hout, Wout, 3)`.
        """
        grid = _lerp(_lerp(grid, y, 1), x, 2)
        grid = torch.sin(grid + self._phase(y, x, cell_y, cell_x))
        grid = torch.sin(self.hidden(grid))
        return self.colour(grid)

    def _phase(self, y: Tensor, x: Tensor, cell_y: Tensor, cell_x: Tensor) -> Tensor:
        """Return the share of the first layer's sum that comes from a pixel's phase in its cell and from its size.

        The layer's inputs are sin y, cos y, cell y, sin x, cos x, cell x, sin y sin x, cos y cos x and sin y cos x, all
        with a period of one cell. They factor into functions of y and of x, so one thin matrix product computes the
        sum. Returns `(Hout, Wout, C)`.
        """
        ty, tx = 2 * math.pi * y, 2 * math.pi * x
        rows = torch.stack([ty.sin(), ty.cos(), torch.ones_like(ty)], 1)
        sin, cos, one, zero = tx.sin(), tx.cos(), torch.ones_like(tx), torch.zeros_like(tx)
        of_sin_y = torch.stack([one, zero, zero, zero, zero, zero, sin, zero, cos], 1)
        of_cos_y = torch.stack([zero, one, zero, zero, zero, zero, zero, cos, zero], 1)
        alone = torch.stack([zero, zero, cell_y * one, sin, cos, cell_x * one, zero, zero, zero], 1)
        columns = F.linear(torch.stack([of_sin_y, of_cos_y, alone]), self.phase.weight)  # (3, Wout, C)
        columns = torch.cat([columns[:2], columns[2:] + self.phase.bias])
        return (rows @ columns.flatten(1)).unflatten(1, (x.shape[0], -1))


class VideoINRS(Network):
    """Two frames at times 0 and 1 become a frame of any size at any time."""

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
        """Return the features of both frames at four sizes.

        `frames`: `(B, 2, 3, H, W)`, RGB in [0, 1]. Returns the features and the frames, `(B, 2 * C + 6, H, W)`, then
        the features at 1/2, 1/4 and 1/8 of the size, `(B, 2 * C, H/k, W/k)`.
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
        """Render the frame at a time; the feature maps are those that `encode` returns.

        `time`: `(B,)` from 0 to 1; `y`: `(Hout,)`, `x`: `(Wout,)`, target pixel centres in input pixels. Returns
        `(B, 3, Hout, Wout)`, not clamped.
        """
        refined, base, _ = self.refine(features, half, quarter, eighth, time)
        return self.render(refined, base, y, x)

    def render(self, refined: Tensor, base: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Render the results of `refine` at target pixel centres `(Hout,)`, `(Wout,)`. -> `(B, 3, Hout, Wout)`"""
        up = F.pixel_shuffle(self.up1(refined), 2)
        up = self.up2(lrelu(up)).permute(0, 2, 3, 1)
        detail = self.decoder(up, 2 * y + 0.5, 2 * x + 0.5, spacing(y), spacing(x)).permute(0, 3, 1, 2)
        return detail + cubic_at(cubic_at(base, y, 2), x, 3)

    def refine(
        self, features: Tensor, half: Tensor, quarter: Tensor, eighth: Tensor, time: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Estimate the frame at `time`, `(B,)`, at the input's size.

        Returns its features `(B, C, H, W)`, the blend of both warped frames `(B, 3, H, W)`, and the motion at 1/8, 1/4,
        1/2 and all of the size, `(B, 5, H/k, W/k)` each, with the channels that `motion.py` defines.
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
        inputs = [first, second, base - 0.5, 0.1 * motion[:, :4], visible, t.expand_as(visible)]
        x = lrelu(self.fuse(torch.cat(inputs, 1)))
        return self.trunk(x) + x, base, motions

    def loss(self, frames: Tensor, time: Tensor, truth: Tensor, motion: Tensor) -> LossTerms:
        """Return the loss of the output, and as auxiliary loss those of the blended frame and of the motion.

        `frames`: `(B, 2, 3, H, W)`; `time`: `(B, K)`; `truth`: `(B, K, 3, Hout, Wout)`; `motion`: `(B, K, 6, H, W)` as
        `MotionTeacher` returns it. The motion is compared at every size.
        """
        H, W = frames.shape[-2:]
        y = target_coordinates(H, truth.shape[-2], frames.device)
        x = target_coordinates(W, truth.shape[-1], frames.device)
        features, half, quarter, eighth = self.encode(frames)
        outputs, auxiliary = [], frames.new_zeros(())
        for k in range(time.shape[1]):
            refined, base, motions = self.refine(features, half, quarter, eighth, time[:, k])
            outputs.append(self.render(refined, base, y, x))
            small = F.interpolate(truth[:, k], (H, W), mode="bicubic", antialias=True)
            auxiliary = auxiliary + charbonnier(base, small)
            errors = sum(motion_error(m, motion[:, k], W // m.shape[-1]) for m in motions)
            auxiliary = auxiliary + MOTION_WEIGHT * errors / len(motions)
        output = torch.stack(outputs, 1)
        return LossTerms(charbonnier(output, truth), auxiliary / time.shape[1], output)

    def forward(self, frames: Tensor, time: Tensor, size: tuple[int, int]) -> Tensor:
        """Render the frame at `time`.

        `frames`: `(B, 2, 3, H, W)` in [0, 1]; `time`: `(B,)` from 0 to 1; `size`: height and width of the target.
        Returns `(B, 3, *size)`, not clamped.
        """
        y = target_coordinates(frames.shape[-2], size[0], frames.device)
        x = target_coordinates(frames.shape[-1], size[1], frames.device)
        return self.decode(*self.encode(frames), time, y, x)
