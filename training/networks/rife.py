"""RIFE: frames between two frames, warped by flow that is estimated from coarse to fine at the requested time.

Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame Interpolation", ECCV 2022: intermediate flow in
section 3.2, blocks of convolutions in section 3.3. The authors' later weights, HDv3 and 4.x, estimate flow at full
resolution and need no refinement of the blended frame.

Each block sees both frames, warped by the flow so far, at a size of its own, and adds to the flow and to a mask that
blends the warped frames. A flow is a tensor `(B, 4, h, w)`: (dx, dy) to the first frame and (dx, dy) to the second, in
pixels. The mask `(B, 1, h, w)` is a logit, large where the first frame is visible.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.contract.errors import RequestError
from ...engine.contract.manifest import ContinuousTime, FixedFactors, PairWindow, SizeConstraint
from .base import Network
from .blocks import conv3x3
from .ops import sample_bilinear, target_coordinates, warp

_SLOPE = 0.2  # of the leaky ReLUs of the versions from 4.2 on
FLOW_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
_STRIDE = 4  # of the convolutions of a block
_FLOW, _MASK = 4, 1  # channels


@dataclass(frozen=True)
class Layout:
    """The layers of one version, and of all later ones with the same weights' names and shapes."""

    widths: tuple[int, ...] = (192, 128, 96, 64)  # channels of the blocks, the coarsest first
    scales: tuple[float, ...] = (8, 4, 2, 1)  # how many times smaller they see the frames
    kind: Literal["branches", "plain", "residual"] = "residual"  # of the convolutions inside a block
    learned_slopes: bool = False  # PReLU in the place of leaky ReLU
    skip: bool = False  # whether the input of "plain" convolutions is added to their output
    outputs: int = _FLOW + _MASK + 1  # channels that a block returns; one of them may be unused
    carried: int = 0  # of these, features for the next block
    # Channels of the features of each frame, inside and at the end. With them, a block makes the mask anew.
    head: tuple[int, int] | None = None
    head_names: tuple[str, ...] = ("cnn0", "cnn1", "cnn2", "cnn3")  # of its layers


_PRELU = Layout(kind="plain", learned_slopes=True, skip=True, outputs=5)
_CARRYING = Layout(outputs=13, carried=8, head=(32, 8))
_NUMBERS = ("0", "2", "4", "6")
_FIVE = Layout((192, 128, 96, 64, 32), (16, 8, 4, 2, 1), outputs=13, carried=8, head=(16, 4))
LAYOUTS = {
    "3": Layout((90, 90, 90), (4, 2, 1), "branches", learned_slopes=True, outputs=5),  # HDv3
    "4.0": _PRELU,
    "4.2": replace(_PRELU, learned_slopes=False, skip=False),
    "4.5": Layout(outputs=5),
    "4.6": Layout(),
    "4.7": Layout(head=(16, 4), head_names=("0", "1")),
    "4.10": Layout(head=(32, 8), head_names=_NUMBERS),
    "4.12.lite": Layout((128, 96, 64, 48), head=(32, 4), head_names=_NUMBERS),
    "4.13": Layout(head=(32, 8)),
    "4.15.lite": Layout((128, 96, 64, 48), head=(16, 4)),
    "4.20": Layout((384, 192, 96, 48), head=(32, 8)),
    "4.21": replace(_CARRYING, widths=(256, 192, 96, 48)),
    "4.22.lite": replace(_CARRYING, widths=(192, 128, 64, 32), head=(16, 4)),
    "4.25": _FIVE,
    "4.25.lite": replace(_FIVE, widths=(192, 128, 96, 64, 24), scales=(32, 16, 8, 4, 1)),
    "4.25.heavy": replace(_FIVE, widths=(384, 256, 192, 128, 64)),
    "4.26.heavy": replace(_FIVE, head=(16, 16)),
}


