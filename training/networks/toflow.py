"""TOFlow: neighbours are warped to the middle frame by flows trained for the task, and a few convolutions fuse them.

Xue et al., "Video Enhancement with Task-Oriented Flow", IJCV 2019, section 4.

N frames `(B, N, 3, h, w)` become the restored middle frame, `(B, 1, 3, enlarge * h, enlarge * w)`.
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
    """The size of a TOFlow, and switches for quirks of the official code. The defaults are the official ones."""

    frames: int = 7  # input frames, an odd number
    enlarge: int = 4  # bicubic enlargement ahead of all layers; 1 expects frames that are already enlarged
    width: int = 64  # channels of the fusion
    flow_width: int = 32  # channels of SpyNet's first convolutions
    flow_levels: int = 4  # pyramid levels of SpyNet
    # True passes the middle frame to the fusion first, as the weights that the authors published expect; False keeps
    # the order of the frames.
    adapt_official_weights: bool = True
    # True shifts coarse flows and reads 0 outside frames, as the official code does; see `SpyNet`.
    official_sampling: bool = True
    # False computes flows between enlarged frames, as the official code does. True computes them between the input
    # frames, at 1 / enlarge**2 of the cost, and enlarges them.
    flow_of_small_frames: bool = False


TOFLOW = TOFlowConfig()
TOFLOW_S = TOFlowConfig(width=32, flow_width=16, flow_levels=3, official_sampling=False, flow_of_small_frames=True)


# This state dict has the names of BasicSR. The rules lead to the names in DynaVSR's copy of TOFlow.
_DYNAVSR_NAMES = {
    "spynet.basic_module.": "SpyNet.blocks.",
    ".basic_module.": ".block.",
    "conv_1.": "conv_3x7_64_9x9.",
    "conv_2.": "conv_64_64_9x9.",
    "conv_3.": "conv_64_64_1x1.",
    "conv_4.": "conv_64_3_1x1.",
}


class TOFlow(Network):
    """A window of frames becomes its restored middle frame."""

    constants = ("mean", "std")

    mean: Tensor
    std: Tensor

    def __init__(self, config: TOFlowConfig = TOFLOW) -> None:
        super().__init__()
        self.config: TOFlowConfig = config
        c = self.config
        self.window = SlidingWindow(frames=c.frames, padding="replicate")
        self.space = FixedFactors(factors=(c.enlarge,))
        flow_scale = 1 if c.flow_of_small_frames else c.enlarge
        # SpyNet's official rule is a multiple of 2**levels; 2**(levels - 1) would suffice.
        self.size = SizeConstraint(minimum=2, multiple_of=max(1, 2**c.flow_levels // flow_scale))
        # Every level depends on 15 of its own pixels around. The official flow also depends on the whole frame's size.
        self.halo_px = None if c.official_sampling else 16 * self.size.multiple_of
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.spynet = SpyNet(c.flow_width, c.flow_levels, c.official_sampling)
        self.conv_1 = nn.Conv2d(3 * c.frames, c.width, 9, padding=4)
        self.conv_2 = nn.Conv2d(c.width, c.width, 9, padding=4)
        self.conv_3 = nn.Conv2d(c.width, c.width, 1)
        self.conv_4 = nn.Conv2d(c.width, 3, 1)

    def aliases(self) -> dict[str, str]:
        """Return the names of the weights in DynaVSR's copy, each with the name in this state dict."""
        names = {}
        for own in self.state_dict():
            other = own
            for part, replacement in _DYNAVSR_NAMES.items():
                other = other.replace(part, replacement)
            names[other] = own
        return names

    def forward(self, frames: Tensor) -> Tensor:
        """`(B, N, 3, h, w)` in [0, 1] -> `(B, 1, 3, enlarge * h, enlarge * w)`, not clamped"""
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
        index = 0 if self.config.adapt_official_weights else middle
        x = torch.cat((aligned[:, :index], centre, aligned[:, index:]), 1).flatten(1, 2)
        x = F.relu(self.conv_2(F.relu(self.conv_1(x))))
        x = self.conv_4(F.relu(self.conv_3(x))).unsqueeze(1)
        return (centre + x) * self.std + self.mean

    def _flow(self, frames: Tensor) -> Tensor:
        """Return the flow from the first frame to each other frame. `(B, N, 3, H, W)` -> `(B * (N - 1), 2, H, W)`"""
        others = frames[:, 1:]
        return self.spynet(frames[:, :1].expand_as(others).flatten(0, 1), others.flatten(0, 1))
