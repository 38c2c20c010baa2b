"""A learning rate that falls when the loss no longer does."""

from typing import Any

import numpy as np


class AdaptiveRate:
    """A learning rate that is divided by ten when the loss has stopped falling.

    Every `every` steps, a line is fitted to the last `window` losses since the rate changed. If it falls by less than
    `ratio` standard errors of its slope, the fall is not distinguished from chance. The rate is spent when it has
    reached `final`. Shocher et al., "Zero-Shot Super-Resolution using Deep Internal Learning", 2018.
    """

    def __init__(
        self, rate: float, final: float = 1e-6, every: int = 60, window: int = 256, ratio: float = 1.5
    ) -> None:
        self.rate, self.final = rate, final
        self._every, self._window, self._ratio = every, window, ratio
        self._losses: list[float] = []

    @property
    def spent(self) -> bool:
        """True once the rate has reached `final`, when training is over."""
        return self.rate <= self.final * 1.001

    def add(self, loss: float) -> None:
        """Add the loss of one step, and lower the rate if the losses have stopped falling."""
        self._losses.append(loss)
        if len(self._losses) >= self._window and len(self._losses) % self._every == 0:
            recent = self._losses[-self._window :]
            (slope, _), covariance = np.polyfit(np.arange(len(recent)), recent, 1, cov=True)
            if -slope < self._ratio * covariance[0, 0] ** 0.5:
                self.rate /= 10
                self._losses = []

    def state(self) -> dict[str, Any]:
        """Return the state that `restore` takes, for a checkpoint."""
        return {"rate": self.rate, "losses": self._losses}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the state of another rate."""
        self.rate, self._losses = state["rate"], list(state["losses"])
