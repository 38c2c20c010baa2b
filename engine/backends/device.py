"""Devices: where frames are computed, in NumPy arrays on the CPU or in CuPy arrays on a GPU.

A device allocates arrays, queues work on its streams and copies results back. Sessions run on a device.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...kernels.color import Yuv420
from ..contract.picture import Picture, PictureFormat, check_finite, to_uint16

# A NumPy array on the CPU, a CuPy array on a GPU; both accept NumPy's functions.
Array = Any


@dataclass(frozen=True)
class Rendering:
    """A frame on a GPU that is rendered when its format is known; `Device.download` takes it as an output buffer.

    `render` queues the kernel on the current stream, and returns a flag (1,), 0 if a value is not a finite number, and
    the planes of the picture: those of a format of YUV 4:2:0, or for None RGB, (3, H, W) uint16.
    """

    render: Callable[[Yuv420 | None], tuple[Array, tuple[Array, ...]]]


class Device(Protocol):
    """A processor and its memory."""

    name: str  # "cpu" or "cuda:N"
    stream_count: int  # streams whose work overlaps
    in_flight: int  # results that may be pending while more work is queued

    def stream(self, number: int) -> AbstractContextManager[None]:
        """Make a stream current: work in the `with` block is queued on it, and its errors become StvsrErrors."""

    def upload(self, array: np.ndarray) -> Array:
        """Copy an array to the device, on the current stream."""

    def output_buffer(self, size: tuple[int, int]) -> Array:
        """Allocate an uninitialized frame (3, H, W), which results are written into."""

    def output_buffer_bytes(self, size: tuple[int, int]) -> int:
        """Return the size of an output buffer in bytes."""

    def write(self, buffer: Array, frame: Array, low: float, high: float) -> None:
        """Write a network's values into a part of an output buffer; `low` is black and `high` white.

        This, or the function that `download` returns, raises NonFiniteError for NaN and infinity.
        """

    def mean(self, buffers: Sequence[Array]) -> Array:
        """Return a new output buffer with the mean of output buffers, or of views of them, of one size."""

    def download(self, buffer: Array, picture_format: PictureFormat | None) -> Callable[[], Picture]:
        """Start to copy an output buffer to the host, and return a function that waits for the picture.

        The picture comes in `picture_format` if the device can convert to it, else as RGB, (3, H, W) uint16. The buffer
        must not change any more.
        """

    def synchronize(self) -> None:
        """Wait for all work that is queued."""

    def trim(self) -> None:
        """Free cached memory."""


class CpuDevice:
    """The CPU: work is done at once, and nothing is copied."""

    name = "cpu"
    stream_count = 1
    in_flight = 0

    def stream(self, number: int) -> AbstractContextManager[None]:
        """Return a context manager that does nothing: the CPU has a single stream."""
        return nullcontext()

    def upload(self, array: np.ndarray) -> np.ndarray:
        """Return the array unchanged."""
        return array

    def output_buffer(self, size: tuple[int, int]) -> np.ndarray:
        """Allocate an uninitialized frame, (3, H, W) uint16."""
        return np.empty((3, *size), np.uint16)

    def output_buffer_bytes(self, size: tuple[int, int]) -> int:
        """Return the size of an output buffer in bytes."""
        return 3 * size[0] * size[1] * np.dtype(np.uint16).itemsize

    def write(self, buffer: np.ndarray, frame: np.ndarray, low: float, high: float) -> None:
        """Write a network's values into a part of an output buffer, rounded and clipped. Raises NonFiniteError."""
        check_finite(frame)
        buffer[...] = to_uint16(frame, low, high)

    def mean(self, buffers: Sequence[np.ndarray]) -> np.ndarray:
        """Return the mean of output buffers, (3, H, W) uint16, rounded to the nearest."""
        total = np.full(buffers[0].shape, len(buffers) // 2, np.uint32)
        for buffer in buffers:
            total += buffer
        return (total // len(buffers)).astype(np.uint16)

    def download(self, buffer: np.ndarray, picture_format: PictureFormat | None) -> Callable[[], Picture]:
        """Return a function that returns the buffer, as RGB."""
        return lambda: buffer

    def synchronize(self) -> None:
        """Do nothing: work on the CPU is done at once."""

    def trim(self) -> None:
        """Do nothing: the CPU caches no memory."""


def drain(results: Iterator[Callable[[], Picture]], in_flight: int) -> Iterator[Picture]:
    """Wait for results in order, while up to `in_flight` later ones are pending."""
    pending: list[Callable[[], Picture]] = []
    for result in results:
        pending.append(result)
        del result  # or its buffer would live until the next one
        if len(pending) > in_flight:
            yield pending.pop(0)()
    while pending:
        yield pending.pop(0)()
