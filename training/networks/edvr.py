"""EDVR: neighbours' features are aligned to the middle frame by deformable convolutions, and fused by attention.

Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks", 2019.
"""

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.contract.manifest import FixedFactors, SizeConstraint, SlidingWindow
from .alignment import DeformConvPack, Pyramid, pyramid, pyramid_align
from .base import Network
from .blocks import conv3x3, enlarge4, lrelu, over_frames, residual_stack, upsample2

# Layers of a pyramid's alignment that have another name here.
_PCD_NAMES = {"dcnpack": "dcn_pack", "fea_conv": "feat_conv"}

# From the names of this state dict, which are BasicSR's, to those of the authors' first code.
_FIRST_NAMES = (
    (r"^conv_l(\d)_(\d)", r"fea_L\1_conv\2"),
    (r"offset_conv(\d)\.l(\d)", r"L\2_offset_conv\1"),
    (r"dcn_pack\.l(\d)", r"L\1_dcnpack"),
    (r"feat_conv\.l(\d)", r"L\1_fea_conv"),
    (r"conv_offset\.", "conv_offset_mask."),
    (r"temporal_attn1", "tAtt_2"),
    (r"temporal_attn2", "tAtt_1"),
    (r"spatial_attn_l", "sAtt_L"),
    (r"spatial_attn_add", "sAtt_add_"),
    (r"spatial_attn", "sAtt_"),
    (r"feat_fusion", "fea_fusion"),
    (r"^fusion", "tsa_fusion"),
    (r"^reconstruction", "recon_trunk"),
    (r"^conv_hr", "HRconv"),
)


@dataclass(frozen=True)
class EDVRConfig:
    """The size of an EDVR; the defaults are those of EDVR-M."""

    num_feat: int = 64
    num_frame: int = 5
    deformable_groups: int = 8
    num_extract_block: int = 5
    num_reconstruct_block: int = 10
    with_tsa: bool = True


EDVR_M = EDVRConfig()
EDVR_L = EDVRConfig(num_feat=128, num_reconstruct_block=40)
EDVR_S = EDVRConfig(num_feat=32, deformable_groups=4, num_extract_block=2, num_reconstruct_block=5)


