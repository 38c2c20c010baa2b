"""Other weights in an engine that is open, checked against ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...contract.errors import BackendError
from ...contract.manifest import Precision
from ...contract.weights import edit_graph
from ..session import OrtSession
from .session import TensorRtSession

# Largest difference from ONNX Runtime, of the results' range: what two right programs of these precisions differ by.
TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 2e-2}


def refit(
    session: TensorRtSession,
    graph: str | Path,
    weights: Mapping[str, np.ndarray],
    window: Mapping[str, np.ndarray],
    precision: Precision = "fp32",
) -> float:
    """Give an engine other weights, by their names in its `graph`, and compare it with the graph that has them.

    `window` is one set of inputs to compare on. Returns the largest difference, of the results' range. Raises
    BackendError where the engine keeps its weights, or where what it computes then is not what the graph does: the
    engine is to be closed in that case.
    """
    edited, found = edit_graph(Path(graph).read_bytes(), weights)
    if missing := set(weights) - found:
        raise BackendError(f"The graph {graph} has no weights '{sorted(missing)[0]}': give those of its own network.")
    names = session.weights
    if fixed := [name for name in sorted(weights) if name not in names]:
        raise BackendError(
            f"The engine has '{fixed[0]}' among what it does not let go of: compile the bundle of the new weights."
        )
    session.refit(weights)
    with OrtSession(edited) as reference:
        expected = reference.run(window)
    found_now = {name: value.get() for name, value in session.run(window).items()}
    differences = [
        np.abs(found_now[name] - value).max() / max(float(np.ptp(value)), np.finfo(np.float32).tiny)
        for name, value in expected.items()
    ]
    difference = float(np.max(differences))  # NaN if any is, unlike the built-in max
    if not difference <= TOLERANCE[precision]:
        raise BackendError(
            f"The engine with its new weights differs by {difference:.1e} from ONNX Runtime, which is more than"
            f" {TOLERANCE[precision]:.0e}: close it, and compile the bundle of the new weights."
        )
    return difference
