"""Metrics besides PSNR and SSIM, which need what not every machine has: how they are measured, and their names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .metrics import FIGURES, Figure


class Meter(Protocol):
    """Measures one video against another one, frame by frame, in the order of the video."""

    def add(self, actual: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
        """Take a frame of each, (H, W, 3) RGB. Raises StvsrError for frames that cannot be measured."""

    def finish(self) -> list[float]:
        """Return the value of every frame; call it once, after the last frame."""


@dataclass(frozen=True)
class FurtherMetric:
    """A metric that can be measured on this machine."""

    name: str  # in `FIGURES`
    open: Callable[[], Meter]

    @property
    def figure(self) -> Figure:
        """The metric's title and digits."""
        return FIGURES[self.name]


class Meters:
    """The meters of some metrics for one video."""

    def __init__(self, metrics: Sequence[FurtherMetric]) -> None:
        self._meters = {metric.name: metric.open() for metric in metrics}

    def add(self, actual: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
        """Take a frame of the video and of the other one, (H, W, 3) RGB."""
        for meter in self._meters.values():
            meter.add(actual, expected)

    def finish(self) -> dict[str, list[float]]:
        """Return the values of every frame by the metric's name."""
        return {name: meter.finish() for name, meter in self._meters.items()}
