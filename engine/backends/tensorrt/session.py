"""TensorRtSession: runs an engine on any stream, on inputs and outputs of any CUDA library."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...contract.closing import Closing
from ...contract.errors import BackendError, RequestError
from ...contract.manifest import Graph, Library
from ..cuda import CudaDevice, translate_errors
from ..cuda_driver import check_context, check_pointer, check_stream
from ..device import Array, Device
from .library import last_error
from .loaded_engine import LoadedEngine
from .stream_context import StreamContext


class TensorRtSession(Closing):
    """An engine file, open on a device.

    Each stream has an execution context of its own, so that several streams compute at once. Shapes that come a second
    time on a stream are captured as a CUDA graph. Raises BackendError for an engine of another GPU or library version,
    BundleError for an engine of another graph.
    """

    def __init__(self, path: str | Path, graph: Graph, library: Library, device: CudaDevice) -> None:
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.device: Device = device
        self._device = device
        self._contexts: dict[int, StreamContext] = {}  # by the address of the stream
        self._loaded = LoadedEngine(path, graph, library, device)
        self._closed = False

    def takes(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Return whether inputs of these shapes are inside the engine's profile."""
        return all(self._loaded.takes(name, shape) for name, shape in shapes.items())

    def run(
        self,
        inputs: Mapping[str, Any],
        *,
        keep: bool = False,
        outputs: Mapping[str, Any] | None = None,
        stream: Any = None,
    ) -> dict[str, Array]:
        """Queue the computation of every output, and return the arrays that it writes.

        `inputs` are NumPy arrays, or objects with the CUDA array interface, which must not change before the stream has
        passed this work. `outputs` are objects with that interface, into which results are written; others are
        allocated. `stream` is a CuPy stream, a PyCUDA stream or the address of a CUDA stream; by default CuPy's current
        stream. `keep` changes nothing: results are always arrays of the device.

        Raises RequestError for shapes outside the engine's profile or arrays of another dtype, DeviceMemoryError if
        memory is too small, BackendError for memory or a stream of another CUDA context.
        """
        self._check_open()
        with self._on_device(), self._resolve_stream(stream) as current:
            if current.ptr not in self._contexts:
                self._contexts[current.ptr] = StreamContext(self._loaded)
            arrays = {spec.name: self._input_array(inputs[spec.name], spec.name, spec.dtype) for spec in self.inputs}
            self._loaded.check_shapes({name: array.shape for name, array in arrays.items()})
            results = {
                spec.name: self._output_array(outputs[spec.name], spec.name, spec.dtype)
                for spec in self.outputs
                if outputs is not None and spec.name in outputs
            }
            return self._contexts[current.ptr].run(arrays, results, current)

    @property
    def weights(self) -> set[str]:
        """Names of the weights that can be replaced: none if the engine was built without refit."""
        if self._closed or not self._loaded.engine.refittable:
            return set()
        return set(self._refitter().get_all_weights())

    def refit(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace weights by their names in the graph, after all queued work is done.

        Raises BackendError if the engine was built without refit, or has no weights of such a name or size; then no
        weight is replaced.
        """
        self._check_open()
        path = self._loaded.path
        if not self._loaded.engine.refittable:
            raise BackendError(f"The weights of {path} cannot be replaced: compile the bundle with --refit.")
        with self._on_device():
            self._device.trim()
            refitter = self._refitter()
            names = set(refitter.get_all_weights())
            converted = []  # kept alive until the engine has read them
            for name, value in weights.items():
                prototype = refitter.get_weights_prototype(name)
                if name not in names or prototype.size != value.size:
                    actual = f"{prototype.size} numbers in" if name in names else "no weights named"
                    raise BackendError(
                        f"The engine {path} has {actual} '{name}', and {value.size} numbers were given: compile the"
                        " bundle that the weights belong to."
                    )
                converted.append(_convert(value, np.dtype(self._loaded.trt.nptype(prototype.dtype))))
                refitter.set_named_weights(name, self._loaded.trt.Weights(converted[-1]))
            missing = refitter.get_missing_weights()
            if missing or not refitter.refit_cuda_engine():
                reason = f"{', '.join(missing)} must be given too" if missing else last_error(self._loaded.logger)
                raise BackendError(f"The engine {path} does not take the weights: {reason}.")
            for stream_work in self._contexts.values():
                stream_work.graphs.clear()  # they may contain the former weights

    def close(self) -> None:
        """Free the engine. A second call does nothing."""
        if not self._closed:
            self._device.trim()
            with suppress(BackendError), self._on_device():
                self._loaded.keep_compiled()
        self._closed = True
        self._contexts.clear()
        self._loaded.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("The session is closed: open another.")

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        cupy = self._loaded.cupy
        with cupy.cuda.Device(self._device.index), translate_errors(cupy, self._device.name):
            yield

    def _refitter(self) -> Any:
        return self._loaded.trt.Refitter(self._loaded.engine, self._loaded.logger)

    def _resolve_stream(self, stream: Any) -> Any:
        """Return a stream as a CuPy stream, checked when it is new to the session."""
        cupy = self._loaded.cupy
        if stream is None:
            current = cupy.cuda.get_current_stream()
        else:
            pointer = getattr(stream, "ptr", getattr(stream, "handle", stream))  # of CuPy, of PyCUDA, an address
            if not isinstance(pointer, int):
                raise BackendError(
                    f"{stream!r} is not a CUDA stream: pass a stream of CuPy or PyCUDA, or the address of one."
                )
            current = cupy.cuda.ExternalStream(pointer, self._device.index)
        if current.ptr not in self._contexts:
            check_context(self._device.index)
            check_stream(current.ptr, self._device.index)
        return current

    def _input_array(self, value: Any, name: str, dtype: str) -> Array:
        """Return an input as a contiguous CuPy array."""
        if isinstance(value, np.ndarray):
            return self._device.array(value, dtype)
        return self._loaded.cupy.ascontiguousarray(self._cupy_array(value, name, dtype))

    def _output_array(self, value: Any, name: str, dtype: str) -> Array:
        """Return an output as a CuPy array of the same memory."""
        array = self._cupy_array(value, name, dtype)
        if not array.flags.c_contiguous:
            raise RequestError(f"The output '{name}' is not contiguous: pass a C-contiguous array.")
        return array

    def _cupy_array(self, value: Any, name: str, dtype: str) -> Array:
        """Return a CuPy array of the same memory. Raises RequestError for another dtype or no CUDA array interface."""
        cupy = self._loaded.cupy
        if not isinstance(value, cupy.ndarray):
            if not hasattr(value, "__cuda_array_interface__"):
                raise RequestError(
                    f"'{name}' is a {type(value).__name__}: pass a NumPy array or an object with the CUDA array"
                    " interface."
                )
            check_pointer(value.__cuda_array_interface__["data"][0], self._device.index, f"'{name}'")
            value = cupy.asarray(value)
        if value.dtype != dtype:
            raise RequestError(f"'{name}' is {value.dtype}: pass {dtype}.")
        return value


def _convert(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert weights to the type of an engine's; float16 is clipped to its range, as when the engine was built."""
    if dtype == np.float16:
        largest = float(np.finfo(np.float16).max)
        value = value.clip(-largest, largest)
    return np.ascontiguousarray(value, dtype)
