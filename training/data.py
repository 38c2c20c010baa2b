"""Training samples from clips, for every kind of window: cropped, augmented and made small on the fly."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..engine.contract.manifest import FixedFactors, Window
from .networks.base import Network
from .resize import imresize, to_uint8
from .teacher import MotionTeacher

_MARGIN_PX = 32  # of full-size pixels around a crop, for the teacher's flow to see where things come from

# (frame (h, w, 3), another, method) -> where the first's pixels are in the second, (2, h, w): (dx, dy) in pixels
Flow = Callable[[NDArray[np.uint8], NDArray[np.uint8], str], NDArray[np.float32]]


@dataclass(frozen=True)
class Sampling:
    """How training samples are drawn.

    ``patch``: side of the square crop that a network is given, in pixels. ``scales``: range of the uniform spatial
    scale, where a network takes any. ``gaps``: distance in frames between two inputs of a pair or a run, each with its
    probability; a run uses those that have true frames at the times it makes.
    """

    patch: int = 48
    batch: int = 4
    scales: tuple[float, float] = (4.0, 4.0)
    gaps: tuple[tuple[int, float], ...] = ((1, 0.1), (2, 0.6), (3, 0.15), (4, 0.15))


@dataclass(frozen=True)
class Batch:
    """What a network takes, and the large truth; frames are in [0, 1].

    Of a pair, the truth is at K times: an input's own, and between.
    """

    frames: Tensor  # (B, N, 3, h, w)
    truth: Tensor  # (B, M, 3, H, W), or (B, K, 3, H, W) of a pair
    flows: tuple[Tensor, ...] = ()  # each (B, P, 2, h, w), as the network asks for them
    time: Tensor | None = None  # (B,), or (B, K) of a pair
    motion: Tensor | None = None  # (B, K, 6, h, w) of a pair, as `MotionTeacher` says it, in small pixels

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the network takes, in its order."""
        return (self.frames, *self.flows) if self.time is None else (self.frames, *self.flows, self.time)


def true_places(window: Window, gap: int, middle: int) -> list[int]:
    """Which true frames a sample consists of: inputs ``gap`` frames apart and one ``middle`` frames after each."""
    if window.kind == "sliding":
        return list(range(window.frames))
    if window.kind == "doubled":
        return list(range(2 * window.frames))
    return [first * gap + place for first in range(window.frames) for place in (0, middle)][:-1]


def seen_frames(window: Window, true: NDArray[np.floating]) -> NDArray[np.floating]:
    """What a camera of a network's input would see of its true frames, at their size. (T, H, W, 3) -> (N, H, W, 3)"""
    if window.kind == "sliding":
        return true
    if window.kind == "doubled":  # each is exposed over two
        return (true[::2] + true[1::2]) / 2
    return true[::2]


