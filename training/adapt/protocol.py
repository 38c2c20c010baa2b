"""The interface of all adaptation methods: budget, clock, record and result."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ...engine.contract.errors import AdaptationError, RequestError
from ..networks.base import Network


@dataclass(frozen=True)
class Budget:
    """The length of an adaptation, in steps, in seconds, or both: then the earlier end counts.

    Raises RequestError if both are None, or one is not positive.
    """

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise RequestError("An adaptation without an end cannot be run: give a number of steps or of seconds.")
        if self.steps is not None and self.steps < 1:
            raise RequestError(f"An adaptation of {self.steps} steps learns nothing: give at least 1 step.")
        if self.seconds is not None and not self.seconds > 0:  # NaN would never end
            raise RequestError(f"An adaptation of {self.seconds:g} seconds learns nothing: give more than 0 seconds.")

    def start(self) -> "Clock":
        """Start a clock for this budget."""
        return Clock(self)


class Clock:
    """Counts the steps and seconds of one adaptation."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._start = time.perf_counter()
        self.steps = 0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def done(self) -> bool:
        """Return whether the budget is used up."""
        steps, seconds = self._budget.steps, self._budget.seconds
        return (steps is not None and self.steps >= steps) or (seconds is not None and self.seconds >= seconds)

    def fraction(self) -> float:
        """Return the used share of the budget, 0 to 1."""
        steps, seconds = self._budget.steps, self._budget.seconds
        used = [0.0 if steps is None else self.steps / steps, 0.0 if seconds is None else self.seconds / seconds]
        return min(1.0, max(used))


OnStep = Callable[[Clock, float], None]  # called after each step, with its loss


_DIVERGED = 4.0  # times the mean of the first losses: the loss differs between crops, but seldom by so much
_AVERAGED = 5  # losses that are averaged at the start and at the end


def divergence(losses: Sequence[float]) -> str | None:
    """Return a sentence that says how the losses of a run diverged, or None if they did not."""
    if not all(map(math.isfinite, losses)):
        return "The adaptation diverged, as the loss is no longer a number: take a lower learning rate."
    if len(losses) < 2 * _AVERAGED:
        return None
    first, last = sum(losses[:_AVERAGED]) / _AVERAGED, sum(losses[-_AVERAGED:]) / _AVERAGED
    if last > _DIVERGED * first:
        return f"The adaptation diverged, as the loss rose from {first:.2e} to {last:.2e}: take a lower learning rate."
    return None


@dataclass
class Losses:
    """The losses of the steps so far."""

    values: list[float] = field(default_factory=list)

    def add(self, loss: float) -> None:
        """Append the loss of one step; raises AdaptationError if the losses diverge."""
        self.values.append(loss)
        if reason := divergence(self.values):
            raise AdaptationError(reason)


@dataclass(frozen=True)
class Record:
    """The log of one adaptation."""

    method: str
    steps: int
    seconds: float
    losses: tuple[float, ...]  # one for each step
    details: dict[str, Any] = field(default_factory=dict)  # settings and findings of the method, as JSON values


@dataclass(frozen=True)
class Adapted:
    """The weights of a network after adaptation, by their names in its state dict, and the log."""

    weights: dict[str, Tensor]
    record: Record


class Method(Protocol):
    """A way to adapt a network to a clip; its options are its fields."""

    @property
    def name(self) -> str:
        """The method's name in records and on the command line."""

    def adapt(
        self, network: Network, frames: Tensor, budget: Budget, seed: int = 0, on_step: OnStep | None = None
    ) -> Adapted:
        """Learn from the frames of one scene, (N, 3, h, w) in [0, 1], at the size at which the network takes them.

        The given network is not changed. The same seed and number of steps give the same weights. Raises
        AdaptationError if the network or the clip cannot be adapted to, or the run diverges.
        """
