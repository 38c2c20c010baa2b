"""Samples that train motion alone: wide crops at small scales, and synthetic motion with exact flow.

They cost little, as no frame is refined or rendered, so they can be wide: large motion stays inside. Every second
batch moves still frames: a background and a layer in front of it, which cover and uncover each other, each with a
translation, a rotation and a zoom of its own.
"""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .data import Batch
from .loading import Sampler

LARGEST_SHIFT = 0.25  # of a layer between the two inputs, as a share of the patch's side
LARGEST_TURN = 0.25  # radians between the two inputs
LARGEST_ZOOM = 0.2  # logarithm of the size at the second input over that at the first


class MotionSampler:
    """Makes the batches of a sampler small, as their inputs are, and replaces every second one by synthetic motion.

    The times of a batch are those of the sampler; every sample of a synthetic batch uses its first input as background
    and the first input of the next sample as the layer.
    """

    def __init__(self, sampler: Sampler, seed: int, patch: int) -> None:
        self._sampler, self._seed, self._patch = sampler, seed, patch

    def batch(self, step: int) -> Batch:
        """Return a batch whose truth (B, K, 3, patch, patch) has the size of the inputs."""
        batch = self._sampler.batch(step)
        size = (self._patch, self._patch)
        truth = F.interpolate(batch.truth.flatten(0, 1), size, mode="bicubic", antialias=True)
        batch = replace(batch, truth=truth.unflatten(0, batch.truth.shape[:2]), motion_only=True)
        if step % 2:
            return batch
        seed = int(np.random.default_rng((self._seed, step)).integers(1 << 62))
        return synthetic_batch(batch, torch.Generator().manual_seed(seed))


