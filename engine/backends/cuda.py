"""The CUDA device: CuPy's memory and streams, page-locked copies, and kernels on the same streams."""

import functools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from ...kernels import color
from ..contract.errors import BackendError, DeviceMemoryError, NonFiniteError
from ..contract.picture import Picture, PictureFormat, to_uint16
from .cache_folder import writable_folder
from .cuda_driver import check_context
from .device import Array, Rendering

STREAMS = 2  # windows that are computed at once
IN_FLIGHT = 3  # frames that are computed or copied while one is encoded
_CONSTANTS, _CONSTANT_BYTES = 256, 1 << 16  # small arrays that stay on a device, and the largest of them


class CudaDevice:
    """A CUDA device, whose primary context it shares with every other user in this process.

    Raises BackendError if CuPy, a driver or the device is missing.
    """

    def __init__(self, index: int = 0, streams: int = STREAMS) -> None:
        self._cupy = import_cupy()
        self.index, self.stream_count, self.in_flight = index, streams, IN_FLIGHT
        self.name = f"cuda:{index}"
        self._device = _open(self._cupy, index)
        with self._device:
            check_context(index)
            self.streams = [self._cupy.cuda.Stream(non_blocking=True) for _ in range(streams)]
            self._copies = self._cupy.cuda.Stream(non_blocking=True)
        self._constants: dict[tuple[Any, ...], Array] = {}
        self._staged: deque[tuple[Any, np.ndarray]] = deque()  # page-locked memory of uploads that may still run

    @contextmanager
    def stream(self, number: int) -> Iterator[None]:
        """Make one of the streams current: work in the `with` block is queued on it."""
        with self._device, self.streams[number % self.stream_count], translate_errors(self._cupy, self.name):
            yield

    def upload(self, array: np.ndarray) -> Array:
        """Copy an array through page-locked memory on the copy stream; the current stream waits for it."""
        stream = self._cupy.cuda.get_current_stream()
        uploaded = self._cupy.empty(array.shape, array.dtype)
        staged = _page_locked(array.shape, array.dtype)
        staged[...] = array
        self._copies.wait_event(stream.record())  # the memory pool may hand out what the stream still uses
        uploaded.set(staged, stream=self._copies)
        copied = self._copies.record()
        stream.wait_event(copied)
        self._staged.append((copied, staged))
        while self._staged and self._staged[0][0].done:
            self._staged.popleft()
        return uploaded

    def constant(self, array: np.ndarray) -> Array:
        """Return a cached copy of a small array that is used again: positions and times."""
        key = (array.shape, array.dtype.str, array.tobytes())
        if key not in self._constants:
            if len(self._constants) >= _CONSTANTS:
                self.trim()
                self._constants.clear()
            self._constants[key] = self._cupy.asarray(array, blocking=True)
        return self._constants[key]

    def array(self, value: Any, dtype: str) -> Array:
        """Return a NumPy or CuPy array as a contiguous CuPy array of `dtype`."""
        if not isinstance(value, np.ndarray):
            return self._cupy.ascontiguousarray(value, dtype)
        value = np.ascontiguousarray(value, dtype)
        return self.constant(value) if value.nbytes <= _CONSTANT_BYTES else self.upload(value)

    def current_stream(self) -> int:
        """Return the address of the current stream."""
        return self._cupy.cuda.get_current_stream().ptr

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Allocate an uninitialized array for the current stream."""
        return self._cupy.empty(shape, dtype)

    def output_buffer(self, size: tuple[int, int]) -> Array:
        """Allocate an uninitialized frame, (3, H, W) float32: a picture of any bit depth can be made of it."""
        return self._cupy.empty((3, *size), np.float32)

    def output_buffer_bytes(self, size: tuple[int, int]) -> int:
        """Return the size of an output buffer in bytes."""
        return 3 * size[0] * size[1] * np.dtype(np.float32).itemsize

    def write(self, buffer: Array, frame: Array, low: float, high: float) -> None:
        """Write a network's values into a part of an output buffer, scaled to [0, 1]; `download` clips them."""
        if (low, high) == (0.0, 1.0):
            buffer[...] = frame
        else:
            buffer[...] = (frame - np.float32(low)) * np.float32(1 / (high - low))

    def mean(self, buffers: Sequence[Array]) -> Array:
        """Return the mean of output buffers, clipped to [0, 1], as (3, H, W) float32; of infinity it is NaN."""
        clipped = [buffer.clip(0, 1) + 0 * buffer for buffer in buffers]
        return sum(clipped[1:], start=clipped[0]) / np.float32(len(buffers))

    def download(self, buffer: Array | Rendering, picture_format: PictureFormat | None) -> Callable[[], Picture]:
        """Make a picture of an output buffer, and return a function that waits for it.

        It is converted or rendered on the current stream, and copied on the copy stream. The picture has the planes of
        `picture_format` if the kernels support it, else RGB, (3, H, W) uint16. The function raises NonFiniteError if
        the buffer holds NaN or infinity.
        """
        coding = None
        if picture_format is not None and picture_format.pix_fmt in color.PIX_FMTS:
            coding = color.Yuv420(picture_format.pix_fmt, picture_format.luma_weights, picture_format.full_range)
        if isinstance(buffer, Rendering):
            finite, planes = buffer.render(coding)
        else:
            finite = self._cupy.isfinite(buffer).all().reshape(1)
            planes = (to_uint16(buffer, 0, 1),) if coding is None else color.from_rgb(buffer, *coding)
        self._copies.wait_event(self._cupy.cuda.get_current_stream().record())
        arrays = (finite, *planes)
        is_finite, *host = (_page_locked(array.shape, array.dtype) for array in arrays)
        for array, copy in zip(arrays, (is_finite, *host), strict=True):
            array.get(stream=self._copies, out=copy, blocking=False)
        copied = self._copies.record()

        def wait(source: tuple[Array, ...] = arrays) -> Picture:  # the default keeps the arrays until they are copied
            with translate_errors(self._cupy, self.name):
                copied.synchronize()
            if not is_finite[0]:
                raise NonFiniteError("A frame holds values that are not finite numbers.")
            return host[0] if coding is None else tuple(host)

        return wait

    def synchronize(self) -> None:
        """Wait for all work that is queued on the device's streams."""
        with self._device, translate_errors(self._cupy, self.name):
            for stream in (*self.streams, self._copies):
                stream.synchronize()

    def free_bytes(self) -> int:
        """Return how much memory of the device nobody has."""
        with self._device:
            return int(self._cupy.cuda.runtime.memGetInfo()[0])

    def trim(self) -> None:
        """Wait for all work, and free the memory that CuPy caches."""
        self.synchronize()
        with self._device:
            self._staged.clear()
            self._cupy.get_default_memory_pool().free_all_blocks()


