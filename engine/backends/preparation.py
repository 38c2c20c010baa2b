"""The time that graphs take before they run at full speed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Preparation:
    """Seconds that a set of graphs has taken so far to open and for the first run of each session.

    Opening: libraries and the device, sessions, graphs made for the sizes in use, engines built or loaded. First runs:
    kernels compiled, convolutions chosen, CUDA graphs captured, and the first computation itself.
    """

    opening_seconds: float = 0.0
    first_run_seconds: float = 0.0

    def reset(self) -> None:
        """Begin again at 0."""
        self.opening_seconds = self.first_run_seconds = 0.0

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Count the time of the block as opening."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.opening_seconds += time.perf_counter() - began

    @contextmanager
    def first_run(self) -> Iterator[None]:
        """Count the time of the block as a first run."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.first_run_seconds += time.perf_counter() - began

    def __add__(self, other: "Preparation") -> "Preparation":
        return Preparation(
            self.opening_seconds + other.opening_seconds, self.first_run_seconds + other.first_run_seconds
        )
