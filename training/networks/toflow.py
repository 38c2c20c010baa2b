"""TOFlow: neighbours are warped to the middle frame by flows that are trained for it, and a few layers fuse them.

Xue et al., "Video Enhancement with Task-Oriented Flow", 2019.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.contract.manifest import FixedFactors, SizeConstraint, SlidingWindow
from .base import Network
from .blocks import over_frames
from .ops import upsample_bicubic, warp
from .spynet import IMAGENET_MEAN, IMAGENET_STD, SpyNet


@dataclass(frozen=True)
class TOFlowConfig:
    """The size of a TOFlow and which of the official habits it keeps; the defaults are the official ones."""

    frames: int = 7
    enlarge: int = 4  # frames are made so much larger before all else; 1 takes them already enlarged
    width: int = 64
    flow_width: int = 32
    flow_levels: int = 4
    # The middle frame goes first to the fusion, as in the weights that the authors published.
    adapt_official_weights: bool = True
    official_sampling: bool = True  # as `SpyNet` says
    # Officially flows are those of the enlarged frames; those of the small ones cost 1 / enlarge**2 as much.
    flow_of_small_frames: bool = False


TOFLOW = TOFlowConfig()
TOFLOW_S = TOFlowConfig(width=32, flow_width=16, flow_levels=3, official_sampling=False, flow_of_small_frames=True)


# From the names of this state dict, which are BasicSR's, to those of DynaVSR's copy.
_OTHER_NAMES = {
    "spynet.basic_module.": "SpyNet.blocks.",
    ".basic_module.": ".block.",
    "conv_1.": "conv_3x7_64_9x9.",
    "conv_2.": "conv_64_64_9x9.",
    "conv_3.": "conv_64_64_1x1.",
    "conv_4.": "conv_64_3_1x1.",
}


class TOFlow(Network):
    """Restores the middle one of the frames."""

    constants = ("mean", "std")

    mean: Tensor
    std: Tensor

    def __init__(self, config: TOFlowConfig = TOFLOW) -> None:
        super().__init__()
        self.config: TOFlowConfig = config
        c = self.config
        self.window = SlidingWindow(frames=c.frames, padding="replicate")
        self.space = FixedFactors(factors=(c.enlarge,))
        seen = 1 if c.flow_of_small_frames else c.enlarge
        # The official rule; half as much would do.
        self.size = SizeConstraint(minimum=2, multiple_of=max(1, 2**c.flow_levels // seen))
        # Every level sees 15 of its own pixels around. Officially a flow depends on the size of the whole frame too.
        self.halo_px = None if c.official_sampling else 16 * self.size.multiple_of
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.spynet = SpyNet(c.flow_width, c.flow_levels, c.official_sampling)
        self.conv_1 = nn.Conv2d(3 * c.frames, c.width, 9, padding=4)
        self.conv_2 = nn.Conv2d(c.width, c.width, 9, padding=4)
        self.conv_3 = nn.Conv2d(c.width, c.width, 1)
        self.conv_4 = nn.Conv2d(c.width, 3, 1)

    def aliases(self) -> dict[str, str]:
        """The names of DynaVSR's copy."""
        names = {}
        for own in self.state_dict():
            other = own
            for part, replacement in _OTHER_NAMES.items():
                other = other.replace(part, replacement)
            names[other] = own
        return names

    def forward(self, frames: Tensor) -> Tensor:
        """(B, frames, 3, h, w) in [0, 1] -> (B, 1, 3, enlarge * h, enlarge * w)."""
        enlarge, middle = self.config.enlarge, self.config.frames // 2
        frames = torch.cat((frames[:, middle : middle + 1], frames[:, :middle], frames[:, middle + 1 :]), 1)
        small = (frames - self.mean) / self.std
        large = small
        if enlarge > 1:
            large = over_frames(lambda x: upsample_bicubic(x, enlarge), small)
        if self.config.flow_of_small_frames:
            flow = enlarge * F.interpolate(self._flow(small), scale_factor=enlarge, mode="bilinear")
        else:
            flow = self._flow(large)
        centre = large[:, :1]
        aligned = over_frames(lambda x: warp(x, flow, self.spynet.border), large[:, 1:])
        place = 0 if self.config.adapt_official_weights else middle
        x = torch.cat((aligned[:, :place], centre, aligned[:, place:]), 1).flatten(1, 2)
        x = F.relu(self.conv_2(F.relu(self.conv_1(x))))
        x = self.conv_4(F.relu(self.conv_3(x))).unsqueeze(1)
        return (centre + x) * self.std + self.mean

    def _flow(self, frames: Tensor) -> Tensor:
        """From the first frame to each of the others. (B, N, 3, H, W) -> (B * (N - 1), 2, H, W)"""
        others = frames[:, 1:]
        return self.spynet(frames[:, :1].expand_as(others).flatten(0, 1), others.flatten(0, 1))
