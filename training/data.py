"""Training samples from clips, for every kind of window: crop, augment and downscale while training runs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..engine.contract.errors import RequestError
from ..engine.contract.manifest import FixedFactors, Window
from .compressed_clips import SCALE, CompressedClips
from .networks.base import Network
from .resize import downscale
from .teacher import MotionTeacher

MARGIN_PX = 32  # full-size pixels around a crop that the teacher's flow uses to find matches beyond its edges

# (frame (h, w, 3), another frame, method) -> flow from the first to the second, (2, h, w): (dx, dy) in pixels
Flow = Callable[[NDArray[np.uint8], NDArray[np.uint8], str], NDArray[np.float32]]


@dataclass(frozen=True)
class Sampling:
    """The distribution of training samples."""

    patch: int = 48  # side of the square input crop, in pixels
    batch: int = 4  # samples in a batch
    scales: tuple[float, float] = (4.0, 4.0)  # range of the uniform spatial scale of networks that take any scale
    at_x4: float = 0.0  # share of the batches of such networks that are at x4 whatever the range
    # Distances in frames between two inputs of a pair or a run, each with its probability. A run uses only those
    # distances that have true frames at its output times.
    gaps: tuple[tuple[int, float], ...] = ((1, 0.1), (2, 0.6), (3, 0.15), (4, 0.15))
    compressed: float = 0.0  # share of samples at x4 whose inputs are compressed, 0 to 1
    motion_patch: int = 0  # side of the crops of every third batch, which trains motion alone; 0: no such batches


@dataclass(frozen=True)
class Batch:
    """The inputs of a network and the full-size truth, RGB in [0, 1].

    For a pair, the truth is at K times: the time of one of the inputs, and a time between them.
    """

    frames: Tensor  # (B, N, 3, h, w)
    truth: Tensor  # (B, M, 3, H, W), or (B, K, 3, H, W) for a pair
    flows: tuple[Tensor, ...] = ()  # (B, P, 2, h, w) for each entry of `Network.flows`
    time: Tensor | None = None  # (B,), or (B, K) for a pair
    motion: Tensor | None = None  # for a pair (B, K, 6, h, w), as from `MotionTeacher`, in input pixels
    motion_only: bool = False  # whether the batch trains motion alone; then the truth has the size of the inputs

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs of the network, in the order of `Network.forward`."""
        return (self.frames, *self.flows) if self.time is None else (self.frames, *self.flows, self.time)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All tensors, in the order of the fields."""
        return (self.frames, self.truth, *self.flows, self.time, self.motion)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return a batch with every tensor changed."""
        time, motion = (None if tensor is None else change(tensor) for tensor in (self.time, self.motion))
        flows = tuple(map(change, self.flows))
        return Batch(change(self.frames), change(self.truth), flows, time, motion, self.motion_only)

    def to(self, device: str) -> "Batch":
        """Return the batch on a device."""
        return self.map(lambda tensor: tensor.to(device))


def truth_offsets(window: Window, gap: int, middle: int) -> list[int]:
    """Return the offsets of a sample's true frames from its first one, in frames.

    The inputs of a pair or a run are `gap` frames apart, and `middle` frames after each there is an output frame. The
    true frames of other windows are neighbours.
    """
    if window.kind == "sliding":
        return list(range(window.frames))
    if window.kind == "doubled":
        return list(range(2 * window.frames))
    return [index * gap + offset for index in range(window.frames) for offset in (0, middle)][:-1]


