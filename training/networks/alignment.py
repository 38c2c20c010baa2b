"""Pyramid, cascading and deformable (PCD) alignment of feature maps, which EDVR and Zooming Slow-Mo use.

A pyramid contains features at full, half and quarter size, levels 1 to 3, so the full size must be a multiple of 4.
Deformable convolutions align level 3 first; each finer level starts from the upsampled offsets and features of the
level below it.

Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks", 2019, section 3.2.
Xiang et al., "Zooming Slow-Mo: Fast and Accurate One-Stage Space-Time Video Super-Resolution", CVPR 2020, section 3.1.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .blocks import conv3x3, lrelu, upsample2
from .ops import modulated_deform_conv2d

Pyramid = Sequence[Tensor]  # levels 1 to 3
Modulation = Callable[[int, Tensor], Tensor]  # (level, offset features (B, C, H, W)) -> (B, C, H, W)


class DeformConvPack(nn.Module):
    """A 3x3 deformable convolution that computes its offsets and mask from separate features.

    `offset_name` is the name of the offset layer in the state dict, which differs between official checkpoints.
    """

    def __init__(self, channels: int, groups: int, offset_name: str = "conv_offset_mask") -> None:
        super().__init__()
        template = conv3x3(channels, channels)
        self.weight = template.weight
        self.bias = template.bias
        self.groups = groups
        self.offset_name = offset_name
        to_offset = conv3x3(channels, 3 * groups * 9)
        # Zero offsets: the layer starts as a plain convolution.
        nn.init.zeros_(to_offset.weight)
        nn.init.zeros_(to_offset.bias)  # type: ignore[arg-type]
        self.add_module(offset_name, to_offset)

    def forward(self, x: Tensor, offset_features: Tensor) -> Tensor:
        """Convolve `x` at offsets computed from `offset_features`. Both `(B, C, H, W)` -> `(B, C, H, W)`"""
        # Two thirds of the channels are offsets, the dy of a tap before its dx; the last third is the mask.
        taps = self.groups * 9
        offset, mask = self.get_submodule(self.offset_name)(offset_features).split((2 * taps, taps), dim=1)
        mask = torch.sigmoid(mask)
        return modulated_deform_conv2d(x, offset, mask, self.weight, self.bias, padding=1, offset_groups=self.groups)


def pyramid_layers(channels: int) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d, nn.Conv2d]:
    """Return the four convolutions that `pyramid` applies: two for level 2, two for level 3."""
    half1, half2 = conv3x3(channels, channels, stride=2), conv3x3(channels, channels)
    return half1, half2, conv3x3(channels, channels, stride=2), conv3x3(channels, channels)


def pyramid(level1: Tensor, half1: nn.Module, half2: nn.Module, quarter1: nn.Module, quarter2: nn.Module) -> Pyramid:
    """Build a pyramid with the layers of `pyramid_layers`.

    `(B, C, H, W)` -> the same tensor, `(B, C, H/2, W/2)`, `(B, C, H/4, W/4)`
    """
    level2 = lrelu(half2(lrelu(half1(level1))))
    level3 = lrelu(quarter2(lrelu(quarter1(level2))))
    return level1, level2, level3


def pyramid_align(
    moving: Pyramid,
    fixed: Pyramid,
    layer: Callable[[str, int], nn.Module],
    modulate: Modulation | None = None,
) -> Tensor:
    """Align the features of one frame with those of another, from the coarsest level to the finest.

    `layer(name, level)` returns the layers: "offset_conv1" to "offset_conv3" (level 3 has only the first two),
    "dcnpack", and on levels 1 and 2 "fea_conv". The result of `modulate(level, features)` is added to the output of
    each level's last offset layer, whose input is `features`. Levels of `(B, C, H, W)` -> `(B, C, H, W)`
    """
    offset = aligned = moving[2]  # both are of the next coarser level
    for level in (3, 2, 1):
        current = moving[level - 1]
        features = lrelu(layer("offset_conv1", level)(torch.cat((current, fixed[level - 1]), dim=1)))
        if level < 3:
            # An offset of one pixel is an offset of two pixels at twice the size.
            features = torch.cat((features, 2 * upsample2(offset)), dim=1)
            features = lrelu(layer("offset_conv2", level)(features))
        last = layer("offset_conv2" if level == 3 else "offset_conv3", level)
        offset = lrelu(last(features))
        if modulate is not None:
            offset = offset + modulate(level, features)
        deformed = layer("dcnpack", level)(current, offset)
        if level < 3:
            deformed = layer("fea_conv", level)(torch.cat((deformed, upsample2(aligned)), dim=1))
        aligned = lrelu(deformed) if level > 1 else deformed
    return aligned


class PCDAlign(nn.Module):
    """Alignment of two feature maps with the time half-way between them.

    Each of the two has its own layers: the first those with the suffix `_1`, the second those with `_2`.
    """

    def __init__(self, channels: int = 64, groups: int = 8) -> None:
        super().__init__()
        for side in (1, 2):
            for level in (3, 2, 1):
                self.add_module(f"L{level}_offset_conv1_{side}", conv3x3(2 * channels, channels))
                if level == 3:
                    self.add_module(f"L{level}_offset_conv2_{side}", conv3x3(channels, channels))
                else:
                    self.add_module(f"L{level}_offset_conv2_{side}", conv3x3(2 * channels, channels))
                    self.add_module(f"L{level}_offset_conv3_{side}", conv3x3(channels, channels))
                    self.add_module(f"L{level}_fea_conv_{side}", conv3x3(2 * channels, channels))
                self.add_module(f"L{level}_dcnpack_{side}", DeformConvPack(channels, groups))

    def forward(self, first: Pyramid, second: Pyramid) -> Tensor:
        """Align both with the middle and concatenate them. Levels of `(B, C, H, W)` -> `(B, 2C, H, W)`"""
        return torch.cat((self.align(1, first, second), self.align(2, second, first)), dim=1)

    def align(self, side: int, moving: Pyramid, fixed: Pyramid, modulate: Modulation | None = None) -> Tensor:
        """Align `moving` by the layers of `side`, 1 or 2. Levels of `(B, C, H, W)` -> `(B, C, H, W)`"""
        return pyramid_align(moving, fixed, lambda name, level: self.get_submodule(f"L{level}_{name}_{side}"), modulate)


class EasyPCD(nn.Module):
    """Alignment and fusion of two feature maps of one size, with pyramids built from them."""

    def __init__(self, channels: int = 64, groups: int = 8) -> None:
        super().__init__()
        self.fea_L2_conv1, self.fea_L2_conv2, self.fea_L3_conv1, self.fea_L3_conv2 = pyramid_layers(channels)
        self.pcd_align = PCDAlign(channels, groups)
        self.fusion = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Both `(B, C, H, W)` -> `(B, C, H, W)`"""
        layers = self.fea_L2_conv1, self.fea_L2_conv2, self.fea_L3_conv1, self.fea_L3_conv2
        return self.fusion(self.pcd_align(pyramid(first, *layers), pyramid(second, *layers)))
