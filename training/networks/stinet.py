"""STINet: frames are enlarged and new frames added between them, by features at two resolutions that interact.

Low-resolution features have the size of the input, high-resolution features that of the output. Both are interpolated
in every gap, refined by the frames before and after each frame, and modulated by a graph network over all frames.

Yue and Shi, "Enhancing Space-time Video Super-resolution via Spatial-temporal Feature Interaction", 2022; its losses
(equations 2 to 4) are in `losses.py`.

N frames `(B, N, 3, h, w)` and the flows between neighbours become 2N - 1 frames `(B, 2N - 1, 3, 4h, 4w)`.
"""

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
from .losses import LossTerms, charbonnier, reconstruction_losses
from .ops import constant, upsample_bicubic
from .refinement import SAGEConv, fusion_layers, neighbourhood_means, neighbours, offset_layers
from .spynet import IMAGENET_MEAN, IMAGENET_STD

_SCALE = 4
_GLOBAL_WEIGHT = 0.1  # of the features modulated by the graph network, relative to the features themselves


@dataclass(frozen=True)
class STINetConfig:
    """The size of a STINet and a switch for quirks of the official code. The defaults are the official ones."""

    base_filter: int = 32  # channels of the first motion features
    feat: int = 64  # channels of low- and high-resolution features
    hidden: int = 256  # channels inside the graph network
    num_stages: int = 5  # stages of back-projection
    n_resblock: int = 5  # residual blocks that both resolutions share
    groups: int = 8  # groups of channels, each with its own deformable offsets
    frames: int = 4  # input frames of an exported graph
    residual: bool = False  # add the enlarged frames, and their means in the gaps, to the output; the paper does not
    # True follows the official code: edges of the graph lead only from earlier to later frames and from high- to
    # low-resolution features, motion is enlarged with aligned corners, and some layers are never used. False follows
    # the paper, with edges in both directions, enlarges motion about pixel centres, and omits the unused layers.
    official: bool = True


STINET_S = STINetConfig(
    base_filter=16, feat=16, hidden=64, num_stages=3, n_resblock=3, groups=4, residual=True, official=False
)


class Features(NamedTuple):
    """Features of all frames at both resolutions."""

    low: Tensor  # (B, T, C, h, w)
    high: Tensor  # (B, T, C, 4h, 4w)


