"""Motion from a time between two frames to both frames, estimated from coarse to fine; for Fourier-S and VideoINR-S.

The motion at a time t is a tensor `(B, 5, H, W)`:

- channels 0 and 1: (dx, dy) to frame 0 over the whole interval, in pixels of the motion's own pyramid level; the flow
  from t to frame 0 is t times this;
- channels 2 and 3: the same to frame 1; the flow from t to frame 1 is (1 - t) times this;
- channel 4: the logit of the visibility of frame 0.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .blocks import conv3x3, lrelu, upsample2
from .ops import warp

MOTION_WEIGHT = 0.1  # of a motion error of one input pixel, relative to colour errors in [0, 1]


def correlate(first: Tensor, second: Tensor, radius: int) -> Tensor:
    """Return the mean product of two feature maps at every displacement of up to `radius` pixels in x and in y.

    Both `(B, C, H, W)` -> `(B, (2 * radius + 1) ** 2, H, W)`, rows of displacements first. Features outside are 0.
    The gradient has no gradient of its own.
    """
    if not torch.compiler.is_exporting():
        return _Correlation.apply(first, second, radius)
    B, C, H, W = first.shape
    shifts = 2 * radius + 1
    padded = F.pad(second, (radius, radius, radius, radius))
    # Two gathers instead of a slice for each displacement: graph runtimes have a cost for every node.
    shift = torch.arange(shifts, device=first.device)[:, None]
    rows = (shift + torch.arange(H, device=first.device)).flatten()
    columns = (shift + torch.arange(W, device=first.device)).flatten()
    shifted = padded.index_select(2, rows).index_select(3, columns).view(B, C, shifts, H, shifts, W)
    return (first.view(B, C, 1, H, 1, W) * shifted).mean(1).transpose(2, 3).reshape(B, shifts * shifts, H, W)


class _Correlation(torch.autograd.Function):
    """`correlate` with a gradient that adds in place, which takes less than half the time of a derived one."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, radius: int) -> Tensor:
        ctx.save_for_backward(first, second)
        ctx.radius = radius
        padded = F.pad(second, (radius, radius, radius, radius))
        return torch.stack([(first * part).mean(1) for part in _displaced(padded, radius)], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        first, second = ctx.saved_tensors
        radius = ctx.radius
        padded = F.pad(second, (radius, radius, radius, radius))
        first_gradient, padded_gradient = torch.zeros_like(first), torch.zeros_like(padded)
        weights = (gradient / first.shape[1]).to(first.dtype).unsqueeze(2).unbind(1)  # of every displacement
        displaced = zip(weights, _displaced(padded, radius), _displaced(padded_gradient, radius), strict=True)
        for weight, part, part_gradient in displaced:
            first_gradient.addcmul_(weight, part)
            part_gradient.addcmul_(weight, first)
        H, W = second.shape[2:]
        return first_gradient, padded_gradient[:, :, radius : radius + H, radius : radius + W], None


def _displaced(padded: Tensor, radius: int) -> Iterator[Tensor]:
    """Yield the views of a map that is padded by `radius` pixels, one for every displacement, rows first."""
    H, W = (n - 2 * radius for n in padded.shape[2:])
    for i in range(2 * radius + 1):
        for j in range(2 * radius + 1):
            yield padded[:, :, i : i + H, j : j + W]


def warp_pair(first: Tensor, second: Tensor, motion: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Warp both frames, or their features, to `time`.

    `first`, `second`: `(B, C, H, W)`; `motion`: `(B, 5, H, W)`; `time`: `(B, 1, 1, 1)` in [0, 1]. Returns two tensors
    `(B, C, H, W)`.
    """
    return (
        warp(first, time * motion[:, 0:2], "clamp"),
        warp(second, (1 - time) * motion[:, 2:4], "clamp"),
    )


def blend_pair(first: Tensor, second: Tensor, motion: Tensor, time: Tensor) -> Tensor:
    """Average two warped frames, weighted by their nearness in time and by their visibility.

    Inputs as for `warp_pair`. Returns `(B, C, H, W)`.
    """
    visible = torch.sigmoid(motion[:, 4:])
    near = (1 - time) * visible + 1e-4
    far = time * (1 - visible) + 1e-4
    return (near * first + far * second) / (near + far)


def motion_error(motion: Tensor, true_motion: Tensor, shrink: int) -> Tensor:
    """Return the mean distance from a teacher's motion in input pixels, over the pixels where it is known.

    `motion`: `(B, 5, h, w)` at a level that is `shrink` times smaller; `true_motion`: `(B, 6, H, W)` as
    `MotionTeacher` returns it, whose last two channels are 1 where the motion to frame 0 and to frame 1 is known.
    Returns `()`.
    """
    true_motion = F.avg_pool2d(true_motion, shrink)
    known = (true_motion[:, 4:] > 0.99).to(motion.dtype).repeat_interleave(2, 1)
    return ((shrink * motion[:, :4] - true_motion[:, :4]).abs() * known).mean()


class MotionStep(nn.Module):
    """Refinement of the motion at one pyramid level.

    `features`: channels of the features of each frame; `width`: channels of the step's own layers; `radius`: search
    radius of the correlation in pixels of the level, 0 for no correlation; `matched`: how many of the features are
    correlated, None for all. `both_times`: give the step the distance in time to both frames, not to the first alone.
    """

    def __init__(
        self, features: int, width: int, radius: int, matched: int | None = None, both_times: bool = False
    ) -> None:
        super().__init__()
        self.radius, self.matched, self.both_times = radius, matched, both_times
        searched = (2 * radius + 1) ** 2 if radius else 0
        self.conv1 = conv3x3(2 * features + searched + 5 + (2 if both_times else 1), width)
        self.conv2 = conv3x3(width, width)
        self.conv3 = conv3x3(width, 5)
        nn.init.normal_(self.conv3.weight, std=1e-3)
        assert self.conv3.bias is not None
        nn.init.zeros_(self.conv3.bias)

    def forward(self, first: Tensor, second: Tensor, motion: Tensor, time: Tensor) -> Tensor:
        """Return the refined motion.

        `first`, `second`: features `(B, C, H, W)`; `motion`: `(B, 5, H, W)`; `time`: `(B, 1, 1, 1)` in [0, 1]. Returns
        `(B, 5, H, W)`.
        """
        first, second = warp_pair(first, second, motion, time)
        inputs = [first, second, motion, time.expand_as(motion[:, :1])]
        if self.both_times:
            inputs.append((1 - time).expand_as(motion[:, :1]))
        if self.radius:
            inputs.append(correlate(first[:, : self.matched], second[:, : self.matched], self.radius))
        x = lrelu(self.conv1(torch.cat(inputs, 1)))
        return motion + self.conv3(lrelu(self.conv2(x)))


def finer(motion: Tensor) -> Tensor:
    """Carry motion to the next finer level: twice the size, twice the pixels; visibility logits keep their values.

    `(B, 5, H, W)` -> `(B, 5, 2H, 2W)`
    """
    motion = upsample2(motion)
    return torch.cat([2 * motion[:, :4], motion[:, 4:]], 1)
