"""SpyNet: optical flow from coarse to fine, each level adding to what the coarser ones found.

Ranjan and Black, "Optical Flow Estimation using a Spatial Pyramid Network", 2017; in the form of Xue et al., "Video
Enhancement with Task-Oriented Flow", 2019.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import upsample2
from .ops import Border, warp

# Of ImageNet's pictures, R, G and B in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class BasicModule(nn.Module):
    """What one level adds to the flow: five 7x7 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (8, width, 2 * width, width, width // 2)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Conv2d(n_in, n_out, 7, padding=3, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
        last = nn.Conv2d(sizes[-1], 2, 7, padding=3)
        # At first nothing moves.
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.basic_module = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        """Fixed frame, warped frame and flow so far, (B, 8, H, W) -> (B, 2, H, W)."""
        return self.basic_module(x)


class SpyNet(nn.Module):
    """Flows between frames that were normalised by ImageNet's mean and deviation, and that 2 ** (levels - 1) divides.

    ``official_sampling`` lays a coarser flow from corner pixel to corner pixel, up to half of its pixels away from
    where it was found, and surrounds frames with their mean colour. Without it flows stay in place, and the edges of
    frames are repeated.
    """

    def __init__(self, width: int = 32, levels: int = 4, official_sampling: bool = True) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(BasicModule(width) for _ in range(levels))
        self.official_sampling = official_sampling

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """Where in ``moving`` each pixel of ``fixed`` is. (B, 3, H, W) twice -> (B, 2, H, W) in pixels (dx, dy)."""
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
        """What frames are surrounded by where they are warped."""
        return "zeros" if self.official_sampling else "clamp"

    def _enlarge(self, flow: Tensor) -> Tensor:
        if self.official_sampling:
            return F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
        return upsample2(flow)
