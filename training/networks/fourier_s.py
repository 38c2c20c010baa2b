"""Fourier-S: the default network. Warped features of two frames, refined, and a Fourier field for any size.

It is continuous in space and time, as VideoINR (Chen et al., CVPR 2022), and made for speed on a CPU:

- Motion is estimated at time t itself, from coarse to fine. One set of weights serves every level from 1/16 to 1/4 of
  the size, on features of the frame at 1/4 to all of its size; so motion that is larger in pixels, in a larger frame,
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
from .blocks import conv3x3, lrelu, residual_stack
from .field import FourierField
from .losses import LossTerms, charbonnier
from .motion import MotionStep, blend_pair, finer, motion_error, warp_pair
from .ops import cubic_at, cubic_at_phases, target_coordinates

MOTION_WEIGHT = 0.1  # of a motion error of one input pixel, relative to colour errors in [0, 1]


@dataclass(frozen=True)
class FourierSConfig:
    """The size of a Fourier-S."""

    width: int = 48  # channels of features
    encoder_blocks: int = 1  # residual blocks of each frame's encoder
    trunk_blocks: int = 6  # residual blocks after the fusion of both frames
    motion_width: int = 64  # channels of the features for motion
    motion_levels: int = 3  # that share weights: 1/4, 1/8 and 1/16 of the input's size
    search_radius: int = 3  # of the correlation at these levels, in pixels of the level
    terms: int = 32  # frequencies of the field


class FourierS(Network):
    """Two frames at times 0 and 1 become a frame of any size at any time."""

    feature_names = ("features", "half", "quarter")
    window = PairWindow()
    space = ContinuousSpace(minimum=1.0, maximum=8.0)
    time = ContinuousTime()
    size = SizeConstraint(minimum=16, multiple_of=16)
    halo_px = 96

    def __init__(self, config: FourierSConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or FourierSConfig()
        w, m = c.width, c.motion_width
        self.conv_first = conv3x3(3, w)
        self.encoder = residual_stack(w, c.encoder_blocks)
        self.down = conv3x3(w, w, stride=2)
        self.coarse = nn.Sequential(
            conv3x3(3, m // 2, stride=2),
            nn.LeakyReLU(0.1),
            conv3x3(m // 2, m, stride=2),
            nn.LeakyReLU(0.1),
            conv3x3(m, m),
            nn.LeakyReLU(0.1),
        )
        self.motion_coarse = MotionStep(m, m, c.search_radius)
        self.motion_half = MotionStep(w, w, 0)
        self.thin = nn.Conv2d(w, w // 2, 1)
        self.motion_last = MotionStep(w // 2, w // 2, 0)
        self.fuse = conv3x3(2 * w + 9 + 5 + 1, w)
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

    def decode(self, features: Tensor, half: Tensor, quarter: Tensor, time: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Render the frame at a time; the feature maps are those that `encode` returns.

        `time`: `(B,)` from 0 to 1; `y`: `(Hout,)`, `x`: `(Wout,)`, target pixel centres in input pixels. Returns
        `(B, 3, Hout, Wout)`, not clamped.
        """
        coefficients, base, _ = self.refine(features, half, quarter, time)
        return self.field.at(coefficients, y, x) + cubic_at(cubic_at(base, y, 2), x, 3)

    def decode_integer(
        self, features: Tensor, half: Tensor, quarter: Tensor, time: Tensor, y: Tensor, x: Tensor
    ) -> Tensor:
        """Render the frame at a time and at integer scale factors R and C, faster than `decode`.

        `y`: `(R,)`, `x`: `(C,)`, the centres of the target pixels inside every input pixel, from its centre. Returns
        `(B, 3, R * H, C * W)`, not clamped.
        """
        coefficients, base, _ = self.refine(features, half, quarter, time)
        return self.field.at_phases(coefficients, y, x) + cubic_at_phases(base, y, x)

    def motions(self, features: Tensor, half: Tensor, quarter: Tensor, time: Tensor) -> list[Tensor]:
        """Estimate the motion at `time`, `(B, 1, 1, 1)`, from coarse to fine.

        Returns `(B, 5, H/k, W/k)` for k = 16, 8, 4, 2 and 1, with the channels that `motion.py` defines.
        """
        w = self.config.width
        frames = features[:, 2 * w :].unflatten(1, (2, 3)).flatten(0, 1) - 0.5
        levels = [quarter]
        for _ in range(self.config.motion_levels - 1):
            frames = F.avg_pool2d(frames, 2)
            levels.append(self.coarse(frames).unflatten(0, (-1, 2)).flatten(1, 2))
        motions: list[Tensor] = []
        motion = torch.zeros_like(levels[-1][:, :5])
        for level in reversed(levels):
            motions.append(self.motion_coarse(*level.chunk(2, 1), motion, time))
            motion = finer(motions[-1])
        motions.append(self.motion_half(half[:, :w], half[:, w:], motion, time))
        first, second = features[:, :w], features[:, w : 2 * w]
        motions.append(self.motion_last(self.thin(first), self.thin(second), finer(motions[-1]), time))
        return motions

    def refine(
        self, features: Tensor, half: Tensor, quarter: Tensor, time: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Estimate the frame at `time`, `(B,)`, at the input's size.

        Returns the coefficients of the field, the blend of both warped frames `(B, 3, H, W)`, and the motions.
        """
        w = self.config.width
        t = time.view(-1, 1, 1, 1)
        motions = self.motions(features, half, quarter, t)
        motion = motions[-1]
        first = torch.cat([features[:, :w], features[:, 2 * w : 2 * w + 3]], 1)
        second = torch.cat([features[:, w : 2 * w], features[:, 2 * w + 3 :]], 1)
        first, second = warp_pair(first, second, motion, t)
        base = blend_pair(first[:, w:], second[:, w:], motion, t)
        visible = torch.sigmoid(motion[:, 4:])
        inputs = [first, second, base - 0.5, 0.1 * motion[:, :4], visible, t.expand_as(visible)]
        x = lrelu(self.fuse(torch.cat(inputs, 1)))
        return self.last(self.trunk(x) + x), base, motions

    def loss(self, frames: Tensor, time: Tensor, truth: Tensor, motion: Tensor) -> LossTerms:
        """Return the loss of the output, and as auxiliary loss those of the blended frame and of the motion.

        `frames`: `(B, 2, 3, H, W)`; `time`: `(B, K)`; `truth`: `(B, K, 3, Hout, Wout)`; `motion`: `(B, K, 6, H, W)` as
        `MotionTeacher` returns it. The motion is compared at every size.
        """
        H, W = frames.shape[-2:]
        K, target = truth.shape[1], truth.shape[-2:]
        features = (x.repeat_interleave(K, 0) for x in self.encode(frames))
        coefficients, base, motions = self.refine(*features, time.flatten())
        with torch.autocast(frames.device.type, enabled=False):
            output = self._render(coefficients.float(), base.float(), target)
            small = F.interpolate(truth.flatten(0, 1), (H, W), mode="bicubic", antialias=True)
            auxiliary = self._motion_terms(motions, base, small, motion.flatten(0, 1))
            return LossTerms(charbonnier(output, truth.flatten(0, 1)), auxiliary, output.unflatten(0, (-1, K)))

    def motion_loss(self, frames: Tensor, time: Tensor, truth: Tensor, motion: Tensor) -> Tensor:
        """Return the loss of the motion alone, and of both frames warped by it; nothing is refined or rendered.

        Inputs as for `loss`, but `truth`: `(B, K, 3, H, W)` at the input's size.
        """
        K, w = time.shape[1], self.config.width
        features, half, quarter = (x.repeat_interleave(K, 0) for x in self.encode(frames))
        t = time.view(-1, 1, 1, 1)
        motions = [m.float() for m in self.motions(features, half, quarter, t)]
        with torch.autocast(frames.device.type, enabled=False):
            first, second = features[:, 2 * w : 2 * w + 3].float(), features[:, 2 * w + 3 :].float()
            base = blend_pair(*warp_pair(first, second, motions[-1], t), motions[-1], t)
            return self._motion_terms(motions, base, truth.flatten(0, 1), motion.flatten(0, 1))

    @staticmethod
    def _motion_terms(motions: list[Tensor], base: Tensor, truth: Tensor, motion: Tensor) -> Tensor:
        """Return the loss of the motion at every level and of the blended frame `(B, 3, H, W)`."""
        errors = sum(motion_error(m.float(), motion, 2**n) for n, m in enumerate(reversed(motions)))
        return charbonnier(base.float(), truth) + MOTION_WEIGHT * errors / len(motions)

    def forward(self, frames: Tensor, time: Tensor, size: tuple[int, int]) -> Tensor:
        """Render the frame at `time`.

        `frames`: `(B, 2, 3, H, W)` in [0, 1]; `time`: `(B,)` from 0 to 1; `size`: height and width of the target.
        Returns `(B, 3, *size)`, not clamped.
        """
        coefficients, base, _ = self.refine(*self.encode(frames), time)
        return self._render(coefficients, base, size)

    def _render(self, coefficients: Tensor, base: Tensor, size: tuple[int, int]) -> Tensor:
        """Render a target of `size`, the fast way if both scale factors are integers."""
        H, W = base.shape[-2:]
        if size[0] % H == 0 and size[1] % W == 0:
            y, x = (target_coordinates(1, n // m, base.device) for n, m in zip(size, (H, W), strict=True))
            return self.field.at_phases(coefficients, y, x) + cubic_at_phases(base, y, x)
        y, x = (target_coordinates(m, n, base.device) for n, m in zip(size, (H, W), strict=True))
        return self.field.at(coefficients, y, x) + cubic_at(cubic_at(base, y, 2), x, 3)

