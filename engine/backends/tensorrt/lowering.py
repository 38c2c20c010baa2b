"""Lowering: deformable convolution in standard operators, which every engine library has."""

from typing import TYPE_CHECKING

import numpy as np

from .onnx_graph import GraphWriter, attributes_of, check_stored_weight, copy_message, import_onnx

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# Version of all passes between a graph and its engine (lowering, plugins, fp16). Raise it when one of them changes:
# engines of another version are then built again.
LOWERING_VERSION = 2


def lower_deform_conv(model: "ModelProto") -> "ModelProto":
    """Return a model in which every `DeformConv` is one `GridSample` of all taps and one matrix product.

    Inputs, outputs and weights keep their names, and weights their shapes. Raises BackendError if onnx is not
    installed, or if the weights of a `DeformConv` are not stored in the graph.
    """
    import_onnx()
    lowered = copy_message(model)
    graph = lowered.graph
    opset = max((o.version for o in lowered.opset_import if o.domain in ("", "ai.onnx")), default=0)
    mode = "linear" if opset >= 20 else "bilinear"  # opset 20 renamed the mode
    shapes = {initializer.name: tuple(initializer.dims) for initializer in graph.initializer}
    writer = GraphWriter(graph)
    for node in model.graph.node:
        if node.op_type == "DeformConv":
            _write_deform_conv(writer, node, shapes, mode)
        else:
            writer.nodes.append(node)
    writer.finish()
    return lowered


def _write_deform_conv(writer: GraphWriter, node: "NodeProto", shapes: dict[str, tuple[int, ...]], mode: str) -> None:
    """Write one `DeformConv`: the sampling positions of all taps, their samples, and the product with the weights.

    In the comments, x is (B, C, h, w), K the number of taps and G the number of offset groups.
    """
    constant = writer.constant
    x, weight, offset, bias, mask = (*node.input, "", "")[:5]
    check_stored_weight(node, shapes)
    attributes = attributes_of(node)
    offset_groups, groups = attributes.get("offset_group", 1), attributes.get("group", 1)
    out_channels, group_channels, kernel_h, kernel_w = shapes[weight]
    taps = kernel_h * kernel_w

    size = writer("Shape", offset, start=2, end=4)  # H, W
    positions = _write_positions(writer, node, size, (kernel_h, kernel_w))
    tap_rows = writer("Mul", size, constant((taps, 1)))  # K * H, W
    grid = writer("Reshape", positions, writer("Concat", constant((-1,)), tap_rows, constant((2,)), axis=0))
    features = writer("Reshape", x, constant((-1, group_channels * groups // offset_groups, 0, 0)))
    # (B * G, C / G, K * H, W)
    samples = writer("GridSample", features, grid, mode=mode, padding_mode="zeros", align_corners=0)
    if mask:
        mask_shape = writer("Concat", constant((-1, 1)), tap_rows, axis=0)
        samples = writer("Mul", samples, writer("Reshape", mask, mask_shape))

    batch = writer("Shape", x, start=0, end=1)
    split = (groups,) if groups > 1 else ()
    rows = constant((*split, group_channels * taps, -1))
    columns = writer("Reshape", samples, writer("Concat", batch, rows, axis=0))
    matrix = writer("Reshape", weight, constant((*split, out_channels // groups, group_channels * taps)))
    product = writer("MatMul", matrix, columns)
    shape = writer("Concat", batch, constant((out_channels,)), size, axis=0)
    output = node.output[0]
    if bias:
        result = writer("Reshape", product, shape)
        writer("Add", result, writer("Reshape", bias, constant((-1, 1, 1))), output=output)
    else:
        writer("Reshape", product, shape, output=output)


def _write_positions(writer: GraphWriter, node: "NodeProto", size: str, kernel: tuple[int, int]) -> str:
    """Write the sampling positions of all taps, (B * G, K, H, W, 2), x before y, as `GridSample` normalizes them."""
    onnx = import_onnx()
    constant = writer.constant
    x, offset = node.input[0], node.input[2]
    attributes = attributes_of(node)
    strides, dilations = attributes.get("strides", (1, 1)), attributes.get("dilations", (1, 1))
    padding = attributes.get("pads", (0, 0, 0, 0))[:2]
    taps = kernel[0] * kernel[1]
    # (B * G, K, 2, H, W), y before x
    offsets = writer("Reshape", offset, writer("Concat", constant((-1, taps, 2)), size, axis=0))
    tap = np.arange(taps)
    normalized = []
    for axis, tap_index in ((0, tap // kernel[1]), (1, tap % kernel[1])):
        count = writer("Squeeze", writer("Shape", offset, start=2 + axis, end=3 + axis))
        length = writer("Cast", writer("Shape", x, start=2 + axis, end=3 + axis), to=onnx.TensorProto.FLOAT)
        step = writer("Cast", writer("Range", constant(0), count, constant(1)), to=onnx.TensorProto.FLOAT)
        if axis == 0:
            step = writer("Unsqueeze", step, constant((1,)))
        # A position p of n pixels normalizes to (2 p + 1) / n - 1: corners are not aligned, which is well defined even
        # for features of one row or column.
        start = (2 * (tap_index * dilations[axis] - padding[axis]) + 1).reshape(taps, 1, 1)
        regular = writer(
            "Add",
            writer("Mul", step, constant(2 * strides[axis], np.float32)),
            constant(start, np.float32),
        )  # (K, H, 1) or (K, 1, W)
        axis_offset = writer("Gather", offsets, constant(axis), axis=2)
        position = writer("Add", writer("Mul", axis_offset, constant(2, np.float32)), regular)
        normalized.append(writer("Sub", writer("Div", position, length), constant(1, np.float32)))
    row, column = (writer("Unsqueeze", value, constant((-1,))) for value in normalized)
    return writer("Concat", column, row, axis=-1)
