"""STINet: frames are enlarged, and new ones put between them, by features of two sizes that inform each other.

Low features have the size of the input, high ones that of the output. Both are interpolated in every gap, refined by
the frames before and after, and modulated by a graph network over all frames.

Yue, Shi and Ding, "Enhancing Space-time Video Super-resolution via Spatial-temporal Feature Interaction" (2022).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.contract.manifest import FixedFactors, FlowInput, RunWindow
from .alignment import DeformConvPack
from .base import Network
from .blocks import blend_gaps, conv3x3, enlarge4, initialize_weights, interleave, lrelu, over_frames
from .dbpn import ConvBlock, DeconvBlock, DenseDBPN, ResnetBlock, shrink
from .losses import Judged, both_resolutions, charbonnier
from .ops import upsample_bicubic
from .refinement import SAGEConv, fusion_layers, neighbourhood_means, neighbours, offset_layers
from .spynet import IMAGENET_MEAN, IMAGENET_STD

_SCALE = 4
_GLOBAL_SHARE = 0.1  # of the modulated features, beside the features themselves


@dataclass(frozen=True)
class STINetConfig:
    """The size of a STINet and whether it keeps official habits; the defaults are the official ones."""

    base_filter: int = 32  # channels that motion has at first
    feat: int = 64
    hidden: int = 256  # channels inside the graph network
    num_stages: int = 5  # of back-projection
    n_resblock: int = 5  # that both sizes share
    groups: int = 8
    frames: int = 4
    residual: bool = False  # adds the frames enlarged, and their means in the gaps, which the paper does not
    # Officially the graph's edges lead from earlier frames to later ones and from high features to low ones alone,
    # motion is enlarged from corner pixel to corner pixel, and some layers are never used. False takes edges both
    # ways, as the paper does, enlarges motion about pixel centres, and has no such layers.
    official: bool = True


STINET_S = STINetConfig(
    base_filter=16, feat=16, hidden=64, num_stages=3, n_resblock=3, groups=4, residual=True, official=False
)


class Features(NamedTuple):
    """Features of all frames in both sizes."""

    low: Tensor  # (B, T, C, h, w)
    high: Tensor  # (B, T, C, 4h, 4w)


def per_frame(layer: Callable[[Tensor], Tensor], *features: Tensor) -> Tensor:
    """A layer over every frame's features, those of several maps one after another. (B, T, C, ...) -> (B, T, ...)"""
    return over_frames(layer, torch.cat(features, 2) if len(features) > 1 else features[0])


