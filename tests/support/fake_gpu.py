"""A GPU made of NumPy arrays: what the engine asks of CuPy, of the driver and of an engine library, on a CPU.

Engines are the lowered graphs, which run in ONNX Runtime on the memory at the addresses that they are given. Kernels
run as in `cuda_cpu`. Streams do their work at once; what they were asked to do is counted.
"""

import ctypes
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime
from stvsr.engine.backends import cuda
from stvsr.engine.backends import cuda_driver as driver
from stvsr.engine.backends.tensorrt import engines as compiler
from stvsr.engine.contract.axes import axis_range, shape_of, sizes_of
from stvsr.engine.contract.manifest import Graph, Recipe, TensorSpec
from stvsr.kernels import launcher as module

from tests.support import cuda_cpu

VERSION = "9.9"
PRIMARY, FOREIGN = 0x1000, 0x2000  # contexts
_HEADER = b"FAKE"


class Array(np.ndarray):
    """A CuPy array: NumPy's, with an address for its data."""

    @property
    def data(self) -> Any:  # type: ignore[override]
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


class Foreign:
    """Memory of another CUDA library."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.__cuda_array_interface__ = {**array.__array_interface__, "version": 3}


class OutOfMemoryError(MemoryError):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class Gpu:
    """The device, and what it was asked to do."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.memory_bytes = 1 << 40  # what one allocation of an engine's activations may take
        self.context = PRIMARY  # of the thread
        self.foreign: set[int] = set()  # addresses and streams of another context
        self.of_host: set[int] = set()  # addresses that are no device's
        self.streams: list[Any] = []
        self.current: list[Any] = []
        self.capturable = True
        self.capture_fails = False

    def cupy(self) -> ModuleType:
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
            return SimpleNamespace(ptr=memory.ctypes.data, held=memory)

        def asarray(value: Any, dtype: Any = None, blocking: bool = False) -> Array:
            if isinstance(value, Foreign):
                value = value.array
            return np.asarray(value, dtype).view(Array)

        null = Stream(ptr=0)
        cupy = ModuleType("cupy")
        cupy.ndarray = Array  # type: ignore[attr-defined]
        cupy.empty = lambda shape, dtype: np.empty(shape, dtype).view(Array)  # type: ignore[attr-defined]
        cupy.asarray = asarray  # type: ignore[attr-defined]
        cupy.ascontiguousarray = lambda value, dtype=None: np.ascontiguousarray(value, dtype).view(Array)  # type: ignore[attr-defined]
        cupy.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=lambda: None)  # type: ignore[attr-defined]
        cupy.cuda = SimpleNamespace(  # type: ignore[attr-defined]
            Stream=Stream,
            ExternalStream=lambda ptr, device_id: Stream(ptr=ptr),
            Device=Device,
            alloc=alloc,
            get_current_stream=lambda: gpu.current[-1] if gpu.current else null,
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError, getDeviceCount=lambda: 1),
            driver=SimpleNamespace(CUDADriverError=type("CUDADriverError", (RuntimeError,), {})),
        )
        return cupy

    def driver(self) -> Any:
        """libcuda, whose functions write through the pointers that they are given."""

        def attribute(value: Any, which: int, device: Any) -> int:
            value._obj.value = {75: 8, 76: 9}[which]
            return 0

        def write(value: Any, context: int) -> int:
            value._obj.value = context
            return 0

        def context_of(value: Any, handle: int) -> int:
            return write(value, FOREIGN if handle in self.foreign else PRIMARY)

        def pointer(value: Any, which: int, address: Any) -> int:
            if address.value in self.of_host:
                return 1
            return write(value, 0) if which == 9 else context_of(value, address.value)

        return SimpleNamespace(
            cuDeviceGet=lambda device, index: 0 if index == 0 else 101,
            cuDeviceGetAttribute=attribute,
            cuDevicePrimaryCtxRetain=lambda context, device: write(context, PRIMARY),
            cuCtxGetCurrent=lambda context: write(context, self.context),
            cuPointerGetAttribute=pointer,
            cuStreamGetCtx=lambda stream, context: context_of(context, stream.value),
        )

    def library(self) -> ModuleType:
        """An engine library, of which the engine is built for this GPU alone."""
        gpu = self

        class Runtime:
            def __init__(self, logger: Any) -> None:
                self.logger = logger

            def deserialize_cuda_engine(self, data: bytes) -> Any:
                if not data.startswith(_HEADER):
                    self.logger.log(1, "the magic tag does not match")
                    return None
                return Engine(gpu, data)

        class Refitter:
            def __init__(self, engine: Engine, logger: Any) -> None:
                self.engine, self.given = engine, {}

            def get_all_weights(self) -> list[str]:
                return list(self.engine.weights())

            def get_weights_prototype(self, name: str) -> Any:
                held = self.engine.weights().get(name)
                return SimpleNamespace(
                    size=-1 if held is None else held.size, dtype=held.dtype if held is not None else None
                )

            def set_named_weights(self, name: str, weights: np.ndarray) -> bool:
                self.given[name] = weights
                return True

            def get_missing_weights(self) -> list[str]:
                return []

            def refit_cuda_engine(self) -> bool:
                self.engine.replace(self.given)
                return True

        library = ModuleType("tensorrt_rtx")
        library.__spec__ = ModuleSpec("tensorrt_rtx", None)
        library.__version__ = VERSION  # type: ignore[attr-defined]
        library.Runtime, library.Refitter = Runtime, Refitter  # type: ignore[attr-defined]
        library.Weights = lambda array: array  # type: ignore[attr-defined]
        library.nptype = lambda dtype: dtype  # type: ignore[attr-defined]
        library.TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")  # type: ignore[attr-defined]
        library.ComputeCapability = SimpleNamespace(SM89=1)  # type: ignore[attr-defined]
        library.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")  # type: ignore[attr-defined]
        severity = SimpleNamespace(ERROR=1)
        library.ILogger = type("ILogger", (), {"Severity": severity, "__init__": lambda self: None})  # type: ignore[attr-defined]
        return library


