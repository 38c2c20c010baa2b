"""A GPU made of NumPy arrays: the parts of CuPy and of the CUDA driver that the engine uses, on the CPU.

Kernels run as in `cuda_cpu`, engines as in `fake_tensorrt`. Streams do their work at once, and the GPU counts it.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from stvsr.engine.backends import cuda, cuda_driver
from stvsr.engine.backends.tensorrt import engines, loaded_engine
from stvsr.kernels import launcher

from tests.support import cuda_cpu, fake_tensorrt

PRIMARY, FOREIGN = 0x1000, 0x2000  # contexts
_CAPABILITY = {75: 8, 76: 9}  # attribute of the driver -> value: compute capability 8.9
_POINTER_DEVICE = 9  # attribute of the driver


class Array(np.ndarray):
    """A CuPy array: a NumPy array whose data has an address."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.__array_interface__, "version": 3}

    def get(self, stream: Any = None, out: np.ndarray | None = None, blocking: bool = True) -> np.ndarray:
        out = np.empty(self.shape, self.dtype) if out is None else out
        out[...] = self.view(np.ndarray)
        return out

    def set(self, array: np.ndarray, stream: Any = None) -> None:
        self[...] = array


class ForeignArray:
    """An array of another CUDA library, with the CUDA array interface."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.__cuda_array_interface__ = {**array.__array_interface__, "version": 3}


class OutOfMemoryError(MemoryError):
    """CuPy's error for memory."""


class CUDARuntimeError(RuntimeError):
    """CuPy's error for calls of the CUDA runtime."""


