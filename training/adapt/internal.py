"""Internal learning: a network learns to restore a clip from a smaller and slower version of the clip itself.

Gupta et al., "Ada-VSR", ACM Multimedia 2021, algorithm 2 and equation 10. Both modules of Ada-VSR learn at once, as one
`AdaVSR`; any other network that enlarges frames, or adds one frame in every gap, learns in the same way. Choices that
the paper leaves open:
- A step takes as many frames as the network's window has, and a crop of them if the clip is larger, so that its time
  and memory do not grow with the clip.
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

INNER_RATE = 1e-2  # of gradient descent: the paper's alpha
_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


@dataclass(frozen=True)
class InternalLearning:
    """Gradient descent on the distance of a clip from the network's restoration of its degraded version.

    `kernel`: the clip's blur, (side, side), as `shrink` takes it; estimated from the clip if None. `optimizer`:
    gradient descent as in the paper, or Adam, by which weights that were not meta-trained learn faster, at a rate some
    hundred times smaller. `patch_px`: side of the crops of the degraded clip, in its pixels. `batch`: crops of a step.
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
        """Adapt a network as `Method.adapt`; the estimation of a kernel counts as seconds and not as a step."""
        clock = budget.start()
        pairs = PairSampler.for_network(network, frames, self.patch_px)
        kernel = self.kernel
        details = {}
        if pairs.factor > 1:
            if kernel is None:
                kernel = estimate_kernel(frames, pairs.factor)
            widths, angle = kernel_moments(kernel)
            details = {"kernel_widths_px": widths, "kernel_angle": angle, "kernel_given": self.kernel is not None}
        learner = copy.deepcopy(network).eval().requires_grad_()
        device = next(learner.parameters()).device
        optimizer = _OPTIMIZERS[self.optimizer](learner.parameters(), self.rate)
        random = np.random.default_rng(seed)
        losses: list[float] = []
        while not clock.done():
            inputs, targets = pairs.draw(kernel, self.batch, random)
            loss = F.l1_loss(learner(inputs.to(device)), targets.to(device))
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise AdaptationError(f"Internal learning diverged at step {len(losses)}: take a lower learning rate.")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            clock.steps += 1
            if on_step:
                on_step(clock, losses[-1])
        weights = {name: value.detach().cpu().clone() for name, value in learner.state_dict().items()}
        return Adapted(weights, Record(self.name, clock.steps, clock.seconds, tuple(losses), details))


@dataclass(frozen=True)
class PairSampler:
    """Draws pairs of degraded inputs and their targets from one clip."""

    frames: Tensor  # (N, 3, h, w)
    factor: int  # spatial, between inputs and targets
    run: bool  # every second frame is an input and all are targets; if not, all are inputs and the middle is the target
    length: int  # frames of a crop
    size: tuple[int, int]  # height and width of a crop

    @classmethod
    def for_network(cls, network: Network, frames: Tensor, patch_px: int) -> "PairSampler":
        """Return a sampler of crops for a network, at most `patch_px` of its input pixels each way.

        Raises AdaptationError if the method does not support the network, or the clip is too short or too small.
        """
        name, window, factor = type(network).__name__, network.window, _supported_factor(network)
        if factor is None or network.flows:
            raise AdaptationError(
                f"Internal learning supports networks of fixed scale and without optical flow, which {name} is not:"
                " choose another method."
            )
        run = window.kind == "run"
        length = min(2 * window.frames - 1, len(frames) - (len(frames) + 1) % 2) if run else window.frames
        if length < 3 or len(frames) < length:
            raise AdaptationError(
                f"{name} learns from {3 if run else length} frames or more, and the clip has {len(frames)}: adapt to a"
                " longer clip."
            )
        multiple = network.size.multiple_of
        small = [min(n // factor, patch_px) // multiple * multiple for n in frames.shape[-2:]]
        if min(small) < max(network.size.minimum, multiple):
            raise AdaptationError(
                f"Frames of {frames.shape[3]}x{frames.shape[2]} pixels are too small for {name} after they are shrunk"
                f" {factor} times: adapt to a larger clip."
            )
        return cls(frames, factor, run, length, (small[0] * factor, small[1] * factor))

    def draw(self, kernel: Tensor | None, count: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw inputs, (B, N, 3, h, w), and their targets, (B, M, 3, H, W)."""
        crops = torch.stack([self._crop(random) for _ in range(count)])
        inputs = crops if kernel is None or self.factor == 1 else shrink(crops, kernel, self.factor)
        return (inputs[:, ::2], crops) if self.run else (inputs, crops[:, self.length // 2][:, None])

    def _crop(self, random: np.random.Generator) -> Tensor:
        lengths = zip((len(self.frames), *self.frames.shape[-2:]), (self.length, *self.size), strict=True)
        t, y, x = (int(random.integers(whole - part + 1)) for whole, part in lengths)
        return self.frames[t : t + self.length, :, y : y + self.size[0], x : x + self.size[1]]


def _supported_factor(network: Network) -> int | None:
    """Return the spatial factor of a network that internal learning supports, or None."""
    window, space, time = network.window, network.space, network.time
    if not isinstance(space, FixedFactors) or not isinstance(time, FixedFactors) or len(space.factors) != 1:
        return None
    supported = (window.kind == "run" and time.factors == (2,)) or (window.kind == "sliding" and time.factors == (1,))
    return space.factors[0] if supported else None
