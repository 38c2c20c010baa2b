"""Back-projection: features are enlarged and shrunk in turns, and the error of each turn is projected back.

Haris, Shakhnarovich and Ukita, "Deep Back-Projection Networks for Super-Resolution" (DBPN, CVPR 2018): plain in RBPN,
dense in STINet.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import LEAKY_SLOPE, initialize_weights

Activation = Literal["prelu", "lrelu", "none"]

_OVERLAP = 4  # pixels that a scaling kernel is larger than its stride


def _activation(kind: Activation) -> nn.Module:
    if kind == "prelu":
        return nn.PReLU()  # one slope for all channels
    return nn.LeakyReLU(LEAKY_SLOPE) if kind == "lrelu" else nn.Identity()


class ConvBlock(nn.Module):
    """A convolution that keeps the size or divides it by its stride, and an activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, act: Activation = "prelu"
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, (kernel - stride) // 2)
        self.act = _activation(act)
        nn.init.kaiming_normal_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out, H / stride, W / stride)."""
        return self.act(self.conv(x))


def shrink(in_channels: int, out_channels: int, scale: int, act: Activation = "prelu") -> ConvBlock:
    """(B, C, s * h, s * w) -> (B, out, h, w)."""
    return ConvBlock(in_channels, out_channels, scale + _OVERLAP, scale, act)


class DeconvBlock(nn.Module):
    """A transposed convolution that multiplies the size by its stride, and an activation."""

    def __init__(self, in_channels: int, out_channels: int, scale: int, act: Activation = "prelu") -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(in_channels, out_channels, scale + _OVERLAP, scale, _OVERLAP // 2)
        self.act = _activation(act)
        nn.init.kaiming_normal_(self.deconv.weight)
        nn.init.zeros_(self.deconv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, out, s * h, s * w)."""
        return deconvolve(x, self.deconv, self.act)


def deconvolve(x: Tensor, layer: nn.ConvTranspose2d, act: nn.Module) -> Tensor:
    """A transposed convolution and an activation, as a convolution and a pixel shuffle, which runtimes do much faster.

    Output pixel s * r + p - padding reads input pixel r - j by the kernel's place s * j + p. The activation comes
    before the shuffle, where it fuses. (B, C, h, w) -> (B, out, s * h, s * w)
    """
    (scale, _), size, margin = layer.stride, layer.kernel_size[0], int(layer.padding[0])
    taps = -(-size // scale)
    rest = scale * taps - size
    blocks = F.pad(layer.weight, (0, rest, 0, rest)).unflatten(3, (taps, scale)).unflatten(2, (taps, scale))
    weight = blocks.flip(2, 4).permute(1, 3, 5, 0, 2, 4).flatten(0, 2)  # (out * s * s, in, taps, taps)
    assert layer.bias is not None
    bias = layer.bias[:, None].expand(-1, scale * scale).flatten()
    out = F.pixel_shuffle(act(F.conv2d(x, weight, bias, padding=taps - 1)), scale)
    return out[:, :, margin : margin + scale * x.shape[2], margin : margin + scale * x.shape[3]]


class ResnetBlock(nn.Module):
    """Two convolutions added to their input, with the same activation after each."""

    def __init__(self, channels: int, act: Activation = "prelu") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.act = _activation(act)
        initialize_weights(self, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.act(x + self.conv2(self.act(self.conv1(x))))


class UpBlock(nn.Module):
    """Enlarges; what is lost when the result is shrunk again is enlarged too, and added.

    ``inputs`` is how many stages' features it mixes first.
    """

    def __init__(self, channels: int, scale: int, inputs: int = 1) -> None:
        super().__init__()
        self.conv = ConvBlock(inputs * channels, channels, 1) if inputs > 1 else nn.Identity()
        self.up_conv1 = DeconvBlock(channels, channels, scale)
        self.up_conv2 = shrink(channels, channels, scale)
        self.up_conv3 = DeconvBlock(channels, channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs * C, h, w) -> (B, C, s * h, s * w)."""
        x = self.conv(x)
        high = self.up_conv1(x)
        return high + self.up_conv3(self.up_conv2(high) - x)


class DownBlock(nn.Module):
    """The mirror of `UpBlock`."""

    def __init__(self, channels: int, scale: int, inputs: int = 1) -> None:
        super().__init__()
        self.conv = ConvBlock(inputs * channels, channels, 1) if inputs > 1 else nn.Identity()
        self.down_conv1 = shrink(channels, channels, scale)
        self.down_conv2 = DeconvBlock(channels, channels, scale)
        self.down_conv3 = shrink(channels, channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs * C, s * h, s * w) -> (B, C, h, w)."""
        x = self.conv(x)
        low = self.down_conv1(x)
        return low + self.down_conv3(self.down_conv2(low) - x)


class BackProjection(nn.Module):
    """``stages`` times up, and down between them. Dense: each unit sees all features of its own kind before it."""

    def __init__(self, channels: int, scale: int, stages: int, dense: bool) -> None:
        super().__init__()
        self.stages = stages
        self.seen = stages if dense else 1  # of the latest features that a unit sees
        for i in range(1, stages + 1):
            self.add_module(f"up{i}", UpBlock(channels, scale, max(1, min(i - 1, self.seen))))
            if i < stages:
                self.add_module(f"down{i}", DownBlock(channels, scale, min(i, self.seen)))

    def project(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> what every stage enlarged, the last stage first, (B, stages * C, s * h, s * w)."""
        highs: list[Tensor] = [self.get_submodule("up1")(x)]
        lows: list[Tensor] = []
        for i in range(1, self.stages):
            lows.insert(0, self.get_submodule(f"down{i}")(_joined(highs[: self.seen])))
            highs.insert(0, self.get_submodule(f"up{i + 1}")(_joined(lows[: self.seen])))
        return _joined(highs)


def _joined(features: list[Tensor]) -> Tensor:
    return features[0] if len(features) == 1 else torch.cat(features, 1)


class DBPN(BackProjection):
    """Of RBPN: features in, larger features out."""

    def __init__(self, in_channels: int, channels: int, scale: int, stages: int) -> None:
        super().__init__(channels, scale, stages, dense=False)
        self.feat1 = ConvBlock(in_channels, channels, 1)
        self.output = ConvBlock(stages * channels, channels, 1, act="none")

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, C, s * h, s * w)."""
        return self.output(self.project(self.feat1(x)))


class DenseDBPN(BackProjection):
    """Of STINet: a frame in, features of its larger version out."""

    def __init__(self, channels: int, scale: int, stages: int) -> None:
        super().__init__(channels, scale, stages, dense=True)
        self.feat0 = ConvBlock(3, channels)
        self.feat1 = ConvBlock(channels, channels, 1)
        self.output_conv1 = ConvBlock(stages * channels, channels, act="none")

    def forward(self, frame: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, C, s * h, s * w)."""
        return self.output_conv1(self.project(self.feat1(self.feat0(frame))))
