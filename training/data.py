"""Training samples from clips: cropped, augmented and made small on the fly."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .resize import resize_matrix, to_uint8
from .teacher import MotionTeacher

_MARGIN_PX = 32  # of full-size pixels around a crop, for the teacher's flow to see where things come from


@dataclass(frozen=True)
class Sampling:
    """How training samples are drawn.

    ``patch``: side of the square low-resolution crop in pixels. ``scales``: range of the uniform spatial scale.
    ``gaps``: distance in frames between the two inputs, each with its probability.
    """

    patch: int = 48
    batch: int = 4
    scales: tuple[float, float] = (4.0, 4.0)
    gaps: tuple[tuple[int, float], ...] = ((1, 0.1), (2, 0.6), (3, 0.15), (4, 0.15))


@dataclass(frozen=True)
class Batch:
    """Two small frames, and large truth at K times: an input's own, and between. All values in [0, 1]."""

    frames: Tensor  # (B, 2, 3, h, w)
    time: Tensor  # (B, K)
    truth: Tensor  # (B, K, 3, H, W)
    motion: Tensor  # (B, K, 6, h, w), as `MotionTeacher` says it, in small pixels


class ClipSampler:
    """Draws batches from clips; clips that move more are drawn more often."""

    def __init__(self, clips: list[NDArray[np.uint8]], sampling: Sampling, seed: int) -> None:
        self.clips = clips
        self.sampling = sampling
        self.random = np.random.default_rng(seed)
        self.teacher = MotionTeacher()
        motion = np.array([_motion(clip) for clip in clips])
        frames = np.array([len(clip) for clip in clips])
        weights = np.sqrt(frames) * np.clip(motion, 1.0, 20.0)
        self.probability = weights / weights.sum()

    def batch(self) -> Batch:
        """One batch; all of its samples share the spatial scale, and each has its own clip, place, gap and times."""
        s = self.sampling
        scale = self.random.uniform(*s.scales)
        side = round(s.patch * scale)
        rows = torch.from_numpy(resize_matrix(side, s.patch).astype(np.float32))
        frames, times, truths, motions = [], [], [], []
        for _ in range(s.batch):
            around, between = self._window(side)
            margin = (around.shape[1] - side) // 2
            inner = slice(margin, margin + side)
            window = torch.from_numpy(around[:, inner, inner].astype(np.float32) / 255)
            small = torch.einsum("ay,tyxc,bx->tcab", rows, window[[0, -1]], rows)
            frames.append(torch.from_numpy(to_uint8(small.numpy())).float() / 255)
            end = int(self.random.integers(2))
            times.append((float(end), between))
            truths.append(window[[-end, 1]].permute(0, 3, 1, 2))
            told = [
                self.teacher.motion(around[0], around[index], around[2], time)[:, inner, inner]
                for index, time in ((-end, float(end)), (1, between))
            ]
            motions.append(F.interpolate(torch.from_numpy(np.stack(told)), (s.patch, s.patch), mode="area"))
        motion = torch.stack(motions)
        motion[:, :, :4] *= s.patch / side
        return Batch(torch.stack(frames), torch.tensor(times), torch.stack(truths), motion)

    def _window(self, side: int) -> tuple[NDArray[np.uint8], float]:
        """A first, a middle and a last frame, augmented, (3, N, N, 3), and the middle's time.

        N is ``side`` and as much of the margin on all sides as the clip has room for.
        """
        gaps, chances = zip(*self.sampling.gaps, strict=True)
        while True:
            clip = self.clips[self.random.choice(len(self.clips), p=self.probability)]
            gap = int(self.random.choice(gaps, p=np.array(chances) / sum(chances)))
            if len(clip) > gap and min(clip.shape[1:3]) >= side:
                break
        start = int(self.random.integers(len(clip) - gap))
        middle = int(self.random.integers(1, gap)) if gap > 1 else int(self.random.integers(2))
        side += 2 * min(_MARGIN_PX, (min(clip.shape[1:3]) - side) // 2)
        top = int(self.random.integers(clip.shape[1] - side + 1))
        left = int(self.random.integers(clip.shape[2] - side + 1))
        window = clip[[start, start + middle, start + gap], top : top + side, left : left + side]
        time = middle / gap
        reverse, flip_y, flip_x, transpose = self.random.integers(2, size=4)
        if reverse:
            window, time = window[::-1], 1 - time
        if flip_y:
            window = window[:, ::-1]
        if flip_x:
            window = window[:, :, ::-1]
        if transpose:
            window = window.swapaxes(1, 2)
        return np.ascontiguousarray(window), time


def _motion(clip: NDArray[np.uint8]) -> float:
    """Mean frame difference in grey levels, over a few places of the clip."""
    places = np.linspace(0, max(len(clip) - 2, 0), 8).astype(int)
    pairs = [(clip[p, ::4, ::4].astype(float), clip[min(p + 1, len(clip) - 1), ::4, ::4]) for p in places]
    return float(np.mean([np.abs(a - b).mean() for a, b in pairs]))
