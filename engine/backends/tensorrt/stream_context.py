"""The execution context of an engine on one stream, and CUDA graphs of the shapes that return."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...contract.errors import BackendError, RequestError
from ..device import Array
from .loaded_engine import LoadedEngine, Shape, format_shape

_MAX_GRAPHS = 4  # shapes with a CUDA graph on each stream; the tiles of a frame have no more
_ALIGNMENT = 256  # bytes


@dataclass
class _CapturedGraph:
    """A CUDA graph, with everything that its work reads and writes."""

    graph: Any
    context: Any  # in which it was captured
    memory: Any  # of activations
    inputs: dict[str, Array]
    outputs: dict[str, Array]

    def launch(self, inputs: Mapping[str, Array], outputs: dict[str, Array], stream: Any) -> dict[str, Array]:
        """Queue copies of the inputs, the graph, and copies of its results to `outputs`, which may lack some."""
        for name, array in inputs.items():
            self.inputs[name][...] = array
        self.graph.launch(stream)
        for name, array in self.outputs.items():
            if name in outputs:
                _check_output(name, outputs[name].shape, array.shape)
                outputs[name][...] = array
            else:
                outputs[name] = array.copy()
        return outputs


class StreamContext:
    """One stream's execution context of an engine, and its memory for activations.

    Input shapes that come a second time are captured as a CUDA graph, if the stream can be captured.
    """

    def __init__(self, loaded: LoadedEngine) -> None:
        self._loaded = loaded
        self._context = loaded.create_context()
        self._memory: Any = None
        self._memory_bytes = 0
        self._known_shapes: set[tuple[Shape, ...]] = set()  # of inputs that ran before
        self._capturable = True
        self.graphs: OrderedDict[tuple[Shape, ...], _CapturedGraph] = OrderedDict()  # the latest used is last

    def run(self, inputs: Mapping[str, Array], outputs: dict[str, Array], stream: Any) -> dict[str, Array]:
        """Queue the engine on the stream and return all outputs; those that `outputs` lacks are allocated.

        Raises RequestError for an output of another shape.
        """
        key = tuple(array.shape for array in inputs.values())
        if key in self._known_shapes and key not in self.graphs:
            self._capture(key, inputs, stream)
        if key in self.graphs:
            self.graphs.move_to_end(key)
            return self.graphs[key].launch(inputs, outputs, stream)
        self._known_shapes.add(key)
        shapes = self._prepare(self._context, inputs)
        for spec in self._loaded.outputs:
            if spec.name in outputs:
                _check_output(spec.name, outputs[spec.name].shape, shapes[spec.name])
            else:
                outputs[spec.name] = self._loaded.cupy.empty(shapes[spec.name], spec.dtype)
        self._enqueue(self._context, {**inputs, **outputs}, stream)
        return outputs

    def _prepare(self, context: Any, inputs: Mapping[str, Array]) -> dict[str, Shape]:
        """Set the shapes of the inputs, give the context its memory, and return the shapes of the outputs."""
        shapes = self._loaded.infer_output_shapes(context, {name: array.shape for name, array in inputs.items()})
        needed_bytes = context.update_device_memory_size_for_shapes()
        if needed_bytes > self._memory_bytes:
            self._memory, self._memory_bytes = None, 0  # free it before more is allocated, which may fail
            self._memory = self._loaded.cupy.cuda.alloc(needed_bytes + _ALIGNMENT)
            self._memory_bytes = needed_bytes
        if needed_bytes:
            aligned = -(-self._memory.ptr // _ALIGNMENT) * _ALIGNMENT
            context.set_device_memory(aligned, self._memory_bytes)
        return shapes

    def _enqueue(self, context: Any, arrays: Mapping[str, Array], stream: Any) -> None:
        for name, array in arrays.items():
            context.set_tensor_address(name, array.data.ptr)
        if not context.execute_async_v3(stream.ptr):
            self._loaded.fail()

    def _capture(self, key: tuple[Shape, ...], inputs: Mapping[str, Array], stream: Any) -> None:
        """Capture the work for these shapes as a CUDA graph, if the stream can be captured.

        The graph has arrays of its own, and a context of its own: other shapes may change what a context keeps on the
        device.
        """
        is_capturable = getattr(self._context, "is_stream_capturable", lambda pointer: True)
        if stream.ptr == 0 or not self._capturable or not is_capturable(stream.ptr):
            return
        context = self._loaded.create_context()
        inputs = {name: array.copy() for name, array in inputs.items()}
        shapes = self._prepare(context, inputs)
        outputs = {spec.name: self._loaded.cupy.empty(shapes[spec.name], spec.dtype) for spec in self._loaded.outputs}
        arrays = {**inputs, **outputs}
        self._enqueue(context, arrays, stream)  # the first run of a context may do work that must not be captured
        stream.begin_capture()
        try:
            self._enqueue(context, arrays, stream)
        except BackendError:
            self._capturable = False
        try:
            graph = stream.end_capture()
        except self._loaded.cupy.cuda.runtime.CUDARuntimeError:
            self._capturable = False
        if not self._capturable:
            return
        self.graphs[key] = _CapturedGraph(graph, context, self._memory, inputs, outputs)
        if len(self.graphs) > _MAX_GRAPHS:
            stream.synchronize()  # the oldest graph may still run
            self.graphs.popitem(last=False)


def _check_output(name: str, actual: Shape, expected: Shape) -> None:
    if actual != expected:
        raise RequestError(
            f"The output '{name}' is {format_shape(expected)}: pass such an array, not {format_shape(actual)}."
        )
