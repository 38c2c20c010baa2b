"""Self-supervised adaptation: a network's own results, made a little smaller, are its training targets.

Yoo and Kim, "Self-Supervised Adaptation for Video Super-Resolution", 2021, algorithm 1. Objects recur in a video at
many sizes, and a large one that is made a little smaller has more detail than a small one as the network restores it.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data import Flow
from ..networks.base import Network
from .learning import Learning, learn
from .protocol import Adapted, Budget, Clock, OnStep, Record
from .pseudo import Degrade, PseudoPairs, bicubic, sample_length
from .restore import Restore, restorer, to_picture, upscale_factor
from .sampling import busiest
from .selection import Adapts

_RESTORED_PX = 128  # of the clip, each way, at most
_RESTORING_SHARE = 0.5  # of a budget of seconds, at most, that restoring frames takes before the first step


@dataclass(frozen=True)
class SelfSupervised:
    """Algorithm 1, with the factors of the paper and the batch of its authors.

    `degrade` makes inputs of targets: with the clip's own degradation in place of bicubic resizing, the network learns
    to undo it. `correct` filters the frames that targets are restored from, as of blurred ones a network restores
    blurred targets. `flow` is for networks that take optical flow. `restore` restores the clip in place of the network,
    faster or better. At most `restored` frames are restored: of a longer scene, a few segments of neighbours. `adapts`:
    the weights that are learned.
    """

    rate: float = 1e-4  # of Adam; the authors' 1e-5 is for a thousand steps, and a few seconds allow some tens
    batch: int = 4
    patch: int = 32  # side of an input crop in pixels; 64 in the demonstration
    shrink: tuple[float, float] = (0.8, 0.95)
    restored: int = 16
    degrade: Degrade = bicubic
    correct: Degrade | None = None  # of the clip's frames, at their own size; the factor is the network's
    flow: Flow | None = None
    restore: Restore | None = None
    adapts: Adapts = "all"

    name: ClassVar[str] = "self-supervised"

    def adapt(
        self, network: Network, frames: Tensor, budget: Budget, seed: int = 0, on_step: OnStep | None = None
    ) -> Adapted:
        """Restore the frames, then learn from them; see `Method.adapt`."""
        clock = budget.start()
        network = copy.deepcopy(network).eval()  # batch normalization keeps the statistics of its training data
        restore = self.restore or restorer(network, self.flow)
        if self.correct is not None:
            restore = _after(self.correct, upscale_factor(network), restore)
        segments = restored_segments(network, frames, restore, self.restored, clock)
        restoring_seconds = clock.seconds
        pairs = PseudoPairs(network, segments, self.patch, self.shrink, self.degrade, self.flow, seed)
        losses = learn(network, pairs, Learning(self.rate, self.adapts, self.batch), clock, on_step)
        details: dict[str, Any] = {
            "adapts": self.adapts,
            "rate": self.rate,
            "batch": self.batch,
            "patch": pairs.side // pairs.scale,
            "shrink": list(self.shrink),
            "frames": len(frames),
            "restored": sum(map(len, segments)),
            "restoring_seconds": round(restoring_seconds, 3),
            "seed": seed,
        }
        weights = {name: value.detach().cpu() for name, value in network.state_dict().items()}
        return Adapted(weights, Record(self.name, clock.steps, clock.seconds, losses, details))


def _after(correct: Degrade, factor: int, restore: Restore) -> Restore:
    """Return a `Restore` of frames that are corrected first."""

    def restore_corrected(frames: Tensor, indices: Sequence[int]) -> Iterable[Tensor]:
        return restore(correct(frames, factor), indices)

    return restore_corrected


def restored_segments(
    network: Network, frames: Tensor, restore: Restore, limit: int, clock: Clock
) -> list[NDArray[np.uint8]]:
    """Restore at most `limit` frames of a scene, (N, 3, h, w), in segments of neighbours: each (n, H, W, 3).

    Of large frames the part with the most detail is restored, so that the time does not grow with their size.
    Stops early when half of the clock's budget is used up, but not before the frames of one example are restored.
    """
    upscale_factor(network)  # refuses a network that does not enlarge before any frame is restored
    length = max(sample_length(network), network.window.frames)
    segments: list[list[NDArray[np.uint8]]] = []
    for indices in select_segments(len(frames), limit, length):
        segments.append([])
        part = busiest(frames[indices.start : indices.stop], _RESTORED_PX)
        for frame in restore(part, range(len(part))):
            segments[-1].append(to_picture(frame))
            if clock.fraction() > _RESTORING_SHARE and (len(segments) > 1 or len(segments[0]) >= length):
                return [np.stack(pictures) for pictures in segments]
    return [np.stack(pictures) for pictures in segments]


def select_segments(count: int, limit: int, length: int) -> Sequence[range]:
    """Return the indices of all `count` frames, or, if they exceed `limit`, evenly spaced segments of `length`."""
    if count <= max(limit, length):
        return [range(count)]
    number = max(1, limit // length)
    middles = (np.arange(number) + 0.5) * count / number
    return [range(first, first + length) for first in np.rint(middles - length / 2).astype(int)]
