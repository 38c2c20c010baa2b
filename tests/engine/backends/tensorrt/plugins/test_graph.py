"""What a graph becomes with plugins in the places of its nodes: it computes the same, in half precision too."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from stvsr.engine.backends.tensorrt.lowering import to_half
from stvsr.engine.backends.tensorrt.plugins.graph import to_plugins
from stvsr.engine.backends.tensorrt.plugins.kernels import PLUGINS
from stvsr.engine.contract.bundle import Bundle
from stvsr.engine.contract.errors import BackendError
from stvsr.export.exporter import export_bundle
from stvsr.kernels import reference
from stvsr.kernels.deform_conv import DeformConv
from stvsr.training.networks.registry import NetworkEntry
from stvsr.training.networks.videoinr import VideoINR
from test_lowering import CASES, Case, make_model, relative, run
from test_plugins import NO_TYPE, run_kernel
from test_videoinr_decoder import CASES as DECODER_CASES
from test_videoinr_decoder import Case as DecoderCase

from tests.support.compare import assert_close_to_range

PAIRS = ("kernel", "stride", "padding", "dilation")


class PluginNode(OpRun):
    """The plugin of the deformable convolution, by the oracle; it takes the types that the kernel does."""

    op_domain = "stvsr"

    def _run(self, x, weight, offset, mask, bias, **attributes):
        assert attributes.pop("plugin_namespace") == "stvsr"
        assert attributes.pop("plugin_version") == "1"
        assert set(attributes) == set(PLUGINS["deform_conv2d"].attributes)
        conv = DeformConv(**{key: tuple(v) if key in PAIRS else v for key, v in attributes.items()})
        assert weight.dtype == bias.dtype == x.dtype
        assert offset.dtype == mask.dtype == np.float32
        shape = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel)
        places = conv.pack(np.arange(1, np.prod(shape) + 1, dtype=np.float64).reshape(shape)).astype(int)
        assert weight.shape == places.shape
        assert not weight[places == 0].any()
        plain = np.empty(np.prod(shape), weight.dtype)
        plain[places[places > 0] - 1] = weight[places > 0]
        where = (conv.stride, conv.padding, conv.dilation, conv.groups, conv.offset_groups)
        made = reference.deform_conv(x, offset, mask, plain.reshape(shape), bias, *where)
        return (made.astype(x.dtype),)


PluginNode.__name__ = "deform_conv2d"


def kernel_node(name: str) -> type[OpRun]:
    """A plugin by its kernel on the CPU."""

    def _run(self, *inputs: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
        plugin, dtype = PLUGINS[name], inputs[0].dtype
        assert [array.dtype for array in inputs] == [NO_TYPE.get(kind, dtype) for kind in plugin.inputs.values()]
        given = {key: attributes[key] for key in plugin.attributes}
        shapes = [array.shape for array in inputs]
        output = np.empty(tuple(plugin.shape(shapes, given)), NO_TYPE.get(plugin.output[1], dtype))
        with tempfile.TemporaryDirectory() as folder:
            arrays = [np.ascontiguousarray(array) for array in inputs]
            return (run_kernel(plugin.kernel(shapes, given, dtype), Path(folder), arrays, output),)

    return type(name, (OpRun,), {"op_domain": "stvsr", "_run": _run})


NODES = [PluginNode, *(kernel_node(name) for name in PLUGINS if name.startswith("target_"))]


def evaluate(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    return ReferenceEvaluator(model, new_ops=NODES).run(None, inputs)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_graph_with_plugins_computes_the_same(case: Case) -> None:
    model, inputs = case.model()
    changed = to_plugins(model)
    nodes = {node.op_type: node for node in changed.graph.node}
    assert "DeformConv" not in nodes
    assert nodes["deform_conv2d"].domain == "stvsr"
    assert (changed.graph.input, changed.graph.output) == (model.graph.input, model.graph.output)
    held = {initializer.name: initializer for initializer in changed.graph.initializer}
    assert all(held[initializer.name] == initializer for initializer in model.graph.initializer)
    [expected], [found] = run(model, inputs), evaluate(changed, inputs)
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_half_precision_the_plugins_offsets_and_masks_are_exact(case: Case) -> None:
    model, inputs = case.model()
    half = to_half(to_plugins(model), {"offset"})
    held = {initializer.name: initializer for initializer in half.graph.initializer}
    assert all(held[name].data_type == onnx.TensorProto.FLOAT16 for name in ("weight", "bias") if name in held)
    node = next(node for node in half.graph.node if node.op_type == "deform_conv2d")
    assert node.input[2] == "offset"
    assert not case.mask or node.input[3] == "mask"
    assert relative(evaluate(half, inputs)[0], run(model, inputs)[0]) < 2e-3


def test_in_half_precision_what_makes_offsets_stays_in_float32_and_what_follows_does_not() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["features"]),
        helper.make_node("Conv", ["features", "motion"], ["raw"]),
        helper.make_node("Split", ["raw"], ["offset", "logits"], axis=1, num_outputs=2),
        helper.make_node("Slice", ["logits", "zero", "one", "axis"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["mask"]),
        helper.make_node("DeformConv", ["features", "weight", "offset", "", "mask"], ["aligned"]),
        helper.make_node("Relu", ["aligned"], ["positive"]),
        helper.make_node("Conv", ["positive", "last"], ["y"]),
    ]
    weights = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in (("first", (4, 3)), ("motion", (4, 4)), ("weight", (5, 4)), ("last", (2, 5)))
    }
    constants = {
        **{name: value[..., None, None] for name, value in weights.items()},
        "zero": np.array([0]),
        "one": np.array([1]),
        "axis": np.array([1]),
    }
    inputs = {"image": rng.standard_normal((1, 3, 6, 9)).astype(np.float32)}
    model = make_model(nodes, inputs, {"y": 4}, constants)
    half = to_half(to_plugins(model))
    types = {initializer.name: initializer.data_type for initializer in half.graph.initializer}
    short = onnx.TensorProto.FLOAT16
    assert types["motion"] == onnx.TensorProto.FLOAT
    assert [types[name] for name in ("first", "weight", "last")] == [short] * 3
    assert relative(evaluate(half, inputs)[0], run(model, inputs)[0]) < 5e-3


def test_weights_that_are_computed_are_refused() -> None:
    model, _ = Case((8, 8)).model()
    model.graph.node.insert(0, helper.make_node("Neg", ["weight"], ["negative"]))
    model.graph.node[1].input[1] = "negative"
    with pytest.raises(BackendError, match="'y' are not stored"):
        to_plugins(model)


def test_a_weight_that_is_replaced_counts() -> None:
    """As a refit does: under its name, in its shape."""
    model, inputs = Case((6, 7)).model()
    changed = to_plugins(model)
    for graph in (model.graph, changed.graph):
        held = next(initializer for initializer in graph.initializer if initializer.name == "weight")
        held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held)[::-1].copy(), "weight"))
    assert relative(evaluate(changed, inputs)[0], run(model, inputs)[0]) < 1e-5


def decoder_inputs(made: DecoderCase) -> dict[str, np.ndarray]:
    return {"features": made.features, "time": made.time, "y": made.y, "x": made.x}


def config_of(made: DecoderCase) -> dict[str, Any]:
    return {"nf": 8, "groups": 2, "official_sampling": made.official, "frame_upsample": made.factor}


def decoder_graph(made: DecoderCase) -> onnx.ModelProto:
    """A graph with the decoder's inputs, output and weights; what it computes is replaced as a whole."""
    nodes = [helper.make_node("Identity", ["features"], ["frame"])]
    return make_model(nodes, decoder_inputs(made), {"frame": 4}, made.state)


