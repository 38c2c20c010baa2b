"""Deep temporal super-resolution: a small 3-D network, trained on one video alone, that doubles its frame rate.

T frames `(B, T, 3, h, w)`, each exposed until the next one begins, become 2T frames of half the exposure,
`(B, 2T, 3, h, w)`. Cubic interpolation doubles the number of frames, and eight convolutions of small reach add a
residual.

Zuckerman et al., "Across Scales & Across Dimensions: Temporal Super-Resolution using Deep Internal Learning", ECCV
2020, section 4.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.contract.manifest import DoubledWindow, FixedFactors
from .base import Network
from .blocks import start_at_zero, with_neighbours
from .ops import upsample_cubic

_LAYERS = 8
_OVER_TIME = (1, 2, 8)  # layers whose kernels span three frames; the others' span one


@dataclass(frozen=True)
class DeepTemporalSRConfig:
    """The size of a deep temporal super-resolution network and how it doubles the frames."""

    width: int = 128  # channels
    # How the number of frames is doubled before the residual: the paper interpolates ("cubic"); the official code can
    # also repeat each frame ("duplicate") or insert black frames ("zero_gap").
    upsampling: Literal["cubic", "duplicate", "zero_gap"] = "cubic"
    # By how much frames are reduced before the network receives them, a power of two. Adaptation chooses the factor
    # from the motion in a clip; the engine enlarges the result and makes it agree with the input by back-projection.
    coarse: int = 1


DTSR = DeepTemporalSRConfig()
DTSR_S = DeepTemporalSRConfig(width=64)


class DeepTemporalSR(Network):
    """A network that doubles the frame rate of a sequence.

    Batch normalization is the official code's; the paper has none. Official training freezes its statistics at the
    first validation, which leaves the network in evaluation mode; here that is the caller's choice.

    Raises ValueError if `config.coarse` is not a power of two.
    """

    space = FixedFactors(factors=(1,))
    time = FixedFactors(factors=(2,))
    halo_px = _LAYERS
    ignored_prefixes = ("resizer.",)  # interpolation weights for the last size that the official code ran

    def __init__(self, config: DeepTemporalSRConfig = DTSR) -> None:
        super().__init__()
        self.config = config
        if config.coarse < 1 or config.coarse & (config.coarse - 1):
            raise ValueError(f"the configuration's 'coarse' must be a power of two (1, 2, 4, ...), not {config.coarse}")
        # A result depends on at most 3 input frames on each side.
        self.window = DoubledWindow(frames=8, overlap=3, coarse=config.coarse)
        widths = (3, *[config.width] * (_LAYERS - 1), 3)
        for n in range(1, _LAYERS + 1):
            taps = 3 if n in _OVER_TIME else 1
            # The 3-D layers only hold the weights: 2-D convolutions over frames, or stacked frames, run faster.
            self.add_module(f"L{n}", nn.Conv3d(widths[n - 1], widths[n], (taps, 3, 3)))
            if n < _LAYERS:
                self.add_module(f"L{n}_b", nn.BatchNorm2d(widths[n]))
        start_at_zero(self.get_submodule(f"L{_LAYERS}"))

    def forward(self, frames: Tensor) -> Tensor:
        """`(B, T, 3, h, w)` in [0, 1] -> `(B, 2T, 3, h, w)`, not clamped; T, h and w are 2 or more"""
        return self.refine(self._double(frames))

    def refine(self, video: Tensor) -> Tensor:
        """Add the residual to interpolated frames. `(B, T, 3, h, w)` -> `(B, T, 3, h, w)`"""
        batch = video.shape[0]
        # The video's edges are repeated once in time and space; layers pad with zeros beyond that.
        x = torch.cat((video[:, :1], video, video[:, -1:]), 1)
        x = F.pad(x.flatten(0, 1), (1, 1, 1, 1), "replicate")
        for n in range(1, _LAYERS):
            if n in _OVER_TIME:
                x = with_neighbours(F.pad(x.unflatten(0, (batch, -1)), (0, 0, 0, 0, 0, 0, 1, 1)))
            x = F.relu(self.get_submodule(f"L{n}_b")(self._convolve(n, x, padding=1)))
        # The last layer does not pad, which removes the repeated edges.
        x = with_neighbours(x.unflatten(0, (batch, -1)))
        return video + self._convolve(_LAYERS, x, padding=0).unflatten(0, (batch, -1))

    def _double(self, frames: Tensor) -> Tensor:
        """`(B, T, 3, h, w)` -> `(B, 2T, 3, h, w)`"""
        if self.config.upsampling == "cubic":
            return upsample_cubic(frames, 1, 2)
        second = frames if self.config.upsampling == "duplicate" else torch.zeros_like(frames)
        return torch.stack((frames, second), 2).flatten(1, 2)

    def _convolve(self, n: int, x: Tensor, padding: int) -> Tensor:
        """Apply layer n to frames, or to frames stacked with their neighbours.

        `(B * T, taps * C, H, W)` -> `(B * T, O, H', W')`
        """
        weight, bias = self.get_parameter(f"L{n}.weight"), self.get_parameter(f"L{n}.bias")
        return F.conv2d(x, weight.flatten(1, 2), bias, padding=padding)
