"""Pairs to learn from without the truth: restored frames made a little smaller are targets, and made small, inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...engine.contract.errors import AdaptationError
from ...engine.contract.manifest import SlidingWindow
from ...engine.contract.resize import resize_matrix
from ...engine.contract.windows import window_numbers
from ..data import Flow, seen_frames, true_places, wanted_frames
from ..networks.base import Network
from .blur import shrink
from .restore import enlargement, window_inputs

# (frames (N, 3, H, W) in [0, 1], factor) -> as the clip's camera would have taken them, (N, 3, H / factor, W / factor)
Degrade = Callable[[Tensor, int], Tensor]

_LEAST_PATCH_PX = 16  # input pixels; of smaller crops, networks see little but borders


def bicubic(frames: Tensor, factor: int) -> Tensor:
    """Antialiased bicubic shrinking, which the field's networks are trained to undo. (N, 3, H, W) -> (N, 3, h, w)"""
    rows, columns = (torch.tensor(resize_matrix(n, n // factor)).to(frames) for n in frames.shape[-2:])
    return rows @ frames @ columns.T


def blurring(kernel: Tensor) -> Degrade:
    """A camera with this blur (side, side), as `kernels.shrink` takes it."""
    return lambda frames, factor: shrink(frames, kernel, factor)


@dataclass(frozen=True)
class Example:
    """What a network takes, and what it should give."""

    inputs: list[Tensor]  # frames (B, N, 3, h, w) in [0, 1], flows and time as the network asks for them
    target: Tensor  # (B, M, 3, H, W) in [0, 1]


@dataclass(frozen=True)
class Crop:
    """Where an example lies: a stretch and places in it, the size (H, W) it is shrunk to, the corner of the patch."""

    stretch: int
    places: Sequence[int]
    size: tuple[int, int]
    top: int
    left: int


class PseudoPairs:
    """Draws examples for a network from restored frames.

    ``stretches`` are of neighbouring frames each, (N, H, W, 3), of 8 bits or in [0, 1]. A whole frame is shrunk by a
    random factor of ``shrink``, in hundredths, then cut to ``patch`` input pixels a side, then degraded: the order of
    the authors' demonstration. Of a sliding window the target is the middle frame. Of a run or a pair every second
    frame is shown and all are targets, so that those in between are frames that the clip has, too.

    Raises ``AdaptationError`` for frames that are too few or too small.
    """

    def __init__(
        self,
        network: Network,
        stretches: Sequence[NDArray[Any]],
        patch: int,
        shrink: tuple[float, float],
        degrade: Degrade,
        flow: Flow | None,
        seed: int,
    ) -> None:
        self.network, self.degrade, self.flow = network, degrade, flow
        self.length = sample_length(network)
        self.stretches = [stretch for stretch in stretches if len(stretch) >= self.length]
        if not self.stretches:
            raise AdaptationError(
                f"{type(network).__name__} learns from {self.length} neighbouring frames, and the clip has fewer: adapt"
                " to a longer scene."
            )
        self.scale = enlargement(network)
        self.least, self.most = (round(100 * factor) for factor in shrink)  # hundredths
        self.side = self.scale * self._fitting(patch)
        self.random = np.random.default_rng(seed)

    def draw(self) -> Crop:
        """Where the next example lies; every start of one is as likely."""
        starts = [len(stretch) - self.length + 1 for stretch in self.stretches]
        index = int(self.random.choice(len(starts), p=np.array(starts) / sum(starts)))
        stretch, start = self.stretches[index], int(self.random.integers(starts[index]))
        window = self.network.window
        if isinstance(window, SlidingWindow):
            places = window_numbers(window, start, len(stretch) - 1)
        else:
            places = [start + place for place in true_places(window, 2, 1)]
        hundredth = int(self.random.integers(self.least, self.most, endpoint=True))
        height, width = (_shrunk(n, hundredth) for n in stretch.shape[1:3])
        top, left = (int(self.random.integers(n - self.side, endpoint=True)) for n in (height, width))
        return Crop(index, places, (height, width), top, left)

    def example(self, crop: Crop) -> Example:
        """The example that lies there, of batch 1."""
        window, stretch = self.network.window, self.stretches[crop.stretch]
        true = np.stack([_cut(stretch[place], crop, self.side) for place in crop.places])
        small = self.degrade(_planes(seen_frames(window, true)), self.scale).clamp(0, 1)
        wanted, times = wanted_frames(window, true), torch.tensor(0.5)
        if window.kind == "pair":
            wanted, times = true[:2], torch.tensor([0.0, 0.5])
        return Example(window_inputs(self.network, small, self.flow, times), _planes(wanted)[None])

    def batch(self, count: int) -> Example:
        """So many examples, drawn anew."""
        drawn = [self.example(self.draw()) for _ in range(count)]
        inputs = [torch.cat(parts) for parts in zip(*(one.inputs for one in drawn), strict=True)]
        return Example(inputs, torch.cat([one.target for one in drawn]))

    def _fitting(self, patch: int) -> int:
        """The side of a patch in input pixels: as asked for, or what the smallest frame that may be drawn holds."""
        multiple = self.network.size.multiple_of
        room = min(_shrunk(n, self.least) for s in self.stretches for n in s.shape[1:3]) // self.scale
        side = min(patch, room) // multiple * multiple
        least = max(_LEAST_PATCH_PX, self.network.size.minimum)
        if side < min(patch, least):
            short = min(n for s in self.stretches for n in s.shape[1:3]) // self.scale
            raise AdaptationError(
                f"{type(self.network).__name__} learns from crops of {least} pixels and more, and the clip, of {short}"
                " pixels on its shorter side, has none when it is made smaller: adapt to a larger one."
            )
        return side


def sample_length(network: Network) -> int:
    """How many neighbouring frames an example needs; for a sliding window, others stand in where there are none."""
    return 1 if network.window.kind == "sliding" else len(true_places(network.window, 2, 1))


def _shrunk(n: int, hundredth: int) -> int:
    """An axis at so many hundredths of its size, rounded up as ``imresize`` does."""
    return -(-n * hundredth // 100)


def _planes(frames: NDArray[np.floating]) -> Tensor:
    """(T, H, W, 3) -> (T, 3, H, W)"""
    return torch.from_numpy(frames.astype(np.float32)).permute(0, 3, 1, 2)


def _cut(frame: NDArray[Any], crop: Crop, side: int) -> NDArray[np.floating]:
    """A patch of the frame when resized as a whole, of the pixels that it depends on alone. -> (side, side, 3)"""
    rows, above = _rows(frame.shape[0], crop.size[0], crop.top, side)
    columns, before = _rows(frame.shape[1], crop.size[1], crop.left, side)
    piece = frame[above : above + rows.shape[1], before : before + columns.shape[1]]
    piece = piece / 255 if piece.dtype == np.uint8 else piece
    resized = np.tensordot(columns, np.tensordot(rows, piece, (1, 0)), (1, 1))
    return np.clip(np.moveaxis(resized, 0, 1), 0, 1)


def _rows(n: int, size: int, first: int, side: int) -> tuple[NDArray[np.floating], int]:
    """Some rows of the map that resizes an axis, without the columns that are zero around, and how many lay before."""
    rows = resize_matrix(n, size)[first : first + side]
    used = np.flatnonzero(rows.any(0))
    return rows[:, used[0] : used[-1] + 1], int(used[0])
