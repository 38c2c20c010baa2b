"""Declarations of a serialized ONNX graph, and checks of its contents.

A bundle's checksums cover its graph files alone, so a graph that reads its weights from other files is refused, and so
is a loop that has no bound.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from .errors import BundleError
from .manifest import TensorSpec
from .protobuf import read_fields, read_varint

# Field numbers of the messages in onnx.proto3.
_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_FUNCTION_NODE, _FUNCTION_ATTRIBUTE = 7, 11
_NODE_INPUT, _NODE_TYPE, _NODE_ATTRIBUTE = 1, 4, 5
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_SPARSE_PARTS = (1, 2)
_TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 13, 14
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR = 1
_TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 2
_SHAPE_DIM, _DIM_SIZE = 1, 1
_DTYPES = {1: "float32", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}  # of TensorProto.DataType
_DEEPEST = 32  # graphs inside graphs


class DeclaredTensor(NamedTuple):
    """An input or output of a graph."""

    dtype: str  # NumPy's name, or "type N" for one that stvsr does not use
    shape: tuple[int | None, ...] | None  # None: a free axis, or a number of axes that is not declared


class GraphInterface(NamedTuple):
    """The inputs and outputs of a graph by name; weights are not among the inputs."""

    inputs: dict[str, DeclaredTensor]
    outputs: dict[str, DeclaredTensor]


def read_interface(graph: bytes) -> GraphInterface:
    """Return what a serialized graph declares.

    Raises BundleError, whose message starts with a verb, if the bytes are no graph, if a tensor is stored outside the
    file, or if a loop has no bound.
    """
    try:
        return _read_model(graph)
    except (IndexError, ValueError, KeyError) as error:
        raise BundleError(f"cannot be read as an ONNX graph ({error})") from error


def compare_tensors(
    side: str, stated: tuple[TensorSpec, ...], declared: Mapping[str, DeclaredTensor], expected: set[str]
) -> None:
    """Compare the inputs or outputs that a manifest states for a graph with the graph, and with those of its role.

    Raises BundleError, whose message starts with a verb.
    """
    names = [spec.name for spec in stated]
    for others in (expected, declared):
        if sorted(names) != sorted(others):
            raise BundleError(
                f"should have the {side}s {_listed(sorted(expected))}: its manifest states {_listed(names)}, and the"
                f" graph has {_listed(declared)}"
            )
    for spec in stated:
        dtype, shape = declared[spec.name]
        if dtype != spec.dtype:
            raise BundleError(f"has the {side} '{spec.name}' of {dtype}, and its manifest states {spec.dtype}")
        sizes = [axis if isinstance(axis, int) else None for axis in spec.axes]
        if shape is None or len(shape) != len(sizes) or any(map(_differs, shape, sizes)):
            axes = "no shape" if shape is None else f"({', '.join('free' if n is None else str(n) for n in shape)})"
            raise BundleError(
                f"has the {side} '{spec.name}' of {axes}, and its manifest states ({', '.join(map(str, spec.axes))})"
            )


def _differs(declared: int | None, stated: int | None) -> bool:
    return declared is not None and declared != stated


def _listed(names: Collection[str]) -> str:
    return ", ".join(names) or "none"


def _read_model(data: bytes) -> GraphInterface:
    interface = None
    for number, _, start, stop in read_fields(data, 0, len(data)):
        if number == _MODEL_GRAPH:
            interface = _read_graph(data, start, stop)
            _check_graph(data, start, stop, 0)
        elif number == _MODEL_FUNCTION:
            for inner, _, first, last in read_fields(data, start, stop):
                if inner == _FUNCTION_NODE:
                    _check_node(data, first, last, 0)
                elif inner == _FUNCTION_ATTRIBUTE:
                    _check_attribute(data, first, last, 0)
    if interface is None:
        raise ValueError("it holds no graph")
    return interface


def _read_graph(data: bytes, start: int, stop: int) -> GraphInterface:
    interface, weights = GraphInterface({}, {}), set()
    for number, _, first, last in read_fields(data, start, stop):
        if number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            name, tensor = _read_value(data, first, last)
            (interface.inputs if number == _GRAPH_INPUT else interface.outputs)[name] = tensor
        elif number == _GRAPH_INITIALIZER:
            weights |= {
                data[a:b].decode() for inner, _, a, b in read_fields(data, first, last) if inner == _TENSOR_NAME
            }
    for name in weights:
        interface.inputs.pop(name, None)
    return interface


def _read_value(data: bytes, start: int, stop: int) -> tuple[str, DeclaredTensor]:
    name, dtype, shape = "", "no tensor", None
    for number, _, first, last in read_fields(data, start, stop):
        if number == _VALUE_NAME:
            name = data[first:last].decode()
        elif number == _VALUE_TYPE:
            for kind, _, a, b in read_fields(data, first, last):
                if kind == _TYPE_TENSOR:
                    dtype, shape = _read_tensor_type(data, a, b)
    return name, DeclaredTensor(dtype, shape)


def _read_tensor_type(data: bytes, start: int, stop: int) -> tuple[str, tuple[int | None, ...] | None]:
    dtype, shape = "no type", None
    for number, _, first, last in read_fields(data, start, stop):
        if number == _TENSOR_ELEMENT:
            element = read_varint(data, first)[0]
            dtype = _DTYPES.get(element, f"type {element}")
        elif number == _TENSOR_SHAPE:
            shape = tuple(_read_dim(data, a, b) for n, _, a, b in read_fields(data, first, last) if n == _SHAPE_DIM)
    return dtype, shape


def _read_dim(data: bytes, start: int, stop: int) -> int | None:
    sizes = [
        read_varint(data, first)[0] for number, _, first, _ in read_fields(data, start, stop) if number == _DIM_SIZE
    ]
    return sizes[-1] if sizes else None


def _check_graph(data: bytes, start: int, stop: int, depth: int) -> None:
    """Raise BundleError for tensors outside the file and for loops without a bound, also in graphs inside."""
    if depth > _DEEPEST:
        raise BundleError(f"has graphs inside each other, {_DEEPEST} deep and more")
    for number, _, first, last in read_fields(data, start, stop):
        if number == _GRAPH_NODE:
            _check_node(data, first, last, depth)
        elif number == _GRAPH_INITIALIZER:
            _check_tensor(data, first, last)
        elif number == _GRAPH_SPARSE:
            _check_sparse(data, first, last)


def _check_node(data: bytes, start: int, stop: int, depth: int) -> None:
    operator, inputs = b"", []
    for number, _, first, last in read_fields(data, start, stop):
        if number == _NODE_TYPE:
            operator = data[first:last]
        elif number == _NODE_INPUT:
            inputs.append(data[first:last])
        elif number == _NODE_ATTRIBUTE:
            _check_attribute(data, first, last, depth)
    if operator == b"Loop" and not (inputs and inputs[0]):  # its first input is the largest number of rounds
        raise BundleError("has a loop without a largest number of rounds, which may never end")


def _check_attribute(data: bytes, start: int, stop: int, depth: int) -> None:
    for number, _, first, last in read_fields(data, start, stop):
        if number in _ATTRIBUTE_TENSORS:
            _check_tensor(data, first, last)
        elif number in _ATTRIBUTE_GRAPHS:
            _check_graph(data, first, last, depth + 1)
        elif number in _ATTRIBUTE_SPARSE:
            _check_sparse(data, first, last)


def _check_sparse(data: bytes, start: int, stop: int) -> None:
    for number, _, first, last in read_fields(data, start, stop):
        if number in _SPARSE_PARTS:
            _check_tensor(data, first, last)


def _check_tensor(data: bytes, start: int, stop: int) -> None:
    for number, _, first, _ in read_fields(data, start, stop):
        if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and read_varint(data, first)[0]):
            raise BundleError("keeps weights in another file, which no checksum covers")
