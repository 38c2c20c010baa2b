"""Fourier-S: the default network. Warped features of two frames, refined, and a Fourier field for any size.

It is continuous in space and time, as VideoINR (Chen et al., CVPR 2022), and made for speed on a CPU:

- Motion is estimated at time t itself, from coarse to fine. One set of weights serves every level from 1/32 to 1/4 of
  the size, on features of the frame at 1/8 to all of its size; so motion that is larger in pixels, in a larger frame,
  is the same task at a coarser level.
- Features are fused and refined at the input's size, where a pixel costs 1/16 of the work at the target's size.
- The last step is a Fourier field (`field.py`), which is linear in what the network computes: at integer scale
  factors it is one matrix product.

Two frames `(B, 2, 3, H, W)` and a time in [0, 1] become one frame `(B, 3, Hout, Wout)`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.contract.manifest import ContinuousSpace, ContinuousTime, PairWindow, SizeConstraint
from .base import Network
from .blocks import LEAKY_SLOPE, conv3x3, lrelu, residual_stack
from .field import FourierField
from .losses import LossTerms, charbonnier
from .motion import MOTION_WEIGHT, MotionStep, blend_pair, finer, motion_error, warp_pair
from .ops import cubic_at, cubic_at_phases, interleave_phases, target_coordinates

MATCHED = 16  # features of each frame that are correlated


@dataclass(frozen=True)
class FourierSConfig:
    """The size of a Fourier-S.

    With the defaults, all large convolutions take a multiple of 16 channels, which CPUs compute twice as fast.
    """

    features: int = 32  # channels of each frame's features
    encoder_blocks: int = 1  # residual blocks of each frame's encoder
    width: int = 48  # channels after the fusion of both frames
    trunk_blocks: int = 10  # residual blocks after the fusion
    motion_features: int = 64  # channels of the features for motion
    motion_levels: int = 4  # that share weights: 1/4, 1/8, 1/16 and 1/32 of the input's size
    search_radius: int = 2  # of the correlation at these levels, in pixels of the level
    terms: int = 32  # frequencies of the field


class FourierS(Network):
    """Two frames at times 0 and 1 become a frame of any size at any time."""

    feature_names = ("features", "half", "quarter")
    refined_names = ("coefficients", "base")
    window = PairWindow()
    space = ContinuousSpace(minimum=1.0, maximum=8.0)
    time = ContinuousTime()
    size = SizeConstraint(minimum=32, multiple_of=32)
    halo_px = 96
    # Motion that is learned from every second frame of a clip, twice as long, harms the frames between its own.
    adapted = ("fuse", "trunk", "last", "field")

    def __init__(self, config: FourierSConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or FourierSConfig()
        f, w, m = c.features, c.width, c.motion_features
        self.conv_first = conv3x3(3, f)
        self.encoder = residual_stack(f, c.encoder_blocks)
        self.down = conv3x3(f, f, stride=2)
        self.coarse = nn.Sequential(
            conv3x3(3, m // 2, stride=2),
            nn.LeakyReLU(LEAKY_SLOPE),
            conv3x3(m // 2, m, stride=2),
            nn.LeakyReLU(LEAKY_SLOPE),
            conv3x3(m, m),
            nn.LeakyReLU(LEAKY_SLOPE),
        )
        self.motion_coarse = MotionStep(m, m, c.search_radius, MATCHED, both_times=True)
        self.motion_half = MotionStep(f, f, 1, MATCHED, both_times=True)
        self.fuse = conv3x3(2 * f + 16, w)
        self.trunk = residual_stack(w, c.trunk_blocks)
        self.last = conv3x3(w, 2 * c.terms)
        self.field = FourierField(c.terms)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features of both frames.

        `frames`: `(B, 2, 3, H, W)`, RGB in [0, 1]. Returns the features and the frames, `(B, 2 * C + 6, H, W)`,
        features at half the size, `(B, 2 * C, H/2, W/2)`, and those for motion, `(B, 2 * M, H/4, W/4)`.
        """
        B = frames.shape[0]
        flat = frames.flatten(0, 1) - 0.5
        level = self.encoder(lrelu(self.conv_first(flat)))
        half = lrelu(self.down(level))
        quarter = self.coarse(flat)
        features, half, quarter = (x.unflatten(0, (B, 2)).flatten(1, 2) for x in (level, half, quarter))
        return torch.cat([features, frames.flatten(1, 2)], 1), half, quarter

    def refine(self, features: Tensor, half: Tensor, quarter: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate the frame at a time, at the input's size; the feature maps are those that `encode` returns.

        `time`: `(B,)` from 0 to 1. Returns the coefficients of the field, `(B, 2N, H, W)`, and the blend of both warped
        frames, `(B, 3, H, W)`.
        """
        coefficients, base, _ = self._refine(features, half, quarter, time)
        return coefficients, base

    def decode(self, coefficients: Tensor, base: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Render the frame of the maps that `refine` returns.

        `y`: `(Hout,)`, `x`: `(Wout,)`, target pixel centres in input pixels. Returns `(B, 3, Hout, Wout)`, not clamped.
        """
        return self.field.at(coefficients, y, x) + cubic_at(cubic_at(base, y, 2), x, 3)

    def decode_integer(self, coefficients: Tensor, base: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Render the frame at integer scale factors R and C, faster than `decode`.

        `y`: `(R,)`, `x`: `(C,)`, the centres of the target pixels inside every input pixel, from its centre. Returns
        `(B, 3, R * H, C * W)`, not clamped.
        """
        return interleave_phases(self.field.at_phases(coefficients, y, x) + cubic_at_phases(base, y, x))

    def motions(self, features: Tensor, half: Tensor, quarter: Tensor, time: Tensor) -> list[Tensor]:
        """Estimate the motion at `time`, `(B, 1, 1, 1)`, from coarse to fine.

        Returns `(B, 5, H/k, W/k)` for k = 32, 16, 8, 4 and 2, with the channels that `motion.py` defines.
        """
        frames = features[:, 2 * self.config.features :].unflatten(1, (2, 3)).flatten(0, 1) - 0.5
        levels = [quarter]
        for _ in range(self.config.motion_levels - 1):
            frames = F.avg_pool2d(frames, 2)
            levels.append(self.coarse(frames).unflatten(0, (-1, 2)).flatten(1, 2))
        motions: list[Tensor] = []
        motion = torch.zeros_like(levels[-1][:, :5])
        for level in reversed(levels):
            motions.append(self.motion_coarse(*level.chunk(2, 1), motion, time))
            motion = finer(motions[-1])
        return [*motions, self.motion_half(*half.chunk(2, 1), motion, time)]

    def _refine(
        self, features: Tensor, half: Tensor, quarter: Tensor, time: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the maps of `refine`, and the motions."""
        f = self.config.features
        t = time.view(-1, 1, 1, 1)
        motions = self.motions(features, half, quarter, t)
        motion = finer(motions[-1])
        first = torch.cat([features[:, :f], features[:, 2 * f : 2 * f + 3]], 1)
        second = torch.cat([features[:, f : 2 * f], features[:, 2 * f + 3 :]], 1)
        first, second = warp_pair(first, second, motion, t)
        base = blend_pair(first[:, f:], second[:, f:], motion, t)
        visible = torch.sigmoid(motion[:, 4:])
        times = torch.cat([t, 1 - t], 1).expand(-1, -1, *base.shape[2:])
        x = lrelu(self.fuse(torch.cat([first, second, base - 0.5, 0.1 * motion[:, :4], visible, times], 1)))
        return self.last(self.trunk(x) + x), base, motions

    def loss(self, frames: Tensor, time: Tensor, truth: Tensor, motion: Tensor) -> LossTerms:
        """Return the loss of the output, and as auxiliary loss those of the blended frame and of the motion.

        `frames`: `(B, 2, 3, H, W)`; `time`: `(B, K)`; `truth`: `(B, K, 3, Hout, Wout)`; `motion`: `(B, K, 6, H, W)` as
        `MotionTeacher` returns it. The motion is compared at every size.
        """
        H, W = frames.shape[-2:]
        K, target = truth.shape[1], (truth.shape[-2], truth.shape[-1])
        features, half, quarter = (x.repeat_interleave(K, 0) for x in self.encode(frames))
        coefficients, base, motions = self._refine(features, half, quarter, time.flatten())
        with torch.autocast(frames.device.type, enabled=False):
            output = self._render(coefficients.float(), base.float(), target)
            small = F.interpolate(truth.flatten(0, 1), (H, W), mode="bicubic", antialias=True)
            auxiliary = self._motion_terms(motions, base, small, motion.flatten(0, 1))
            return LossTerms(charbonnier(output, truth.flatten(0, 1)), auxiliary, output.unflatten(0, (-1, K)))

    def motion_loss(self, frames: Tensor, time: Tensor, truth: Tensor, motion: Tensor) -> Tensor:
        """Return the loss of the motion alone, and of both frames warped by it; nothing is refined or rendered.

        Inputs as for `loss`, but `truth`: `(B, K, 3, H, W)` at the input's size.
        """
        K, f = time.shape[1], self.config.features
        features, half, quarter = (x.repeat_interleave(K, 0) for x in self.encode(frames))
        t = time.view(-1, 1, 1, 1)
        motions = [m.float() for m in self.motions(features, half, quarter, t)]
        with torch.autocast(frames.device.type, enabled=False):
            first, second = features[:, 2 * f :].float().chunk(2, 1)
            motion_full = finer(motions[-1])
            base = blend_pair(*warp_pair(first, second, motion_full, t), motion_full, t)
            return self._motion_terms(motions, base, truth.flatten(0, 1), motion.flatten(0, 1))

    @staticmethod
    def _motion_terms(motions: list[Tensor], base: Tensor, truth: Tensor, motion: Tensor) -> Tensor:
        """Return the loss of the motion at every level and of the blended frame `(B, 3, H, W)`."""
        errors = sum(motion_error(m.float(), motion, 2 ** (n + 1)) for n, m in enumerate(reversed(motions)))
        return charbonnier(base.float(), truth) + MOTION_WEIGHT * errors / len(motions)

    def forward(self, frames: Tensor, time: Tensor, size: tuple[int, int]) -> Tensor:
        """Render the frame at `time`.

        `frames`: `(B, 2, 3, H, W)` in [0, 1]; `time`: `(B,)` from 0 to 1; `size`: height and width of the target.
        Returns `(B, 3, *size)`, not clamped.
        """
        coefficients, base = self.refine(*self.encode(frames), time)
        return self._render(coefficients, base, size)

    def _render(self, coefficients: Tensor, base: Tensor, size: tuple[int, int]) -> Tensor:
        """Render a target of `size`, the fast way if both scale factors are integers."""
        H, W = base.shape[-2:]
        if size[0] % H == 0 and size[1] % W == 0:
            y, x = (target_coordinates(1, n // m, base.device) for n, m in zip(size, (H, W), strict=True))
            return self.decode_integer(coefficients, base, y, x)
        y, x = (target_coordinates(m, n, base.device) for n, m in zip(size, (H, W), strict=True))
        return self.decode(coefficients, base, y, x)
