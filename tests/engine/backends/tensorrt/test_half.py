"""Half precision: features are float16, coordinates stay float32, and results stay close to those of float32."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from stvsr import BackendError
from stvsr.engine.backends.tensorrt.half import to_fp16
from stvsr.engine.backends.tensorrt.lowering import lower_deform_conv
from stvsr.engine.contract.bundle import find_bundle

from tests.support.deform_conv_cases import DEFORM_CONV_CASES, DeformConvCase
from tests.support.onnx_models import Arrays, make_model, relative_error, run_model

_SPLIT_FACTOR = 2**13 + 1  # float32 has 24 bits, float16 has 11


def run_in_fp16(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    """Run a model in half precision as an engine does: products accumulate in float32, every result is rounded.

    On a CPU, ONNX Runtime computes most operators in float32 and omits the roundings between them. So the model is made
    float32 throughout, and every float16 value is rounded by arithmetic.
    """
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model)
    rounded = {v.name for v in inferred.graph.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph = wide.graph
    for initializer in graph.initializer:
        if initializer.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(initializer).astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    numbers = {"split": _SPLIT_FACTOR, "lowest": -65504, "highest": 65504}  # the range of float16
    for name, number in numbers.items():
        graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), f"fp16_{name}"))
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT16:
            node.attribute[0].i = TensorProto.FLOAT
        outputs = list(node.output)
        node.output[:] = [f"{name}_exact" if name in rounded else name for name in outputs]
        graph.node.append(node)
        for name in outputs:
            if name in rounded:
                # s x - (s x - x), with the split factor s, rounds x to its upper 11 bits.
                exact, scaled, rest, upper = (f"{name}_{part}" for part in ("exact", "scaled", "rest", "upper"))
                graph.node.extend(
                    [
                        helper.make_node("Mul", [exact, "fp16_split"], [scaled]),
                        helper.make_node("Sub", [scaled, exact], [rest]),
                        helper.make_node("Sub", [scaled, rest], [upper]),
                        helper.make_node("Clip", [upper, "fp16_lowest", "fp16_highest"], [name]),
                    ]
                )
    return run_model(wide, inputs)


def float32_values(model: onnx.ModelProto) -> set[str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return floats | {i.name for i in graph.initializer if i.data_type == TensorProto.FLOAT}


@pytest.mark.parametrize("case", DEFORM_CONV_CASES, ids=str)
def test_offsets_are_exact(case: DeformConvCase) -> None:
    """Only features, weights and mask are rounded, once each: errors are a few parts in 1000, even for far offsets."""
    model, inputs = case.model()
    half = to_fp16(lower_deform_conv(model), {"offset"})
    float32 = [i.name for i in half.graph.initializer if i.data_type == TensorProto.FLOAT]
    assert not {"weight", "bias"}.intersection(float32)
    assert relative_error(run_in_fp16(half, inputs)[0], run_model(model, inputs)[0]) < 2e-3


def warp_nodes() -> list[Any]:
    """Return nodes that warp features along rows, by a flow that a convolution computes from another input."""
    return [
        helper.make_node("Conv", ["motion", "flow_weight"], ["flow"]),  # (1, 1, H, W)
        helper.make_node("Squeeze", ["flow", "one"], ["dx"]),
        helper.make_node("Shape", ["dx"], ["width"], start=2),
        helper.make_node("Squeeze", ["width"], ["count"]),
        helper.make_node("Range", ["from", "count", "step"], ["columns"]),
        helper.make_node("Cast", ["columns"], ["column"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["width"], ["length"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["dx", "column"], ["position"]),
        helper.make_node("Mul", ["position", "two"], ["twice"]),
        helper.make_node("Add", ["twice", "unit"], ["edge"]),
        helper.make_node("Div", ["edge", "length"], ["normal"]),
        helper.make_node("Sub", ["normal", "unit"], ["gx"]),
        helper.make_node("Mul", ["gx", "zero"], ["gy"]),
        helper.make_node("Unsqueeze", ["gx", "last"], ["gx1"]),
        helper.make_node("Unsqueeze", ["gy", "last"], ["gy1"]),
        helper.make_node("Concat", ["gx1", "gy1"], ["grid"], axis=-1),
        helper.make_node("Conv", ["image", "weight"], ["features"]),
        helper.make_node("GridSample", ["features", "grid"], ["warped"], mode="linear", align_corners=0),
        helper.make_node("Conv", ["warped", "weight"], ["y"]),
    ]


def warp_model(width: int) -> tuple[onnx.ModelProto, Arrays]:
    rng = np.random.default_rng(0)
    inputs = {
        "image": rng.random((1, 3, 1, width), dtype=np.float32),
        "motion": rng.uniform(-9, 9, (1, 1, 1, width)).astype(np.float32),
    }
    constants = {
        "weight": np.eye(3, dtype=np.float32)[:, :, None, None],
        "flow_weight": np.ones((1, 1, 1, 1), np.float32),
        "one": np.array([1]),
        "last": np.array([-1]),
        "from": np.array(0),
        "step": np.array(1),
        "two": np.float32(2),
        "unit": np.float32(1),
        "zero": np.float32(0),
    }
    return make_model(warp_nodes(), inputs, {"y": 4}, constants), inputs


def test_sampling_positions_are_precise_far_from_the_origin() -> None:
    width = 2000
    model, inputs = warp_model(width)
    [expected], [actual] = run_model(model, inputs), run_in_fp16(to_fp16(model), inputs)
    assert relative_error(actual, expected) < 1e-3
    # Positions in float16 would be off by up to half a pixel, which the bound detects.
    position = np.arange(width, dtype=np.float32) + inputs["motion"][0, 0, 0]
    rounded = position.astype(np.float16).astype(np.float32)
    inputs["motion"][0, 0, 0] += rounded - position
    assert relative_error(run_model(model, inputs)[0], expected) > 0.2


def test_only_products_that_compute_positions_stay_float32() -> None:
    half = to_fp16(warp_model(8)[0])
    floats = float32_values(half)
    coordinates = {"flow", "dx", "position", "normal", "gx", "gy", "grid", "warped", "motion", "flow_weight"}
    assert coordinates | {"image", "y"} <= floats
    assert not {"features", "weight"} & floats
    sampling = next(node for node in half.graph.node if node.op_type == "GridSample")
    assert set(sampling.input) <= floats
    assert [value.name for value in half.graph.input] == ["image", "motion"]


def test_coordinate_inputs_are_exact_until_they_mix_with_features() -> None:
    """Picks rows by positions that float16 cannot represent, and weights them by time."""
    nodes = [
        helper.make_node("Add", ["y", "half"], ["moved"]),
        helper.make_node("Floor", ["moved"], ["row"]),
        helper.make_node("Sub", ["moved", "row"], ["fraction"]),
        helper.make_node("Cast", ["row"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["rows"], axis=0),
        helper.make_node("Mul", ["rows", "fraction"], ["weighted"]),
        helper.make_node("Mul", ["time", "time"], ["square"]),
        helper.make_node("Add", ["weighted", "square"], ["result"]),
    ]
    rows = 3001
    inputs = {
        "table": np.random.default_rng(1).random(rows, dtype=np.float32),
        "y": np.arange(0, rows - 1, 7, dtype=np.float32) + np.float32(0.125),
        "time": np.array([0.3], np.float32),
    }
    model = make_model(nodes, inputs, {"result": 1, "square": 1}, {"half": np.float32(0.5)})
    expected, actual = run_model(model, inputs), run_in_fp16(to_fp16(model), inputs)
    assert relative_error(actual[0], expected[0]) < 1e-3
    assert actual[1] == expected[1]  # computed from time alone
    floats = float32_values(to_fp16(model))
    assert {"moved", "row", "fraction", "square"} <= floats
    assert not {"rows", "weighted"} & floats
    assert run_in_fp16(to_fp16(model, ()), inputs)[1] != expected[1]  # inputs that are not named are features


def test_numbers_that_float16_cannot_represent_stay_float32() -> None:
    nodes = [
        helper.make_node("Mul", ["image", "large"], ["scaled"]),
        helper.make_node("Add", ["scaled", "tiny"], ["above"]),
    ]
    inputs = {"image": np.array([0.0, 1.0, -0.5], np.float32)}
    constants = {"large": np.float32(3e5), "tiny": np.float32(1e-8)}
    model = make_model(nodes, inputs, {"above": 1}, constants)
    actual = run_in_fp16(to_fp16(model), inputs)[0]
    np.testing.assert_allclose(actual, run_model(model, inputs)[0], rtol=1e-6)


def test_outputs_that_are_read_again_and_constants_that_are_read_in_both_types() -> None:
    nodes = [
        helper.make_node("Mul", ["image", "factor"], ["first"]),
        helper.make_node("Relu", ["first"], ["second"]),
        helper.make_node("Mul", ["time", "factor"], ["third"]),
        helper.make_node("Cast", ["second"], ["fourth"], to=TensorProto.FLOAT),
    ]
    inputs = {"image": np.array([-1.0, 2.5], np.float32), "time": np.array([0.3], np.float32)}
    outputs = {"first": 1, "second": 1, "third": 1, "fourth": 1}
    model = make_model(nodes, inputs, outputs, {"factor": np.float32(1.7)})
    half = to_fp16(model)
    assert [value.name for value in half.graph.output] == list(outputs)
    for actual, expected in zip(run_in_fp16(half, inputs), run_model(model, inputs), strict=True):
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected, rtol=2e-3)
    assert run_in_fp16(half, inputs)[2] == np.float32(0.3) * np.float32(1.7)


def test_branches_are_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
    inputs = {"x": np.ones(3, np.float32)}
    with pytest.raises(BackendError, match="compile it at fp32"):
        to_fp16(make_model(nodes, inputs, {"y": 1}, {"yes": np.array(True)}))


def test_the_shipped_network_is_close_to_float32() -> None:
    """To a third of a step of 8 bits, which a viewer cannot see."""
    bundle = find_bundle("videoinr-s")
    encoder, decoder = (onnx.load(bundle.path(role)) for role in ("encoder", "decoder"))
    coarse = np.random.default_rng(3).random((1, 2, 3, 4, 6), dtype=np.float32)
    frames = coarse.repeat(8, axis=3).repeat(8, axis=4)
    target: Arrays = {
        "time": np.array([1 / 3], np.float32),
        "y": (np.arange(96, dtype=np.float32) + 0.5) / 3 - 0.5,
        "x": (np.arange(131, dtype=np.float32) + 0.5) * 48 / 131 - 0.5,
    }
    results = []
    runs: tuple[tuple[Any, Any], ...] = (
        (run_model, lower_deform_conv),
        (run_in_fp16, lambda model: to_fp16(lower_deform_conv(model))),
    )
    for run, convert in runs:
        features = run(convert(encoder), {"frames": frames})
        named = dict(zip((value.name for value in encoder.graph.output), features, strict=True))
        results.append(run(convert(decoder), {**named, **target})[0])
    assert np.abs(results[1] - results[0]).max() < 4e-3
    assert np.sqrt(np.square(results[1] - results[0]).mean()) < 1 / 3 / 255
