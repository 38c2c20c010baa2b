"""Training pairs without ground truth: restored frames, made a little smaller, are targets; shrunk, they are inputs."""

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
from ..data import Flow, input_frames, target_frames, truth_offsets
from ..networks.base import Network
from .blur import rescaled, shrink
from .learning import Example
from .restore import upscale_factor, window_inputs

# The degradation of the clip's camera: (frames (N, 3, H, W) in [0, 1], factor) -> (N, 3, H / factor, W / factor)
Degrade = Callable[[Tensor, int], Tensor]

MIN_PATCH_PX = 16  # input pixels; smaller crops are mostly borders to a network


def bicubic(frames: Tensor, factor: int) -> Tensor:
    """Shrink frames by antialiased bicubic resizing, the degradation that the field's networks are trained to undo.

    (N, 3, H, W) -> (N, 3, H // factor, W // factor), not clamped.
    """
    rows, columns = (torch.tensor(resize_matrix(n, n // factor)).to(frames) for n in frames.shape[-2:])
    return rows @ frames @ columns.T


def blurring(kernel: Tensor, kernel_factor: int | None = None) -> Degrade:
    """Return the degradation by a blur kernel, (side, side), as `shrink` takes it.

    `kernel_factor`: the factor that the kernel is for. At another one the kernel is a Gaussian that is as wide in
    pixels of the small frames. None: the same kernel at all factors.
    """

    def degrade(frames: Tensor, factor: int) -> Tensor:
        if kernel_factor is None or factor == kernel_factor:
            return shrink(frames, kernel, factor)
        return shrink(frames, rescaled(kernel, kernel_factor, factor), factor)

    return degrade


@dataclass(frozen=True)
class Crop:
    """The position of an example: frames of a segment, the size (H, W) they are resized to, the corner of the patch."""

    segment: int
    indices: Sequence[int]  # frames in the segment
    size: tuple[int, int]
    top: int
    left: int


class PseudoPairs:
    """Draws examples for a network from restored frames.

    Each of `segments` holds neighbouring frames, (N, H, W, 3), of 8 bits or in [0, 1]. A whole frame is resized by a
    random factor from the range `shrink`, in hundredths, then cropped to `patch` input pixels a side, then degraded:
    the order of the authors' demonstration. The target of a sliding window is the middle frame. For a run or a pair,
    every second frame is an input and all are targets, so that the frames between inputs, too, are frames of the clip.

    Raises AdaptationError if the frames are too few or too small.
    """

    def __init__(
        self,
        network: Network,
        segments: Sequence[NDArray[Any]],
        patch: int,
        shrink: tuple[float, float],
        degrade: Degrade,
        flow: Flow | None,
        seed: int,
    ) -> None:
        self.network, self.degrade, self.flow = network, degrade, flow
        self.length = sample_length(network)
        self.segments = [segment for segment in segments if len(segment) >= self.length]
        if not self.segments:
            raise AdaptationError(
                f"{type(network).__name__} learns from {self.length} neighbouring frames, and the clip has fewer: adapt"
                " to a longer scene."
            )
        self.scale = upscale_factor(network)
        self.min_percent, self.max_percent = (round(100 * factor) for factor in shrink)
        self.side = self.scale * self._patch_px(patch)
        self.random = np.random.default_rng(seed)

    def draw(self) -> Crop:
        """Draw the position of an example; all its starting frames are equally likely."""
        starts = [len(segment) - self.length + 1 for segment in self.segments]
        index = int(self.random.choice(len(starts), p=np.array(starts) / sum(starts)))
        segment, start = self.segments[index], int(self.random.integers(starts[index]))
        window = self.network.window
        if isinstance(window, SlidingWindow):
            indices = window_numbers(window, start, len(segment) - 1)
        else:
            indices = [start + offset for offset in truth_offsets(window, 2, 1)]
        percent = int(self.random.integers(self.min_percent, self.max_percent, endpoint=True))
        height, width = (_resized_length(n, percent) for n in segment.shape[1:3])
        top, left = (int(self.random.integers(n - self.side, endpoint=True)) for n in (height, width))
        return Crop(index, indices, (height, width), top, left)

    def example(self, crop: Crop) -> Example:
        """Return the example at a position, with a batch of 1."""
        window, segment = self.network.window, self.segments[crop.segment]
        true = np.stack([_resized_crop(segment[index], crop, self.side) for index in crop.indices])
        small = self.degrade(_planes(input_frames(window, true)), self.scale).clamp(0, 1)
        targets, times = target_frames(window, true), torch.tensor(0.5)
        if window.kind == "pair":
            targets, times = true[:2], torch.tensor([0.0, 0.5])
        return Example(window_inputs(self.network, small, self.flow, times), _planes(targets)[None])

    def batch(self, count: int) -> Example:
        """Draw a batch of `count` examples."""
        examples = [self.example(self.draw()) for _ in range(count)]
        inputs = [torch.cat(parts) for parts in zip(*(example.inputs for example in examples), strict=True)]
        return Example(inputs, torch.cat([example.target for example in examples]))

    def _patch_px(self, patch: int) -> int:
        """Return the side of a patch in input pixels: `patch`, or less if the smallest resized frame has less room."""
        multiple = self.network.size.multiple_of
        sides = [n for segment in self.segments for n in segment.shape[1:3]]
        room = min(_resized_length(n, self.min_percent) for n in sides) // self.scale
        side = min(patch, room) // multiple * multiple
        minimum = max(MIN_PATCH_PX, self.network.size.minimum)
        if side < min(patch, minimum):
            raise AdaptationError(
                f"{type(self.network).__name__} learns from crops of at least {minimum} pixels, which the clip, of"
                f" {min(sides) // self.scale} pixels on its shorter side, does not have once it is resized: adapt to a"
                " larger clip."
            )
        return side


def sample_length(network: Network) -> int:
    """Return how many neighbouring frames an example needs; a sliding window repeats frames if it lacks neighbours."""
    return 1 if network.window.kind == "sliding" else len(truth_offsets(network.window, 2, 1))


def _resized_length(n: int, percent: int) -> int:
    """Return the length of an axis after resizing, rounded up as `imresize` does."""
    return -(-n * percent // 100)


def _planes(frames: NDArray[np.floating]) -> Tensor:
    """(T, H, W, 3) -> (T, 3, H, W)."""
    return torch.from_numpy(frames.astype(np.float32)).permute(0, 3, 1, 2)


def _resized_crop(frame: NDArray[Any], crop: Crop, side: int) -> NDArray[np.floating]:
    """Return a patch, (side, side, 3), of the resized frame, computed from the pixels that it depends on only."""
    rows, above = _crop_matrix(frame.shape[0], crop.size[0], crop.top, side)
    columns, before = _crop_matrix(frame.shape[1], crop.size[1], crop.left, side)
    region = frame[above : above + rows.shape[1], before : before + columns.shape[1]]
    region = region / 255 if region.dtype == np.uint8 else region
    resized = np.tensordot(columns, np.tensordot(rows, region, (1, 0)), (1, 1))
    return np.clip(np.moveaxis(resized, 0, 1), 0, 1)


def _crop_matrix(n: int, size: int, first: int, side: int) -> tuple[NDArray[np.floating], int]:
    """Return some rows of the map that resizes an axis, without zero columns at both ends, and how many came before."""
    rows = resize_matrix(n, size)[first : first + side]
    used = np.flatnonzero(rows.any(0))
    return rows[:, used[0] : used[-1] + 1], int(used[0])
