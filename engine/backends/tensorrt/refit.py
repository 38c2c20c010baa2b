"""Replaces the weights of an open engine, and compares it with ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...contract.errors import BackendError
from ...contract.manifest import Precision
from ...contract.weights import edit_graph
from ..onnxruntime import OrtSession
from .session import TensorRtSession

# Largest accepted difference from ONNX Runtime, relative to the range of the results: two correct programs of these
# precisions differ by as much.
TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-3, "tf32": 2e-2, "fp16": 2e-2}


def refit_session(
    session: TensorRtSession,
    graph: str | Path,
    weights: Mapping[str, np.ndarray],
    inputs: Mapping[str, np.ndarray],
    precision: Precision = "fp32",
) -> float:
    """Replace weights of an open engine by their names in its `graph`, and compare it with the graph that has them.

    `inputs` are the graph's inputs to compare on. Returns the largest difference, relative to the range of the
    expected results. Raises BackendError if the engine was built without refit, if the graph or the engine lacks a
    weight, or if the engine then differs from the graph by more than `TOLERANCE`: close it in that case.
    """
    edited, known = edit_graph(Path(graph).read_bytes(), weights)
    if missing := set(weights) - known:
        raise BackendError(
            f"The graph {graph} has no weights '{min(missing)}': give the weights of the network that it was exported"
            " from."
        )
    if fixed := set(weights) - session.weights:
        raise BackendError(
            f"The weights '{min(fixed)}' of the engine cannot be replaced: compile a bundle that has the new weights."
        )
    session.refit(weights)
    with OrtSession(edited) as reference:
        expected = reference.run(inputs)
    actual = {name: value.get() for name, value in session.run(inputs).items()}
    differences = [
        np.abs(actual[name] - value).max() / max(float(np.ptp(value)), np.finfo(np.float32).tiny)
        for name, value in expected.items()
    ]
    difference = float(np.max(differences))  # NaN if any is NaN, unlike the built-in max
    if not difference <= TOLERANCE[precision]:
        raise BackendError(
            f"The engine with its new weights differs by {difference:.1e} from ONNX Runtime, more than"
            f" {TOLERANCE[precision]:.0e}: close it, and compile a bundle that has the new weights."
        )
    return difference