class STINet(Network):
    """A few frames -> their larger versions, and one more in every gap."""

    time = FixedFactors(factors=(2,))

    def __init__(self, config: STINetConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or STINetConfig()
        self.window = RunWindow(frames=c.frames)
        gaps = tuple((i, i + 1) for i in range(c.frames - 1))
        self.flows = (
            FlowInput(name="forward_flow", pairs=gaps),
            FlowInput(name="backward_flow", pairs=tuple((j, i) for i, j in gaps)),
        )
        feat = c.feat

        def resnet(channels: int = feat) -> ResnetBlock:
            return ResnetBlock(channels, "lrelu")

        self.DBPN = DenseDBPN(feat, _SCALE, c.num_stages)
        self.motion_down = nn.Sequential(resnet(), shrink(feat, feat, _SCALE, "lrelu"))
        # Interpolation
        self.motion_feat = ConvBlock(2 + 2, c.base_filter, act="lrelu")
        to_features = ConvBlock(c.base_filter, feat, act="lrelu")
        self.motion = nn.Sequential(resnet(c.base_filter), resnet(c.base_filter), to_features)
        shared = [resnet() for _ in range(c.n_resblock)]
        enlarge, reduce = DeconvBlock(3 * feat, feat, _SCALE, "lrelu"), shrink(feat, feat, _SCALE, "lrelu")
        self.interp_l = nn.Sequential(enlarge, resnet(), *shared, resnet(), reduce)
        fuse, finish = ConvBlock(3 * feat, feat, act="lrelu"), ConvBlock(feat, feat, act="lrelu")
        self.interp_h = nn.Sequential(fuse, *shared, resnet(), finish)
        self.reconstruction_l = ConvBlock(feat, 3, act="none")
        self.reconstruction_h = ConvBlock(feat, 3, act="none")
        # Local refinement, by the frame before (A) and the frame after (C)
        self.layersAtBOffset, self.layersCtBOffset = offset_layers(feat), offset_layers(feat)
        self.offsetdown = shrink(feat, feat, _SCALE, "lrelu")
        self.conv11AtB = nn.Conv2d(2 * feat, feat, 1)
        self.l_conv11AtB, self.h_conv11AtB = nn.Conv2d(feat, feat, 1), nn.Conv2d(feat, feat, 1)
        self.h_down = shrink(feat, feat, _SCALE, "lrelu")
        self.layersAtB, self.layersCtB = DeformConvPack(feat, c.groups), DeformConvPack(feat, c.groups)
        self.h_up = DeconvBlock(feat, feat, _SCALE, "lrelu")
        self.layersFusion = fusion_layers(feat)
        # Global refinement
        self.SAG1, self.SAG2 = SAGEConv(feat, c.hidden), SAGEConv(c.hidden, c.hidden)
        self.SAG3, self.SAG4 = SAGEConv(c.hidden, c.hidden), SAGEConv(c.hidden, feat)
        # Reconstruction
        self.upconv1, self.upconv2 = conv3x3(feat, 4 * feat), conv3x3(feat, 4 * feat)
        self.HRconv, self.conv_last = conv3x3(feat, feat), conv3x3(feat, 3)
        self.h_blending = nn.Conv2d(feat, 3, 1)
        if c.residual:  # training begins near the enlarged frames
            for layer in (self.reconstruction_l, self.reconstruction_h, self.conv_last, self.h_blending):
                initialize_weights(layer, 0.1)
        if c.official:  # checkpoints hold them, nothing reads them
            self.DBPN.output_conv2 = ConvBlock(feat, 3, act="none")
            self.h_down_gcn = shrink(feat, feat, _SCALE, "lrelu")

    def forward(self, frames: Tensor, forward_flow: Tensor, backward_flow: Tensor) -> Tensor:
        """frames: (B, N, 3, h, w) in [0, 1], N >= 2; flows: (B, N - 1, 2, h, w), frames i -> i + 1 and i + 1 -> i.

        Returns (B, 2N - 1, 3, 4h, 4w).
        """
        features = self._interpolated(frames, forward_flow, backward_flow)
        return self._colours(self._reconstructed(self._refined(features)), frames, _SCALE)

    def reconstructions(self, frames: Tensor, forward_flow: Tensor, backward_flow: Tensor) -> tuple[Tensor, ...]:
        """What training compares with true frames; the inputs are those of ``forward``.

        Returns frames of unrefined low features, (B, 2N - 1, 3, h, w), and of high ones, (B, 2N - 1, 3, 4h, 4w), and
        what ``forward`` returns.
        """
        features = self._interpolated(frames, forward_flow, backward_flow)
        low, high = per_frame(self.reconstruction_l, features.low), per_frame(self.reconstruction_h, features.high)
        final = self._reconstructed(self._refined(features))
        return self._colours(low, frames, 1), self._colours(high, frames, _SCALE), self._colours(final, frames, _SCALE)

    def loss(self, frames: Tensor, forward_flow: Tensor, backward_flow: Tensor, truth: Tensor) -> Judged:
        """How far the output is from the truth, and unrefined features' frames at both sizes."""
        low, high, final = self.reconstructions(frames, forward_flow, backward_flow)
        small = per_frame(partial(F.interpolate, scale_factor=1 / _SCALE, mode="bicubic", antialias=True), truth)
        return Judged(*both_resolutions(final, high, low, truth, small, charbonnier), final)

    def _interpolated(self, frames: Tensor, forward_flow: Tensor, backward_flow: Tensor) -> Features:
        """N frames and the flows between them -> features of 2N - 1 frames."""
        high = per_frame(self.DBPN, (frames - _colour(IMAGENET_MEAN, frames)) / _colour(IMAGENET_STD, frames))
        low = per_frame(self.motion_down, high)
        # From the middle of a gap it is half as far.
        motion = per_frame(self.motion, per_frame(self.motion_feat, 0.5 * forward_flow, 0.5 * backward_flow))
        between_low = per_frame(self.interp_l, low[:, :-1], low[:, 1:], motion)
        between_high = per_frame(self.interp_h, high[:, :-1], high[:, 1:], per_frame(self._enlarged, motion))
        return Features(interleave(low, between_low.flatten(0, 1)), interleave(high, between_high.flatten(0, 1)))

    def _enlarged(self, motion: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, 4h, 4w)."""
        return F.interpolate(motion, scale_factor=_SCALE, mode="bilinear", align_corners=self.config.official)

    def _refined(self, features: Features) -> Features:
        """Features that draw on their neighbours', then on those of all frames."""
        low, high = features
        small = per_frame(self.h_down, high)
        befores, afters = zip(neighbours(low), neighbours(small), neighbours(high), strict=True)
        before = self._aligned(features, *befores, self.layersAtBOffset, self.layersAtB)
        after = self._aligned(features, *afters, self.layersCtBOffset, self.layersCtB)
        low = low + per_frame(self.layersFusion, before.low, low, after.low)
        high = high + per_frame(self.layersFusion, before.high, high, after.high)
        gain_low, gain_high = self._global_gains(Features(low, high))
        return Features(low + _GLOBAL_SHARE * low * gain_low, high + _GLOBAL_SHARE * high * gain_high)

    def _aligned(
        self, features: Features, low: Tensor, small: Tensor, high: Tensor, offsets: nn.Module, align: nn.Module
    ) -> Features:
        """Each frame's neighbour aligned to it: low features, and high ones by way of what is made small of them."""
        from_low = per_frame(offsets, low, features.low)
        from_high = per_frame(self.offsetdown, per_frame(offsets, high, features.high))
        both = per_frame(self.conv11AtB, from_low, from_high)
        offset_features = torch.cat((per_frame(self.l_conv11AtB, both), per_frame(self.h_conv11AtB, both)), 1)
        moved = lrelu(align(torch.cat((low, small), 1).flatten(0, 1), offset_features.flatten(0, 1)))
        frames = low.shape[1]
        moved = moved.unflatten(0, (-1, 2 * frames))
        return Features(moved[:, :frames], per_frame(self.h_up, moved[:, frames:]))

    def _global_gains(self, features: Features) -> Features:
        """What the graph network makes of each frame's mean features. -> (B, T, C, 1, 1) of both sizes"""
        low, high = features
        frames = low.shape[1]
        nodes = torch.cat((high.mean((3, 4)), low.mean((3, 4))), 1)
        means = low.new_tensor(neighbourhood_means(frames, both_ways=not self.config.official))
        for layer in (self.SAG1, self.SAG2, self.SAG3):
            nodes = F.relu(layer(nodes, means))
        gains = self.SAG4(nodes, means)[..., None, None]
        return Features(gains[:, frames:], gains[:, :frames])

    def _reconstructed(self, features: Features) -> Tensor:
        """Both sizes' refined features -> normalized frames (B, T, 3, 4h, 4w)."""

        def enlarged(low: Tensor) -> Tensor:
            return enlarge4(low, self.upconv1, self.upconv2, self.HRconv, self.conv_last)

        return per_frame(enlarged, features.low) + per_frame(self.h_blending, features.high)

    def _colours(self, out: Tensor, frames: Tensor, scale: int) -> Tensor:
        """Normalized frames, or what they add to the given ones, so many times as large -> frames in [0, 1]."""
        out = out * _colour(IMAGENET_STD, out)
        if not self.config.residual:
            return out + _colour(IMAGENET_MEAN, out)
        if scale > 1:
            frames = per_frame(partial(upsample_bicubic, factor=scale), frames)
        return out + blend_gaps(frames)


def _colour(value: tuple[float, ...], like: Tensor) -> Tensor:
    """-> (3, 1, 1)"""
    return like.new_tensor(value).view(3, 1, 1)
