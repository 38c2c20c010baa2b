"""The loss of lower precisions: what a bundle records, and how TF32 is imitated."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from stvsr.engine.backends.onnxruntime import OrtSession
from stvsr.engine.contract.bundle import Bundle, shipped_bundles
from stvsr.engine.contract.weights import read_weights, replace_weights
from stvsr.export.bundle_network import load_network
from stvsr.export.exporter import measure_losses
from stvsr.export.parity import Example
from stvsr.export.precision import measure_precisions, with_fp16, with_tf32

from tests.support.exports import exported


def product(weight: np.ndarray) -> onnx.ModelProto:
    """Return a graph that multiplies rows of its input by a weight (3, 2)."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "product",
        [value("x", TensorProto.FLOAT, ["rows", 3])],
        [value("y", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_factors_are_rounded_to_eleven_bits_and_sums_are_not() -> None:
    random = np.random.default_rng(0)
    x, weight = (random.normal(size=shape).astype(np.float32) for shape in ((9, 3), (3, 2)))
    with OrtSession(with_tf32(product(weight)).SerializeToString()) as session:
        actual = session.run({"x": x})["y"]
    rounded = x.astype(np.float16).astype(np.float32) @ weight.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(actual, rounded, rtol=1e-6, atol=1e-6)
    assert np.abs(actual - x @ weight).max() > 1e-5


def test_every_value_of_half_precision_is_rounded() -> None:
    """On a CPU, ONNX Runtime rounds the last value of a float16 graph alone: 1000 x + 0.3 - 1000 x is 0.3 there."""
    value, constant = helper.make_tensor_value_info, numpy_helper.from_array
    nodes = [("Mul", ["values", "thousand"], "a"), ("Add", ["a", "third"], "b"), ("Sub", ["b", "a"], "y")]
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, [output]) for operator, inputs, output in nodes],
        "sums",
        [value("values", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.FLOAT, ["n"])],
        [constant(np.array(1000, np.float32), "thousand"), constant(np.array(0.3, np.float32), "third")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = np.array([0.1, 1.3, 2.7, 5.1], np.float32)
    with OrtSession(with_fp16(model).SerializeToString()) as session:
        actual = session.run({"values": x})["y"]
    product = x.astype(np.float16) * np.float16(1000)
    np.testing.assert_array_equal(actual, (product + np.float16(0.3)) - product)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(shipped_bundles()))
def test_shipped_bundles_record_the_loss_that_is_measured(name: str) -> None:
    bundle = Bundle.load(shipped_bundles()[name])
    graphs = {graph.role: bundle.path(graph.role) for graph in bundle.manifest.graphs}
    measured = measure_losses(load_network(bundle).eval(), graphs)
    for precision, recorded in bundle.manifest.precisions.items():
        assert measured[precision].p999 == pytest.approx(recorded.p999, rel=0.3)
    assert measured.keys() == bundle.manifest.precisions.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["videoinr-s", "edvr-s", "zsm-s"])
def test_a_bundle_records_the_loss_of_each_precision(name: str) -> None:
    losses = exported(name)[1].manifest.precisions
    assert set(losses) == {"tf32", "fp16"}
    assert all(0 < loss.p999 <= loss.largest < 0.1 for loss in losses.values())


def test_frames_that_are_not_finite_are_no_measurement(tmp_path: Path) -> None:
    """In float16 a large weight is infinite, so that precision is not recorded."""
    bundle = exported("edvr-s")[1]
    large = {"conv_first.weight": read_weights(bundle.path("network").read_bytes())["conv_first.weight"] * 1e8}
    changed = replace_weights(bundle, large, tmp_path / "changed")
    example = Example("network", {"frames": torch.rand(1, 5, 3, 16, 24)})
    assert "fp16" not in measure_precisions({"network": changed.path("network")}, [example])


def test_new_weights_invalidate_the_record(tmp_path: Path) -> None:
    bundle: Bundle = exported("edvr-s")[1]
    weights = {"conv_last.bias": np.zeros(3, np.float32)}
    assert replace_weights(bundle, weights, tmp_path / "new").manifest.precisions == {}
    assert replace_weights(bundle, {}, tmp_path / "same").manifest.precisions == bundle.manifest.precisions