class FakeGpu:
    """The state of the GPU: tests change how it behaves, and read what it did."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.memory_bytes = 1 << 40  # largest allocation for the activations of an engine
        self.free_bytes = 1 << 30
        self.context = PRIMARY  # of the thread
        self.foreign: set[int] = set()  # addresses and streams of another context
        self.host_memory: set[int] = set()  # addresses outside the memory of any device
        self.streams: list[Any] = []
        self.current: list[Any] = []  # stack of current streams
        self.capturable = True
        self.capture_fails = False

    def cupy(self) -> ModuleType:
        """Return a module `cupy`."""
        gpu = self

        class Event:
            done = True

            def synchronize(self) -> None: ...

        class Stream:
            def __init__(self, non_blocking: bool = False, ptr: int | None = None) -> None:
                self.ptr = 0x100 + len(gpu.streams) if ptr is None else ptr
                self.capturing: list[Callable[[], None]] | None = None
                gpu.streams.append(self)

            def __enter__(self) -> "Stream":
                gpu.current.append(self)
                return self

            def __exit__(self, *_: object) -> None:
                assert gpu.current.pop() is self

            def record(self) -> Event:
                return Event()

            def wait_event(self, event: Event) -> None:
                assert isinstance(event, Event)

            def synchronize(self) -> None:
                gpu.count["synchronized"] += 1

            def begin_capture(self) -> None:
                self.capturing = []

            def end_capture(self) -> Any:
                work, self.capturing = self.capturing, None
                if gpu.capture_fails:
                    raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
                assert work
                gpu.count["captured"] += 1

                def launch(stream: Stream) -> None:
                    assert stream is gpu.current[-1]
                    gpu.count["launched"] += 1
                    for part in work:
                        part()

                return SimpleNamespace(launch=launch)

        class Device:
            def __init__(self, index: int) -> None:
                self.index = index

            def __enter__(self) -> "Device":
                return self

            def __exit__(self, *_: object) -> None: ...

        def alloc(size: int) -> Any:
            if size > gpu.memory_bytes:
                raise OutOfMemoryError(f"{size} bytes")
            gpu.count["allocated"] += 1
            memory = np.empty(size, np.uint8)
            return SimpleNamespace(ptr=memory.ctypes.data, memory=memory)

        def asarray(value: Any, dtype: Any = None, blocking: bool = False) -> Array:
            if isinstance(value, ForeignArray):
                value = value.array
            return np.asarray(value, dtype).view(Array)

        null = Stream(ptr=0)
        cupy: Any = ModuleType("cupy")
        cupy.ndarray = Array
        cupy.empty = lambda shape, dtype: np.empty(shape, dtype).view(Array)
        cupy.asarray = asarray
        cupy.ascontiguousarray = lambda value, dtype=None: np.ascontiguousarray(value, dtype).view(Array)
        cupy.isfinite = lambda value: np.isfinite(value).view(Array)
        cupy.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=lambda: None)
        cupy.cuda = SimpleNamespace(
            Stream=Stream,
            ExternalStream=lambda ptr, device_id: Stream(ptr=ptr),
            Device=Device,
            alloc=alloc,
            get_current_stream=lambda: gpu.current[-1] if gpu.current else null,
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(
                CUDARuntimeError=CUDARuntimeError,
                getDeviceCount=lambda: 1,
                memGetInfo=lambda: (gpu.free_bytes, gpu.free_bytes),
            ),
            driver=SimpleNamespace(CUDADriverError=type("CUDADriverError", (RuntimeError,), {})),
        )
        return cupy

    def driver(self) -> Any:
        """Return libcuda, whose functions write to their pointer arguments."""

        def capability(value: Any, attribute: int, device: Any) -> int:
            value._obj.value = _CAPABILITY[attribute]
            return 0

        def write(value: Any, result: int) -> int:
            value._obj.value = result
            return 0

        def context_of(value: Any, handle: int) -> int:
            return write(value, FOREIGN if handle in self.foreign else PRIMARY)

        def pointer_attribute(value: Any, attribute: int, address: Any) -> int:
            if address.value in self.host_memory:
                return 1
            return write(value, 0) if attribute == _POINTER_DEVICE else context_of(value, address.value)

        def name(text: Any, size: int, device: Any) -> int:
            text.value = b"Fake GPU"
            return 0

        return SimpleNamespace(
            cuDeviceGet=lambda device, index: 0 if index == 0 else 101,
            cuDeviceGetCount=lambda count: write(count, 1),
            cuDeviceGetName=name,
            cuDeviceGetAttribute=capability,
            cuDevicePrimaryCtxRetain=lambda context, device: write(context, PRIMARY),
            cuCtxGetCurrent=lambda context: write(context, self.context),
            cuPointerGetAttribute=pointer_attribute,
            cuStreamGetCtx=lambda stream, context: context_of(context, stream.value),
        )


@contextmanager
def _replaced_modules(modules: dict[str, ModuleType | None]) -> Iterator[None]:
    """Replace modules in `sys.modules`; other modules that are imported meanwhile stay."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


@contextmanager
def plugged_in() -> Iterator[FakeGpu]:
    """Give this machine a fake GPU of compute capability 8.9 and a fake TensorRT-RTX."""
    gpu = FakeGpu()
    cupy, driver = gpu.cupy(), gpu.driver()

    def page_locked(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        gpu.count["page-locked"] += 1
        return np.empty(shape, dtype)

    cuda_driver._primary_context.cache_clear()
    with (
        patch.object(cuda, "import_cupy", lambda: cupy),
        patch.object(loaded_engine, "import_cupy", lambda: cupy),
        patch.object(cuda, "_page_locked", page_locked),
        patch.object(cuda_driver, "_cuda", lambda: driver),
        _replaced_modules(
            {"tensorrt_rtx": fake_tensorrt.make_library(gpu), "tensorrt": None, "tensorrt_bindings": None}
        ),
        patch.object(engines, "build_engine", fake_tensorrt.build_engine),
        patch.object(launcher, "launch", cuda_cpu.launch_by_name),
        patch.object(launcher, "empty", cuda_cpu.poisoned_empty),
    ):
        yield gpu
    cuda_driver._primary_context.cache_clear()