class MixedSampler:
    """Draws every third batch from one sampler, and the others from another."""

    def __init__(self, common: Sampler, third: Sampler) -> None:
        self._common, self._third = common, third

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        return self._third.batch(step // 3) if step % 3 == 2 else self._common.batch(step)


def synthetic_batch(batch: Batch, generator: torch.Generator) -> Batch:
    """Return a batch of moving stills with exact motion; `batch` gives the stills, the times and the sizes.

    The random choices come from `generator`, on the CPU.
    """
    assert batch.time is not None, "motion is estimated between the frames of a pair"
    stills = batch.frames[:, 0]
    device, count, side = stills.device, stills.shape[0], stills.shape[-1]
    background = _Layer(stills, _random_motion(count, side, generator), device)
    front = _Layer(stills.roll(1, 0), _random_motion(count, side, generator), device, _random_shape(count, generator))
    first, second = (_compose(background, front, torch.full((count,), end, device=device)) for end in (0.0, 1.0))
    truth, motion = [], []
    for time in batch.time.unbind(1):
        truth.append(_compose(background, front, time))
        behind, before = background.motion(time), front.motion(time)
        motion.append(torch.where(front.covers(time)[:, None], before, behind))
    return replace(
        batch,
        frames=torch.stack([first, second], 1),
        truth=torch.stack(truth, 1),
        motion=torch.stack(motion, 1),
    )


class _Layer:
    """A still that moves: `motion` `(B, 4)` has dx, dy in pixels, a turn in radians and a logarithm of a zoom.

    `shape`: `(B, 6)`, centre, radii and waves of the outline of a layer; None for one without an outline.
    """

    def __init__(self, still: Tensor, motion: Tensor, device: torch.device, shape: Tensor | None = None) -> None:
        self._still, self._motion = still, motion.to(device)
        self._shape = None if shape is None else shape.to(device)
        side = still.shape[-1]
        line = torch.arange(side, device=device) - (side - 1) / 2
        self._grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)[None]  # (1, S, S, 2): x, y

    def picture(self, time: Tensor) -> Tensor:
        """Return the moved still at times `(B,)`. -> `(B, 3, S, S)`"""
        at = self._still_positions(time) * 2 / self._still.shape[-1]
        return F.grid_sample(self._still, at, padding_mode="reflection", align_corners=False)

    def covers(self, time: Tensor) -> Tensor:
        """Return where the layer is at times `(B,)`. -> `(B, S, S)` bool"""
        return self._inside(self._still_positions(time))

    def motion(self, time: Tensor) -> Tensor:
        """Return the motion from times `(B,)`, with the layout of `MotionTeacher`. -> `(B, 6, S, S)`"""
        at, half = self._still_positions(time), self._still.shape[-1] / 2
        parts, known = [], []
        for end, share in ((0.0, time), (1.0, 1 - time)):
            moved = self._frame_positions(at, torch.full_like(time, end))
            at_end = (share < 1e-6).view(-1, 1, 1, 1)  # a frame compared with itself
            flow = (moved - self._grid) / torch.where(at_end, torch.ones_like(moved), share.view(-1, 1, 1, 1))
            parts.append(torch.where(at_end, torch.zeros_like(flow), flow).permute(0, 3, 1, 2))
            known.append((moved.abs() < half).all(-1) & ~at_end[..., 0])
        return torch.cat([*parts, torch.stack(known, 1).float()], 1)

    def _inside(self, at: Tensor) -> Tensor:
        if self._shape is None:
            return torch.ones_like(at[..., 0], dtype=torch.bool)
        x, y, width, height, waves, phase = (v.view(-1, 1, 1) for v in self._shape.unbind(1))
        side = self._still.shape[-1]
        dx, dy = (at[..., 0] / side - x) / width, (at[..., 1] / side - y) / height
        angle = torch.atan2(dy, dx)
        return dx.square() + dy.square() < (1 + 0.3 * torch.sin(waves * angle + phase)).square()

    def _rotation(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return zoom * cosine and zoom * sine of the turn at times `(B,)`, each `(B, 1, 1)`."""
        turn, zoom = (time * self._motion[:, 2]), (time * self._motion[:, 3]).exp()
        return (zoom * turn.cos()).view(-1, 1, 1), (zoom * turn.sin()).view(-1, 1, 1)

    def _frame_positions(self, at: Tensor, time: Tensor) -> Tensor:
        """Return where positions of the still `(B, S, S, 2)` are in the frame at times `(B,)`."""
        cos, sin = self._rotation(time)
        x, y = at.unbind(-1)
        moved = torch.stack([cos * x - sin * y, sin * x + cos * y], -1)
        return moved + (time[:, None] * self._motion[:, :2])[:, None, None]

    def _still_positions(self, time: Tensor) -> Tensor:
        """Return the position of the still at each pixel of the frame at times `(B,)`: inverts `_frame_positions`."""
        cos, sin = self._rotation(time)
        x, y = (self._grid - (time[:, None] * self._motion[:, :2])[:, None, None]).unbind(-1)
        square = cos.square() + sin.square()
        return torch.stack([(cos * x + sin * y) / square, (cos * y - sin * x) / square], -1)


def _compose(background: _Layer, front: _Layer, time: Tensor) -> Tensor:
    """Return the frame at times `(B,)`. -> `(B, 3, S, S)`"""
    return torch.where(front.covers(time)[:, None], front.picture(time), background.picture(time))


def _random_motion(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Draw the motion of layers, `(count, 4)`; small motion is as likely as large motion."""
    shift = LARGEST_SHIFT * side * torch.rand(count, generator=generator) ** 2
    direction = 2 * math.pi * torch.rand(count, generator=generator)
    turn, zoom = (2 * torch.rand(2, count, generator=generator) - 1) ** 3
    return torch.stack([shift * direction.cos(), shift * direction.sin(), LARGEST_TURN * turn, LARGEST_ZOOM * zoom], 1)


def _random_shape(count: int, generator: torch.Generator) -> Tensor:
    """Draw outlines of layers, `(count, 6)`: centre and radii as shares of the side, waves, and their phase."""
    random = torch.rand(count, 6, generator=generator)
    centre, radii = 0.8 * random[:, :2] - 0.4, 0.05 + 0.3 * random[:, 2:4]
    return torch.cat([centre, radii, (6 * random[:, 4:5]).floor(), 2 * math.pi * random[:, 5:]], 1)
