"""Internal learning: a network learns to restore a clip from a smaller and slower version of the clip itself.

Gupta et al., "Ada-VSR", ACM Multimedia 2021, algorithm 2 and equation 10. Both modules of Ada-VSR learn at once, as one
`AdaVSR`; any other network that enlarges frames, or adds frames in the gaps, learns in the same way. Choices that the
paper leaves open:
- A step takes as many frames as the network's window has, and a crop of them if the clip is larger, so that its time
  and memory do not grow with the clip.
- A network of any scale learns at factors that are drawn at random, across scales as in zero-shot learning.
- The loss is a mean where the paper has a sum, and the rate is that of the inner loop of meta-learning, whose steps
  these continue. Adam, whose steps do not depend on the scale of a loss, weighs frames by the ratio of their errors.
"""

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ...engine.contract.errors import AdaptationError
from ...engine.contract.manifest import FixedFactors
from ..data import Flow
from ..networks.base import Network
from .learning import Example, Learning, Loss, learn
from .protocol import Adapted, Budget, OnStep, Record
from .pseudo import MIN_PATCH_PX, Degrade, bicubic
from .restore import pad_frames, window_inputs
from .selection import Adapts

INNER_RATE = 1e-2  # of gradient descent: the paper's alpha
FREE_FACTORS = (2, 3, 4)  # of networks of any scale; at the lowest ones crops of small clips have more room


@dataclass(frozen=True)
class InternalLearning:
    """A descent on the distance of a clip from the network's restoration of its degraded version.

    `degrade` makes the clip smaller, under its own blur. `optimizer`: gradient descent as in the paper, or Adam, by
    which weights learn faster, at a rate some tens of times smaller. `patch_px`: side of the crops of the degraded
    clip, in its pixels. `batch`: crops of a step. `flow` is for networks that take optical flow; `adapts`: the weights
    that are learned.
    """

    degrade: Degrade = bicubic
    rate: float = INNER_RATE
    optimizer: Literal["sgd", "adam"] = "sgd"
    patch_px: int = 32
    batch: int = 1
    flow: Flow | None = None
    adapts: Adapts = "all"

    name: ClassVar[str] = "internal"

    def adapt(
        self, network: Network, frames: Tensor, budget: Budget, seed: int = 0, on_step: OnStep | None = None
    ) -> Adapted:
        """Learn from the clip; see `Method.adapt`."""
        clock = budget.start()
        pairs = ClipPairs(network, frames, self.patch_px, self.degrade, self.flow, seed)
        learner = copy.deepcopy(network).eval()
        loss: Loss = "ratio" if self.optimizer == "adam" else "absolute"
        learning = Learning(self.rate, self.adapts, self.batch, self.optimizer, loss)
        losses = learn(learner, pairs, learning, clock, on_step)
        weights = {name: value.detach().cpu().clone() for name, value in learner.state_dict().items()}
        details = {
            "adapts": self.adapts,
            "rate": self.rate,
            "optimizer": self.optimizer,
            "batch": self.batch,
            "factors": list(pairs.factors),
            "frames": len(frames),
            "seed": seed,
        }
        return Adapted(weights, Record(self.name, clock.steps, clock.seconds, losses, details))


class ClipPairs:
    """Draws pairs of degraded inputs and their targets from one clip, (N, 3, h, w) in [0, 1].

    Every second frame is an input of a run or a pair, and the frames between are targets too; all are inputs of a
    sliding window, and the middle one is the target. Crops have at most `patch_px` input pixels each way; those that a
    network does not take are padded.

    Raises AdaptationError if the method does not support the network, or the clip is too short or too small.
    """

    def __init__(
        self,
        network: Network,
        frames: Tensor,
        patch_px: int,
        degrade: Degrade = bicubic,
        flow: Flow | None = None,
        seed: int = 0,
    ) -> None:
        name, window = type(network).__name__, network.window
        if window.kind == "doubled":
            raise AdaptationError(
                f"Internal learning supports networks that enlarge frames or add frames in their gaps, which {name} is"
                " not: choose another method."
            )
        run = window.kind != "sliding"
        length = min(2 * window.frames - 1, len(frames) - (len(frames) + 1) % 2) if run else window.frames
        if length < 3 or len(frames) < length:
            raise AdaptationError(
                f"{name} learns from {3 if run else length} frames or more, and the clip has {len(frames)}: adapt to a"
                " longer clip."
            )
        least, shortest = min(network.size.minimum, MIN_PATCH_PX), min(frames.shape[-2:])
        candidates = network.space.factors if isinstance(network.space, FixedFactors) else FREE_FACTORS
        self.factors = [factor for factor in candidates if shortest // factor >= least]
        if not self.factors:
            raise AdaptationError(
                f"Frames of {frames.shape[3]}x{frames.shape[2]} pixels are too small for {name} after they are shrunk"
                f" {min(candidates)} times: adapt to a larger clip."
            )
        self.network, self.frames, self.length, self.patch_px = network, frames, length, patch_px
        self.degrade, self.flow, self.random = degrade, flow, np.random.default_rng(seed)

    def batch(self, count: int) -> Example:
        """Draw a batch of `count` examples, all at one factor."""
        factor = int(self.random.choice(self.factors))
        size = [min(n // factor, self.patch_px) for n in self.frames.shape[-2:]]
        drawn = [self._example(factor, size) for _ in range(count)]
        inputs = [torch.cat(parts) for parts in zip(*(inputs for inputs, _ in drawn), strict=True)]
        height, width = inputs[0].shape[-2:]
        return Example(inputs, torch.stack([target for _, target in drawn]), (factor * height, factor * width))

    def _example(self, factor: int, size: list[int]) -> tuple[list[Tensor], Tensor]:
        """Return the inputs of an example, with a batch of 1, and its target, (M, 3, H, W)."""
        crop = self._crop([factor * n for n in size])
        small = self.degrade(crop, factor).clamp(0, 1) if factor > 1 else crop
        kind, time = self.network.window.kind, torch.tensor(0.5)
        inputs, target = (small, crop[self.length // 2][None]) if kind == "sliding" else (small[::2], crop)
        if kind == "pair":  # one of the inputs at its own time, and the frame between
            end = int(self.random.integers(2))
            target, time = crop[[2 * end, 1]], torch.tensor([float(end), 0.5])
        return window_inputs(self.network, pad_frames(self.network, inputs), self.flow, time), target

    def _crop(self, size: list[int]) -> Tensor:
        lengths = zip((len(self.frames), *self.frames.shape[-2:]), (self.length, *size), strict=True)
        t, y, x = (int(self.random.integers(whole - part + 1)) for whole, part in lengths)
        return self.frames[t : t + self.length, :, y : y + size[0], x : x + size[1]]
