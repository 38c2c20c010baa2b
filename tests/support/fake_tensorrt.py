"""An engine library made of ONNX Runtime, for the fake GPU of `fake_gpu`.

An engine is a lowered graph, which ONNX Runtime runs on the memory at the addresses that a context gets.
"""

import ctypes
import json
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from stvsr.engine.contract.axes import axis_range, shape_of, sizes_of
from stvsr.engine.contract.manifest import EngineSpec, Graph, TensorSpec

if TYPE_CHECKING:
    from tests.support.fake_gpu import FakeGpu

VERSION = "9.9"
_HEADER = b"FAKE"
_LENGTH_BYTES = 4  # of the description after the header
_ALIGNMENT = 256  # bytes, of the memory of contexts


def make_library(gpu: "FakeGpu") -> ModuleType:
    """Return a module `tensorrt_rtx` that runs engines on a fake GPU."""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, data: bytes) -> Any:
            if not data.startswith(_HEADER):
                self.logger.log(1, "the magic tag does not match")
                return None
            return FakeEngine(gpu, data)

    class Refitter:
        def __init__(self, engine: FakeEngine, logger: Any) -> None:
            self.engine = engine
            self.weights: dict[str, np.ndarray] = {}

        def get_all_weights(self) -> list[str]:
            return list(self.engine.weights())

        def get_weights_prototype(self, name: str) -> Any:
            stored = self.engine.weights().get(name)
            if stored is None:
                return SimpleNamespace(size=-1, dtype=None)
            return SimpleNamespace(size=stored.size, dtype=stored.dtype)

        def set_named_weights(self, name: str, weights: np.ndarray) -> bool:
            self.weights[name] = weights
            return True

        def get_missing_weights(self) -> list[str]:
            return []

        def refit_cuda_engine(self) -> bool:
            self.engine.replace(self.weights)
            return True

    library: Any = ModuleType("tensorrt_rtx")
    library.__spec__ = ModuleSpec("tensorrt_rtx", None)
    library.__version__ = VERSION
    library.Runtime, library.Refitter = Runtime, Refitter
    library.Weights = lambda array: array
    library.nptype = lambda dtype: dtype
    library.TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    library.ComputeCapability = SimpleNamespace(SM89=1)
    library.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
    severity = SimpleNamespace(ERROR=1)
    library.ILogger = type("ILogger", (), {"Severity": severity, "__init__": lambda self: None})
    return library


def build_engine(model: bytes, graph: Graph, spec: EngineSpec, other_targets: Sequence[str] = ()) -> bytes:
    """Pack a lowered graph and its description: replaces `builder.build_engine`."""
    description = {
        "in": [tensor.model_dump() for tensor in graph.inputs],
        "out": [tensor.model_dump() for tensor in graph.outputs],
        "shapes": spec.shapes,
        "refit": spec.refit,
    }
    text = json.dumps(description).encode()
    return _HEADER + len(text).to_bytes(_LENGTH_BYTES, "little") + text + model


class FakeEngine:
    """A lowered graph, and the sizes that it takes."""

    def __init__(self, gpu: "FakeGpu", data: bytes) -> None:
        self.gpu = gpu
        start = len(_HEADER) + _LENGTH_BYTES
        stop = start + int.from_bytes(data[len(_HEADER) : start], "little")
        description = json.loads(data[start:stop])
        self.model = data[stop:]
        self.shapes, self.refittable = description["shapes"], description["refit"]
        self.tensors = {
            tensor["name"]: (mode, TensorSpec(**tensor | {"axes": tuple(tensor["axes"])}))
            for mode in ("in", "out")
            for tensor in description[mode]
        }
        self.num_io_tensors = len(self.tensors)
        self.caches: list[FakeRuntimeCache] = []  # of the contexts
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
        ranges = [axis_range(axis, self.shapes) for axis in self.tensors[name][1].axes]
        return [[sizes[bound] for sizes in ranges] for bound in range(3)]

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(
            set_execution_context_allocation_strategy=lambda strategy: None,
            create_runtime_cache=lambda: FakeRuntimeCache(self.gpu),
            set_runtime_cache=self.caches.append,
        )

    def create_execution_context(self, config: Any) -> "FakeContext":
        self.gpu.count["contexts"] += 1
        return FakeContext(self)

    def weights(self) -> dict[str, np.ndarray]:
        initializers = onnx.load_from_string(self.model).graph.initializer
        return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in initializers}

    def replace(self, weights: dict[str, np.ndarray]) -> None:
        model = onnx.load_from_string(self.model)
        for tensor in model.graph.initializer:
            if tensor.name in weights:
                value = weights[tensor.name].reshape(tuple(tensor.dims))
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        self.model = model.SerializeToString()
        self.open()


class FakeRuntimeCache:
    """The kernels that contexts have compiled: the count of the process, after those of the stored content."""

    def __init__(self, gpu: "FakeGpu") -> None:
        self.gpu, self.stored = gpu, b""

    def deserialize(self, content: bytes) -> bool:
        self.stored = content
        return True

    def serialize(self) -> bytes:
        return self.stored + b"%d contexts;" % self.gpu.count["contexts"]


class FakeContext:
    """Runs an engine on the arrays at the addresses of its tensors."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory_bytes = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return []

    def update_device_memory_size_for_shapes(self) -> int:
        return 64 * sum(int(np.prod(shape)) for shape in self.shapes.values())

    def set_device_memory(self, pointer: int, size: int) -> None:
        assert pointer % _ALIGNMENT == 0
        self.memory_bytes = size

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        inputs = [spec for mode, spec in self.engine.tensors.values() if mode == "in"]
        return shape_of(self.engine.tensors[name][1], sizes_of(inputs, self.shapes))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return self.engine.gpu.capturable

    def execute_async_v3(self, stream: int) -> bool:
        gpu = self.engine.gpu
        assert gpu.current[-1].ptr == stream
        assert self.memory_bytes >= self.update_device_memory_size_for_shapes()
        addresses, shapes = dict(self.addresses), dict(self.shapes)

        def work() -> None:
            gpu.count["computed"] += 1
            inputs = {name: _array_at(addresses[name], shape) for name, shape in shapes.items()}
            names = [output.name for output in self.engine.session.get_outputs()]
            for name, value in zip(names, self.engine.session.run(names, inputs), strict=True):
                _array_at(addresses[name], value.shape)[...] = value

        if gpu.current[-1].capturing is not None:
            gpu.current[-1].capturing.append(work)
        else:
            work()
        return True


def _array_at(address: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the float32 array at an address."""
    count = int(np.prod(shape))
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (count,)).reshape(shape)
