"""Graphs with plugins compute what the graphs without them compute, in half precision too."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from stvsr import BackendError, Bundle
from stvsr.engine.backends.tensorrt.half import to_fp16
from stvsr.engine.backends.tensorrt.plugins.graph import to_plugins
from stvsr.engine.backends.tensorrt.plugins.kernels import PLUGINS
from stvsr.engine.contract.bundle import find_bundle
from stvsr.export.exporter import export_bundle
from stvsr.kernels import reference
from stvsr.kernels.deform_conv import DeformConv
from stvsr.training.networks.registry import NetworkEntry
from stvsr.training.networks.videoinr import VideoINR

from tests.support.compare import assert_close_to_range
from tests.support.deform_conv_cases import DEFORM_CONV_CASES, DeformConvCase
from tests.support.onnx_models import make_model, relative_error, run_model
from tests.support.plugin_kernels import FIXED_TYPES, run_kernel
from tests.support.videoinr import DECODER_CASES, DecoderCase

PAIRS = ("kernel", "stride", "padding", "dilation")


class DeformConvNode(OpRun):
    """The plugin of the deformable convolution, computed by the oracle; it takes the types that the kernel takes."""

    op_domain = "stvsr"

    def _run(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        offset: np.ndarray,
        mask: np.ndarray,
        bias: np.ndarray,
        **attributes: Any,
    ) -> tuple[np.ndarray]:
        assert attributes.pop("plugin_namespace") == "stvsr"
        assert attributes.pop("plugin_version") == "1"
        assert set(attributes) == set(PLUGINS["deform_conv2d"].attributes)
        plain: dict[str, Any] = {key: tuple(v) if key in PAIRS else v for key, v in attributes.items()}
        conv = DeformConv(**plain)
        assert weight.dtype == bias.dtype == x.dtype
        assert offset.dtype == mask.dtype == np.float32
        shape = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel)
        indices = conv.pack(np.arange(1, np.prod(shape) + 1, dtype=np.float64).reshape(shape)).astype(int)
        assert weight.shape == indices.shape
        assert not weight[indices == 0].any()
        unpacked = np.empty(np.prod(shape), weight.dtype)
        unpacked[indices[indices > 0] - 1] = weight[indices > 0]
        geometry = (conv.stride, conv.padding, conv.dilation, conv.groups, conv.offset_groups)
        batch, _, height, width, _ = x.shape
        runs = x.transpose(0, 1, 4, 2, 3).reshape(batch, conv.in_channels // conv.run_channels, -1, height, width)
        assert not runs[:, :, conv.run_channels :].any()
        x = runs[:, :, : conv.run_channels].reshape(batch, conv.in_channels, height, width)
        output = reference.deform_conv(x, offset, mask, unpacked.reshape(shape), bias, *geometry)
        return (output.astype(x.dtype),)


DeformConvNode.__name__ = "deform_conv2d"


def kernel_node(name: str) -> type[OpRun]:
    """Return the operator of a plugin, computed by its kernel on the CPU."""

    def _run(self: OpRun, *inputs: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
        plugin, dtype = PLUGINS[name], inputs[0].dtype
        assert [array.dtype for array in inputs] == [FIXED_TYPES.get(kind, dtype) for kind in plugin.inputs.values()]
        own = {key: attributes[key] for key in plugin.attributes}
        shapes = [array.shape for array in inputs]
        output = np.empty(tuple(plugin.shape(shapes, own)), FIXED_TYPES.get(plugin.output[1], dtype))
        with tempfile.TemporaryDirectory() as folder:
            arrays = [np.ascontiguousarray(array) for array in inputs]
            return (run_kernel(plugin.kernel(shapes, own, dtype), Path(folder), arrays, output),)

    return type(name, (OpRun,), {"op_domain": "stvsr", "_run": _run})


NODES: list[type[OpRun]] = [DeformConvNode, *(kernel_node(name) for name in PLUGINS if name.startswith("target_"))]


def evaluate(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    outputs = ReferenceEvaluator(model, new_ops=NODES).run(None, inputs)
    assert isinstance(outputs, list)
    return outputs


def assert_keeps_initializers(changed: onnx.ModelProto, model: onnx.ModelProto) -> None:
    initializers = {initializer.name: initializer for initializer in changed.graph.initializer}
    assert all(initializers[initializer.name] == initializer for initializer in model.graph.initializer)


@pytest.mark.parametrize("case", DEFORM_CONV_CASES, ids=str)
def test_a_graph_with_plugins_computes_the_same(case: DeformConvCase) -> None:
    model, inputs = case.model()
    changed = to_plugins(model)
    nodes = {node.op_type: node for node in changed.graph.node}
    assert "DeformConv" not in nodes
    assert nodes["deform_conv2d"].domain == "stvsr"
    assert (changed.graph.input, changed.graph.output) == (model.graph.input, model.graph.output)
    assert_keeps_initializers(changed, model)
    [expected], [actual] = run_model(model, inputs), evaluate(changed, inputs)
    assert relative_error(actual, expected) < 1e-5


@pytest.mark.parametrize("case", DEFORM_CONV_CASES, ids=str)
def test_offsets_and_masks_of_plugins_are_exact_in_half_precision(case: DeformConvCase) -> None:
    model, inputs = case.model()
    half = to_fp16(to_plugins(model), {"offset"})
    types = {initializer.name: initializer.data_type for initializer in half.graph.initializer}
    assert all(types[name] == onnx.TensorProto.FLOAT16 for name in ("weight", "bias") if name in types)
    node = next(node for node in half.graph.node if node.op_type == "deform_conv2d")
    assert node.input[2] == "offset"
    assert not case.mask or node.input[3] == "mask"
    assert relative_error(evaluate(half, inputs)[0], run_model(model, inputs)[0]) < 2e-3


def test_only_nodes_that_compute_offsets_stay_float32_in_half_precision() -> None:
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
    half = to_fp16(to_plugins(model))
    types = {initializer.name: initializer.data_type for initializer in half.graph.initializer}
    assert types["motion"] == onnx.TensorProto.FLOAT
    assert [types[name] for name in ("first", "weight", "last")] == [onnx.TensorProto.FLOAT16] * 3
    assert relative_error(evaluate(half, inputs)[0], run_model(model, inputs)[0]) < 5e-3


def test_computed_weights_are_refused() -> None:
    model, _ = DeformConvCase((8, 8)).model()
    model.graph.node.insert(0, helper.make_node("Neg", ["weight"], ["negative"]))
    model.graph.node[1].input[1] = "negative"
    with pytest.raises(BackendError, match="'y' are computed by the graph, and engines need them stored"):
        to_plugins(model)


def test_a_replaced_weight_takes_effect() -> None:
    """A refit replaces a weight under its name, in its shape."""
    model, inputs = DeformConvCase((6, 7)).model()
    changed = to_plugins(model)
    for graph in (model.graph, changed.graph):
        weight = next(initializer for initializer in graph.initializer if initializer.name == "weight")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[::-1].copy(), "weight"))
    assert relative_error(evaluate(changed, inputs)[0], run_model(model, inputs)[0]) < 1e-5


def decoder_inputs(case: DecoderCase) -> dict[str, np.ndarray]:
    return {"features": case.features, "time": case.time, "y": case.y, "x": case.x}


def decoder_config(case: DecoderCase) -> dict[str, Any]:
    return {"nf": 8, "groups": 2, "official_sampling": case.official, "frame_upsample": case.factor}


def decoder_graph(case: DecoderCase) -> onnx.ModelProto:
    """Return a graph with the decoder's inputs, output and weights; its computation is replaced as a whole."""
    nodes = [helper.make_node("Identity", ["features"], ["frame"])]
    return make_model(nodes, decoder_inputs(case), {"frame": 4}, case.state)