def input_frames(window: Window, truth: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the frames that a camera of the network's input would record, at full size. (T, H, W, 3) -> (N, H, W, 3)

    `truth` has the true frames at `truth_offsets`.
    """
    if window.kind == "sliding":
        return truth
    if window.kind == "doubled":  # the exposure of an input frame lasts for two output frames
        return (truth[::2] + truth[1::2]) / 2
    return truth[::2]


def target_frames(window: Window, truth: NDArray[Any]) -> NDArray[Any]:
    """Return those of the true frames at `truth_offsets` that the network outputs. (T, H, W, 3) -> (M, H, W, 3)"""
    return truth[window.frames // 2][None] if window.kind == "sliding" else truth


def takes_compressed(network: Network) -> bool:
    """Return whether samples of a network may have compressed inputs.

    They exist at x4, and for networks whose inputs are frames of a video: not for doubled windows, whose inputs are
    means of frames.
    """
    return network.window.kind != "doubled" and all(network.space.serves(n, SCALE * n) for n in (16, 64))


def network_inputs(network: Network, small: NDArray[np.uint8], flow: Flow | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Convert input frames (N, h, w, 3) to tensors, and compute the optical flows that the network takes.

    Returns the frames, (N, 3, h, w) in [0, 1], and the flows, each (P, 2, h, w) in pixels.
    """
    frames = torch.from_numpy(small).permute(0, 3, 1, 2).float() / 255
    if not network.flows:
        return frames, ()
    assert flow is not None, "Trainer refuses a network that takes flows if it has no flow function"
    flows = (np.stack([flow(small[a], small[b], f.method) for a, b in f.pairs]) for f in network.flows)
    return frames, tuple(torch.from_numpy(f) for f in flows)


@dataclass(frozen=True)
class Draw:
    """The random choices of one sample."""

    clip: int  # its number
    indices: tuple[int, ...]  # of the true frames in the clip, before a reversal
    top: int  # of the crop, in pixels
    left: int
    side: int
    time: float  # of the output frame between inputs, after a reversal
    gap: int  # frames from an input to the next
    version: int | None  # the compressed version of the inputs; None: they are not compressed
    end: int  # for a pair: the input, 0 or 1, whose own time is among the times of this sample
    reverse: bool
    flip_y: bool
    flip_x: bool
    transpose: bool
    sliding: bool  # whether every true frame is an input

    def cut(self, clip: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut the augmented true frames out of the clip. (N, H, W, 3) -> (T, side, side, 3)"""
        frames = clip[list(self.indices), self.top : self.top + self.side, self.left : self.left + self.side]
        frames = frames[::-1] if self.reverse else frames
        frames = frames[:, ::-1] if self.flip_y else frames
        frames = frames[:, :, ::-1] if self.flip_x else frames
        return np.ascontiguousarray(frames.swapaxes(1, 2) if self.transpose else frames)

    def compressed_inputs(self, side: int) -> "Draw":
        """Return the draw that cuts the inputs out of a compressed version; the true frames have `side` pixels."""
        margin = (self.side - side) // 2
        top, left = ((first + margin) // SCALE for first in (self.top, self.left))
        return replace(self, indices=self.input_indices, top=top, left=left, side=side // SCALE)

    @property
    def input_indices(self) -> tuple[int, ...]:
        """The input frames among the true frames of a pair, a run or a sliding window."""
        return self.indices if self.sliding else self.indices[::2]


class ClipSampler:
    """Draws batches for a network from clips (N, H, W, 3); clips with more motion are drawn more often.

    A batch depends only on the seed and the number of its step, so a run that was stopped and resumed sees the same
    batches as one that was not, whichever process draws them.

    Raises RequestError if the network does not take the patch size, if no gap has true frames at the network's output
    times, or if no clip is large and long enough for a sample.
    """

    def __init__(
        self,
        clips: list[NDArray[np.uint8]],
        network: Network,
        sampling: Sampling,
        seed: int,
        flow: Flow | None = None,
        compressed: CompressedClips | None = None,
    ) -> None:
        assert compressed is not None or not sampling.compressed, "compressed samples need compressed clips"
        self.clips, self.network, self.sampling, self.flow, self.compressed = clips, network, sampling, flow, compressed
        self.seed, self.random = seed, np.random.default_rng(seed)
        self.teacher = MotionTeacher()
        self._check()
        motion = np.array([_mean_motion(clip) for clip in clips])
        frames = np.array([len(clip) for clip in clips])
        weights = np.sqrt(frames) * np.clip(motion, 1.0, 20.0)
        self.probability = weights / weights.sum()

    def batch(self, step: int) -> Batch:
        """Draw the batch of a step. Its samples share the scale; each has its own clip, position, gap and times."""
        side = self.start_batch(step)
        samples = [self._sample(side) for _ in range(self.sampling.batch)]
        return Batch(
            torch.stack([s.frames for s in samples]),
            torch.stack([s.truth for s in samples]),
            tuple(torch.stack(flows) for flows in zip(*(s.flows for s in samples), strict=True)),
            None if samples[0].time is None else torch.stack([s.time for s in samples if s.time is not None]),
            None if samples[0].motion is None else torch.stack([s.motion for s in samples if s.motion is not None]),
        )

    def start_batch(self, step: int) -> int:
        """Seed the random choices of a step, and return the side of its true frames in pixels."""
        self.random = np.random.default_rng((self.seed, step))
        space = self.network.space
        if isinstance(space, FixedFactors):
            return self.sampling.patch * space.factors[0]
        if self.random.random() < self.sampling.at_x4:
            return self.sampling.patch * SCALE
        return round(self.sampling.patch * self.random.uniform(*self.sampling.scales))

    def _sample(self, side: int) -> Batch:
        """Draw one sample, without a batch axis, whose true frames have `side` pixels each way."""
        window, size = self.network.window, (self.sampling.patch, self.sampling.patch)
        draw = self.draw(side, MARGIN_PX if self.network.window.kind == "pair" else 0)
        crop = draw.cut(self.clips[draw.clip])
        margin = (crop.shape[1] - side) // 2
        inner = slice(margin, margin + side)
        truth = crop[:, inner, inner].astype(np.float32) / 255
        if draw.version is None or self.compressed is None:
            small = downscale(input_frames(window, truth), size)
        else:
            version = self.compressed.frames(draw.clip, draw.gap, draw.version)
            small = draw.compressed_inputs(side).cut(version)
        frames, flows = network_inputs(self.network, small, self.flow)
        if window.kind == "pair":
            targets = [
                self.teacher.motion(crop[0], crop[index], crop[2], t)[:, inner, inner]
                for index, t in ((-draw.end, float(draw.end)), (1, draw.time))
            ]
            motion = F.interpolate(torch.from_numpy(np.stack(targets)), size, mode="area")
            motion[:, :4] *= size[0] / side
            times = torch.tensor((float(draw.end), draw.time))
            return Batch(frames, _to_planes(truth[[-draw.end, 1]]), flows, times, motion)
        network_time = None if isinstance(self.network.time, FixedFactors) else torch.tensor(draw.time)
        return Batch(frames, _to_planes(target_frames(window, truth)), flows, network_time)

    def draw(self, side: int, margin: int = 0) -> Draw:
        """Draw the clip, the frames, the crop and the augmentation of a sample.

        The crop has `side` pixels each way, and up to `margin` more on all sides, as far as the clip has room for them.
        """
        gaps, chances = zip(*self._gaps(), strict=True)
        while True:
            number = int(self.random.choice(len(self.clips), p=self.probability))
            count, height, width = self.clips[number].shape[:3]
            gap = int(self.random.choice(gaps, p=np.array(chances) / sum(chances)))
            length = truth_offsets(self.network.window, gap, 0)[-1] + 1
            if count >= length and min(height, width) >= side:
                break
        start = int(self.random.integers(count - length + 1))
        middle = self._middle(gap)
        extra = min(margin, (min(height, width) - side) // 2)
        total = side + 2 * extra
        top = int(self.random.integers(height - total + 1))
        left = int(self.random.integers(width - total + 1))
        indices = tuple(start + offset for offset in truth_offsets(self.network.window, gap, middle))
        reverse, flip_y, flip_x, transpose = (bool(n) for n in self.random.integers(2, size=4))
        end = int(self.random.integers(2))
        time = 1 - middle / gap if reverse else middle / gap
        version = None
        if self.compressed is not None and side == SCALE * self.sampling.patch and takes_compressed(self.network):
            on_grid = [_on_grid(first, extra, n - total) for first, n in ((top, height), (left, width))]
            if self.random.random() < self.sampling.compressed and None not in on_grid:
                version = int(self.random.integers(self.compressed.versions))
                top, left = (first for first in on_grid if first is not None)
        sliding = self.network.window.kind == "sliding"
        return Draw(
            clip=number,
            indices=indices,
            top=top,
            left=left,
            side=total,
            time=time,
            gap=1 if sliding else gap,
            version=version,
            end=end,
            reverse=reverse,
            flip_y=flip_y,
            flip_x=flip_x,
            transpose=transpose,
            sliding=sliding,
        )

    def input_gaps(self) -> list[int]:
        """Return the distances in frames between inputs that samples may have."""
        return [1] if self.network.window.kind == "sliding" else [gap for gap, _ in self._gaps()]

    def _gaps(self) -> list[tuple[int, float]]:
        """Return the gaps that have true frames at the network's output times, each with its probability."""
        if self.network.window.kind != "run":
            return list(self.sampling.gaps)
        fixed = isinstance(self.network.time, FixedFactors)
        return [(gap, chance) for gap, chance in self.sampling.gaps if (gap % 2 == 0 if fixed else gap > 1)]

    def _middle(self, gap: int) -> int:
        """Draw the distance in frames from an input to the output frame after it.

        A pair without frames between its inputs takes one of the inputs as the output frame.
        """
        if isinstance(self.network.time, FixedFactors):
            return gap // 2
        return int(self.random.integers(1, gap)) if gap > 1 else int(self.random.integers(2))

    def _check(self) -> None:
        net, s = self.network, self.sampling
        name = type(net).__name__
        if s.patch < net.size.minimum or s.patch % net.size.multiple_of:
            raise RequestError(
                f"{name} does not take patches of {s.patch} pixels: choose a multiple of {net.size.multiple_of} that is"
                f" at least {net.size.minimum}."
            )
        if not self._gaps():
            raise RequestError(
                f"{name} outputs frames between its inputs, and the gaps {s.gaps} have no true frames there: choose an"
                " even gap."
            )
        length = truth_offsets(net.window, min(gap for gap, _ in self._gaps()), 0)[-1] + 1
        side = round(s.patch * (net.space.factors[0] if isinstance(net.space, FixedFactors) else s.scales[1]))
        if not any(len(clip) >= length and min(clip.shape[1:3]) >= side for clip in self.clips):
            raise RequestError(
                f"No clip has {length} frames of {side} pixels each way, which {name} needs for patches of {s.patch}"
                " pixels: choose a smaller patch, or add larger or longer clips."
            )


def _on_grid(first: int, margin: int, last: int) -> int | None:
    """Move a crop's first pixel, from 0 to `last`, so that its inner part starts on the grid of compressed frames."""
    shift = (first + margin) % SCALE
    for moved in (first - shift, first - shift + SCALE):
        if 0 <= moved <= last:
            return moved
    return None


def _to_planes(frames: NDArray[np.floating]) -> Tensor:
    """(T, H, W, 3) -> (T, 3, H, W)"""
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def _mean_motion(clip: NDArray[np.uint8]) -> float:
    """Return the mean difference of neighbouring frames in grey levels, at a few positions in the clip."""
    starts = np.linspace(0, max(len(clip) - 2, 0), 8).astype(int)
    pairs = [(clip[p, ::4, ::4].astype(float), clip[min(p + 1, len(clip) - 1), ::4, ::4]) for p in starts]
    return float(np.mean([np.abs(a - b).mean() for a, b in pairs]))
