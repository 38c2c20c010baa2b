"""Surgery on ONNX graphs from image to image: free sizes, float32, and names, axes and range of a bundle's graph."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from .exporter import OPSET

CHANNELS = 3


@dataclass(frozen=True)
class OnnxConfig:
    """Facts about a network, for the manifest."""

    scale: int
    range: int  # the value of white
    layout: str  # NCHW or NHWC


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that computes in float32 what the model computes in float16: hosts choose their own precision."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for value in (*copied.graph.input, *copied.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    constants = [attribute.t for node in copied.graph.node for attribute in node.attribute if attribute.HasField("t")]
    for tensor in (*copied.graph.initializer, *constants):
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in copied.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    return copied


def with_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model in the opset of all bundles, or unchanged where it cannot be converted."""
    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), OPSET)
    if version < OPSET:
        with suppress(Exception):  # the converter raises almost any kind
            return version_converter.convert_version(model, OPSET)
    return model


def with_free_sizes(model: onnx.ModelProto, layout: str) -> onnx.ModelProto:
    """Return a copy whose batch, height and width are free."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.value_info[:]
    names = {"N": "batch", "H": "height", "W": "width"}
    for value in copied.graph.input:
        for dim, axis in zip(value.type.tensor_type.shape.dim, layout, strict=True):
            if axis in names:
                dim.dim_param = names[axis]
            else:
                dim.dim_value = CHANNELS
    for value in copied.graph.output:
        for number, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"output_{number}"
    return copied


def wrapped_graph(original: onnx.ModelProto, config: OnnxConfig, batch: str | int) -> onnx.ModelProto:
    """Return the graph `network` of a bundle around an original graph."""
    model = with_free_sizes(original, config.layout)
    graph = model.graph
    if {"frames", "upscaled"} & {name for node in graph.node for name in (*node.input, *node.output)}:
        model = onnx.compose.add_prefix(model, "image/")
        graph = model.graph
    (source,), (target,) = graph.input, graph.output
    s = config.scale
    constants = {"stvsr/axis": np.array([1]), "stvsr/white": np.array(config.range, np.float32)}
    nodes = list(graph.node)
    before: list[tuple[str, list[str], dict[str, Any]]] = [("Squeeze", ["stvsr/axis"], {})]
    after: list[tuple[str, list[str], dict[str, Any]]] = []
    if config.layout == "NHWC":
        before.append(("Transpose", [], {"perm": [0, 2, 3, 1]}))
        after.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if config.range != 1:
        before.append(("Mul", ["stvsr/white"], {}))
        after.append(("Div", ["stvsr/white"], {}))
    after.append(("Unsqueeze", ["stvsr/axis"], {}))
    new = [*_chain("frames", source.name, before, "stvsr/before"), *nodes]
    new += _chain(target.name, "upscaled", after, "stvsr/after")
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(new)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    size = [f"{s}*{axis}" if s > 1 else axis for axis in ("height", "width")]
    shape: list[str | int] = [batch, 1, CHANNELS, "height", "width"]
    graph.input.append(helper.make_tensor_value_info("frames", TensorProto.FLOAT, shape))
    graph.output.append(helper.make_tensor_value_info("upscaled", TensorProto.FLOAT, [*shape[:3], *size]))
    graph.name, graph.doc_string, model.doc_string = "stvsr", "", ""
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.metadata_props[:], graph.metadata_props[:]
    return model


def _chain(start: str, end: str, steps: list[tuple[str, list[str], dict[str, Any]]], prefix: str) -> Iterator[Any]:
    """Yield nodes that lead from one tensor to another, each an operator with further inputs and attributes."""
    for number, (operator, inputs, attributes) in enumerate(steps):
        output = end if number == len(steps) - 1 else f"{prefix}_{number}"
        yield helper.make_node(operator, [start, *inputs], [output], **attributes)
        start = output
