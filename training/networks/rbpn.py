"""RBPN: a recurrent back-projection network that restores a frame with one neighbour after another.

Each neighbour, together with its optical flow, is turned into features of the enlarged frame. Their difference from the
current features of the target is projected back, enlarged and added.

Haris, Shakhnarovich and Ukita, "Recurrent Back-Projection Network for Video Super-Resolution", CVPR 2019, sections 3.1
and 3.2.

N frames `(B, N, 3, h, w)` and N - 1 flows `(B, N - 1, 2, h, w)` become the enlarged middle frame,
`(B, 1, 3, s * h, s * w)`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...engine.contract.manifest import FixedFactors, FlowInput, SlidingWindow
from .base import Network
from .blocks import initialize_weights
from .dbpn import DBPN, ConvBlock, DeconvBlock, ResnetBlock, shrink
from .ops import upsample_bicubic


@dataclass(frozen=True)
class RBPNConfig:
    """The size of an RBPN. The defaults are the official ones."""

    base_filter: int = 256  # channels at the size of the input
    feat: int = 64  # channels at the size of the output
    num_stages: int = 3  # stages of back-projection
    n_resblock: int = 5  # residual blocks in each of the three stacks
    frames: int = 7  # input frames, an odd number
    scale: int = 4  # output size over input size
    residual: bool = False  # add the bicubic enlargement of the target to the output; the official test does not


RBPN_S = RBPNConfig(base_filter=32, feat=16, n_resblock=2, frames=5, residual=True)


class RBPN(Network):
    """A window of frames, with optical flows, becomes its enlarged middle frame."""

    # The official layers reach 85 pixels, but pixels beyond 10 change the output by less than 1e-5 of its range.
    halo_px = 32

    def __init__(self, config: RBPNConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or RBPNConfig()
        middle = c.frames // 2
        self.window = SlidingWindow(frames=c.frames, padding="replicate")
        self.space = FixedFactors(factors=(c.scale,))
        self.flows = (FlowInput(name="flow", pairs=tuple((middle, i) for i in range(c.frames) if i != middle)),)

        def resnets(channels: int) -> list[ResnetBlock]:
            return [ResnetBlock(channels) for _ in range(c.n_resblock)]

        self.feat0 = ConvBlock(3, c.base_filter)
        self.feat1 = ConvBlock(3 + 3 + 2, c.base_filter)
        self.DBPN = DBPN(c.base_filter, c.feat, c.scale, c.num_stages)
        self.res_feat1 = nn.Sequential(*resnets(c.base_filter), DeconvBlock(c.base_filter, c.feat, c.scale))
        self.res_feat2 = nn.Sequential(*resnets(c.feat), ConvBlock(c.feat, c.feat))
        self.res_feat3 = nn.Sequential(*resnets(c.feat), shrink(c.feat, c.base_filter, c.scale))
        self.output = ConvBlock((c.frames - 1) * c.feat, 3, act="none")
        if c.residual:
            initialize_weights(self.output, 0.1)  # training starts near the enlarged target

    def forward(self, frames: Tensor, flow: Tensor) -> Tensor:
        """Restore the middle frame.

        `frames`: `(B, N, 3, h, w)` in [0, 1]; `flow`: `(B, N - 1, 2, h, w)`, (dx, dy) in input pixels, from the middle
        frame to each other frame in order. Returns `(B, 1, 3, s * h, s * w)`, not clamped.
        """
        middle = self.config.frames // 2
        target, others = frames[:, middle], torch.cat((frames[:, :middle], frames[:, middle + 1 :]), 1)
        # The neighbours become the first axis, so that each is contiguous.
        pairs = torch.cat((target[:, None].expand_as(others), others, flow), 2).transpose(0, 1)
        enlarged = self.res_feat1(self.feat1(pairs.flatten(0, 1))).unflatten(0, (self.config.frames - 1, -1))

        features = self.feat0(target)
        highs: list[Tensor] = []
        for neighbour in enlarged:
            if highs:
                features = self.res_feat3(highs[-1])
            high = self.DBPN(features)
            highs.append(high + self.res_feat2(high - neighbour))
        out = self.output(torch.cat(highs, 1))
        if self.config.residual:
            out = out + upsample_bicubic(target, self.config.scale)
        return out[:, None]