class Engine:
    """A lowered graph, and the sizes that it takes."""

    def __init__(self, gpu: Gpu, data: bytes) -> None:
        self.gpu = gpu
        length = int.from_bytes(data[4:8], "little")
        self.about = json.loads(data[8 : 8 + length])
        self.refittable = self.about["refit"]
        self.model = data[8 + length :]
        sides = [
            (side, TensorSpec(**s | {"axes": tuple(s["axes"])})) for side in ("in", "out") for s in self.about[side]
        ]
        self.tensors = {spec.name: (side, spec) for side, spec in sides}
        self.num_io_tensors = len(self.tensors)
        self.open()

    def open(self) -> None:
        self.session = onnxruntime.InferenceSession(self.model, providers=["CPUExecutionProvider"])

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        return self.tensors[name][0]

    def get_tensor_dtype(self, name: str) -> Any:
        return np.dtype(self.tensors[name][1].dtype).type

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(axis if isinstance(axis, int) else -1 for axis in self.tensors[name][1].axes)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        ranges = [axis_range(axis, self.about["shapes"]) for axis in self.tensors[name][1].axes]
        return [[sizes[which] for sizes in ranges] for which in range(3)]

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(set_execution_context_allocation_strategy=lambda strategy: None)

    def create_execution_context(self, config: Any) -> "Context":
        self.gpu.count["contexts"] += 1
        return Context(self)

    def weights(self) -> dict[str, np.ndarray]:
        import onnx

        return {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load_from_string(self.model).graph.initializer}

    def replace(self, weights: dict[str, np.ndarray]) -> None:
        import onnx

        model = onnx.load_from_string(self.model)
        for held in model.graph.initializer:
            if held.name in weights:
                value = weights[held.name].reshape(tuple(held.dims))
                held.CopyFrom(onnx.numpy_helper.from_array(value, held.name))
        self.model = model.SerializeToString()
        self.open()


class Context:
    """Runs an engine on what lies at the addresses that it was given."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory = (0, 0)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return []

    def update_device_memory_size_for_shapes(self) -> int:
        return 64 * sum(int(np.prod(shape)) for shape in self.shapes.values())

    def set_device_memory(self, pointer: int, size: int) -> None:
        assert pointer % 256 == 0
        self.memory = pointer, size

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        specs = [spec for side, spec in self.engine.tensors.values() if side == "in"]
        return shape_of(self.engine.tensors[name][1], sizes_of(specs, self.shapes))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return self.engine.gpu.capturable

    def execute_async_v3(self, stream: int) -> bool:
        gpu = self.engine.gpu
        assert gpu.current[-1].ptr == stream
        assert self.memory[1] >= self.update_device_memory_size_for_shapes()
        addresses, shapes = dict(self.addresses), dict(self.shapes)

        def work() -> None:
            gpu.count["computed"] += 1
            inputs = {name: _at(addresses[name], shape) for name, shape in shapes.items()}
            names = [output.name for output in self.engine.session.get_outputs()]
            for name, value in zip(names, self.engine.session.run(names, inputs), strict=True):
                _at(addresses[name], value.shape)[...] = value

        if gpu.current[-1].capturing is not None:
            gpu.current[-1].capturing.append(work)
        else:
            work()
        return True


def _at(address: int, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (count,)).reshape(shape)


def _build(model: bytes, graph: Graph, recipe: Recipe, others: Sequence[str] = ()) -> bytes:
    about = {
        "in": [spec.model_dump() for spec in graph.inputs],
        "out": [spec.model_dump() for spec in graph.outputs],
        "shapes": recipe.shapes,
        "refit": recipe.refit,
    }
    text = json.dumps(about).encode()
    return _HEADER + len(text).to_bytes(4, "little") + text + model


@contextmanager
def _modules(modules: dict[str, ModuleType | None]) -> Iterator[None]:
    """Put modules in the place of others; all that is imported meanwhile stays."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module_ in before.items():
            del sys.modules[name]
            if module_ is not None:
                sys.modules[name] = module_


@contextmanager
def plugged_in() -> Iterator[Gpu]:
    """Give this machine such a GPU."""
    gpu = Gpu()
    cupy, cuda_driver = gpu.cupy(), gpu.driver()

    def page_locked(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        gpu.count["page-locked"] += 1
        return np.empty(shape, dtype)

    driver._primary.cache_clear()
    with (
        patch.object(cuda, "import_cupy", lambda: cupy),
        patch("stvsr.engine.backends.tensorrt.session.import_cupy", lambda: cupy),
        patch.object(cuda, "_page_locked", page_locked),
        patch.object(driver, "_cuda", lambda: cuda_driver),
        _modules({"tensorrt_rtx": gpu.library(), "tensorrt": None, "tensorrt_bindings": None}),
        patch.object(compiler, "build_engine", _build),
        patch.object(module, "launch", cuda_cpu._launch),
        patch.object(module, "empty", cuda_cpu._empty),
    ):
        yield gpu
    driver._primary.cache_clear()
