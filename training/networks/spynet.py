"""SpyNet: optical flow from coarse to fine, where each pyramid level refines the flow of the coarser one.

Ranjan and Black, "Optical Flow Estimation using a Spatial Pyramid Network", CVPR 2017, section 3, in the form of Xue et
al., "Video Enhancement with Task-Oriented Flow", IJCV 2019, section 4: four levels, batch normalization.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import upsample2
from .ops import Border, warp

# Statistics of ImageNet for R, G and B in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class BasicModule(nn.Module):
    """The refinement of one level: five 7x7 convolutions that compute a residual flow."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (8, width, 2 * width, width, width // 2)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Conv2d(n_in, n_out, 7, padding=3, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
        last = nn.Conv2d(sizes[-1], 2, 7, padding=3)
        # The untrained network estimates almost no motion.
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.basic_module = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """Compute a residual from fixed frame, warped frame and coarse flow. `(B, 8, H, W)` -> `(B, 2, H, W)`"""
        return self.basic_module(x)


class SpyNet(nn.Module):
    """Optical flow between two frames.

    `width`: channels of each level's first convolution; `levels`: levels of the pyramid; `official_sampling`: a quirk
    of the official code. It enlarges coarse flows with aligned corners, which shifts them by up to half a pixel of the
    finer level, and its warps read 0, the mean colour, outside the frame. False keeps flows at their positions and
    repeats the edges of frames.
    """

    def __init__(self, width: int = 32, levels: int = 4, official_sampling: bool = True) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(BasicModule(width) for _ in range(levels))
        self.official_sampling = official_sampling

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """Return the position of each pixel of `fixed` in `moving`, relative to its own.

        Both frames are `(B, 3, H, W)`, normalized by ImageNet's mean and standard deviation; H and W are multiples of
        `2 ** (levels - 1)`. Returns `(B, 2, H, W)`, (dx, dy) in pixels.
        """
        pyramid = [(fixed, moving)]
        for _ in self.basic_module[1:]:
            pyramid.append((F.avg_pool2d(pyramid[-1][0], 2), F.avg_pool2d(pyramid[-1][1], 2)))
        fixed, moving = pyramid.pop()
        flow = torch.zeros_like(fixed[:, :2])
        flow = self.basic_module[0](torch.cat((fixed, moving, flow), 1))
        for module in self.basic_module[1:]:
            fixed, moving = pyramid.pop()
            flow = 2 * self._enlarge(flow)
            flow = flow + module(torch.cat((fixed, warp(moving, flow, self.border), flow), 1))
        return flow

    @property
    def border(self) -> Border:
        """The border mode of warps."""
        return "zeros" if self.official_sampling else "clamp"

    def _enlarge(self, flow: Tensor) -> Tensor:
        if self.official_sampling:
            return F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
        return upsample2(flow)
