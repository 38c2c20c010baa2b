"""The loss of lower precisions: how much output frames change when a GPU computes in TF32 or in float16."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from ..engine.backends.onnxruntime import OrtSession
from ..engine.backends.tensorrt.half import COORDINATES, to_fp16
from ..engine.backends.tensorrt.onnx_graph import GraphWriter, copy_message
from ..engine.contract.errors import BackendError
from ..engine.contract.manifest import PrecisionLoss, Role
from .parity import Example, run_graphs

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul"})
_FACTORS = 2  # inputs of such a node that are multiplied


def measure_precisions(
    graphs: Mapping[Role, Path], examples: Sequence[Example], flows: Sequence[str] = ()
) -> dict[Literal["tf32", "fp16"], PrecisionLoss]:
    """Run graphs in ONNX Runtime in each lower precision, and return how much their frames differ from float32.

    `flows` are the names of the inputs that are optical flows. Precisions that a graph does not support are left out,
    and so are those whose frames are not finite numbers.
    """
    models = {role: onnx.load(path) for role, path in graphs.items()}
    exact = run_models(models, examples)
    losses: dict[Literal["tf32", "fp16"], PrecisionLoss] = {}
    with suppress(BackendError):  # a graph with branches or loops
        coordinates = COORDINATES | set(flows)
        rounded = {role: with_fp16(model, coordinates) for role, model in models.items()}
        _record(losses, "fp16", exact, run_models(rounded, examples))
    _record(losses, "tf32", exact, run_models({role: with_tf32(model) for role, model in models.items()}, examples))
    return losses


def with_fp16(model: onnx.ModelProto, coordinates: Collection[str] = COORDINATES) -> onnx.ModelProto:
    """Return a float32 model that rounds the values which `to_fp16` computes in float16, as a GPU does.

    On a CPU, ONNX Runtime computes runs of float16 nodes in float32 and rounds only their last values, so that a
    float16 model loses less there than on a GPU. Raises BackendError as `to_fp16` does.
    """
    changed = onnx.shape_inference.infer_shapes(to_fp16(model, coordinates))
    graph, float16 = changed.graph, onnx.TensorProto.FLOAT16
    halves = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == float16}
    del graph.value_info[:]
    for weight in graph.initializer:
        if weight.data_type == float16:
            values = onnx.numpy_helper.to_array(weight).astype(np.float32)
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    writer = GraphWriter(graph)
    for original in graph.node:
        node = copy_message(original)
        if node.op_type == "Cast" and node.attribute[0].i == float16:
            node.attribute[0].i = onnx.TensorProto.FLOAT
        writer.nodes.append(node)
        for position, name in enumerate(original.output):
            if name in halves:
                node.output[position] = writer.name(f"{name}_exact")
                _round(writer, node.output[position], name)
    writer.finish()
    return changed


def with_tf32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that rounds the factors of every product to TF32, as tensor cores do.

    Numbers are rounded by a conversion to float16 and back: it has TF32's 11 significant bits. It rounds numbers below
    6e-5 more coarsely, and infinity stands for those above 65504, so that the loss is not underestimated.
    """
    changed = copy_message(model)
    writer = GraphWriter(changed.graph)
    rounded: dict[str, str] = {}
    for original in model.graph.node:
        node = copy_message(original)
        if node.op_type in _PRODUCTS:
            for position, name in enumerate(original.input[:_FACTORS]):
                if name not in rounded:
                    rounded[name] = _round(writer, name)
                node.input[position] = rounded[name]
        writer.nodes.append(node)
    writer.finish()
    return changed


def run_models(models: Mapping[Role, onnx.ModelProto], examples: Sequence[Example]) -> list[np.ndarray]:
    """Run the models of a bundle in ONNX Runtime on the CPU, and return the frames of each example."""
    with ExitStack() as stack:
        sessions = {role: stack.enter_context(OrtSession(m.SerializeToString())) for role, m in models.items()}
        return [run_graphs(sessions, example) for example in examples]


def _round(writer: GraphWriter, name: str, output: str = "") -> str:
    """Append the rounding of a float32 value to float16, and return the name of the result."""
    half = writer("Cast", name, to=onnx.TensorProto.FLOAT16)
    return writer("Cast", half, output=output, to=onnx.TensorProto.FLOAT)


def _record(
    losses: dict[Literal["tf32", "fp16"], PrecisionLoss],
    precision: Literal["tf32", "fp16"],
    exact: Sequence[np.ndarray],
    frames: Sequence[np.ndarray],
) -> None:
    differences = np.concatenate([np.abs(a - b).ravel() for a, b in zip(exact, frames, strict=True)])
    if np.isfinite(differences).all():
        p999, largest = float(np.quantile(differences, 0.999)), float(differences.max())
        losses[precision] = PrecisionLoss(p999=p999, largest=largest)
