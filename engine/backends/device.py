"""Where frames are computed: in NumPy arrays on the CPU, or in CuPy arrays on a GPU.

A place makes the arrays, says on which of its lanes work is queued, and brings results back. Sessions run in it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np

from ..contract.picture import Picture, PictureFormat, to_uint16

# A NumPy array on the CPU, a CuPy array on a GPU; both take NumPy's functions.
Array = Any


class Place(Protocol):
    """Where arrays live."""

    device: str  # "cpu" or "cuda:N"
    lanes: int  # sequences of work that run at once
    in_flight: int  # results that may be under way while more are queued

    def lane(self, number: int) -> AbstractContextManager[None]:
        """Queue what happens within on a lane; its errors are the engine's."""

    def upload(self, array: np.ndarray) -> Array:
        """Return the array where work is done, on the current lane."""

    def canvas(self, size: tuple[int, int]) -> Array:
        """Return an array (3, H, W) of any content to put parts of a frame into."""

    def canvas_bytes(self, size: tuple[int, int]) -> int:
        """Return how large a canvas is."""

    def put(self, canvas: Array, frame: Array, low: float, high: float) -> None:
        """Fill a part of a canvas with values of a network, of which `low` is black and `high` white."""

    def download(self, canvas: Array, wanted: PictureFormat | None) -> Callable[[], Picture]:
        """Begin to bring a canvas back, and return what waits for it; the canvas is not changed any more."""

    def trim(self) -> None:
        """Give back memory that is held for later."""


class Host:
    """The CPU: work is done when it is asked for."""

    device = "cpu"
    lanes = 1
    in_flight = 0

    def lane(self, number: int) -> AbstractContextManager[None]:
        """There is one."""
        return nullcontext()

    def upload(self, array: np.ndarray) -> np.ndarray:
        """It is here."""
        return array

    def canvas(self, size: tuple[int, int]) -> np.ndarray:
        """Return an array of the depth that leaves."""
        return np.empty((3, *size), np.uint16)

    def canvas_bytes(self, size: tuple[int, int]) -> int:
        """Return how large a canvas is."""
        return 3 * size[0] * size[1] * np.dtype(np.uint16).itemsize

    def put(self, canvas: np.ndarray, frame: np.ndarray, low: float, high: float) -> None:
        """Round and clip into a part of a canvas."""
        canvas[...] = to_uint16(frame, low, high)

    def download(self, canvas: np.ndarray, wanted: PictureFormat | None) -> Callable[[], Picture]:
        """It is here, in RGB."""
        return lambda: canvas

    def trim(self) -> None:
        """Nothing is held."""


def settled(results: Iterator[Callable[[], Picture]], in_flight: int) -> Iterator[Picture]:
    """Wait for results in order, each when `in_flight` more are under way."""
    waiting: list[Callable[[], Picture]] = []
    for result in results:
        waiting.append(result)
        del result
        if len(waiting) > in_flight:
            yield waiting.pop(0)()
    while waiting:
        yield waiting.pop(0)()