@pytest.mark.parametrize("case", ["official", "corrected", "frames as they are", "a part"])
def test_the_decoder_as_plugins_computes_the_same(case: str) -> None:
    made = DecoderCase(**DECODER_CASES[case])
    model = decoder_graph(made)
    changed = to_plugins(model, config_of(made))
    assert {node.op_type for node in changed.graph.node if node.domain} == {
        name for name in PLUGINS if "target" in name
    }
    assert (changed.graph.input, changed.graph.output) == (model.graph.input, model.graph.output)
    held = {initializer.name: initializer for initializer in changed.graph.initializer}
    assert all(held[initializer.name] == initializer for initializer in model.graph.initializer)
    (found,) = evaluate(changed, decoder_inputs(made))
    assert_close_to_range(found, made.expected(np.float64), mean=3e-6, max=1e-4)


def test_the_decoder_as_plugins_in_half_precision() -> None:
    made = DecoderCase()
    half = to_half(to_plugins(decoder_graph(made), config_of(made)))
    (found,) = evaluate(half, decoder_inputs(made))
    truth = made.expected(np.float64)
    plain = np.abs(made.expected(np.float16, rounded=np.float16) - truth)
    error = np.abs(found - truth)
    assert plain.max() > 1e-4
    assert error.mean() <= 2 * plain.mean(), f"mean error {error.mean():.2e}, of plain half {plain.mean():.2e}"
    assert error.max() <= 2 * plain.max(), f"max error {error.max():.2e}, of plain half {plain.max():.2e}"


def test_without_its_config_a_decoder_stays_as_it_is() -> None:
    model = decoder_graph(DecoderCase())
    assert to_plugins(model) == model
    case, _ = CASES[0].model()
    assert to_plugins(case, {"official_sampling": True, "frame_upsample": 4}) == to_plugins(case)


@pytest.mark.slow
def test_an_exported_decoder_as_plugins_computes_the_same(tmp_path: Path) -> None:
    made = DecoderCase()
    entry = NetworkEntry("tiny", VideoINR, made.network.config, "")
    bundle = Bundle.load(export_bundle(entry, made.network, tmp_path / "bundle"))
    model = onnx.load(bundle.path("decoder"))
    changed = to_plugins(model, bundle.manifest.architecture.config)
    [expected], [found] = run(model, decoder_inputs(made)), evaluate(changed, decoder_inputs(made))
    assert_close_to_range(found, expected, mean=3e-6, max=1e-4)