@dataclass(frozen=True)
class RIFEConfig:
    """The version of a RIFE, and the size at which it estimates flow."""

    version: str = "4.0"  # a key of LAYOUTS
    flow_scale: float = 1.0  # below 1 for large frames: flow is estimated at smaller sizes, for larger motion
    narrower: int = 1  # divides the channels of all blocks; official weights have 1


RIFE_4 = RIFEConfig()
RIFE_S = RIFEConfig("4.6", narrower=4)


def find_config(state: Mapping[str, Tensor]) -> RIFEConfig | None:
    """Return the configuration that a state dict belongs to, by its names and shapes, or None if it is no RIFE."""
    shapes = {name: value.shape for name, value in state.items() if not name.startswith(RIFE.ignored_prefixes)}
    if "block0.conv0.0.0.weight" not in shapes:
        return None
    for version in LAYOUTS:
        with torch.device("meta"):
            network = RIFE(RIFEConfig(version))
        aliases = network.aliases()
        own = {name: value.shape for name, value in network.state_dict().items()}
        if {aliases.get(name, name): shape for name, shape in shapes.items()} == own:
            return network.config
    return None


class ResidualConv(nn.Module):
    """A convolution whose result is weighted per channel, added to the input and rectified."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)
        self.beta = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` -> `(B, C, h, w)`"""
        return F.leaky_relu(self.conv(x) * self.beta + x, _SLOPE)