@contextmanager
def translate_errors(cupy: ModuleType, device: str) -> Iterator[None]:
    """Raise errors of CuPy and of the kernels as DeviceMemoryError or BackendError."""
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"The memory of device '{device}' is too small for this work: use smaller tiles (--tile)."
        ) from error
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        raise BackendError(
            f"The device '{device}' failed ({error}): run again, and if it fails again, update the driver."
        ) from error
    except RuntimeError as error:  # raised by the kernels, with the remedy in the message
        raise BackendError(f"The device '{device}' cannot do this work: {error}.") from error


@functools.cache
def import_cupy() -> ModuleType:
    """Import CuPy, which keeps compiled kernels in stvsr's cache. Raises BackendError if it is not installed."""
    if "CUPY_CACHE_DIR" not in os.environ:
        folder = writable_folder("kernels")
        os.environ.update({"CUPY_CACHE_DIR": str(folder)} if folder else {"CUPY_CACHE_IN_MEMORY": "1"})
    try:
        import cupy
    except ImportError as absent:
        raise BackendError(
            f'GPUs are used through CuPy, which cannot be imported ({absent}): pip install "stvsr[cuda]".'
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
        raise BackendError(f"There is no CUDA device {index}: this machine has {count}, counted from 0.")
    return cupy.cuda.Device(index)


def _page_locked(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    import cupyx

    return cupyx.empty_pinned(shape, dtype)
