"""Training samples drawn on a device: clips and motion stay in its memory, and a batch takes a few dozen operations.

`DeviceSampler` draws the batches of `ClipSampler`: the same clips, crops, augmentations and times for a seed and step.
Crops are gathered from all clips at once, with mirroring and transposition in the indices, and resized by two matrix
products with the matrices of `engine.contract.resize`. Motion targets are sampled from flows of whole frames
(`motion_cache.py`), where `ClipSampler` computes the flow of each crop.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..engine.contract.manifest import FixedFactors
from ..engine.contract.resize import resize_matrix
from .compressed_clips import SCALE, CompressedClips
from .data import MARGIN_PX, Batch, ClipSampler, Draw
from .motion_cache import OFFSETS, SHRINK


class DeviceClips:
    """Clips (N, H, W, 3) in the memory of a device: 2 GB for 3,000 frames of 640x360.

    motion: for the network of a pair, the flows of each clip as `cached_motion` returns them (1.5 GB for these frames).
    """

    def __init__(
        self, clips: list[NDArray[np.uint8]], device: str, motion: list[NDArray[np.float16]] | None = None
    ) -> None:
        self.device = device
        self.pixels, self.starts = _concatenate([clip.reshape(-1, 3) for clip in clips], device)
        self.sizes = [clip.shape[1:3] for clip in clips]
        self.flows: Tensor | None = None
        if motion is not None:
            planes = [np.moveaxis(flows, 2, -1).reshape(-1, 2) for flows in motion]
            self.flows, self.flow_starts = _concatenate(planes, device)
            self.flow_sizes = [flows.shape[-2:] for flows in motion]


class DeviceSampler:
    """Draws batches on a device, for networks without optical flow as an input.

    draws: makes the random choices; its compressed versions are copied to the device (0.14 GB for each gap and version
    of 3,000 frames of 640x360).
    clips: those of `draws` on the device.
    """

    def __init__(self, draws: ClipSampler, clips: DeviceClips) -> None:
        assert not draws.network.flows, "flows are computed on the CPU: use ClipSampler"
        self._draws, self._network, self._patch = draws, draws.network, draws.sampling.patch
        self._clips, self._device = clips, clips.device
        self._matrices: dict[int, Tensor] = {}  # by the side of a crop
        self._versions: dict[tuple[int, int, int], int] = {}  # (clip, gap, version) -> its first pixel
        if draws.compressed is not None and draws.sampling.compressed:
            self._load_versions(draws.compressed)

    def _load_versions(self, compressed: CompressedClips) -> None:
        keys = [
            (clip, gap, version)
            for clip in range(len(compressed.paths))
            for gap in self._draws.input_gaps()
            for version in range(compressed.versions)
        ]
        pixels = [compressed.frames(*key).reshape(-1, 3) for key in keys]
        self._small, starts = _concatenate(pixels, self._device)
        self._versions = dict(zip(keys, starts, strict=True))

    def batch(self, step: int) -> Batch:
        """Draw the batch of a step, as `ClipSampler.batch` does, on the device."""
        side, window = self._draws.start_batch(step), self._network.window
        margin = MARGIN_PX if window.kind == "pair" else 0
        draws = [self._draws.draw(side, margin) for _ in range(self._draws.sampling.batch)]
        truth = self._crops(draws, side)
        if window.kind == "pair":
            ends = torch.tensor([draw.end for draw in draws], device=self._device)
            at_input = torch.where(ends.view(-1, 1, 1, 1) == 0, truth[:, 0], truth[:, 2])
            times = torch.tensor([[float(draw.end), draw.time] for draw in draws], device=self._device)
            motion = None if self._clips.flows is None else self._motion(self._clips.flows, draws, side)
            frames = self._inputs(truth[:, ::2], draws, side)
            return Batch(frames, torch.stack([at_input, truth[:, 1]], 1), (), times, motion)
        match window.kind:
            case "sliding":
                inputs, targets = truth, truth[:, window.frames // 2][:, None]
            case "doubled":
                inputs, targets = (truth[:, ::2] + truth[:, 1::2]) / 2, truth
            case _:
                inputs, targets = truth[:, ::2], truth
        fixed = isinstance(self._network.time, FixedFactors)
        time = None if fixed else torch.tensor([draw.time for draw in draws], device=self._device)
        return Batch(self._inputs(inputs, draws, side), targets, (), time)

    def _crops(self, draws: Sequence[Draw], side: int) -> Tensor:
        """Return the augmented true frames, (B, T, 3, side, side) in [0, 1]."""
        starts: list[list[int]] = []
        rows: list[NDArray] = []
        columns: list[NDArray] = []
        for draw in draws:
            height, width = self._clips.sizes[draw.clip]
            indices = draw.indices[::-1] if draw.reverse else draw.indices
            starts.append([self._clips.starts[draw.clip] + index * height * width for index in indices])
            y, x = (np.arange(side) + first for first in _inner(draw, side))
            row, column = _oriented(draw, y * width, x)
            rows.append(row)
            columns.append(column)
        pixels = self._clips.pixels[self._grid(starts, rows, columns)]  # (B, T, side, side, 3)
        return pixels.permute(0, 1, 4, 2, 3).float() / 255

    def _inputs(self, frames: Tensor, draws: Sequence[Draw], side: int) -> Tensor:
        """Return the inputs (B, N, 3, p, p): the frames made small, or their compressed versions."""
        small = self._shrink(frames)
        compressed = [number for number, draw in enumerate(draws) if draw.version is not None]
        if not compressed:
            return small
        starts, rows, columns = [], [], []
        for draw in (draws[number] for number in compressed):
            assert draw.version is not None
            height, width = (n // SCALE for n in self._clips.sizes[draw.clip])
            part = draw.compressed_inputs(side)
            indices = part.indices[::-1] if draw.reverse else part.indices
            start = self._versions[draw.clip, draw.gap, draw.version]
            starts.append([start + index * height * width for index in indices])
            row, column = _oriented(draw, (part.top + np.arange(part.side)) * width, part.left + np.arange(part.side))
            rows.append(row)
            columns.append(column)
        pixels = self._small[self._grid(starts, rows, columns)]
        small[torch.tensor(compressed, device=self._device)] = pixels.permute(0, 1, 4, 2, 3).float() / 255
        return small

    def _shrink(self, frames: Tensor) -> Tensor:
        """Resize frames to the patch, antialiased, rounded to 8 bits. (B, N, 3, side, side) -> (B, N, 3, p, p)"""
        side = frames.shape[-1]
        if side not in self._matrices:
            self._matrices[side] = self._tensor(np.array(resize_matrix(side, self._patch), np.float32))
        matrix = self._matrices[side]
        return ((matrix @ frames @ matrix.T) * 255).round().clamp(0, 255) / 255

    def _motion(self, flows: Tensor, draws: Sequence[Draw], side: int) -> Tensor:
        """Return the motion targets of both times, (B, 2, 6, p, p), with the layout of `MotionTeacher`."""
        starts: list[list[int]] = []
        factors: list[list[float]] = []
        taps: list[list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = [[], [], [], []]
        weights: list[tuple[NDArray, NDArray]] = []
        centres: list[tuple[NDArray, NDArray]] = []
        limits: list[tuple[int, int]] = []
        signs: list[tuple[float, float]] = []
        transposed: list[bool] = []
        for draw in draws:
            (height, width), (h, w) = self._clips.sizes[draw.clip], self._clips.flow_sizes[draw.clip]
            start, factor = self._flow_maps(draw, side, h * w)
            starts.append(start)
            factors.append(factor)
            # Centres of the patch's pixels, from the frame's edges in full-size pixels.
            y, x = ((np.arange(self._patch) + 0.5) * side / self._patch + first for first in _inner(draw, side))
            (y0, y1, wy), (x0, x1, wx) = _linear(y, h), _linear(x, w)
            for tap, (ty, tx) in zip(taps, ((y0, x0), (y0, x1), (y1, x0), (y1, x1)), strict=True):
                tap.append(_oriented(draw, ty * w, tx))
            weights.append(_oriented(draw, wy, wx))
            centres.append(_oriented(draw, y, x))
            limits.append((width, height))
            signs.append((-1.0 if draw.flip_x else 1.0, -1.0 if draw.flip_y else 1.0))
            transposed.append(draw.transpose)
        swap = self._tensor(np.array(transposed))[:, None, None, None, None]
        values = [
            flows[self._grid(starts, [row for row, _ in tap], [column for _, column in tap])].float() for tap in taps
        ]  # each (B, 4, p, p, 2)
        along_rows, along_columns = (self._tensor(np.array(part, np.float32)) for part in zip(*weights, strict=True))
        vertical = torch.where(swap, along_columns[:, None, None, :, None], along_rows[:, None, :, None, None])
        horizontal = torch.where(swap, along_rows[:, None, :, None, None], along_columns[:, None, None, :, None])
        upper = values[0] + horizontal * (values[1] - values[0])
        lower = values[2] + horizontal * (values[3] - values[2])
        flow = upper + vertical * (lower - upper)  # (dx, dy) in full-size pixels of the frame, not of the sample
        in_rows, in_columns = (self._tensor(np.array(part, np.float32)) for part in zip(*centres, strict=True))
        at_x = torch.where(swap[..., 0], in_rows[:, None, :, None], in_columns[:, None, None, :])
        at_y = torch.where(swap[..., 0], in_columns[:, None, None, :], in_rows[:, None, :, None])
        limit = self._tensor(np.array(limits, np.float32))[:, None, None, None]
        moved = torch.stack([at_x, at_y], -1) + flow
        known = ((moved >= 0.5) & (moved <= limit - 0.5)).all(-1)  # (B, 4, p, p)
        flow = flow * self._tensor(np.array(signs, np.float32))[:, None, None, None]
        flow = torch.where(swap, flow.flip(-1), flow)
        scale = self._tensor(np.array(factors, np.float32))[:, :, None, None]  # 0 where there is no motion
        flow = (flow * scale[..., None]).permute(0, 1, 4, 2, 3)  # (B, 4, 2, p, p)
        known = (known & (scale > 0)).float()
        both = [torch.cat([flow[:, i : i + 2].flatten(1, 2), known[:, i : i + 2]], 1) for i in (0, 2)]
        return torch.stack(both, 1)

    def _flow_maps(self, draw: Draw, side: int, size: int) -> tuple[list[int], list[float]]:
        """Return where the flows of a sample start, and their factors: for each time, to input 0 and to input 1.

        A factor brings a flow to the whole interval and to input pixels; it is 0 for a frame compared with itself.
        """
        first, middle, second = draw.indices[::-1] if draw.reverse else draw.indices
        starts: list[int] = []
        factors: list[float] = []
        for index, time in (((first, second)[draw.end], float(draw.end)), (middle, draw.time)):
            for other, share in ((first, time), (second, 1 - time)):
                known = other != index and share > 0
                number = OFFSETS.index(other - index) if known else 0
                starts.append(self._clips.flow_starts[draw.clip] + (index * len(OFFSETS) + number) * size)
                factors.append(self._patch / side / share if known else 0.0)
        return starts, factors

    def _grid(self, starts: Sequence[Sequence[int]], rows: Sequence[NDArray], columns: Sequence[NDArray]) -> Tensor:
        """Add up indices: (B, T) of frames, (B, n) of rows and (B, n) of columns -> (B, T, n, n)"""
        start, row, column = (self._tensor(np.array(part, np.int64)) for part in (starts, rows, columns))
        return start[:, :, None, None] + row[:, None, :, None] + column[:, None, None, :]

    def _tensor(self, array: NDArray) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _concatenate(arrays: list[NDArray], device: str) -> tuple[Tensor, list[int]]:
    """Copy arrays to the device one after another; return them as one tensor, with the row where each starts."""
    starts = np.cumsum([0, *(len(array) for array in arrays)]).tolist()
    joined = torch.empty(
        (starts[-1], *arrays[0].shape[1:]), dtype=torch.from_numpy(arrays[0][:1].copy()).dtype, device=device
    )
    for start, array in zip(starts, arrays, strict=False):
        joined[start : start + len(array)] = torch.from_numpy(np.array(array))
    return joined, starts[:-1]


def _inner(draw: Draw, side: int) -> tuple[int, int]:
    """Return the top and the left of the crop without its margin."""
    margin = (draw.side - side) // 2
    return draw.top + margin, draw.left + margin


def _oriented(draw: Draw, of_y: NDArray, of_x: NDArray) -> tuple[NDArray, NDArray]:
    """Mirror and transpose two terms of an index, (n,) each: return those of the sample's rows and columns."""
    of_y, of_x = of_y[:: -1 if draw.flip_y else 1], of_x[:: -1 if draw.flip_x else 1]
    return (of_x, of_y) if draw.transpose else (of_y, of_x)


def _linear(position: NDArray, size: int) -> tuple[NDArray, NDArray, NDArray]:
    """Return both neighbours of positions in a flow's axis of `size`, clamped, and the weight of the second."""
    at = np.clip(position / SHRINK - 0.5, 0, size - 1)
    low = np.floor(at).astype(np.int64)
    return low, np.minimum(low + 1, size - 1), at - low
