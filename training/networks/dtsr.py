"""Deep temporal super-resolution: a small 3-D network, trained on one video alone, doubles its frame rate.

Frames are made twice as many by cubic interpolation, and eight convolutions of small reach add what is missing.

Zuckerman et al., "Across Scales & Across Dimensions: Temporal Super-Resolution using Deep Internal Learning", 2020.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.contract.manifest import DoubledWindow, FixedFactors
from .base import Network
from .ops import upsample_cubic

_LAYERS = 8
_OVER_TIME = (1, 2, 8)  # layers that see a frame's two neighbours; the others see one frame


@dataclass(frozen=True)
class DeepTemporalSRConfig:
    """Width in channels; and how frames become twice as many: the paper interpolates, official code can do others.

    ``coarse`` says how many times smaller the frames are made that the network sees; what is no power of two is a
    ``ValueError`` of the network's.
    """

    width: int = 128
    upsampling: Literal["cubic", "duplicate", "zero_gap"] = "cubic"
    coarse: int = 1


DTSR = DeepTemporalSRConfig()
DTSR_S = DeepTemporalSRConfig(width=64)


def start_at_zero(layer: nn.Module) -> None:
    """Lets a network that adds this layer's output to an interpolation begin as that interpolation."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def with_neighbours(x: Tensor) -> Tensor:
    """Inner frames, each channel between those of the frames before and after. (B, T + 2, C, H, W) -> (B * T, 3C, H, W)

    A 3-D convolution is a 2-D one over these, whose weight is a view: (O, C, 3, kh, kw) -> (O, 3C, kh, kw).
    """
    beside = torch.stack((x[:, :-2], x[:, 1:-1], x[:, 2:]), 3)
    return beside.reshape(-1, 3 * x.shape[2], *x.shape[3:])


class DeepTemporalSR(Network):
    """T frames, each exposed until the next begins -> 2T frames of half the exposure.

    Batch normalization is the official code's, the paper has none. Official training stops its statistics at the
    first validation, which leaves the network in evaluation mode; this one leaves that to whoever trains it.
    """

    space = FixedFactors(factors=(1,))
    time = FixedFactors(factors=(2,))
    halo_px = _LAYERS
    ignored = ("resizer.",)  # the interpolation's weights at the size that it ran last

    def __init__(self, config: DeepTemporalSRConfig = DTSR) -> None:
        super().__init__()
        self.config = config
        if config.coarse < 1 or config.coarse & (config.coarse - 1):
            raise ValueError(f"frames are made 1, 2, 4, ... times smaller, not {config.coarse}")
        # A result sees 3 frames on each side, no more.
        self.window = DoubledWindow(frames=8, overlap=3, coarse=config.coarse)
        widths = (3, *[config.width] * (_LAYERS - 1), 3)
        for n in range(1, _LAYERS + 1):
            taps = 3 if n in _OVER_TIME else 1
            # Only weights: a 2-D convolution over frames, or over frames with their neighbours, runs faster.
            self.add_module(f"L{n}", nn.Conv3d(widths[n - 1], widths[n], (taps, 3, 3)))
            if n < _LAYERS:
                self.add_module(f"L{n}_b", nn.BatchNorm2d(widths[n]))
        start_at_zero(self.get_submodule(f"L{_LAYERS}"))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, h, w) in [0, 1] -> (B, 2T, 3, h, w), not clamped; T and both sizes are 2 or more."""
        return self.refine(self._double(frames))

    def refine(self, video: Tensor) -> Tensor:
        """Adds what interpolation has missed. (B, T, 3, h, w) -> (B, T, 3, h, w)"""
        batch = video.shape[0]
        # The video's edge is repeated once in time and space, and what lies beyond is zero.
        x = torch.cat((video[:, :1], video, video[:, -1:]), 1)
        x = F.pad(x.flatten(0, 1), (1, 1, 1, 1), "replicate")
        for n in range(1, _LAYERS):
            if n in _OVER_TIME:
                x = with_neighbours(F.pad(x.unflatten(0, (batch, -1)), (0, 0, 0, 0, 0, 0, 1, 1)))
            x = F.relu(self.get_submodule(f"L{n}_b")(self._convolve(n, x, padding=1)))
        # The last layer pads nothing, so what was repeated falls away.
        x = with_neighbours(x.unflatten(0, (batch, -1)))
        return video + self._convolve(_LAYERS, x, padding=0).unflatten(0, (batch, -1))

    def _double(self, frames: Tensor) -> Tensor:
        """(B, T, 3, h, w) -> (B, 2T, 3, h, w)"""
        if self.config.upsampling == "cubic":
            return upsample_cubic(frames, 1, 2)
        second = frames if self.config.upsampling == "duplicate" else torch.zeros_like(frames)
        return torch.stack((frames, second), 2).flatten(1, 2)

    def _convolve(self, n: int, x: Tensor, padding: int) -> Tensor:
        """Layer n, over frames or over frames with their neighbours. (B * T, taps * C, H, W) -> (B * T, O, H', W')"""
        weight, bias = self.get_parameter(f"L{n}.weight"), self.get_parameter(f"L{n}.bias")
        return F.conv2d(x, weight.flatten(1, 2), bias, padding=padding)
