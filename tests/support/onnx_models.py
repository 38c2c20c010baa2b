"""Small ONNX models for tests, and how they run in ONNX Runtime."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Arrays = dict[str, np.ndarray]


def make_model(
    nodes: list[Any], inputs: Arrays, outputs: dict[str, int], constants: dict[str, Any], opset: int = 20
) -> onnx.ModelProto:
    """Return a model of float32 inputs like these, with free axes; `outputs` are the ranks of its outputs."""
    graph_inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}{axis}" for axis in range(value.ndim)])
        for name, value in inputs.items()
    ]
    graph_outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}{axis}" for axis in range(rank)])
        for name, rank in outputs.items()
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", graph_inputs, graph_outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run_model(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    """Check a model and run it in ONNX Runtime on the CPU."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the range of the expected values."""
    return float(np.abs(actual - expected).max() / np.ptp(expected))