def wanted_frames(window: Window, true: NDArray[Any]) -> NDArray[Any]:
    """Those of its true frames that a network makes. (T, H, W, 3) -> (M, H, W, 3)"""
    return true[window.frames // 2][None] if window.kind == "sliding" else true


def shrunk(frames: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Frames in [0, 1] as small ones of 8 bits. (N, H, W, 3) -> (N, h, w, 3)"""
    return np.stack([to_uint8(imresize(frame, size)) for frame in frames])


def network_inputs(network: Network, small: NDArray[np.uint8], flow: Flow | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Small frames, and their flows that the network asks for. (N, h, w, 3) -> (N, 3, h, w), each (P, 2, h, w)"""
    frames = torch.from_numpy(small).permute(0, 3, 1, 2).float() / 255
    if not network.flows:
        return frames, ()
    assert flow is not None, "a trainer without one refuses the network"
    flows = (np.stack([flow(small[a], small[b], f.method) for a, b in f.pairs]) for f in network.flows)
    return frames, tuple(torch.from_numpy(f) for f in flows)


class ClipSampler:
    """Draws batches for a network from clips; clips that move more are drawn more often.

    Raises ``ValueError`` where the network cannot take the patch, or no clip has a sample's size and length.
    """

    def __init__(
        self, clips: list[NDArray[np.uint8]], network: Network, sampling: Sampling, seed: int, flow: Flow | None = None
    ) -> None:
        self.clips, self.network, self.sampling, self.flow = clips, network, sampling, flow
        self.random = np.random.default_rng(seed)
        self.teacher = MotionTeacher()
        self._check()
        motion = np.array([_motion(clip) for clip in clips])
        frames = np.array([len(clip) for clip in clips])
        weights = np.sqrt(frames) * np.clip(motion, 1.0, 20.0)
        self.probability = weights / weights.sum()

    def batch(self) -> Batch:
        """One batch; all of its samples share the spatial scale, and each has its own clip, place, gap and times."""
        space = self.network.space
        scale = space.factors[0] if isinstance(space, FixedFactors) else self.random.uniform(*self.sampling.scales)
        side = round(self.sampling.patch * scale)
        samples = [self._sample(side) for _ in range(self.sampling.batch)]
        return Batch(
            torch.stack([s.frames for s in samples]),
            torch.stack([s.truth for s in samples]),
            tuple(torch.stack(flows) for flows in zip(*(s.flows for s in samples), strict=True)),
            None if samples[0].time is None else torch.stack([s.time for s in samples if s.time is not None]),
            None if samples[0].motion is None else torch.stack([s.motion for s in samples if s.motion is not None]),
        )

    def _sample(self, side: int) -> Batch:
        """One sample, whose tensors have no batch axis."""
        window, size = self.network.window, (self.sampling.patch, self.sampling.patch)
        around, time = self._window(side)
        margin = (around.shape[1] - side) // 2
        inner = slice(margin, margin + side)
        true = around[:, inner, inner].astype(np.float32) / 255
        frames, flows = network_inputs(self.network, shrunk(seen_frames(window, true), size), self.flow)
        if window.kind == "pair":
            end = int(self.random.integers(2))
            told = [
                self.teacher.motion(around[0], around[index], around[2], moment)[:, inner, inner]
                for index, moment in ((-end, float(end)), (1, time))
            ]
            motion = F.interpolate(torch.from_numpy(np.stack(told)), size, mode="area")
            motion[:, :4] *= size[0] / side
            return Batch(frames, _planes(true[[-end, 1]]), flows, torch.tensor((float(end), time)), motion)
        moment = None if isinstance(self.network.time, FixedFactors) else torch.tensor(time)
        return Batch(frames, _planes(wanted_frames(window, true)), flows, moment)

    def _window(self, side: int) -> tuple[NDArray[np.uint8], float]:
        """The true frames of a sample, augmented, (T, N, N, 3), and the time of those that are made.

        N is ``side``, and of a pair as much of the margin on all sides as the clip has room for.
        """
        window = self.network.window
        gaps, chances = zip(*self._gaps(), strict=True)
        while True:
            clip = self.clips[self.random.choice(len(self.clips), p=self.probability)]
            gap = int(self.random.choice(gaps, p=np.array(chances) / sum(chances)))
            length = true_places(window, gap, 0)[-1] + 1
            if len(clip) >= length and min(clip.shape[1:3]) >= side:
                break
        start = int(self.random.integers(len(clip) - length + 1))
        middle = self._middle(gap)
        if window.kind == "pair":
            side += 2 * min(_MARGIN_PX, (min(clip.shape[1:3]) - side) // 2)
        top = int(self.random.integers(clip.shape[1] - side + 1))
        left = int(self.random.integers(clip.shape[2] - side + 1))
        places = [start + place for place in true_places(window, gap, middle)]
        frames = clip[places, top : top + side, left : left + side]
        time = middle / gap
        reverse, flip_y, flip_x, transpose = self.random.integers(2, size=4)
        if reverse:
            frames, time = frames[::-1], 1 - time
        if flip_y:
            frames = frames[:, ::-1]
        if flip_x:
            frames = frames[:, :, ::-1]
        if transpose:
            frames = frames.swapaxes(1, 2)
        return np.ascontiguousarray(frames), time

    def _gaps(self) -> list[tuple[int, float]]:
        """The gaps that have a true frame at the times that the network makes, each with its weight."""
        if self.network.window.kind != "run":
            return list(self.sampling.gaps)
        fixed = isinstance(self.network.time, FixedFactors)
        return [(gap, chance) for gap, chance in self.sampling.gaps if (gap % 2 == 0 if fixed else gap > 1)]

    def _middle(self, gap: int) -> int:
        """How many frames after an input a made one lies; a pair without frames between has one of its own made."""
        if isinstance(self.network.time, FixedFactors):
            return gap // 2
        return int(self.random.integers(1, gap)) if gap > 1 else int(self.random.integers(2))

    def _check(self) -> None:
        net, s = self.network, self.sampling
        name = type(net).__name__
        if s.patch < net.size.minimum or s.patch % net.size.multiple_of:
            raise ValueError(
                f"a patch of {s.patch} pixels is not for {name}, which takes multiples of {net.size.multiple_of} from"
                f" {net.size.minimum} on"
            )
        if not self._gaps():
            raise ValueError(f"{name} makes frames between its inputs, and gaps of {s.gaps} have none there")
        length = true_places(net.window, min(gap for gap, _ in self._gaps()), 0)[-1] + 1
        side = round(s.patch * (net.space.factors[0] if isinstance(net.space, FixedFactors) else s.scales[1]))
        if not any(len(clip) >= length and min(clip.shape[1:3]) >= side for clip in self.clips):
            raise ValueError(
                f"no clip has {length} frames of {side} pixels each way, which {name} needs for a patch of {s.patch}"
            )


def _planes(frames: NDArray[np.floating]) -> Tensor:
    """(T, H, W, 3) -> (T, 3, H, W)"""
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def _motion(clip: NDArray[np.uint8]) -> float:
    """Mean frame difference in grey levels, over a few places of the clip."""
    places = np.linspace(0, max(len(clip) - 2, 0), 8).astype(int)
    pairs = [(clip[p, ::4, ::4].astype(float), clip[min(p + 1, len(clip) - 1), ::4, ::4]) for p in places]
    return float(np.mean([np.abs(a - b).mean() for a, b in pairs]))
