"""What every method of adaptation takes and gives."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ...engine.contract.errors import AdaptationError
from ..networks.base import Network


@dataclass(frozen=True)
class Budget:
    """How long an adaptation may learn: so many steps, or so many seconds; of both, what ends first."""

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ValueError("an adaptation needs a number of steps or of seconds")
        if (self.steps is not None and self.steps < 1) or (self.seconds is not None and self.seconds <= 0):
            raise ValueError(f"an adaptation of {self.steps} steps or {self.seconds} seconds learns nothing")

    def start(self) -> "Clock":
        """Begin to count."""
        return Clock(self)


class Clock:
    """Counts the steps and seconds of one adaptation."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._began = time.perf_counter()
        self.steps = 0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._began

    def done(self) -> bool:
        """Whether the budget is used up."""
        steps, seconds = self._budget.steps, self._budget.seconds
        return (steps is not None and self.steps >= steps) or (seconds is not None and self.seconds >= seconds)

    def fraction(self) -> float:
        """How much of the budget is used, 0 to 1."""
        steps, seconds = self._budget.steps, self._budget.seconds
        used = [0.0 if steps is None else self.steps / steps, 0.0 if seconds is None else self.seconds / seconds]
        return min(1.0, max(used))


OnStep = Callable[[Clock, float], None]  # told after each step, with its loss


_DIVERGED = 4.0  # times the mean of the first losses: crops differ, but seldom by so much
_JUDGED = 5  # losses that are averaged at the start and at the end


def diverged(losses: Sequence[float]) -> str | None:
    """Why a run's losses say that it went astray, or None."""
    if not all(map(math.isfinite, losses)):
        return "the loss is no longer a number: take a lower learning rate"
    if len(losses) < 2 * _JUDGED:
        return None
    first, last = sum(losses[:_JUDGED]) / _JUDGED, sum(losses[-_JUDGED:]) / _JUDGED
    if last > _DIVERGED * first:
        return f"the loss rose from {first:.2e} to {last:.2e}: take a lower learning rate"
    return None


@dataclass
class Losses:
    """Losses of the steps so far."""

    seen: list[float] = field(default_factory=list)

    def add(self, loss: float) -> None:
        """One more; raises ``AdaptationError`` when they diverge."""
        self.seen.append(loss)
        if reason := diverged(self.seen):
            raise AdaptationError(f"The adaptation went astray, as {reason}.")


@dataclass(frozen=True)
class Record:
    """What happened in one adaptation."""

    method: str
    steps: int
    seconds: float
    losses: tuple[float, ...]  # of each step
    details: dict[str, Any] = field(default_factory=dict)  # what the method found, as JSON takes it


@dataclass(frozen=True)
class Adapted:
    """A network's weights after adaptation, under their names in its state dict."""

    weights: dict[str, Tensor]
    record: Record


class Method(Protocol):
    """One way to adapt a network to a clip; its options are its fields."""

    @property
    def name(self) -> str:
        """What records call it."""

    def adapt(
        self, network: Network, frames: Tensor, budget: Budget, seed: int = 0, on_step: OnStep | None = None
    ) -> Adapted:
        """Learn from the frames of one scene, (N, 3, h, w) in [0, 1], as they are given to the network.

        The network is left as it was. The same seed and number of steps give the same weights. Raises AdaptationError.
        """