@pytest.mark.parametrize("name", ["official", "corrected", "frames not enlarged", "part of the target"])
def test_the_decoder_as_plugins_computes_the_same(name: str) -> None:
    case = DecoderCase(**DECODER_CASES[name])
    model = decoder_graph(case)
    changed = to_plugins(model, decoder_config(case))
    plugins = {node.op_type for node in changed.graph.node if node.domain}
    assert plugins == {plugin for plugin in PLUGINS if "target" in plugin}
    assert (changed.graph.input, changed.graph.output) == (model.graph.input, model.graph.output)
    assert_keeps_initializers(changed, model)
    (actual,) = evaluate(changed, decoder_inputs(case))
    assert_close_to_range(actual, case.by_oracle(np.float64), mean=3e-6, max=1e-4)


@pytest.mark.slow
def test_the_decoder_as_plugins_in_half_precision() -> None:
    case = DecoderCase()
    half = to_fp16(to_plugins(decoder_graph(case), decoder_config(case)))
    (actual,) = evaluate(half, decoder_inputs(case))
    expected = case.by_oracle(np.float64)
    plain = np.abs(case.by_oracle(np.float16, rounded=np.float16) - expected)
    error = np.abs(actual - expected)
    assert plain.max() > 1e-4
    assert error.mean() <= 2 * plain.mean(), f"mean error {error.mean():.2e}, of plain half {plain.mean():.2e}"
    assert error.max() <= 2 * plain.max(), f"max error {error.max():.2e}, of plain half {plain.max():.2e}"


