"""Self-supervised adaptation: a network's own results, made smaller, teach it what this clip looks like.

Yoo and Kim, "Self-Supervised Adaptation for Video Super-Resolution", 2021, algorithm 1. Things recur in a video at many
sizes, and a large one that is made a little smaller shows more than a small one does as the network restores it.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..data import Flow
from ..networks.base import Network
from ..trainer import made_frames
from .blur import kernel_moments
from .blur_estimation import estimate_kernel
from .protocol import Adapted, Budget, Clock, Losses, OnStep, Record
from .pseudo import Degrade, PseudoPairs, bicubic, blurring, sample_length
from .restore import Restore, enlargement, picture, restoring

_RESTORING = 0.5  # most of a budget of seconds that goes into restoring frames before the first step


@dataclass(frozen=True)
class SelfSupervised:
    """Algorithm 1, with the paper's factors, and its authors' batch.

    ``degrade`` makes inputs of targets: with the clip's own blur in the place of bicubic shrinking, the network learns
    to undo it; None estimates that from the clip, which harms where the clip was made small plainly. ``flow`` is for
    networks that take optical flow. ``restore`` restores the clip in the network's place, faster or better. At most
    ``restored`` frames are: of a longer scene, a few stretches of neighbours.
    """

    rate: float = 1e-4  # of Adam; the authors' 1e-5 is for a thousand steps, and a few seconds hold some tens
    batch: int = 4
    patch: int = 32  # side of an input crop in pixels; the demonstration's is 64
    shrink: tuple[float, float] = (0.8, 0.95)
    restored: int = 32
    degrade: Degrade | None = bicubic
    flow: Flow | None = None
    restore: Restore | None = None

    name: ClassVar[str] = "self-supervised"

    def adapt(
        self, network: Network, frames: Tensor, budget: Budget, seed: int = 0, on_step: OnStep | None = None
    ) -> Adapted:
        """Restore the frames, then learn; see `Method`. Raises AdaptationError."""
        clock = budget.start()
        network = copy.deepcopy(network).eval()  # batch normalization keeps what many clips taught it
        degrade = self.degrade
        details: dict[str, Any] = {}
        if degrade is None:
            kernel = estimate_kernel(frames, enlargement(network))
            widths, angle = kernel_moments(kernel)
            degrade = blurring(kernel)
            details = {"kernel_widths_px": list(widths), "kernel_angle": angle}
        restore = self.restore or restoring(network, self.flow)
        stretches = restored_stretches(network, frames, restore, self.restored, clock)
        began = clock.seconds
        pairs = PseudoPairs(network, stretches, self.patch, self.shrink, degrade, self.flow, seed)
        losses = learn(network, pairs, self.batch, self.rate, clock, on_step)
        details |= {
            "rate": self.rate,
            "batch": self.batch,
            "patch": pairs.side // pairs.scale,
            "shrink": list(self.shrink),
            "frames": len(frames),
            "restored": sum(map(len, stretches)),
            "restoring_seconds": round(began, 3),
            "seed": seed,
        }
        weights = {name: value.detach().cpu() for name, value in network.state_dict().items()}
        return Adapted(weights, Record(self.name, clock.steps, clock.seconds, losses, details))


def learn(
    network: Network, pairs: PseudoPairs, batch: int, rate: float, clock: Clock, on_step: OnStep | None = None
) -> tuple[float, ...]:
    """Steps of Adam on the mean squared error until the budget is used up, one at least; changes the network.

    Returns the loss of each. Raises ``AdaptationError`` when they diverge.
    """
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), rate)
    losses = Losses()
    while True:
        example = pairs.batch(batch)
        target = example.target.to(device)
        loss = F.mse_loss(made_frames(network, [x.to(device) for x in example.inputs], target.shape[-2:]), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        clock.steps += 1
        losses.add(float(loss.detach()))
        if on_step:
            on_step(clock, losses.seen[-1])
        if clock.done():
            return tuple(losses.seen)


def restored_stretches(
    network: Network, frames: Tensor, restore: Restore, most: int, clock: Clock
) -> list[NDArray[np.uint8]]:
    """Restored frames of a scene (N, 3, h, w), ``most`` at most, in stretches of neighbours: each (n, H, W, 3).

    Fewer where half of the clock's budget is gone, but one example's at least.
    """
    enlargement(network)
    length = max(sample_length(network), network.window.frames)
    stretches: list[list[NDArray[np.uint8]]] = []
    for stretch in spread(len(frames), most, length):
        stretches.append([])
        for frame in restore(frames, stretch):
            stretches[-1].append(picture(frame))
            if clock.fraction() > _RESTORING and (len(stretches) > 1 or len(stretches[0]) >= length):
                return [np.stack(pictures) for pictures in stretches]
    return [np.stack(pictures) for pictures in stretches]


def spread(count: int, most: int, length: int) -> Sequence[range]:
    """All places of ``count``, or where these are more than ``most``, stretches of ``length`` evenly over them."""
    if count <= max(most, length):
        return [range(count)]
    number = max(1, most // length)
    middles = (np.arange(number) + 0.5) * count / number
    return [range(first, first + length) for first in np.rint(middles - length / 2).astype(int)]
