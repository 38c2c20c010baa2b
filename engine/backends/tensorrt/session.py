"""An engine, open on a GPU: on any stream, in CuPy's memory, on inputs and outputs of any CUDA library."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...contract.closing import Closing
from ...contract.errors import BackendError, BundleError, DeviceMemoryError, RequestError
from ...contract.manifest import Graph, Library
from ..cuda import Gpu, explained, import_cupy
from ..cuda_driver import check_context, check_pointer, check_stream
from ..device import Array
from .builder import TITLES, check_engine, last_error, load_library, logger_of

_GRAPHS = 4  # shapes of which a stream keeps a CUDA graph: those of a frame's tiles that are alike
_ALIGNMENT = 256  # bytes


@dataclass
class _Captured:
    """A CUDA graph, with the context that it was captured in, and all the memory that it works in."""

    graph: Any
    context: Any
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    memory: Any


@dataclass
class _Work:
    """What one stream has of an engine."""

    context: Any
    memory: Any = None  # of activations
    memory_bytes: int = 0
    seen: set[tuple[tuple[int, ...], ...]] = field(default_factory=set)
    captured: OrderedDict[tuple[tuple[int, ...], ...], _Captured] = field(default_factory=OrderedDict)
    capturable: bool = True


class TensorRtSession(Closing):
    """An engine file of a graph.

    Work is queued on the current CuPy stream, or on the one that is handed over, and each stream has a context of its
    own, so that several compute at once. Shapes that are met a second time on a stream are captured as a CUDA graph.
    Raises BackendError for an engine of another card or version, BundleError for one of another graph.
    """

    def __init__(self, path: str | Path, graph: Graph, library: Library, gpu: Gpu) -> None:
        self._cupy, self._gpu, self._path = import_cupy(), gpu, Path(path)
        self._trt, self._title = load_library(library), TITLES[library]
        self.inputs, self.outputs, self.device = graph.inputs, graph.outputs, gpu.device
        self._work: dict[int, _Work] = {}
        self._engine: Any = None
        with self._cupy.cuda.Device(gpu.index), explained(self._cupy, self.device):
            self._logger = logger_of(self._trt)
            self._logger.errors.clear()
            self._runtime = self._trt.Runtime(self._logger)
            engine = self._runtime.deserialize_cuda_engine(self._path.read_bytes())
        if engine is None:
            raise BackendError(
                f"{self._title} {self._trt.__version__} cannot open {path} ({last_error(self._logger)}): it may be of"
                " another card or version; compile the bundle on this machine."
            )
        check_engine(engine, self._trt, graph, path)
        self._engine = engine
        self._ranges = {
            spec.name: [tuple(int(size) for size in shape) for shape in engine.get_tensor_profile_shape(spec.name, 0)]
            for spec in self.inputs
        }

    def takes(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether inputs of these shapes lie inside the engine's profile."""
        return all(self._inside(name, shape) for name, shape in shapes.items())

    def run(
        self,
        inputs: Mapping[str, Any],
        *,
        keep: bool = False,
        outputs: Mapping[str, Any] | None = None,
        stream: Any = None,
    ) -> dict[str, Array]:
        """Queue every output's computation, and return the arrays that will hold them.

        Inputs are NumPy arrays, or whatever speaks the CUDA array interface, and stay untouched until the stream has
        passed. `outputs` are such arrays too, which are written instead of new ones; `stream` is CuPy's, PyCUDA's, or a
        number. Raises RequestError for shapes outside the engine's profile, DeviceMemoryError for want of memory,
        BackendError for memory or a stream of another CUDA context.
        """
        if self._engine is None:
            raise BackendError("The session is closed: open another.")
        with (
            self._cupy.cuda.Device(self._gpu.index),
            explained(self._cupy, self.device),
            self._stream(stream) as current,
        ):
            work = self._work_on(current)
            given = {spec.name: self._taken(inputs[spec.name], spec.name, spec.dtype) for spec in self.inputs}
            self._check_shapes({name: array.shape for name, array in given.items()})
            wanted = {
                spec.name: self._written(outputs[spec.name], spec.name, spec.dtype)
                for spec in self.outputs
                if outputs is not None and spec.name in outputs
            }
            key = tuple(array.shape for array in given.values())
            if key in work.seen and key not in work.captured:
                self._capture(work, key, given, current)
            captured = work.captured.get(key)
            if captured is None:
                work.seen.add(key)
                return self._queued(work, given, wanted, current)
            work.captured.move_to_end(key)
            for name, array in given.items():
                captured.inputs[name][...] = array
            captured.graph.launch(current)
            for name, array in captured.outputs.items():
                if name in wanted:
                    _check_same(name, wanted[name].shape, array.shape)
                    wanted[name][...] = array
                else:
                    wanted[name] = array.copy()
            return wanted

    @property
    def weights(self) -> set[str]:
        """Names of the weights that can be replaced; none where the engine was built to keep them."""
        if self._engine is None or not self._engine.refittable:
            return set()
        return set(self._trt.Refitter(self._engine, self._logger).get_all_weights())

    def refit(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace weights by their names in the graph, once all work that is queued has been done.

        Raises BackendError where the engine was built to keep its weights, or has none of such a name or size; then
        none is replaced.
        """
        if self._engine is None or not self._engine.refittable:
            raise BackendError(f"The weights of {self._path} cannot be replaced: compile the bundle with --refit.")
        with self._cupy.cuda.Device(self._gpu.index), explained(self._cupy, self.device):
            self._gpu.trim()
            refitter = self._trt.Refitter(self._engine, self._logger)
            known = set(refitter.get_all_weights())
            held = []  # until the engine has read them
            for name, value in weights.items():
                prototype = refitter.get_weights_prototype(name)
                if name not in known or prototype.size != value.size:
                    size = f"{prototype.size} numbers" if name in known else "no such weights"
                    raise BackendError(
                        f"The engine {self._path} has {size} of '{name}', and {value.size} were given: compile the"
                        " bundle that the weights belong to."
                    )
                held.append(_as_type(value, np.dtype(self._trt.nptype(prototype.dtype))))
                refitter.set_named_weights(name, self._trt.Weights(held[-1]))
            missing = refitter.get_missing_weights()
            if missing or not refitter.refit_cuda_engine():
                reason = f"{', '.join(missing)} must be given too" if missing else last_error(self._logger)
                raise BackendError(f"The engine {self._path} does not take the weights: {reason}.")
            for work in self._work.values():  # they may hold the former weights
                work.captured.clear()

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        if self._engine is not None:
            self._gpu.trim()
        self._work.clear()
        self._engine = self._runtime = None

    def _stream(self, stream: Any) -> Any:
        if stream is None:
            current = self._cupy.cuda.get_current_stream()
        else:
            pointer = getattr(stream, "ptr", getattr(stream, "handle", stream))  # CuPy's, PyCUDA's, a number
            if not isinstance(pointer, int):
                raise BackendError(f"{stream!r} is no CUDA stream: hand over CuPy's, PyCUDA's or a stream's address.")
            current = self._cupy.cuda.ExternalStream(pointer, self._gpu.index)
        if current.ptr not in self._work:
            check_context(self._gpu.index)
            check_stream(current.ptr, self._gpu.index)
        return current

    def _work_on(self, stream: Any) -> _Work:
        if stream.ptr not in self._work:
            self._work[stream.ptr] = _Work(self._new_context())
        return self._work[stream.ptr]

    def _new_context(self) -> Any:
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if hasattr(self._trt, "DynamicShapesKernelSpecializationStrategy"):  # TensorRT-RTX compiles for shapes
            eager = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
        context = self._engine.create_execution_context(config)
        if context is None:
            self._fail()
        return context

    def _taken(self, value: Any, name: str, dtype: str) -> Array:
        if isinstance(value, np.ndarray):
            return self._gpu.array(value, dtype)
        return self._cupy.ascontiguousarray(self._shared(value, name, dtype))

    def _written(self, value: Any, name: str, dtype: str) -> Array:
        array = self._shared(value, name, dtype)
        if not array.flags.c_contiguous:
            raise RequestError(f"The output '{name}' is not contiguous: hand over an array without gaps.")
        return array

    def _shared(self, value: Any, name: str, dtype: str) -> Array:
        """Return a CuPy array of the same memory."""
        if not isinstance(value, self._cupy.ndarray):
            if not hasattr(value, "__cuda_array_interface__"):
                raise RequestError(
                    f"'{name}' is a {type(value).__name__}: hand over a NumPy array or one that speaks the CUDA array"
                    " interface."
                )
            check_pointer(value.__cuda_array_interface__["data"][0], self._gpu.index, f"'{name}'")
            value = self._cupy.asarray(value)
        if value.dtype != dtype:
            raise RequestError(f"'{name}' is of {value.dtype}: hand over {dtype}.")
        return value

    def _inside(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._ranges[name]
        return len(shape) == len(least) and all(
            low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
        )

    def _check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            if not self._inside(name, shape):
                least, _, most = self._ranges[name]
                raise RequestError(
                    f"The engine {self._path} takes '{name}' of {_told(least)} to {_told(most)}, not {_told(shape)}:"
                    " compile the bundle with --shapes that hold it."
                )

    def _prepare(self, work: _Work, context: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Set the shapes of inputs, give a context its memory, and return the shapes of outputs."""
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                self._fail()
        if unknown := context.infer_shapes():
            raise BundleError(f"The engine {self._path} does not say the sizes of {', '.join(unknown)}: export again.")
        needed = context.update_device_memory_size_for_shapes()
        if needed > work.memory_bytes:
            work.memory = None  # before more is asked for
            work.memory = self._cupy.cuda.alloc(needed + _ALIGNMENT)
            work.memory_bytes = needed
        if needed:
            aligned = -(-work.memory.ptr // _ALIGNMENT) * _ALIGNMENT
            context.set_device_memory(aligned, work.memory_bytes)
        return {spec.name: tuple(context.get_tensor_shape(spec.name)) for spec in self.outputs}

    def _queued(
        self, work: _Work, given: Mapping[str, Array], wanted: dict[str, Array], stream: Any
    ) -> dict[str, Array]:
        shapes = self._prepare(work, work.context, {name: array.shape for name, array in given.items()})
        for spec in self.outputs:
            if spec.name in wanted:
                _check_same(spec.name, wanted[spec.name].shape, shapes[spec.name])
            else:
                wanted[spec.name] = self._cupy.empty(shapes[spec.name], spec.dtype)
        self._enqueue(work.context, {**given, **wanted}, stream)
        return wanted

    def _enqueue(self, context: Any, arrays: Mapping[str, Array], stream: Any) -> None:
        for name, array in arrays.items():
            context.set_tensor_address(name, array.data.ptr)
        if not context.execute_async_v3(stream.ptr):
            self._fail()

    def _capture(self, work: _Work, key: tuple[tuple[int, ...], ...], given: Mapping[str, Array], stream: Any) -> None:
        """Keep the work of these shapes as a CUDA graph with memory of its own, if the stream can be captured.

        It has a context of its own too, as other shapes may change what a context keeps on the device.
        """
        capturable = getattr(work.context, "is_stream_capturable", lambda pointer: True)
        if stream.ptr == 0 or not work.capturable or not capturable(stream.ptr):
            return
        context = self._new_context()
        inputs = {name: array.copy() for name, array in given.items()}
        shapes = self._prepare(work, context, {name: array.shape for name, array in inputs.items()})
        outputs = {spec.name: self._cupy.empty(shapes[spec.name], spec.dtype) for spec in self.outputs}
        arrays = {**inputs, **outputs}
        self._enqueue(context, arrays, stream)  # what a context does but once must not be captured
        stream.begin_capture()
        try:
            self._enqueue(context, arrays, stream)
        except BackendError:
            work.capturable = False
        try:
            graph = stream.end_capture()
        except self._cupy.cuda.runtime.CUDARuntimeError:
            work.capturable = False
        if not work.capturable:
            return
        work.captured[key] = _Captured(graph, context, inputs, outputs, work.memory)
        if len(work.captured) > _GRAPHS:
            stream.synchronize()  # what is dropped may be under way
            work.captured.popitem(last=False)

    def _fail(self) -> None:
        reason = last_error(self._logger)
        if "memory" in reason.lower():
            raise DeviceMemoryError(
                f"The memory of device '{self.device}' does not hold this work ({reason}): ask for smaller tiles."
            )
        raise BackendError(f"{self._title} cannot run {self._path} ({reason}): compile the bundle again.")


def _as_type(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round to the type of an engine's weights; half precision is clipped, as the graph's were."""
    if dtype == np.float16:
        most = float(np.finfo(np.float16).max)
        value = value.clip(-most, most)
    return np.ascontiguousarray(value, dtype)


def _check_same(name: str, given: tuple[int, ...], made: tuple[int, ...]) -> None:
    if given != made:
        raise RequestError(f"The output '{name}' is {_told(made)}: hand over such an array, not {_told(given)}.")


def _told(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