class CascadingAlignment(nn.Module):
    """The alignment of a pyramid, and one more deformable convolution upon it."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.offset_conv1 = nn.ModuleDict({f"l{level}": conv3x3(2 * channels, channels) for level in (3, 2, 1)})
        self.offset_conv2 = nn.ModuleDict({"l3": conv3x3(channels, channels)})
        self.offset_conv3 = nn.ModuleDict()
        self.dcn_pack = nn.ModuleDict()
        self.feat_conv = nn.ModuleDict()
        for level in (3, 2, 1):
            self.dcn_pack[f"l{level}"] = DeformConvPack(channels, groups, "conv_offset")
        for level in (2, 1):
            self.offset_conv2[f"l{level}"] = conv3x3(2 * channels, channels)
            self.offset_conv3[f"l{level}"] = conv3x3(channels, channels)
            self.feat_conv[f"l{level}"] = conv3x3(2 * channels, channels)
        self.cas_offset_conv1 = conv3x3(2 * channels, channels)
        self.cas_offset_conv2 = conv3x3(channels, channels)
        self.cas_dcnpack = DeformConvPack(channels, groups, "conv_offset")

    def forward(self, moving: Pyramid, fixed: Pyramid) -> Tensor:
        """Levels of (B, C, H, W) -> ``moving`` as seen from ``fixed``, (B, C, H, W)."""
        aligned = pyramid_align(moving, fixed, self._layer)
        offset = lrelu(self.cas_offset_conv1(torch.cat((aligned, fixed[0]), dim=1)))
        return lrelu(self.cas_dcnpack(aligned, lrelu(self.cas_offset_conv2(offset))))

    def _layer(self, name: str, level: int) -> nn.Module:
        return self.get_submodule(f"{_PCD_NAMES.get(name, name)}.l{level}")


class TSAFusion(nn.Module):
    """Temporal and spatial attention: frames count by their likeness to the middle one, places by what they show."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.temporal_attn1 = conv3x3(channels, channels)
        self.temporal_attn2 = conv3x3(channels, channels)
        self.feat_fusion = nn.Conv2d(frames * channels, channels, 1)
        self.spatial_attn1 = nn.Conv2d(frames * channels, channels, 1)
        self.spatial_attn2 = nn.Conv2d(2 * channels, channels, 1)
        self.spatial_attn3 = conv3x3(channels, channels)
        self.spatial_attn4 = nn.Conv2d(channels, channels, 1)
        self.spatial_attn5 = conv3x3(channels, channels)
        self.spatial_attn_l1 = nn.Conv2d(channels, channels, 1)
        self.spatial_attn_l2 = conv3x3(2 * channels, channels)
        self.spatial_attn_l3 = conv3x3(channels, channels)
        self.spatial_attn_add1 = nn.Conv2d(channels, channels, 1)
        self.spatial_attn_add2 = nn.Conv2d(channels, channels, 1)

    def forward(self, aligned: Tensor) -> Tensor:
        """(B, N, C, H, W) -> (B, C, H, W)."""
        middle = self.temporal_attn1(aligned[:, aligned.shape[1] // 2])
        likeness = over_frames(self.temporal_attn2, aligned) * middle.unsqueeze(1)
        weighed = (aligned * torch.sigmoid(likeness.sum(2, keepdim=True))).flatten(1, 2)
        fused = lrelu(self.feat_fusion(weighed))

        half = lrelu(self.spatial_attn2(_pool(lrelu(self.spatial_attn1(weighed)))))
        quarter = lrelu(self.spatial_attn_l2(_pool(lrelu(self.spatial_attn_l1(half)))))
        quarter = lrelu(self.spatial_attn_l3(quarter))
        half = lrelu(self.spatial_attn3(half)) + upsample2(quarter)
        attention = self.spatial_attn5(upsample2(lrelu(self.spatial_attn4(half))))
        added = self.spatial_attn_add2(lrelu(self.spatial_attn_add1(attention)))
        return 2 * fused * torch.sigmoid(attention) + added


def _pool(x: Tensor) -> Tensor:
    """Maxima and means at half the size. (B, C, H, W) -> (B, 2C, H/2, W/2)"""
    return torch.cat((F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1)), dim=1)


class EDVR(Network):
    """Makes the middle one of the frames four times as large."""

    space = FixedFactors(factors=(4,))
    size = SizeConstraint(minimum=4, multiple_of=4)
    halo_px = 32

    def __init__(self, config: EDVRConfig = EDVR_M) -> None:
        super().__init__()
        self.config: EDVRConfig = config
        self.window = SlidingWindow(frames=config.num_frame, padding="reflection_circle")
        nf, frames = config.num_feat, config.num_frame
        self.conv_first = conv3x3(3, nf)
        self.feature_extraction = residual_stack(nf, config.num_extract_block)
        self.conv_l2_1 = conv3x3(nf, nf, stride=2)
        self.conv_l2_2 = conv3x3(nf, nf)
        self.conv_l3_1 = conv3x3(nf, nf, stride=2)
        self.conv_l3_2 = conv3x3(nf, nf)
        self.pcd_align = CascadingAlignment(nf, config.deformable_groups)
        self.fusion = TSAFusion(nf, frames) if config.with_tsa else nn.Conv2d(frames * nf, nf, 1)
        self.reconstruction = residual_stack(nf, config.num_reconstruct_block)
        head = min(nf, 64)
        self.upconv1 = conv3x3(nf, 4 * nf)
        self.upconv2 = conv3x3(nf, 4 * head)
        self.conv_hr = conv3x3(head, head)
        self.conv_last = conv3x3(head, 3)

    def aliases(self) -> dict[str, str]:
        """The names of the authors' first code, by rule."""
        names = {}
        for own in self.state_dict():
            other = own
            for pattern, replacement in _FIRST_NAMES:
                other = re.sub(pattern, replacement, other)
            if other != own:
                names[other] = own
        return names

    def forward(self, frames: Tensor) -> Tensor:
        """(B, num_frame, 3, h, w) in [0, 1], h and w multiples of 4 -> (B, 1, 3, 4h, 4w)."""
        middle = self.config.num_frame // 2
        level1 = self.feature_extraction(lrelu(self.conv_first(frames.flatten(0, 1))))
        moving = pyramid(level1, self.conv_l2_1, self.conv_l2_2, self.conv_l3_1, self.conv_l3_2)
        # All frames at once, the middle one too, each with the middle one beside it.
        level1, level2, level3 = (_repeat(level.unflatten(0, frames.shape[:2]), middle) for level in moving)
        aligned = self.pcd_align(moving, (level1, level2, level3)).unflatten(0, frames.shape[:2])
        fused = self.fusion(aligned if self.config.with_tsa else aligned.flatten(1, 2))
        x = enlarge4(self.reconstruction(fused), self.upconv1, self.upconv2, self.conv_hr, self.conv_last)
        base = F.interpolate(frames[:, middle], scale_factor=4, mode="bilinear", align_corners=False)
        return (x + base).unsqueeze(1)


def _repeat(frames: Tensor, index: int) -> Tensor:
    """One of N frames, N times over. (B, N, C, H, W) -> (B * N, C, H, W)"""
    return frames[:, index : index + 1].expand_as(frames).flatten(0, 1)
