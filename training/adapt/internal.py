"""Internal learning: a network learns to restore a clip from its own smaller and slower version.

Gupta et al., "Ada-VSR", ACM Multimedia 2021, algorithm 2 and equation 10. Both modules of Ada-VSR learn at once, as one
`AdaVSR`; any other network that makes frames larger, or adds one in every gap, learns in the same way. What the paper
leaves open is chosen so:
- A step sees as many frames as the network's window has, and a crop of them, where the clip has more: its time and
  memory do not grow with the clip.
- The loss is a mean where the paper has a sum, and the rate is that of the inner loop of meta-learning, whose steps
  these continue.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.contract.errors import AdaptationError
from ...engine.contract.manifest import FixedFactors
from ..networks.base import Network
from .blur import kernel_moments, shrink
from .blur_estimation import estimate_kernel
from .protocol import Adapted, Budget, OnStep, Record

INNER_RATE = 1e-2  # of gradient descent: alpha of the paper
_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


@dataclass(frozen=True)
class InternalLearning:
    """Gradient descent on the distance of a clip from what the network makes of it when it is degraded once more.

    ``kernel``: the clip's blur, (side, side), as `shrink` takes it; it is estimated where it is not given.
    ``optimizer``: gradient descent is the paper's; weights that were not meta-trained learn faster by Adam, whose rate
    is to be some hundred times smaller. ``patch_px`` and ``batch``: side of the crops of the degraded clip, in its
    pixels, and how many a step sees.
    """

    kernel: Tensor | None = None
    rate: float = INNER_RATE
    optimizer: Literal["sgd", "adam"] = "sgd"
    patch_px: int = 32
    batch: int = 1
    name: str = "internal"

    def adapt(
        self, network: Network, frames: Tensor, budget: Budget, seed: int = 0, on_step: OnStep | None = None
    ) -> Adapted:
        """As `Method.adapt`; what the estimation of a kernel takes counts as seconds and not as a step."""
        clock = budget.start()
        examples = Examples.of(network, frames, self.patch_px)
        kernel = self.kernel
        details = {}
        if examples.factor > 1:
            if kernel is None:
                kernel = estimate_kernel(frames, examples.factor)
            widths, angle = kernel_moments(kernel)
            details = {"kernel_widths_px": widths, "kernel_angle": angle, "kernel_given": self.kernel is not None}
        learner = copy.deepcopy(network).eval().requires_grad_()
        optimizer = _OPTIMIZERS[self.optimizer](learner.parameters(), self.rate)
        random = np.random.default_rng(seed)
        losses: list[float] = []
        while not clock.done():
            seen, truth = examples.draw(kernel, self.batch, random)
            loss = F.l1_loss(learner(seen), truth)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise AdaptationError(f"internal learning diverged at step {len(losses)}: take a smaller rate")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            clock.steps += 1
            if on_step:
                on_step(clock, losses[-1])
        weights = {name: value.detach().clone() for name, value in learner.state_dict().items()}
        return Adapted(weights, Record(self.name, clock.steps, clock.seconds, tuple(losses), details))


@dataclass(frozen=True)
class Examples:
    """Where examples of one clip are cut: the truth of one has ``length`` frames of ``size`` (height, width)."""

    frames: Tensor  # (N, 3, h, w)
    factor: int  # in space
    run: bool  # every second frame is seen and all are made, or all are seen and the middle one is made
    length: int
    size: tuple[int, int]

    @classmethod
    def of(cls, network: Network, frames: Tensor, patch_px: int) -> "Examples":
        """Examples for a network, at most ``patch_px`` of its input pixels each way; raises ``AdaptationError``."""
        name, window, factors = type(network).__name__, network.window, _factors(network)
        if factors is None or network.flows:
            raise AdaptationError(
                f"internal learning takes networks of fixed scale and without optical flow, which {name} is not:"
                " choose another method"
            )
        run = window.kind == "run"
        length = min(2 * window.frames - 1, len(frames) - (len(frames) + 1) % 2) if run else window.frames
        if length < 3 or len(frames) < length:
            least = 3 if run else length
            raise AdaptationError(f"{name} learns from {least} frames or more, and the clip has {len(frames)}")
        multiple = network.size.multiple_of
        small = [min(n // factors, patch_px) // multiple * multiple for n in frames.shape[-2:]]
        if min(small) < max(network.size.minimum, multiple):
            raise AdaptationError(
                f"frames of {frames.shape[3]}x{frames.shape[2]} pixels are too small for {name} to learn from them made"
                f" {factors} times smaller"
            )
        return cls(frames, factors, run, length, (small[0] * factors, small[1] * factors))

    def draw(self, kernel: Tensor | None, count: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(B, N, 3, h, w) to see, and (B, M, 3, H, W) to make of it."""
        truth = torch.stack([self._cut(random) for _ in range(count)])
        seen = truth if kernel is None or self.factor == 1 else shrink(truth, kernel, self.factor)
        return (seen[:, ::2], truth) if self.run else (seen, truth[:, self.length // 2][:, None])

    def _cut(self, random: np.random.Generator) -> Tensor:
        starts = [
            int(random.integers(whole - part + 1))
            for whole, part in zip((len(self.frames), *self.frames.shape[-2:]), (self.length, *self.size), strict=True)
        ]
        t, y, x = starts
        return self.frames[t : t + self.length, :, y : y + self.size[0], x : x + self.size[1]]


def _factors(network: Network) -> int | None:
    """The scale in space of a network that internal learning is for, or None."""
    window, space, time = network.window, network.space, network.time
    if not isinstance(space, FixedFactors) or not isinstance(time, FixedFactors) or len(space.factors) != 1:
        return None
    known = (window.kind == "run" and time.factors == (2,)) or (window.kind == "sliding" and time.factors == (1,))
    return space.factors[0] if known else None