class FlowBlock(nn.Module):
    """One step from coarse to fine. `channels`: of its inputs, flow included; `width`: of its own layers."""

    def __init__(self, channels: int, width: int, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

        def layer(inputs: int = width, outputs: int = width, stride: int = 1) -> nn.Sequential:
            slope = nn.PReLU(outputs) if layout.learned_slopes else nn.LeakyReLU(_SLOPE)
            return nn.Sequential(conv3x3(inputs, outputs, stride), slope)

        self.conv0 = nn.Sequential(layer(channels, width // 2, 2), layer(width // 2, stride=2))
        match layout.kind:
            case "branches":
                for number in range(4):
                    setattr(self, f"convblock{number}", nn.Sequential(layer(), layer()))
                self.conv1, self.conv2 = _enlarging(width, _FLOW), _enlarging(width, _MASK)
            case "plain":
                self.convblock = nn.Sequential(*(layer() for _ in range(8)))
                self.lastconv: nn.Module = nn.ConvTranspose2d(width, layout.outputs, 4, 2, 1)
            case "residual":
                self.convblock = nn.Sequential(*(ResidualConv(width) for _ in range(8)))
                enlarging = nn.ConvTranspose2d(width, 4 * layout.outputs, 4, 2, 1)
                self.lastconv = nn.Sequential(enlarging, nn.PixelShuffle(2))

    def forward(self, inputs: Tensor, flow: Tensor | None, scale: float) -> Tensor:
        """Return what is added to the flow, and behind it the mask and the carried features.

        `inputs`: `(B, C, h, w)`; `flow`: `(B, 4, h, w)` in pixels; the block works at a size `scale` times smaller.
        """
        inputs = _resized(inputs, 1 / scale)
        if flow is not None:
            inputs = torch.cat((inputs, _resized(flow, 1 / scale) / scale), 1)
        x = self.conv0(inputs)
        enlarged = scale
        match self.layout.kind:
            case "branches":
                for number in range(4):
                    x = x + self.get_submodule(f"convblock{number}")(x)
                x = torch.cat((self.conv1(x), self.conv2(x)), 1)
            case "plain":
                inner = self.convblock(x)
                x, enlarged = self.lastconv(inner + x if self.layout.skip else inner), 2 * scale
            case "residual":
                x = self.lastconv(self.convblock(x))
        x = _resized(x, enlarged)
        return torch.cat((x[:, :_FLOW] * enlarged, x[:, _FLOW:]), 1)


class RIFE(Network):
    """Frames between a pair, at any time from version 4 on, and in the middle with HDv3; the size stays."""

    window = PairWindow()
    space = FixedFactors(factors=(1,))
    refined_names = ("between",)
    # Teachers and refinement of training; no frame needs them.
    ignored_prefixes = ("block_tea.", "contextnet.", "unet.", "teacher.", "caltime.")

    def __init__(self, config: RIFEConfig = RIFE_4) -> None:
        super().__init__()
        if config.version not in LAYOUTS:
            raise RequestError(f"There is no RIFE '{config.version}': choose one of {', '.join(LAYOUTS)}.")
        if config.flow_scale not in FLOW_SCALES:
            scales = ", ".join(f"{scale:g}" for scale in FLOW_SCALES)
            raise RequestError(f"RIFE has no flow scale {config.flow_scale:g}: choose one of {scales}.")
        self.config = config
        self.layout = layout = LAYOUTS[config.version]
        self.in_middle = layout.kind == "branches"
        self.time = FixedFactors(factors=(2,)) if self.in_middle else ContinuousTime()
        self.scales = tuple(scale / config.flow_scale for scale in layout.scales)
        self.size = SizeConstraint(minimum=2, multiple_of=max(2, round(_STRIDE * self.scales[0])))
        self.feature_names = ("pair", "features") if layout.head else ("pair",)
        if layout.head:
            self.head = _head(*layout.head, len(layout.head_names))
        seen = 2 * (3 + (layout.head[-1] if layout.head else 0))  # channels of both frames
        timed = 0 if self.in_middle else 1
        later = seen + timed + _MASK + layout.carried + _FLOW
        for number, width in enumerate(layout.widths):
            inputs = later if number or self.in_middle else seen + timed
            self.add_module(f"block{number}", FlowBlock(inputs, width // config.narrower, layout))

    def aliases(self) -> dict[str, str]:
        """Return the official names of the head's weights, each with the name in this state dict."""
        return {
            f"encode.{official}.{kind}": f"head.{own}.{kind}"
            for official, own in zip(self.layout.head_names, _head_indices(len(self.layout.head_names)), strict=True)
            for kind in ("weight", "bias")
            if self.layout.head
        }

    def encode(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return both frames as one map, and their features. `(B, 2, 3, h, w)` -> `(B, 6, h, w)`, `(B, 2C, h, w)`"""
        pair = frames.flatten(1, 2)
        if not self.layout.head:
            return (pair,)
        return pair, torch.cat([self.head(frame) for frame in pair.split(3, 1)], 1)

    def refine(self, pair: Tensor, *rest: Tensor) -> tuple[Tensor]:
        """Return the frame at times `(B,)`, the last argument. `(B, 6, h, w)` -> `(B, 3, h, w)`"""
        *features, time = rest
        flow, mask = self.estimate(pair, features[0] if features else None, time)
        first, second = _warped(pair, flow)
        visible = torch.sigmoid(mask)
        return (visible * first + (1 - visible) * second,)

    def estimate(self, pair: Tensor, features: Tensor | None, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return the flow from times `(B,)` to both frames, and the mask. `(B, 6, h, w)` -> `(B, 4 or 1, h, w)`"""
        moment = time.view(-1, 1, 1, 1).expand_as(pair[:, :1])
        flow, mask = torch.zeros_like(pair[:, :_FLOW]), torch.zeros_like(pair[:, :_MASK])
        carried = pair[:, :0]
        for number, scale in enumerate(self.scales):
            block = self.get_submodule(f"block{number}")
            maps = [*_warped(pair, flow)] if number else [*pair.split(3, 1)]
            if self.in_middle:
                step = _both_ways(block, maps, mask, flow, scale)
            elif number == 0:
                step = block(torch.cat([*maps, *([] if features is None else [features]), moment], 1), None, scale)
            else:
                if features is not None:
                    maps += _warped(features, flow)
                step = block(torch.cat([*maps, moment, mask, carried], 1), flow, scale)
            flow = flow + step[:, :_FLOW]
            added = step[:, _FLOW : _FLOW + _MASK]
            mask = added if self.layout.head else mask + added
            if self.layout.carried:
                carried = step[:, _FLOW + _MASK :]
        return flow, mask

    def decode(self, between: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return the frame at rows `y` and columns `x`. `(B, 3, h, w)` -> `(B, 3, Hout, Wout)`"""
        return sample_bilinear(between, y, x)

    def decode_integer(self, between: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return the frame at the same positions in every pixel. `(B, 3, h, w)` -> `(B, 3, R * h, C * w)`"""
        rows, columns = (
            (torch.arange(n, device=between.device)[:, None] + phases).flatten()
            for n, phases in zip(between.shape[-2:], (y, x), strict=True)
        )
        return sample_bilinear(between, rows, columns)

    def forward(self, frames: Tensor, time: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the frame at `time`.

        `frames`: `(B, 2, 3, h, w)` in [0, 1]; `time`: `(B,)` from 0 to 1; `size`: height and width of the target.
        Returns `(B, 3, *size)`, not clamped.
        """
        y, x = (target_coordinates(n, m, frames.device) for n, m in zip(frames.shape[-2:], size, strict=True))
        return self.decode(*self.refine(*self.encode(frames), time), y, x)


def _both_ways(block: nn.Module, maps: list[Tensor], mask: Tensor, flow: Tensor, scale: float) -> Tensor:
    """Return the mean of a block's steps for the pair and for the reversed pair, as a step for the pair."""
    forwards = block(torch.cat([*maps, mask], 1), flow, scale)
    reverse = block(torch.cat([*reversed(maps), -mask], 1), _swapped(flow), scale)
    backwards = torch.cat((_swapped(reverse[:, :_FLOW]), -reverse[:, _FLOW:]), 1)
    return (forwards + backwards) / 2


def _swapped(flow: Tensor) -> Tensor:
    """Exchange the flows to the first and to the second frame."""
    return torch.cat((flow[:, 2:], flow[:, :2]), 1)


def _warped(pair: Tensor, flow: Tensor) -> list[Tensor]:
    """Warp both halves of a map of a pair, `(B, 2C, h, w)`, each by its flow; pixels outside repeat the edge."""
    halves = zip(pair.chunk(2, 1), flow.split(2, 1), strict=True)
    return [warp(half, part, "clamp") for half, part in halves]


def _resized(x: Tensor, factor: float) -> Tensor:
    """Change height and width bilinearly by a power of two, of which the size must be a multiple."""
    if factor == 1:
        return x
    h, w = ((n * round(factor) if factor > 1 else n // round(1 / factor)) for n in x.shape[-2:])
    return F.interpolate(x, size=(h, w), mode="bilinear", align_corners=False)


def _enlarging(width: int, outputs: int) -> nn.Sequential:
    """Return two transposed convolutions that enlarge to four times the size."""
    half = width // 2
    return nn.Sequential(
        nn.ConvTranspose2d(width, half, 4, 2, 1), nn.PReLU(half), nn.ConvTranspose2d(half, outputs, 4, 2, 1)
    )


def _head(inside: int, channels: int, count: int) -> nn.Sequential:
    """Return the `count` layers that compute the features of one frame, with leaky ReLUs if there are more than two."""
    layers: list[nn.Module] = [conv3x3(3, inside, 2)]
    for _ in range(count - 2):
        layers += [nn.LeakyReLU(_SLOPE), conv3x3(inside, inside)]
    if count > 2:
        layers.append(nn.LeakyReLU(_SLOPE))
    return nn.Sequential(*layers, nn.ConvTranspose2d(inside, channels, 4, 2, 1))


def _head_indices(count: int) -> range:
    """Return the positions of the convolutions in `_head`."""
    return range(2) if count == 2 else range(0, 2 * count, 2)