class STINet(Network):
    """A run of N frames, with optical flows, becomes 2N - 1 frames of four times the size."""

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
        if c.residual:  # training starts near the enlarged frames
            for layer in (self.reconstruction_l, self.reconstruction_h, self.conv_last, self.h_blending):
                initialize_weights(layer, 0.1)
        if c.official:  # official checkpoints contain these layers, but nothing uses them
            self.DBPN.output_conv2 = ConvBlock(feat, 3, act="none")
            self.h_down_gcn = shrink(feat, feat, _SCALE, "lrelu")

    def forward(self, frames: Tensor, forward_flow: Tensor, backward_flow: Tensor) -> Tensor:
        """Enlarge the frames and add one in every gap.

        `frames`: `(B, N, 3, h, w)` in [0, 1], N >= 2; flows: `(B, N - 1, 2, h, w)`, (dx, dy) in input pixels, from
        frame i to i + 1 and from i + 1 to i. Returns `(B, 2N - 1, 3, 4h, 4w)`, not clamped.
        """
        features = self._interpolated(frames, forward_flow, backward_flow)
        return self._to_rgb(self._reconstructed(self._refined(features)), frames, _SCALE)

    def reconstructions(self, frames: Tensor, forward_flow: Tensor, backward_flow: Tensor) -> tuple[Tensor, ...]:
        """Return all frames that training compares with the truth; the inputs are those of `forward`.

        These are the frames of unrefined low-resolution features, `(B, 2N - 1, 3, h, w)`, those of unrefined
        high-resolution features, `(B, 2N - 1, 3, 4h, 4w)`, and the result of `forward`.
        """
        features = self._interpolated(frames, forward_flow, backward_flow)
        low, high = over_frames(self.reconstruction_l, features.low), over_frames(self.reconstruction_h, features.high)
        final = self._reconstructed(self._refined(features))
        return self._to_rgb(low, frames, 1), self._to_rgb(high, frames, _SCALE), self._to_rgb(final, frames, _SCALE)

    def loss(self, frames: Tensor, forward_flow: Tensor, backward_flow: Tensor, truth: Tensor) -> LossTerms:
        """Return the loss of the output, and as auxiliary loss that of unrefined features' frames at both resolutions.

        `truth`: `(B, 2N - 1, 3, 4h, 4w)`; the other inputs are those of `forward`.
        """
        low, high, final = self.reconstructions(frames, forward_flow, backward_flow)
        small = over_frames(partial(F.interpolate, scale_factor=1 / _SCALE, mode="bicubic", antialias=True), truth)
        return LossTerms(*reconstruction_losses(final, high, low, truth, small, charbonnier), final)

    def _interpolated(self, frames: Tensor, forward_flow: Tensor, backward_flow: Tensor) -> Features:
        """Return the features of 2N - 1 frames from N frames and the flows between them."""
        normalized = (frames - _per_channel(IMAGENET_MEAN, frames)) / _per_channel(IMAGENET_STD, frames)
        high = over_frames(self.DBPN, normalized)
        low = over_frames(self.motion_down, high)
        # The flows from the middle of a gap are half as long.
        motion = over_frames(self.motion, over_frames(self.motion_feat, 0.5 * forward_flow, 0.5 * backward_flow))
        between_low = over_frames(self.interp_l, low[:, :-1], low[:, 1:], motion)
        between_high = over_frames(self.interp_h, high[:, :-1], high[:, 1:], over_frames(self._enlarged, motion))
        return Features(interleave(low, between_low.flatten(0, 1)), interleave(high, between_high.flatten(0, 1)))

    def _enlarged(self, motion: Tensor) -> Tensor:
        """`(B, C, h, w)` -> `(B, C, 4h, 4w)`"""
        return F.interpolate(motion, scale_factor=_SCALE, mode="bilinear", align_corners=self.config.official)

    def _refined(self, features: Features) -> Features:
        """Refine features locally, by their neighbours, then globally, by all frames."""
        low, high = features
        small = over_frames(self.h_down, high)
        befores, afters = zip(neighbours(low), neighbours(small), neighbours(high), strict=True)
        before = self._aligned(features, *befores, self.layersAtBOffset, self.layersAtB)
        after = self._aligned(features, *afters, self.layersCtBOffset, self.layersCtB)
        low = low + over_frames(self.layersFusion, before.low, low, after.low)
        high = high + over_frames(self.layersFusion, before.high, high, after.high)
        gain_low, gain_high = self._global_gains(Features(low, high))
        return Features(low + _GLOBAL_WEIGHT * low * gain_low, high + _GLOBAL_WEIGHT * high * gain_high)

    def _aligned(
        self, features: Features, low: Tensor, small: Tensor, high: Tensor, offsets: nn.Module, align: nn.Module
    ) -> Features:
        """Align each frame's neighbour with the frame.

        `low`, `high`: the neighbours' features; `small`: their high-resolution features at the size of the input, at
        which both are aligned. All are `(B, T, C, ...)`.
        """
        from_low = over_frames(offsets, low, features.low)
        from_high = over_frames(self.offsetdown, over_frames(offsets, high, features.high))
        both = over_frames(self.conv11AtB, from_low, from_high)
        offset_features = torch.cat((over_frames(self.l_conv11AtB, both), over_frames(self.h_conv11AtB, both)), 1)
        aligned = lrelu(align(torch.cat((low, small), 1).flatten(0, 1), offset_features.flatten(0, 1)))
        frames = low.shape[1]
        aligned = aligned.unflatten(0, (-1, 2 * frames))
        return Features(aligned[:, :frames], over_frames(self.h_up, aligned[:, frames:]))

    def _global_gains(self, features: Features) -> Features:
        """Return the graph network's gain of each channel of each frame, `(B, T, C, 1, 1)` at both resolutions.

        The nodes of the graph are the features' means over each frame.
        """
        low, high = features
        frames = low.shape[1]
        nodes = torch.cat((high.mean((3, 4)), low.mean((3, 4))), 1)
        means = constant(neighbourhood_means(frames, both_ways=not self.config.official), low)
        for layer in (self.SAG1, self.SAG2, self.SAG3):
            nodes = F.relu(layer(nodes, means))
        gains = self.SAG4(nodes, means)[..., None, None]
        return Features(gains[:, frames:], gains[:, :frames])

    def _reconstructed(self, features: Features) -> Tensor:
        """Return normalized frames `(B, T, 3, 4h, 4w)` from refined features at both resolutions."""

        def enlarged(low: Tensor) -> Tensor:
            return enlarge4(low, self.upconv1, self.upconv2, self.HRconv, self.conv_last)

        return over_frames(enlarged, features.low) + over_frames(self.h_blending, features.high)

    def _to_rgb(self, out: Tensor, frames: Tensor, scale: int) -> Tensor:
        """Return frames in [0, 1] from normalized frames.

        With `residual`, `out` is a residual instead, to the input `frames` enlarged by `scale` and their blends.
        """
        out = out * _per_channel(IMAGENET_STD, out)
        if not self.config.residual:
            return out + _per_channel(IMAGENET_MEAN, out)
        if scale > 1:
            frames = over_frames(partial(upsample_bicubic, factor=scale), frames)
        return out + blend_gaps(frames)


def _per_channel(value: tuple[float, ...], like: Tensor) -> Tensor:
    """Return one value for each of R, G and B, as `(3, 1, 1)`."""
    return constant(value, like).view(3, 1, 1)
