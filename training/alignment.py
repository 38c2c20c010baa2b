"""Pyramid, cascading and deformable (PCD) alignment of feature maps, as in Zooming Slow-Mo.

A pyramid is the features at full, half and quarter size, levels 1 to 3, and needs a size that 4 divides.
"""

import torch
from torch import Tensor, nn

from .blocks import conv3x3, lrelu, upsample2
from .ops import modulated_deform_conv2d

Pyramid = tuple[Tensor, Tensor, Tensor]


class DeformConvPack(nn.Module):
    """A 3x3 deformable convolution whose offsets and mask come from other features."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        template = conv3x3(channels, channels)
        self.weight = template.weight
        self.bias = template.bias
        self.groups = groups
        self.conv_offset_mask = conv3x3(channels, 3 * groups * 9)
        # At first it reads where a plain convolution reads.
        nn.init.zeros_(self.conv_offset_mask.weight)
        nn.init.zeros_(self.conv_offset_mask.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, offset_features: Tensor) -> Tensor:
        """x, offset_features: (B, C, H, W) -> (B, C, H, W)."""
        out = self.conv_offset_mask(offset_features)
        # Two thirds are offsets, each a dy beside its dx; the last third is the mask.
        split = 2 * self.groups * 9
        offset, mask = out[:, :split], torch.sigmoid(out[:, split:])
        return modulated_deform_conv2d(x, offset, mask, self.weight, self.bias, padding=1, offset_groups=self.groups)


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
        return torch.cat((self._align(1, first, second), self._align(2, second, first)), dim=1)

    def _align(self, side: int, moving: Pyramid, other: Pyramid) -> Tensor:
        """One map of a pair, aligned from the coarsest level to the finest. -> (B, C, H, W)."""

        def layer(name: str) -> nn.Module:
            return self.get_submodule(f"{name}_{side}")

        offset = lrelu(layer("L3_offset_conv1")(torch.cat((moving[2], other[2]), dim=1)))
        offset = lrelu(layer("L3_offset_conv2")(offset))
        aligned = lrelu(layer("L3_dcnpack")(moving[2], offset))
        for level in (2, 1):
            name = f"L{level}"
            pair = torch.cat((moving[level - 1], other[level - 1]), dim=1)
            # An offset of one pixel is one of two pixels at twice the size.
            coarse = 2 * upsample2(offset)
            offset = lrelu(layer(f"{name}_offset_conv1")(pair))
            offset = lrelu(layer(f"{name}_offset_conv2")(torch.cat((offset, coarse), dim=1)))
            offset = lrelu(layer(f"{name}_offset_conv3")(offset))
            fine = layer(f"{name}_dcnpack")(moving[level - 1], offset)
            aligned = layer(f"{name}_fea_conv")(torch.cat((fine, upsample2(aligned)), dim=1))
            if level == 2:
                aligned = lrelu(aligned)
        return aligned


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
        level1 = torch.cat((first, second))
        level2 = lrelu(self.fea_L2_conv2(lrelu(self.fea_L2_conv1(level1))))
        level3 = lrelu(self.fea_L3_conv2(lrelu(self.fea_L3_conv1(level2))))
        batch = first.shape[0]
        firsts = (level1[:batch], level2[:batch], level3[:batch])
        seconds = (level1[batch:], level2[batch:], level3[batch:])
        return self.fusion(self.pcd_align(firsts, seconds))
