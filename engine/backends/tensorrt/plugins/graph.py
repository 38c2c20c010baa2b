"""Rewrites graphs to contain plugins: deformable convolutions, the inputs of Fourier-S's fusion, VideoINR's decoder.

Any other `GridSample` stays one: TensorRT has the operator, and the pass does not try to recognize a warp in the
arithmetic before it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from .....kernels.deform_conv import DeformConv
from ..onnx_graph import GraphWriter, attributes_of, check_stored_weight, copy_message, import_onnx
from .decoder import decoder_to_plugins, is_videoinr_decoder
from .fusion import fusion_to_plugin
from .kernels import NAMESPACE, NODE_ATTRIBUTES

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def to_plugins(model: "ModelProto", config: Mapping[str, Any] | None = None) -> "ModelProto":
    """Return a model in which each part that a plugin computes is a node of it.

    That is every `DeformConv`, what comes before the fusion of Fourier-S, or VideoINR's decoder as a whole. The decoder
    is replaced only with the `config` of its manifest's architecture. Weights keep their names and shapes: the graph
    itself packs them in the order in which a kernel reads them. Raises what `lower_deform_conv` raises.
    """
    if config is not None and is_videoinr_decoder(model):
        return decoder_to_plugins(model, config)
    onnx = import_onnx()
    model = fusion_to_plugin(model)
    changed = copy_message(model)
    graph = changed.graph
    shapes = {initializer.name: tuple(initializer.dims) for initializer in graph.initializer}
    writer = GraphWriter(graph)
    typed = {value.name for value in (*graph.value_info, *graph.output)}
    for node in model.graph.node:
        if node.op_type != "DeformConv":
            writer.nodes.append(node)
            continue
        channels = _write_deform_conv(writer, node, shapes)
        if node.output[0] not in typed:  # shape inference does not know the plugin
            shape = (None, channels, None, None)
            value = onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, shape)
            graph.value_info.append(value)
    writer.finish()
    if any(node.domain == NAMESPACE for node in graph.node):
        changed.opset_import.append(onnx.helper.make_opsetid(NAMESPACE, 1))
    return changed


def _write_strips(writer: GraphWriter, x: str, conv: DeformConv) -> str:
    """Write the operators that put features (B, C, H, W) into strips, as `DeformConv.pack_features` does."""
    constant, width = writer.constant, 8
    size = writer("Shape", x, start=2, end=4)
    missing = -conv.run_channels % width
    if missing:
        runs = writer("Concat", constant((0, conv.in_channels // conv.run_channels, conv.run_channels)), size, axis=0)
        ends = constant((0, 0, 0, 0, 0, 0, 0, missing, 0, 0))
        x = writer("Pad", writer("Reshape", x, runs), ends)
    shape = writer("Concat", constant((0, conv.strips, width)), size, axis=0)
    return writer("Transpose", writer("Reshape", x, shape), perm=(0, 1, 3, 4, 2))


def _write_deform_conv(writer: GraphWriter, node: "NodeProto", shapes: dict[str, tuple[int, ...]]) -> int:
    """Write one `DeformConv` as a node of the plugin, and return its output channels."""
    onnx = import_onnx()
    constant = writer.constant
    x, weight, offset, bias, mask = (*node.input, "", "")[:5]
    check_stored_weight(node, shapes)
    attributes = attributes_of(node)
    out_channels, group_channels, *kernel = shapes[weight]
    groups, offset_groups = attributes.get("group", 1), attributes.get("offset_group", 1)
    conv = DeformConv(
        in_channels=group_channels * groups,
        out_channels=out_channels,
        kernel=(kernel[0], kernel[1]),
        stride=tuple(attributes.get("strides", (1, 1))),
        padding=tuple(attributes.get("pads", (0, 0, 0, 0))[:2]),  # the padding at the end follows from the offset
        dilation=tuple(attributes.get("dilations", (1, 1))),
        groups=groups,
        offset_groups=offset_groups,
    )
    # Packs the indices of the elements, counted from 1, so that a Gather packs the weight; index 0 reads a zero.
    count = math.prod(shapes[weight])
    indices = conv.pack(np.arange(1, count + 1, dtype=np.float64).reshape(shapes[weight]))
    elements = writer("Concat", constant((0,), np.float32), writer("Reshape", weight, constant((-1,))), axis=0)
    packed = writer("Gather", elements, constant(indices), axis=0)
    if not mask:
        batch, size = writer("Shape", offset, start=0, end=1), writer("Shape", offset, start=2, end=4)
        shape = writer("Concat", batch, constant((offset_groups * conv.taps,)), size, axis=0)
        ones = onnx.numpy_helper.from_array(np.ones(1, np.float32))
        mask = writer("ConstantOfShape", shape, value=ones)
    bias = bias or constant(np.zeros(out_channels), np.float32)
    inputs = (_write_strips(writer, x, conv), packed, offset, mask, bias)
    writer("deform_conv2d", *inputs, output=node.output[0], **NODE_ATTRIBUTES, **asdict(conv))
    return out_channels
