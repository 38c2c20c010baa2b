"""EDVR: deformable alignment of neighbouring frames with the middle frame, and fusion by attention.

Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks", CVPR Workshops 2019: alignment
in section 3.2, fusion in section 3.3.

N frames `(B, N, 3, h, w)` become the middle one at four times the size, `(B, 1, 3, 4h, 4w)`.
"""

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.contract.manifest import FixedFactors, SizeConstraint, SlidingWindow
from .alignment import DeformConvPack, Pyramid, pyramid, pyramid_align, pyramid_layers
from .base import Network
from .blocks import conv3x3, enlarge4, lrelu, over_frames, residual_stack, upsample2

# The names that EDVR's state dict has for some layers of `pyramid_align`.
_PCD_NAMES = {"dcnpack": "dcn_pack", "fea_conv": "feat_conv"}

# This state dict has the names of BasicSR. The rules lead to the names in the authors' first code.
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
    """The size of an EDVR. The names are those of the official configuration; the defaults are EDVR-M."""

    num_feat: int = 64  # channels of features
    num_frame: int = 5  # input frames, an odd number
    deformable_groups: int = 8  # groups of channels, each with its own deformable offsets
    num_extract_block: int = 5  # residual blocks before alignment
    num_reconstruct_block: int = 10  # residual blocks after fusion
    with_tsa: bool = True  # fuse by temporal and spatial attention; False fuses by one convolution


EDVR_M = EDVRConfig()
EDVR_L = EDVRConfig(num_feat=128, num_reconstruct_block=40)
EDVR_S = EDVRConfig(num_feat=32, deformable_groups=4, num_extract_block=2, num_reconstruct_block=5)


class CascadingAlignment(nn.Module):
    """Pyramid alignment followed by one more deformable convolution, the cascade of PCD."""

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
        """Align `moving` with `fixed`. Levels of `(B, C, H, W)` -> `(B, C, H, W)`"""
        aligned = pyramid_align(moving, fixed, self._layer)
        offset = lrelu(self.cas_offset_conv1(torch.cat((aligned, fixed[0]), dim=1)))
        return lrelu(self.cas_dcnpack(aligned, lrelu(self.cas_offset_conv2(offset))))

    def _layer(self, name: str, level: int) -> nn.Module:
        return self.get_submodule(f"{_PCD_NAMES.get(name, name)}.l{level}")


class TSAFusion(nn.Module):
    """Fusion by temporal and spatial attention (TSA).

    Temporal attention weights each pixel of each frame by its similarity to the middle frame; spatial attention then
    weights the pixels of the fused features.
    """

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
        """`(B, N, C, H, W)` -> `(B, C, H, W)`"""
        middle = self.temporal_attn1(aligned[:, aligned.shape[1] // 2])
        similarity = over_frames(self.temporal_attn2, aligned) * middle.unsqueeze(1)
        weighted = (aligned * torch.sigmoid(similarity.sum(2, keepdim=True))).flatten(1, 2)
        fused = lrelu(self.feat_fusion(weighted))

        half = lrelu(self.spatial_attn2(_pool(lrelu(self.spatial_attn1(weighted)))))
        quarter = lrelu(self.spatial_attn_l2(_pool(lrelu(self.spatial_attn_l1(half)))))
        quarter = lrelu(self.spatial_attn_l3(quarter))
        half = lrelu(self.spatial_attn3(half)) + upsample2(quarter)
        attention = self.spatial_attn5(upsample2(lrelu(self.spatial_attn4(half))))
        added = self.spatial_attn_add2(lrelu(self.spatial_attn_add1(attention)))
        return 2 * fused * torch.sigmoid(attention) + added


def _pool(x: Tensor) -> Tensor:
    """Concatenate maxima and means at half the size. `(B, C, H, W)` -> `(B, 2C, H/2, W/2)`"""
    return torch.cat((F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1)), dim=1)


class EDVR(Network):
    """A window of frames becomes its middle frame at four times the size."""

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
        self.conv_l2_1, self.conv_l2_2, self.conv_l3_1, self.conv_l3_2 = pyramid_layers(nf)
        self.pcd_align = CascadingAlignment(nf, config.deformable_groups)
        self.fusion = TSAFusion(nf, frames) if config.with_tsa else nn.Conv2d(frames * nf, nf, 1)
        self.reconstruction = residual_stack(nf, config.num_reconstruct_block)
        head = min(nf, 64)
        self.upconv1 = conv3x3(nf, 4 * nf)
        self.upconv2 = conv3x3(nf, 4 * head)
        self.conv_hr = conv3x3(head, head)
        self.conv_last = conv3x3(head, 3)

    def aliases(self) -> dict[str, str]:
        """Return the names of the weights in the authors' first code, each with the name in this state dict."""
        names = {}
        for own in self.state_dict():
            other = own
            for pattern, replacement in _FIRST_NAMES:
                other = re.sub(pattern, replacement, other)
            if other != own:
                names[other] = own
        return names

    def forward(self, frames: Tensor) -> Tensor:
        """`(B, N, 3, h, w)` in [0, 1], h and w multiples of 4 -> `(B, 1, 3, 4h, 4w)`, not clamped"""
        middle = self.config.num_frame // 2
        level1 = self.feature_extraction(lrelu(self.conv_first(frames.flatten(0, 1))))
        moving = pyramid(level1, self.conv_l2_1, self.conv_l2_2, self.conv_l3_1, self.conv_l3_2)
        # One batch aligns all frames with the middle one, including the middle frame itself.
        level1, level2, level3 = (_repeat(level.unflatten(0, frames.shape[:2]), middle) for level in moving)
        aligned = self.pcd_align(moving, (level1, level2, level3)).unflatten(0, frames.shape[:2])
        fused = self.fusion(aligned if self.config.with_tsa else aligned.flatten(1, 2))
        x = enlarge4(self.reconstruction(fused), self.upconv1, self.upconv2, self.conv_hr, self.conv_last)
        base = F.interpolate(frames[:, middle], scale_factor=4, mode="bilinear", align_corners=False)
        return (x + base).unsqueeze(1)


def _repeat(frames: Tensor, index: int) -> Tensor:
    """Repeat one of N frames N times. `(B, N, C, H, W)` -> `(B * N, C, H, W)`"""
    return frames[:, index : index + 1].expand_as(frames).flatten(0, 1)
