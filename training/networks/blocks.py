"""Blocks that the networks share."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAKY_SLOPE = 0.1  # of the leaky ReLU in every alignment network of this family


def lrelu(x: Tensor) -> Tensor:
    """Leaky ReLU with the slope that alignment networks take."""
    return F.leaky_relu(x, LEAKY_SLOPE)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size at stride 1 and halves it at stride 2."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1)


def upsample2(x: Tensor) -> Tensor:
    """Twice as high and wide, bilinearly. (B, C, H, W) -> (B, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def over_frames(layer: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """A layer of pictures, applied to all frames at once. (B, T, C, H, W) -> (B, T, C', H', W')"""
    return layer(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])


def interleave(given: Tensor, *made: Tensor) -> Tensor:
    """Puts into every gap of a sequence the K frames that were made for it, in order.

    given: (B, N, C, H, W); each of made: (B * (N - 1), C, H, W). Returns (B, N + K * (N - 1), C, H, W).
    """
    starts = given[:, :-1].flatten(0, 1)
    up_to_last = torch.stack((starts, *made), 1).unflatten(0, (-1, given.shape[1] - 1)).flatten(1, 2)
    return torch.cat((up_to_last, given[:, -1:]), 1)


def enlarge4(x: Tensor, upconv1: nn.Module, upconv2: nn.Module, fine: nn.Module, last: nn.Module) -> Tensor:
    """Features -> frames of four times the size, by two pixel shuffles. (B, C, H, W) -> (B, 3, 4H, 4W)."""
    x = lrelu(F.pixel_shuffle(upconv1(x), 2))
    x = lrelu(F.pixel_shuffle(upconv2(x), 2))
    return last(lrelu(fine(x)))


def blend_gaps(frames: Tensor, *times: Tensor) -> Tensor:
    """Puts blends of each two neighbours between them, at times from 0 to 1. (B, N, C, h, w), (B,) each

    Returns (B, N + K * (N - 1), C, h, w), with K the number of times; without any it is one blend, of equal parts.
    """
    first, second = frames[:, :-1], frames[:, 1:]
    if not times:
        return interleave(frames, (0.5 * (first + second)).flatten(0, 1))
    return interleave(frames, *(torch.lerp(first, second, t.view(-1, 1, 1, 1, 1)).flatten(0, 1) for t in times))


def initialize_weights(module: nn.Module, scale: float = 1.0) -> None:
    """Kaiming-normal weights times a scale, and zero biases, in every convolution and linear layer of a module."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            with torch.no_grad():
                layer.weight.mul_(scale)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ResidualBlock(nn.Module):
    """Two convolutions with a ReLU between them, added to their input."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)
        # A small residual lets a stack of many blocks begin near the identity.
        initialize_weights(self, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.conv2(F.relu(self.conv1(x)))


def residual_stack(channels: int, count: int) -> nn.Sequential:
    """`count` residual blocks in a row."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))
