"""The loss of lower precisions: how much output frames change when a GPU computes in TF32 or in float16."""

from collections.abc import Mapping, Sequence
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
    exact = _frames(models, examples)
    losses: dict[Literal["tf32", "fp16"], PrecisionLoss] = {}
    with suppress(BackendError):  # a graph with branches or loops
        coordinates = COORDINATES | set(flows)
        _record(losses, "fp16", exact, _frames({r: to_fp16(m, coordinates) for r, m in models.items()}, examples))
    _record(losses, "tf32", exact, _frames({role: with_tf32(model) for role, model in models.items()}, examples))
    return losses


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
                    half = writer("Cast", name, to=onnx.TensorProto.FLOAT16)
                    rounded[name] = writer("Cast", half, to=onnx.TensorProto.FLOAT)
                node.input[position] = rounded[name]
        writer.nodes.append(node)
    writer.finish()
    return changed


def _frames(models: Mapping[Role, onnx.ModelProto], examples: Sequence[Example]) -> list[np.ndarray]:
    with ExitStack() as stack:
        sessions = {role: stack.enter_context(OrtSession(m.SerializeToString())) for role, m in models.items()}
        return [run_graphs(sessions, example) for example in examples]


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
