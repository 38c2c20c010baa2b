"""Half precision: computes features in float16 and coordinates in float32."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...contract.errors import BackendError
from .onnx_graph import GraphWriter, copy_message, import_onnx
from .plugins.kernels import PLUGINS

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

# Graph inputs that are coordinates or times, in every bundle.
COORDINATES = frozenset({"time", "y", "x"})

# Inputs of plugins that are always float32, (plugin, position), and the plugins whose output is.
_EXACT_INPUTS = {
    (plugin.name, position)
    for plugin in PLUGINS.values()
    for position, kind in enumerate(plugin.inputs.values())
    if kind == "FP32"
}
_FLOAT32_OUTPUTS = {plugin.name for plugin in PLUGINS.values() if plugin.output[1] == "FP32"}

# Products with weights. Their inputs are features, and their results are as precise as the product itself, so that the
# search for the origin of coordinates ends at them.
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", *(PLUGINS.keys() - {"warp", "fusion_inputs"})})
_ANY_TYPE = frozenset({"Cast", "Shape", "Size"})  # read every type alike
_FLOAT32_INPUTS = {("Resize", 2), *_EXACT_INPUTS}  # (operator, position), float32 by the operator's definition
_FP16_RANGE = (float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max))


def to_fp16(model: "ModelProto", coordinates: Collection[str] = COORDINATES) -> "ModelProto":
    """Return a model that computes in float16, except for coordinates: positions, offsets, flows, grids and times.

    `coordinates` names the graph inputs that are coordinates. These nodes compute in float32:

    - nodes that read nothing but coordinates, sizes and constants;
    - nodes whose results become grids of `GridSample`, exact inputs of plugins or integer indices, back to and with the
      nearest product with weights;
    - `GridSample`, and nodes that read a number that float16 cannot represent.

    Inputs and outputs of the graph stay float32, and all values keep their names. A weight is stored, and refitted, in
    the type in which it is read: float16, but float32 for products that give or take coordinates. Raises BackendError
    if onnx is not installed, or if the graph has branches or loops.
    """
    onnx = import_onnx()
    float32, float16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    _check_flat(model.graph)
    half = onnx.shape_inference.infer_shapes(model)
    graph = half.graph
    precisions = _Precisions(graph, coordinates)
    del graph.value_info[:]  # they have the types of the float32 graph
    types = dict.fromkeys(precisions.floats, float32)  # the type in which each value is available
    for name in _store_weights_in_fp16(graph, precisions):
        types[name] = float16

    writer = GraphWriter(graph)
    outputs = {value.name for value in graph.output}
    casts: dict[tuple[str, int], str] = {}  # (value, type) -> the value in its other type
    for index, original in enumerate(model.graph.node):
        node = copy_message(original)
        for position, name in enumerate(original.input):
            input_type = precisions.input_type(index, position)
            if input_type is None or input_type == types[name]:
                continue
            if (name, input_type) not in casts:
                casts[name, input_type] = writer("Cast", name, to=input_type)
            node.input[position] = casts[name, input_type]
        output_type = precisions.output_type(index)
        if node.op_type == "Cast" and node.output[0] in precisions.floats:
            next(attribute for attribute in node.attribute if attribute.name == "to").i = output_type
        writer.nodes.append(node)
        for position, name in enumerate(original.output):
            if name not in precisions.floats:
                continue
            if output_type == float16 and name in outputs:
                casts[name, float16] = node.output[position] = writer.name(f"{name}_half")
                writer("Cast", node.output[position], output=name, to=float32)
            else:
                types[name] = output_type
    writer.finish()
    return half


def graph_to_fp16(graph: Path | bytes, coordinates: Collection[str] = COORDINATES) -> bytes:
    """Return a serialized graph, or one in a file, in float16, as `to_fp16` does."""
    onnx = import_onnx()
    model = onnx.load_model_from_string(graph) if isinstance(graph, bytes) else onnx.load(graph)
    return bytes(to_fp16(model, coordinates).SerializeToString())


def _check_flat(graph: "GraphProto") -> None:
    """Raise BackendError if a node of the graph has a graph as an attribute."""
    kinds = import_onnx().AttributeProto
    if any(attribute.type in (kinds.GRAPH, kinds.GRAPHS) for node in graph.node for attribute in node.attribute):
        raise BackendError("The graph has branches or loops, which have no half precision: compile it at fp32.")


def _store_weights_in_fp16(graph: "GraphProto", precisions: "_Precisions") -> list[str]:
    """Convert the weights that are read in float16 only, clipped to its range, and return their names."""
    onnx = import_onnx()
    read_types: dict[str, set[int | None]] = {}
    for index, node in enumerate(graph.node):
        for position, name in enumerate(node.input):
            read_types.setdefault(name, set()).add(precisions.input_type(index, position))
    converted = []
    for weight in graph.initializer:
        if read_types.get(weight.name) == {onnx.TensorProto.FLOAT16}:
            values = onnx.numpy_helper.to_array(weight).clip(-_FP16_RANGE[1], _FP16_RANGE[1])
            weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), weight.name))
            converted.append(weight.name)
    return converted


class _Precisions:
    """Types of the inputs and outputs of every node of a float32 graph, whose shapes have been inferred.

    Nodes are known by their position in the graph.
    """

    def __init__(self, graph: "GraphProto", coordinates: Collection[str]) -> None:
        types = import_onnx().TensorProto
        self._float32, self._float16 = types.FLOAT, types.FLOAT16
        self._nodes: list[NodeProto] = list(graph.node)
        self._initializers = {initializer.name: initializer for initializer in graph.initializer}
        self._producers = {name: index for index, node in enumerate(self._nodes) for name in node.output}
        self.floats = _float_values(graph)
        self._constants = self._constant_values()
        inputs = {value.name for value in graph.input}
        wide = self._coordinate_nodes(inputs.intersection(coordinates))
        wide |= {index for index, node in enumerate(self._nodes) if self._needs_float32(node)}
        wide |= self._origins(self._exact_values())
        self._wide = wide | self._constant_producers(wide)

    def input_type(self, index: int, position: int) -> int | None:
        """Return the type in which a node reads an input, or None if it reads it in any type."""
        node = self._nodes[index]
        if node.op_type in _ANY_TYPE or node.input[position] not in self.floats:
            return None
        if index in self._wide or (node.op_type, position) in _FLOAT32_INPUTS:
            return self._float32
        return self._float16

    def output_type(self, index: int) -> int:
        """Return the type of a node's floating-point outputs."""
        if index in self._wide or self._nodes[index].op_type in _FLOAT32_OUTPUTS:
            return self._float32
        return self._float16

    def _float_names(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.floats]

    def _constant_values(self) -> set[str]:
        """Return the values that are computed from constants alone: initializers, and what follows from them."""
        constants = set(self._initializers)
        for node in self._nodes:
            reads = self._float_names(node.input)
            if node.op_type == "Constant" or (reads and constants.issuperset(reads)):
                constants.update(node.output)
        return constants - {""}  # the name of an omitted output

    def _coordinate_nodes(self, coordinates: set[str]) -> set[int]:
        """Return the nodes whose floating-point inputs are coordinates and constants, and not constants alone.

        Nodes without floating-point inputs are among them: they turn sizes and indices into numbers. Their results are
        coordinates too, but for those of products with weights.
        """
        values, nodes = set(coordinates), set()
        for index, node in enumerate(self._nodes):
            if not self._constants.isdisjoint(node.output):
                continue
            if all(name in values or name in self._constants for name in self._float_names(node.input)):
                nodes.add(index)
                if node.op_type not in _PRODUCTS:
                    values.update(self._float_names(node.output))
        return nodes

    def _needs_float32(self, node: "NodeProto") -> bool:
        """Return whether a node computes in float32 whatever it computes: for its operator or for its inputs."""
        reads = self._float_names(node.input)
        if node.op_type == "GridSample" or not reads:
            return True
        return any(not _representable(self._initializers[name]) for name in reads if name in self._initializers)

    def _exact_values(self) -> list[str]:
        """Return the values that must keep float32's precision: grids, plugins' exact inputs, and indices' sources."""
        exact: list[str] = []
        for node in self._nodes:
            if node.op_type == "GridSample":
                exact.append(node.input[1])
            elif node.op_type in PLUGINS:
                exact += [name for i, name in enumerate(node.input) if (node.op_type, i) in _EXACT_INPUTS]
            elif node.op_type == "Cast" and not self._float_names(node.output):
                exact += self._float_names(node.input)
        return exact

    def _origins(self, exact: list[str]) -> set[int]:
        """Return the nodes that exact values come from, back to and with the nearest products with weights."""
        origins: set[int] = set()
        pending = list(exact)
        while pending:
            index = self._producers.get(pending.pop())
            if index is None or index in origins or self._nodes[index].op_type in _FLOAT32_OUTPUTS:
                continue
            node = self._nodes[index]
            if self._float_names(node.output):
                origins.add(index)
                if node.op_type not in _PRODUCTS:
                    pending += self._float_names(node.input)
        return origins

    def _constant_producers(self, wide: set[int]) -> set[int]:
        """Return the nodes that compute constants for float32 nodes: a constant has the type in which it is read."""
        producers: set[int] = set()
        for index in reversed(range(len(self._nodes))):
            if index in wide or index in producers:
                constants = self._constants.intersection(self._nodes[index].input)
                producers.update(self._producers[name] for name in constants if name in self._producers)
        return producers


def _float_values(graph: "GraphProto") -> set[str]:
    """Return the names of a graph's float32 values; its shapes have been inferred."""
    float32 = import_onnx().TensorProto.FLOAT
    values = (*graph.input, *graph.value_info, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == float32}
    return floats | {initializer.name for initializer in graph.initializer if initializer.data_type == float32}


def _representable(initializer: Any) -> bool:
    """Return whether float16 can represent an initializer of one number; larger ones are weights, which may round."""
    onnx = import_onnx()
    if initializer.data_type != onnx.TensorProto.FLOAT or int(np.prod(tuple(initializer.dims))) != 1:
        return True
    size = abs(float(onnx.numpy_helper.to_array(initializer).reshape(())))
    return size == 0 or bool(np.isinf(size)) or _FP16_RANGE[0] <= size <= _FP16_RANGE[1]
