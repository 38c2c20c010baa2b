"""Passes over a traced graph: optimize it without touching a weight, and give weights and axes their names."""

from collections.abc import Mapping
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as common_passes
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules import common as rules

WEIGHT_PREFIX = "network."  # before the names of weights while a graph is optimized; `tidy` removes it

Axes = tuple[str | int, ...]  # of a tensor, as in a manifest: 3, "height", "4*height", "width/2", "factor_y*height"

_REWRITES = [
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.materialize_reshape_shape_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.reshape_reshape_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
]


def optimize(model: ir.Model) -> None:
    """Fold everything that depends on no weight, and remove nodes without an effect. Weights stay as they are.

    The optimizer of `torch.onnx` is not used because hosts replace weights by name: it merges weights that happen to
    be equal, removes biases that are zero, and folds batch normalization into convolutions.
    """
    common_passes.InlinePass()(model)
    _prelu_to_leaky_relu(model)
    for _ in range(2):
        fold_constants_ir(model, onnx_shape_inference=True, should_fold=_should_fold)
        rewrite(model, _REWRITES)
        common_passes.RemoveUnusedNodesPass()(model)
    for cleanup in (
        common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        _merge_constants,
        common_passes.CommonSubexpressionEliminationPass(),
        common_passes.IdentityEliminationPass(),
        common_passes.RemoveUnusedNodesPass(),
        common_passes.RemoveUnusedFunctionsPass(),
        common_passes.RemoveUnusedOpsetsPass(),
        common_passes.OutputFixPass(),
        common_passes.NameFixPass(),
    ):
        cleanup(model)


def tidy(model: onnx.ModelProto, axes: Mapping[str, Axes]) -> None:
    """Name weights after the state dict and axes after `axes`, and remove the tracer's notes, such as source paths.

    `axes` has an entry for every input and output of the graph.
    """
    graph = model.graph
    for initializer in graph.initializer:
        initializer.name = initializer.name.removeprefix(WEIGHT_PREFIX)
    for node in graph.node:
        node.name = node.name.removeprefix(WEIGHT_PREFIX)
        node.input[:] = [name.removeprefix(WEIGHT_PREFIX) for name in node.input]
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
        for dimension, axis in zip(value.type.tensor_type.shape.dim, axes[value.name], strict=True):
            if isinstance(axis, str):
                dimension.dim_param = axis
    del graph.value_info[:], graph.metadata_props[:], model.metadata_props[:]
    graph.name, graph.doc_string, model.doc_string = "stvsr", "", ""


def _prelu_to_leaky_relu(model: ir.Model) -> None:
    """Replace each PReLU of a single slope by a LeakyRelu, which runtimes fuse into the convolution before it.

    The node takes the name of the weight, so that hosts find the slope, now the attribute `alpha`, by that name.
    """
    for node in list(model.graph):
        if node.op_type != "PRelu":
            continue
        slope = node.inputs[1]
        producer = slope.producer() if slope is not None else None
        if producer is not None and producer.op_type == "Reshape":
            slope = producer.inputs[0]
        if slope is None or slope.const_value is None or slope.const_value.size != 1:
            continue
        assert slope.name is not None
        alpha = ir.AttrFloat32("alpha", float(slope.const_value.numpy().ravel()[0]))
        leaky = ir.Node("", "LeakyRelu", [node.inputs[0]], [alpha], name=slope.name)
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [leaky], node.outputs, leaky.outputs)


def _merge_constants(model: ir.Model) -> None:
    """Store equal constants, which are not weights, only once."""
    merged: dict[tuple[Any, ...], ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        if name.startswith(WEIGHT_PREFIX) or value.const_value is None:
            continue
        array = value.const_value.numpy()
        first = merged.setdefault((array.dtype.str, array.shape, array.tobytes()), value)
        if first is not value:
            value.replace_all_uses_with(first)
            del model.graph.initializers[name]


def _should_fold(node: ir.Node) -> bool | None:
    """Return False for a node that reads a weight, and None, the default rules of folding, for others."""
    reads_weight = any(value is not None and (value.name or "").startswith(WEIGHT_PREFIX) for value in node.inputs)
    return False if reads_weight else None
