"""Deep back-projection: features are enlarged and reduced in turn, and each stage corrects its projection error.

Haris, Shakhnarovich and Ukita, "Deep Back-Projection Networks for Super-Resolution" (DBPN, CVPR 2018), section 3. RBPN
uses the plain form, STINet the dense form.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import LEAKY_SLOPE, initialize_weights

Activation = Literal["prelu", "lrelu", "none"]

_OVERLAP = 4  # pixels by which a scaling kernel is larger than its stride


def _activation(kind: Activation) -> nn.Module:
    if kind == "prelu":
        return nn.PReLU()  # one slope for all channels
    return nn.LeakyReLU(LEAKY_SLOPE) if kind == "lrelu" else nn.Identity()


class ConvBlock(nn.Module):
    """A convolution, which keeps the size or divides it by its stride, followed by an activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, act: Activation = "prelu"
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, (kernel - stride) // 2)
        self.act = _activation(act)
        nn.init.kaiming_normal_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> `(B, out, H / stride, W / stride)`"""
        return self.act(self.conv(x))


def shrink(in_channels: int, out_channels: int, scale: int, act: Activation = "prelu") -> ConvBlock:
    """Return a block that divides the size by `scale`. `(B, C, s * h, s * w)` -> `(B, out, h, w)`"""
    return ConvBlock(in_channels, out_channels, scale + _OVERLAP, scale, act)


class DeconvBlock(nn.Module):
    """A transposed convolution, which multiplies the size by its stride, followed by an activation."""

    def __init__(self, in_channels: int, out_channels: int, scale: int, act: Activation = "prelu") -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(in_channels, out_channels, scale + _OVERLAP, scale, _OVERLAP // 2)
        self.act = _activation(act)
        nn.init.kaiming_normal_(self.deconv.weight)
        nn.init.zeros_(self.deconv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` -> `(B, out, s * h, s * w)`"""
        return deconvolve(x, self.deconv, self.act)


def deconvolve(x: Tensor, layer: nn.ConvTranspose2d, act: nn.Module) -> Tensor:
    """Apply a transposed convolution and an activation, as a convolution and a pixel shuffle.

    Runtimes are much faster at the latter. Output pixel s * r + p - padding reads input pixel r - j with the kernel's
    element s * j + p. The activation comes before the shuffle, where runtimes fuse it.
    `(B, C, h, w)` -> `(B, out, s * h, s * w)`
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
    """Two convolutions added to their input, with one shared activation after each."""

    def __init__(self, channels: int, act: Activation = "prelu") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.act = _activation(act)
        initialize_weights(self, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> `(B, C, H, W)`"""
        return self.act(x + self.conv2(self.act(self.conv1(x))))


def _project(x: Tensor, scale: nn.Module, unscale: nn.Module, correct: nn.Module) -> Tensor:
    """Scale features, and add the correction for what is lost when the result is scaled back."""
    scaled = scale(x)
    return scaled + correct(unscale(scaled) - x)


class UpBlock(nn.Module):
    """An up-projection unit: enlarge, reduce again, enlarge the difference from the input and add it.

    `inputs`: how many stages' features the unit receives; it mixes them first.
    """

    def __init__(self, channels: int, scale: int, inputs: int = 1) -> None:
        super().__init__()
        self.conv = ConvBlock(inputs * channels, channels, 1) if inputs > 1 else nn.Identity()
        self.up_conv1 = DeconvBlock(channels, channels, scale)
        self.up_conv2 = shrink(channels, channels, scale)
        self.up_conv3 = DeconvBlock(channels, channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs * C, h, w)` -> `(B, C, s * h, s * w)`"""
        return _project(self.conv(x), self.up_conv1, self.up_conv2, self.up_conv3)


class DownBlock(nn.Module):
    """A down-projection unit, the mirror image of `UpBlock`."""

    def __init__(self, channels: int, scale: int, inputs: int = 1) -> None:
        super().__init__()
        self.conv = ConvBlock(inputs * channels, channels, 1) if inputs > 1 else nn.Identity()
        self.down_conv1 = shrink(channels, channels, scale)
        self.down_conv2 = DeconvBlock(channels, channels, scale)
        self.down_conv3 = shrink(channels, channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs * C, s * h, s * w)` -> `(B, C, h, w)`"""
        return _project(self.conv(x), self.down_conv1, self.down_conv2, self.down_conv3)


class BackProjection(nn.Module):
    """A chain of `stages` up-projections with down-projections between them.

    In the dense form each unit receives the results of all earlier units of the opposite kind; otherwise only the
    latest one.
    """

    def __init__(self, channels: int, scale: int, stages: int, dense: bool) -> None:
        super().__init__()
        self.stages = stages
        self.most_inputs = stages if dense else 1  # of a unit, the latest first
        for i in range(1, stages + 1):
            self.add_module(f"up{i}", UpBlock(channels, scale, max(1, min(i - 1, self.most_inputs))))
            if i < stages:
                self.add_module(f"down{i}", DownBlock(channels, scale, min(i, self.most_inputs)))

    def project(self, x: Tensor) -> Tensor:
        """Return the enlarged features of every stage, the last stage first.

        `(B, C, h, w)` -> `(B, stages * C, s * h, s * w)`
        """
        highs: list[Tensor] = [self.get_submodule("up1")(x)]
        lows: list[Tensor] = []
        for i in range(1, self.stages):
            lows.insert(0, self.get_submodule(f"down{i}")(_concatenated(highs[: self.most_inputs])))
            highs.insert(0, self.get_submodule(f"up{i + 1}")(_concatenated(lows[: self.most_inputs])))
        return _concatenated(highs)


def _concatenated(features: list[Tensor]) -> Tensor:
    return features[0] if len(features) == 1 else torch.cat(features, 1)


class DBPN(BackProjection):
    """The back-projection network of RBPN: features in, enlarged features out."""

    def __init__(self, in_channels: int, channels: int, scale: int, stages: int) -> None:
        super().__init__(channels, scale, stages, dense=False)
        self.feat1 = ConvBlock(in_channels, channels, 1)
        self.output = ConvBlock(stages * channels, channels, 1, act="none")

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in, h, w)` -> `(B, C, s * h, s * w)`"""
        return self.output(self.project(self.feat1(x)))


class DenseDBPN(BackProjection):
    """The back-projection network of STINet: a frame in, features of the enlarged frame out."""

    def __init__(self, channels: int, scale: int, stages: int) -> None:
        super().__init__(channels, scale, stages, dense=True)
        self.feat0 = ConvBlock(3, channels)
        self.feat1 = ConvBlock(channels, channels, 1)
        self.output_conv1 = ConvBlock(stages * channels, channels, act="none")

    def forward(self, frame: Tensor) -> Tensor:
        """`(B, 3, h, w)` -> `(B, C, s * h, s * w)`"""
        return self.output_conv1(self.project(self.feat1(self.feat0(frame))))
