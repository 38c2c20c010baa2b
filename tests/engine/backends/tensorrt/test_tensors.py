"""The comparison of an engine's inputs and outputs with its graph in the manifest."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stvsr import Bundle, BundleError, RequestError
from stvsr.engine.backends.tensorrt.tensors import check_engine, check_tensors
from stvsr.engine.contract.axes import axis_range
from stvsr.engine.contract.manifest import TensorSpec


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "feature"},
        {"dtype": "float16"},
        {"axes": ("?", 2, 3, "?")},
        {"axes": ("?", 2, 4, "?", "?")},
        {"axes": (1, 2, 3, "?", "?")},
        {"axes": ("?", 2, "?", "?", "?")},
        None,
    ],
    ids=str,
)
def test_tensors_that_differ_from_the_manifest_are_refused(toy: Bundle, changes: dict[str, Any] | None) -> None:
    graph = toy.graph("encoder")
    features = TensorSpec(name="features", dtype="float32", axes=("?", 2, 3, "?", "?"))
    check_tensors([(True, graph.inputs[0]), (False, features)], graph, "The engine")
    outputs = [] if changes is None else [(False, features.model_copy(update=changes))]
    with pytest.raises(BundleError, match=r"The engine has the output .* manifest has .*: export"):
        check_tensors([(True, graph.inputs[0]), *outputs], graph, "The engine")


def test_tensors_are_read_from_an_engine(toy: Bundle) -> None:
    """By an object in place of the engine, which cannot be opened without a GPU."""
    graph = toy.graph("encoder")
    tensors = {"frames": "in", "features": "out"}
    module = SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="in"), nptype=lambda dtype: dtype)
    engine = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=list(tensors).__getitem__,
        get_tensor_mode=tensors.get,
        get_tensor_dtype=lambda name: np.float32,
        get_tensor_shape=lambda name: (-1, 2, 3, -1, -1),
    )
    check_engine(engine, module, graph, "a.engine")  # type: ignore[arg-type]
    tensors["features"] = "in"
    with pytest.raises(BundleError, match=r"a\.engine has the output no 'features'|has the input 'features'"):
        check_engine(engine, module, graph, "a.engine")  # type: ignore[arg-type]


def test_sizes_of_axes_with_factors() -> None:
    shapes = {"height": (16, 64, 128)}
    assert axis_range("height", shapes) == (16, 64, 128)
    assert axis_range("4*height", shapes) == (64, 256, 512)
    assert axis_range("height/8", shapes) == (2, 8, 16)
    assert axis_range("factor*height", shapes | {"factor": (1, 2, 3)}) == (16, 128, 384)
    assert axis_range(3, shapes) == (3, 3, 3)
    with pytest.raises(RequestError, match="multiple of 32"):
        axis_range("height/32", shapes)
    with pytest.raises(RequestError, match="'width' has no sizes"):
        axis_range("width", shapes)
