"""Tools to edit ONNX graphs, shared by the passes between an exported graph and its engine."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...contract.errors import BackendError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

Message = TypeVar("Message")


def import_onnx() -> Any:
    """Import `onnx` with the submodules that the passes use. Raises BackendError if it is not installed."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
        import onnx.shape_inference
    except ImportError as error:
        raise BackendError(
            'Engines and float16 graphs are made with onnx, which is not installed: pip install "stvsr[cuda]".'
        ) from error
    return onnx


def copy_message(message: Message) -> Message:
    """Return a copy of a protobuf message."""
    copy: Any = type(message)()
    copy.CopyFrom(message)
    return copy


def attributes_of(node: "NodeProto") -> dict[str, Any]:
    """Return the attributes of a node as Python values, by name."""
    onnx = import_onnx()
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def check_stored_weight(node: "NodeProto", shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise BackendError unless the weight of a `DeformConv` is an initializer; `shapes` are those of initializers."""
    if node.input[1] not in shapes:
        raise BackendError(
            f"The weights of the deformable convolution '{node.name or node.output[0]}' are computed by the graph, and"
            " engines need them stored as an initializer: export the bundle again."
        )


class GraphWriter:
    """Replaces the nodes of a graph; new values and constants get names that the graph does not use.

    Nodes are collected in `nodes`, and `finish` writes them into the graph.
    """

    def __init__(self, graph: "GraphProto") -> None:
        self._onnx = import_onnx()
        self._graph = graph
        self._taken = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
        self._taken.update(name for node in graph.node for name in (*node.input, *node.output))
        self._count: dict[str, int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.nodes: list[NodeProto] = []

    def name(self, stem: str) -> str:
        """Reserve an unused name: the stem, or the stem with the first number that makes it unique."""
        name = stem
        while name in self._taken:
            self._count[stem] = self._count.get(stem, 0) + 1
            name = f"{stem}_{self._count[stem]}"
        self._taken.add(name)
        return name

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Store a constant as an initializer, once for equal values, and return its name."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.name("constant")
            self._graph.initializer.append(self._onnx.numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def __call__(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        output = output or self.name(operator.lower())
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, [output], **attributes))
        return output

    def finish(self) -> None:
        """Replace the nodes of the graph by those of the writer."""
        del self._graph.node[:]
        self._graph.node.extend(self.nodes)
