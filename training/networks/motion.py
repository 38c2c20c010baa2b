"""Motion from a time between two frames to both of them, estimated coarse to fine.

Motion at a time t is (B, 5, H, W): channels 0 and 1 are (dx, dy) to frame 0 over the whole interval, in pixels of their
own level, so that the flow is t times them; channels 2 and 3 are the same to frame 1, whose flow is 1 - t times them;
channel 4 is the logit of frame 0's visibility.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv3x3, lrelu, upsample2
from .ops import warp


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
    """Refines the motion from time t to both frames, and the visibility of frame 0, at one pyramid level."""

    def __init__(self, features: int, width: int, radius: int) -> None:
        super().__init__()
        self.radius = radius
        searched = (2 * radius + 1) ** 2 if radius else 0
        self.conv1 = conv3x3(2 * features + searched + 5 + 1, width)
        self.conv2 = conv3x3(width, width)
        self.conv3 = conv3x3(width, 5)
        nn.init.normal_(self.conv3.weight, std=1e-3)
        assert self.conv3.bias is not None
        nn.init.zeros_(self.conv3.bias)

    def forward(self, first: Tensor, second: Tensor, motion: Tensor, time: Tensor) -> Tensor:
        """(B, C, H, W) twice, (B, 5, H, W), (B, 1, 1, 1) -> (B, 5, H, W)"""
        first, second = warp_pair(first, second, motion, time)
        seen = [first, second, motion, time.expand_as(motion[:, :1])]
        if self.radius:
            seen.append(correlate(first, second, self.radius))
        x = lrelu(self.conv1(torch.cat(seen, 1)))
        return motion + self.conv3(lrelu(self.conv2(x)))


def finer(motion: Tensor) -> Tensor:
    """Motion of the next finer level: twice the size, twice the pixels; the visibility stays. (B, 5, H, W)"""
    motion = upsample2(motion)
    return torch.cat([2 * motion[:, :4], motion[:, 4:]], 1)
