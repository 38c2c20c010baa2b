"""Layers and frame arithmetic that several networks share."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAKY_SLOPE = 0.1  # of the leaky ReLU in EDVR, Zooming Slow-Mo and the networks derived from them


def lrelu(x: Tensor) -> Tensor:
    """Apply the leaky ReLU with slope `LEAKY_SLOPE`."""
    return F.leaky_relu(x, LEAKY_SLOPE)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution with padding 1: it keeps the size at stride 1 and halves it at stride 2."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1)


def upsample2(x: Tensor) -> Tensor:
    """Double height and width bilinearly. `(B, C, H, W)` -> `(B, C, 2H, 2W)`"""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def over_frames(layer: Callable[[Tensor], Tensor], *features: Tensor) -> Tensor:
    """Apply a layer for images to every frame, as one batch. `(B, T, C, H, W)` each -> `(B, T, C', H', W')`

    Several tensors are concatenated along the channels first.
    """
    frames = torch.cat(features, 2) if len(features) > 1 else features[0]
    return layer(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])


def with_neighbours(x: Tensor) -> Tensor:
    """Stack each inner frame with the frames before and after it. `(B, T + 2, C, H, W)` -> `(B * T, 3C, H, W)`

    The three frames are neighbours within each channel. So a 3-D convolution is a 2-D convolution of the result, whose
    weight is a view: `(O, C, 3, kh, kw)` -> `(O, 3C, kh, kw)`.
    """
    stacked = torch.stack((x[:, :-2], x[:, 1:-1], x[:, 2:]), 3)
    return stacked.reshape(-1, 3 * x.shape[2], *x.shape[3:])


def interleave(frames: Tensor, *between: Tensor) -> Tensor:
    """Insert K new frames into every gap of a sequence, in the order of the arguments.

    `frames`: `(B, N, C, H, W)`; each of `between`: `(B * (N - 1), C, H, W)`, one frame for each gap.
    Returns `(B, N + K * (N - 1), C, H, W)`.
    """
    starts = frames[:, :-1].flatten(0, 1)
    up_to_last = torch.stack((starts, *between), 1).unflatten(0, (-1, frames.shape[1] - 1)).flatten(1, 2)
    return torch.cat((up_to_last, frames[:, -1:]), 1)


def blend_gaps(frames: Tensor, *times: Tensor) -> Tensor:
    """Insert blends of every two neighbouring frames between them.

    `frames`: `(B, N, C, h, w)`; each of `times`: `(B,)`, from 0 (the earlier frame) to 1 (the later one). Without
    `times` every gap receives the mean of its two frames. Returns `(B, N + K * (N - 1), C, h, w)`, where K is the
    number of times, or 1.
    """
    first, second = frames[:, :-1], frames[:, 1:]
    if not times:
        return interleave(frames, (0.5 * (first + second)).flatten(0, 1))
    return interleave(frames, *(torch.lerp(first, second, t.view(-1, 1, 1, 1, 1)).flatten(0, 1) for t in times))


def enlarge4(x: Tensor, upconv1: nn.Module, upconv2: nn.Module, fine: nn.Module, last: nn.Module) -> Tensor:
    """Turn features into frames of four times the size by two pixel shuffles. `(B, C, H, W)` -> `(B, 3, 4H, 4W)`"""
    x = lrelu(F.pixel_shuffle(upconv1(x), 2))
    x = lrelu(F.pixel_shuffle(upconv2(x), 2))
    return last(lrelu(fine(x)))


def initialize_weights(module: nn.Module, scale: float = 1.0) -> None:
    """Set every convolution and linear layer of a module to Kaiming-normal weights times `scale` and zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            with torch.no_grad():
                layer.weight.mul_(scale)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def start_at_zero(layer: nn.Module) -> None:
    """Zero a last layer, so that the untrained network returns the interpolation to which it adds this layer."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a ReLU between them, added to the input."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)
        # Small residuals let a deep stack of blocks start near the identity.
        initialize_weights(self, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> `(B, C, H, W)`"""
        return x + self.conv2(F.relu(self.conv1(x)))


def residual_stack(channels: int, count: int) -> nn.Sequential:
    """Return `count` residual blocks in sequence."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))