def test_the_decoder_is_not_replaced_without_its_config() -> None:
    model = decoder_graph(DecoderCase())
    assert to_plugins(model) == model


def test_the_decoders_config_does_not_change_other_graphs() -> None:
    model, _ = DEFORM_CONV_CASES[0].model()
    assert to_plugins(model, {"official_sampling": True, "frame_upsample": 4}) == to_plugins(model)


@pytest.mark.slow
def test_an_exported_decoder_as_plugins_computes_the_same(tmp_path: Path) -> None:
    case = DecoderCase()
    entry = NetworkEntry("tiny", VideoINR, case.network.config, "")
    bundle = Bundle.load(export_bundle(entry, case.network, tmp_path / "bundle"))
    model = onnx.load(bundle.path("decoder"))
    changed = to_plugins(model, bundle.manifest.architecture.config)
    [expected], [actual] = run_model(model, decoder_inputs(case)), evaluate(changed, decoder_inputs(case))
    assert_close_to_range(actual, expected, mean=3e-6, max=1e-4)


def run_around_the_plugin(
    model: onnx.ModelProto, inputs: dict[str, np.ndarray], folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Run a refiner with the plugin: the kernel on the CPU, and what is before and after it in ONNX Runtime."""
    model = onnx.shape_inference.infer_shapes(model)
    (node,) = (node for node in model.graph.node if node.op_type == "fusion_inputs")
    if node.output[0] not in {value.name for value in model.graph.value_info}:  # half precision leaves them out
        fused = helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT16, [None] * 4)
        model.graph.value_info.append(fused)
    computed = [name for name in node.input if name not in inputs]
    before = onnx.utils.Extractor(model).extract_model(list(inputs), computed)
    values = {**inputs, **dict(zip(computed, run_model(before, inputs), strict=True))}
    arrays = [np.ascontiguousarray(values[name]) for name in node.input]
    plugin, dtype = PLUGINS["fusion_inputs"], arrays[0].dtype
    assert [array.dtype for array in arrays[1:]] == [np.float32, np.float32]
    attributes = {name: helper.get_node_attr_value(node, name) for name in plugin.attributes}
    shapes = [array.shape for array in arrays]
    output = np.empty(tuple(plugin.shape(shapes, attributes)), dtype)
    output = run_kernel(plugin.kernel(shapes, attributes, dtype), folder, arrays, output)
    after = onnx.utils.Extractor(model).extract_model(list(node.output), ["coefficients", "base"])
    coefficients, base = run_model(after, {node.output[0]: output})
    return coefficients, base


@pytest.mark.parametrize("half", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_refiner_of_fourier_s_with_the_plugin_computes_the_same(half: bool, tmp_path: Path) -> None:
    """Twelve warps become ten and the plugin; motion and time stay float32 in half precision."""
    bundle = find_bundle("fourier-s")
    model = onnx.load(bundle.path("refiner"))
    changed = to_plugins(model, bundle.manifest.architecture.config)
    kinds = [node.op_type for node in changed.graph.node]
    assert (kinds.count("GridSample"), kinds.count("fusion_inputs"), kinds.count("Sigmoid")) == (10, 1, 0)
    assert (changed.graph.input, changed.graph.output) == (model.graph.input, model.graph.output)
    assert_keeps_initializers(changed, model)
    rng = np.random.default_rng(0)
    frames = np.repeat(np.repeat(rng.random((2, 2, 3, 16, 24), np.float32), 4, 3), 4, 4)
    features = run_model(onnx.load(bundle.path("encoder")), {"frames": frames})
    inputs = {**dict(zip(("features", "half", "quarter"), features, strict=True)), "time": np.array([0.3, 0.5], "f4")}
    expected = run_model(model, inputs)
    actual = run_around_the_plugin(to_fp16(changed) if half else changed, inputs, tmp_path)
    for name, a, b in zip(("coefficients", "base"), actual, expected, strict=True):
        assert relative_error(a, b) < (2e-2 if half else 1e-5), name


def test_a_refiner_of_other_operators_keeps_them() -> None:
    model = onnx.load(find_bundle("fourier-s").path("refiner"))
    for node in model.graph.node:
        if node.op_type == "Sigmoid":
            node.op_type = "Tanh"
    assert to_plugins(model) == model
