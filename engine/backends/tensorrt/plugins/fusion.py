"""Rewrites what comes before the fusion of Fourier-S as its plugin: both warps, their blend, and the other inputs."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .....kernels.fusion_inputs import EXTRA
from ..onnx_graph import GraphWriter, copy_message, import_onnx
from .kernels import NODE_ATTRIBUTES

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_INPUTS, _OUTPUTS = {"features", "half", "quarter", "time"}, {"coefficients", "base"}
_WEIGHT = "fuse.weight"
# The operators that compute the inputs of the fusion: two warps, the blend, the motion, the visibility and the times.
_OPERATORS = ("GridSample", "GridSample", "Sub", "Mul", "Sigmoid", "Expand")
_FRAMES = 6  # channels of two frames


class _Fusion(NamedTuple):
    """The values around the fusion's inputs in a graph."""

    inputs: str
    motion: str  # (B, 5, H, W)
    features: int  # of each frame


def fusion_to_plugin(model: "ModelProto") -> "ModelProto":
    """Return the refiner of Fourier-S with the inputs of its fusion as one node of a plugin; other models unchanged.

    The refiner is known by its inputs, outputs and weights, and by the operators before its fusion.
    """
    fusion = _find(model)
    if fusion is None:
        return model
    onnx = import_onnx()
    changed = copy_message(model)
    graph = changed.graph
    writer = GraphWriter(graph)
    replaced = {fusion.inputs, "base"}
    for node in model.graph.node:
        if replaced.isdisjoint(node.output):
            writer.nodes.append(node)
        elif fusion.inputs in node.output:
            names = ("features", fusion.motion, "time")
            writer("fusion_inputs", *names, output=fusion.inputs, count=fusion.features, **NODE_ATTRIBUTES)
            first = 2 * fusion.features + _FRAMES
            ends = (writer.constant((value,)) for value in (first, first + 3, 1))
            writer("Add", writer("Slice", fusion.inputs, *ends), writer.constant(0.5, np.float32), output="base")
    writer.nodes[:] = _used(writer.nodes, {value.name for value in graph.output})
    writer.finish()
    if fusion.inputs not in {value.name for value in graph.value_info}:  # shape inference does not know the plugin
        shape = (None, 2 * fusion.features + EXTRA, None, None)
        graph.value_info.append(onnx.helper.make_tensor_value_info(fusion.inputs, onnx.TensorProto.FLOAT, shape))
    return changed


def _find(model: "ModelProto") -> _Fusion | None:
    graph = model.graph
    weight = next((tensor for tensor in graph.initializer if tensor.name == _WEIGHT), None)
    named = {value.name for value in graph.input} == _INPUTS and {value.name for value in graph.output} == _OUTPUTS
    if weight is None or not named:
        return None
    producers = {name: node for node in graph.node for name in node.output}
    inputs = next(node.input[0] for node in graph.node if _WEIGHT in node.input)
    parts = [producers.get(name) for name in producers[inputs].input] if inputs in producers else []
    if tuple(part.op_type if part else "" for part in parts) != _OPERATORS:
        return None
    visible = parts[_OPERATORS.index("Sigmoid")]
    assert visible is not None
    logit = producers.get(visible.input[0])
    if logit is None or logit.op_type != "Slice":
        return None
    return _Fusion(inputs, logit.input[0], (weight.dims[1] - EXTRA) // 2)


def _used(nodes: list["NodeProto"], wanted: set[str]) -> list["NodeProto"]:
    """Return the nodes that the wanted values are computed by."""
    used: list[NodeProto] = []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            used.append(node)
            wanted = wanted.union(node.input)
    return used[::-1]
