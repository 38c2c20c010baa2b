"""A GPU as the place of work: CuPy's memory and streams, page-locked copies, and the kernels on the same streams."""

import functools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from ...kernels import color
from ..contract.errors import BackendError, DeviceMemoryError
from ..contract.picture import Picture, PictureFormat, to_uint16
from .cuda_driver import check_context
from .device import Array

LANES = 2  # windows that are computed at once
IN_FLIGHT = 3  # frames that are computed or copied while one is encoded
_CONSTANTS, _CONSTANT_BYTES = 256, 1 << 16  # small arrays that are kept on a device, and what is small


class Gpu:
    """A CUDA device, whose primary context it shares with every other user in this process.

    Raises BackendError where CuPy, a driver or the device is missing.
    """

    def __init__(self, index: int = 0, lanes: int = LANES) -> None:
        self._cupy = import_cupy()
        self.index, self.lanes, self.in_flight = index, lanes, IN_FLIGHT
        self.device = f"cuda:{index}"
        self._device = _open(self._cupy, index)
        with self._device:
            check_context(index)
            self.streams = [self._cupy.cuda.Stream(non_blocking=True) for _ in range(lanes)]
            self._copies = self._cupy.cuda.Stream(non_blocking=True)
        self._constants: dict[tuple[Any, ...], Array] = {}
        self._staged: deque[tuple[Any, np.ndarray]] = deque()  # page-locked memory, until what reads it has happened

    @contextmanager
    def lane(self, number: int) -> Iterator[None]:
        """Queue what happens within on one of the streams."""
        with self._device, self.streams[number % self.lanes], explained(self._cupy, self.device):
            yield

    def upload(self, array: np.ndarray) -> Array:
        """Copy an array through page-locked memory, on the copies' stream; the lane goes on when it is there."""
        lane = self._cupy.cuda.get_current_stream()
        there = self._cupy.empty(array.shape, array.dtype)
        staged = _page_locked(array.shape, array.dtype)
        staged[...] = array
        self._copies.wait_event(lane.record())  # the lane may still use the memory that it got
        there.set(staged, stream=self._copies)
        copied = self._copies.record()
        lane.wait_event(copied)
        self._staged.append((copied, staged))
        while self._staged and self._staged[0][0].done:
            self._staged.popleft()
        return there

    def constant(self, array: np.ndarray) -> Array:
        """Return a copy of a small array that is kept, because it comes again: positions and times."""
        key = (array.shape, array.dtype.str, array.tobytes())
        if key not in self._constants:
            if len(self._constants) >= _CONSTANTS:
                self.trim()
                self._constants.clear()
            self._constants[key] = self._cupy.asarray(array, blocking=True)
        return self._constants[key]

    def array(self, value: Any, dtype: str) -> Array:
        """Return a contiguous CuPy array of a value that is a NumPy or CuPy array."""
        if not isinstance(value, np.ndarray):
            return self._cupy.ascontiguousarray(value, dtype)
        value = np.ascontiguousarray(value, dtype)
        return self.constant(value) if value.nbytes <= _CONSTANT_BYTES else self.upload(value)

    def current(self) -> int:
        """Return the address of the stream that work is queued on now."""
        return self._cupy.cuda.get_current_stream().ptr

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array of any content, for the current lane."""
        return self._cupy.empty(shape, dtype)

    def canvas(self, size: tuple[int, int]) -> Array:
        """Return float32, so that a picture of any depth can be made of it."""
        return self._cupy.empty((3, *size), np.float32)

    def canvas_bytes(self, size: tuple[int, int]) -> int:
        """Return how large a canvas is."""
        return 3 * size[0] * size[1] * np.dtype(np.float32).itemsize

    def put(self, canvas: Array, frame: Array, low: float, high: float) -> None:
        """Scale values to [0, 1]; what lies outside is clipped when the frame leaves."""
        if (low, high) == (0.0, 1.0):
            canvas[...] = frame
        else:
            canvas[...] = (frame - np.float32(low)) * np.float32(1 / (high - low))

    def download(self, canvas: Array, wanted: PictureFormat | None) -> Callable[[], Picture]:
        """Convert on the lane, copy on the copies' stream."""
        if wanted is not None and wanted.pix_fmt in color.PIX_FMTS:
            made = color.from_rgb(canvas, wanted.pix_fmt, wanted.luma_weights, wanted.full_range)
        else:
            made, wanted = (to_uint16(canvas, 0, 1),), None
        self._copies.wait_event(self._cupy.cuda.get_current_stream().record())
        back = tuple(_page_locked(array.shape, array.dtype) for array in made)
        for array, copy in zip(made, back, strict=True):
            array.get(stream=self._copies, out=copy, blocking=False)
        copied = self._copies.record()

        def wait(held: tuple[Array, ...] = made) -> Picture:  # what is copied stays until it is
            with explained(self._cupy, self.device):
                copied.synchronize()
            return back[0] if wanted is None else back

        return wait

    def trim(self) -> None:
        """Wait for all work, and give back the memory that CuPy keeps."""
        with self._device:
            for stream in (*self.streams, self._copies):
                stream.synchronize()
            self._staged.clear()
            self._cupy.get_default_memory_pool().free_all_blocks()


@contextmanager
def explained(cupy: ModuleType, device: str) -> Iterator[None]:
    """Turn the errors of CuPy and of the kernels into the engine's."""
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"The memory of device '{device}' does not hold this work: ask for smaller tiles."
        ) from error
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        raise BackendError(
            f"The device '{device}' failed ({error}): run again, and if it happens again, update the driver."
        ) from error
    except RuntimeError as error:  # of the kernels, which say what to do
        raise BackendError(f"The device '{device}' cannot do this work: {error}.") from error


@functools.cache
def import_cupy() -> ModuleType:
    """Return CuPy; BackendError where it is not installed."""
    try:
        import cupy
    except ImportError as absent:
        raise BackendError(
            f'A GPU is used through CuPy, which cannot be imported ({absent}): pip install "stvsr[cuda]".'
        ) from absent
    return cupy


def _open(cupy: ModuleType, index: int) -> Any:
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(
            f"There is no CUDA device ({error}): install an NVIDIA driver for CUDA 13 or later, or use --device cpu."
        ) from error
    if index >= count:
        raise BackendError(f"There is no CUDA device {index}: there are {count}, counted from 0.")
    return cupy.cuda.Device(index)


def _page_locked(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    import cupyx

    return cupyx.empty_pinned(shape, dtype)
