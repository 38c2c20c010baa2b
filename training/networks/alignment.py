"""Pyramid, cascading and deformable (PCD) alignment of feature maps, in EDVR and in Zooming Slow-Mo.

A pyramid is the features at full, half and quarter size, levels 1 to 3, and needs a size that 4 divides.

Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks", 2019.
Xiang et al., "Zooming Slow-Mo: Fast and Accurate One-Stage Space-Time Video Super-Resolution", 2020.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .blocks import conv3x3, lrelu, upsample2
from .ops import modulated_deform_conv2d

Pyramid = Sequence[Tensor]  # levels 1 to 3
Modulation = Callable[[int, Tensor], Tensor]  # of a level's features, as `pyramid_align` says it


class DeformConvPack(nn.Module):
    """A 3x3 deformable convolution whose offsets and mask come from other features."""

    def __init__(self, channels: int, groups: int, offset_name: str = "conv_offset_mask") -> None:
        super().__init__()
        template = conv3x3(channels, channels)
        self.weight = template.weight
        self.bias = template.bias
        self.groups = groups
        self.offset_name = offset_name
        to_offset = conv3x3(channels, 3 * groups * 9)
        # At first it reads where a plain convolution reads.
        nn.init.zeros_(to_offset.weight)
        nn.init.zeros_(to_offset.bias)  # type: ignore[arg-type]
        self.add_module(offset_name, to_offset)

    def forward(self, x: Tensor, offset_features: Tensor) -> Tensor:
        """x, offset_features: (B, C, H, W) -> (B, C, H, W)."""
        # Two thirds are offsets, each a dy beside its dx; the last third is the mask.
        taps = self.groups * 9
        offset, mask = self.get_submodule(self.offset_name)(offset_features).split((2 * taps, taps), dim=1)
        mask = torch.sigmoid(mask)
        return modulated_deform_conv2d(x, offset, mask, self.weight, self.bias, padding=1, offset_groups=self.groups)


def pyramid(level1: Tensor, half1: nn.Module, half2: nn.Module, quarter1: nn.Module, quarter2: nn.Module) -> Pyramid:
    """Features at three sizes; `half1` and `quarter1` are of stride 2. (B, C, H, W) -> the same, at /2 and at /4."""
    level2 = lrelu(half2(lrelu(half1(level1))))
    level3 = lrelu(quarter2(lrelu(quarter1(level2))))
    return level1, level2, level3


def pyramid_align(
    moving: Pyramid,
    fixed: Pyramid,
    layer: Callable[[str, int], nn.Module],
    modulate: Modulation | None = None,
) -> Tensor:
    """The features of one frame, aligned with another from the coarsest level to the finest.

    ``layer(name, level)`` gives the layers: "offset_conv1" to "offset_conv3" (level 3 has two), "dcnpack", and, but for
    level 3, "fea_conv". ``modulate(level, features)`` is added to what the last offset layer makes of features,
    (B, C, H, W) -> (B, C, H, W). Levels of (B, C, H, W) -> (B, C, H, W).
    """
    offset = aligned = moving[2]  # of the level below
    for level in (3, 2, 1):
        here = moving[level - 1]
        features = lrelu(layer("offset_conv1", level)(torch.cat((here, fixed[level - 1]), dim=1)))
        if level < 3:
            # An offset of one pixel is one of two pixels at twice the size.
            features = torch.cat((features, 2 * upsample2(offset)), dim=1)
            features = lrelu(layer("offset_conv2", level)(features))
        last = layer("offset_conv2" if level == 3 else "offset_conv3", level)
        offset = lrelu(last(features))
        if modulate is not None:
            offset = offset + modulate(level, features)
        moved = layer("dcnpack", level)(here, offset)
        if level < 3:
            moved = layer("fea_conv", level)(torch.cat((moved, upsample2(aligned)), dim=1))
        aligned = lrelu(moved) if level > 1 else moved
    return aligned


class PCDAlign(nn.Module):
    """Aligns two feature maps to the moment between them, each with its own layers (`_1` and `_2`)."""

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
        """Both aligned to the middle, the first before the second. Levels of (B, C, H, W) -> (B, 2C, H, W)."""
        return torch.cat((self.align(1, first, second), self.align(2, second, first)), dim=1)

    def align(self, side: int, moving: Pyramid, fixed: Pyramid, modulate: Modulation | None = None) -> Tensor:
        """One of the two, by the layers of its side. Levels of (B, C, H, W) -> (B, C, H, W)."""
        return pyramid_align(moving, fixed, lambda name, level: self.get_submodule(f"L{level}_{name}_{side}"), modulate)


class EasyPCD(nn.Module):
    """Aligns two feature maps of one size and fuses them; it builds the pyramids itself."""

    def __init__(self, channels: int = 64, groups: int = 8) -> None:
        super().__init__()
        self.fea_L2_conv1 = conv3x3(channels, channels, stride=2)
        self.fea_L2_conv2 = conv3x3(channels, channels)
        self.fea_L3_conv1 = conv3x3(channels, channels, stride=2)
        self.fea_L3_conv2 = conv3x3(channels, channels)
        self.pcd_align = PCDAlign(channels, groups)
        self.fusion = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """first, second: (B, C, H, W) -> (B, C, H, W)."""
        layers = self.fea_L2_conv1, self.fea_L2_conv2, self.fea_L3_conv1, self.fea_L3_conv2
        return self.fusion(self.pcd_align(pyramid(first, *layers), pyramid(second, *layers)))
