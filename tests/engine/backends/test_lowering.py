"""The passes between a graph and its engine: the same results, in the operators and precisions that engines take."""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from stvsr.engine.backends.tensorrt.lowering import lower, to_half
from stvsr.engine.contract.bundle import find_bundle
from stvsr.engine.contract.errors import BackendError

Arrays = dict[str, np.ndarray]


def run(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def make_model(
    nodes: list[Any], inputs: Arrays, outputs: dict[str, int], constants: dict[str, Any], opset: int = 20
) -> onnx.ModelProto:
    """A graph of float32 inputs whose axes are all free; `outputs` says how many axes each result has."""
    takes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}{axis}" for axis in range(value.ndim)])
        for name, value in inputs.items()
    ]
    gives = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}{axis}" for axis in range(rank)])
        for name, rank in outputs.items()
    ]
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", takes, gives, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run_half(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    """Run a graph in half precision as an engine does: products add up in float32, every result is rounded.

    ONNX Runtime on a CPU computes most operators in float32 and leaves out the roundings between them.
    """
    typed = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model, full_check=True)
    short = {v.name for v in typed.graph.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph = wide.graph
    for initializer in graph.initializer:
        if initializer.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(initializer).astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    numbers = {"split": 2**13 + 1, "least": -65504, "most": 65504}  # 24 - 11 bits; the range of half precision
    graph.initializer.extend(numpy_helper.from_array(np.float32(n), f"half_{name}") for name, n in numbers.items())
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT16:
            node.attribute[0].i = TensorProto.FLOAT
        outputs = list(node.output)
        node.output[:] = [f"{name}_exact" if name in short else name for name in outputs]
        graph.node.append(node)
        for name in outputs:
            if name in short:
                # What is left of (2^13 + 1) x when (2^13 + 1) x - x is taken away are the upper 11 bits of x.
                exact, scaled, rest, upper = (f"{name}_{part}" for part in ("exact", "scaled", "rest", "upper"))
                graph.node.extend(
                    [
                        helper.make_node("Mul", [exact, "half_split"], [scaled]),
                        helper.make_node("Sub", [scaled, exact], [rest]),
                        helper.make_node("Sub", [scaled, rest], [upper]),
                        helper.make_node("Clip", [upper, "half_least", "half_most"], [name]),
                    ]
                )
    return run(wide, inputs)


def float32_values(model: onnx.ModelProto) -> set[str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return floats | {i.name for i in graph.initializer if i.data_type == TensorProto.FLOAT}


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, of the range."""
    return float(np.abs(found - expected).max() / np.ptp(expected))


@dataclass(frozen=True)
class Case:
    """A `DeformConv`, and what goes in."""

    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    dilations: tuple[int, int] = (1, 1)
    channels: tuple[int, int] = (4, 6)
    offset_groups: int = 1
    groups: int = 1
    mask: bool = True
    bias: bool = True
    far_px: float = 2
    opset: int = 20

    def model(self) -> tuple[onnx.ModelProto, Arrays]:
        rng = np.random.default_rng(abs(hash(self)) % 2**32)
        taps = self.kernel[0] * self.kernel[1]
        out = tuple(
            (n + self.pads[a] + self.pads[a + 2] - self.dilations[a] * (self.kernel[a] - 1) - 1) // self.strides[a] + 1
            for a, n in enumerate(self.size)
        )
        c_in, c_out = self.channels
        inputs = {
            "x": rng.standard_normal((2, c_in, *self.size)),
            "offset": self.far_px * rng.standard_normal((2, 2 * self.offset_groups * taps, *out)),
        }
        constants = {"weight": rng.standard_normal((c_out, c_in // self.groups, *self.kernel)).astype(np.float32)}
        if self.mask:
            inputs["mask"] = rng.random((2, self.offset_groups * taps, *out))
        if self.bias:
            constants["bias"] = rng.standard_normal(c_out).astype(np.float32)
        names = ["x", "weight", "offset", "bias" if self.bias else "", "mask" if self.mask else ""]
        while not names[-1]:
            names.pop()
        node = helper.make_node(
            "DeformConv",
            names,
            ["y"],
            strides=self.strides,
            pads=self.pads,
            dilations=self.dilations,
            offset_group=self.offset_groups,
            group=self.groups,
        )
        inputs = {name: value.astype(np.float32) for name, value in inputs.items()}
        return make_model([node], inputs, {"y": 4}, constants, self.opset), inputs


CASES = [
    Case((9, 14)),
    Case((9, 14), mask=False, bias=False, opset=19),
    Case((17, 8), kernel=(1, 1), pads=(0, 0, 0, 0), bias=False, opset=22),
    Case((11, 1), kernel=(3, 1), strides=(2, 1), pads=(2, 0, 1, 3), dilations=(1, 2), opset=22),
    Case((1, 23), mask=False),
    Case((23, 31), kernel=(2, 5), strides=(1, 3), pads=(0, 2, 2, 0), dilations=(2, 1), opset=19),
    Case((13, 7), offset_groups=4, groups=2, channels=(8, 6)),
    Case((13, 7), offset_groups=2, groups=4, channels=(8, 8), opset=22),
    Case((10, 21), offset_groups=8, channels=(8, 3), bias=False),
    Case((15, 12), groups=6, channels=(6, 6), mask=False),
    Case((19, 26), far_px=1000),
    Case((6, 320), offset_groups=8, channels=(64, 64), far_px=30),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_lowered_deformable_convolution_equals_the_operator(case: Case) -> None:
    model, inputs = case.model()
    lowered = lower(model)
    operators = [node.op_type for node in lowered.graph.node]
    assert "DeformConv" not in operators
    assert operators.count("GridSample") == operators.count("MatMul") == 1
    assert lowered.graph.input == model.graph.input
    assert lowered.graph.output == model.graph.output
    held = {initializer.name: initializer for initializer in lowered.graph.initializer}
    assert all(held[initializer.name] == initializer for initializer in model.graph.initializer)
    [expected], [found] = run(model, inputs), run(lowered, inputs)
    assert found.shape == expected.shape
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_half_precision_offsets_are_exact(case: Case) -> None:
    """What rounds is features, weights and mask, each once: a few parts in 1000, wherever offsets point."""
    model, inputs = case.model()
    half = to_half(lower(model), {"offset"})
    assert not [name for name in half.graph.initializer if name.name in ("weight", "bias") and name.data_type == 1]
    assert relative(run_half(half, inputs)[0], run(model, inputs)[0]) < 2e-3


def test_weights_that_are_computed_are_refused() -> None:
    model, inputs = Case((8, 8)).model()
    model.graph.node.insert(0, helper.make_node("Neg", ["weight"], ["negative"]))
    model.graph.node[1].input[1] = "negative"
    run(model, inputs)
    with pytest.raises(BackendError, match="'y' are not stored"):
        lower(model)


def test_without_onnx_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Case((8, 8)).model()[0]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendError, match=r"stvsr\[tensorrt-rtx\]"):
        lower(model)


def warp_nodes() -> list[Any]:
    """Warp features by flow: rows stay, columns move. The flow is made of another input by a convolution."""
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


def warp_case(width: int) -> tuple[onnx.ModelProto, Arrays]:
    rng = np.random.default_rng(0)
    inputs = {
        "image": rng.random((1, 3, 1, width), dtype=np.float32),
        "motion": rng.uniform(-9, 9, (1, 1, 1, width)).astype(np.float32),
    }
    constants = {
        "weight": np.eye(3, dtype=np.float32)[:, :, None, None],
        "flow_weight": np.float32([[[[1.0]]]]),
        "one": np.array([1]),
        "last": np.array([-1]),
        "from": np.array(0),
        "step": np.array(1),
        "two": np.float32(2),
        "unit": np.float32(1),
        "zero": np.float32(0),
    }
    return make_model(warp_nodes(), inputs, {"y": 4}, constants), inputs


def test_sampling_positions_keep_their_precision_far_from_the_origin() -> None:
    width = 2000
    model, inputs = warp_case(width)
    [expected], [found] = run(model, inputs), run_half(to_half(model), inputs)
    assert relative(found, expected) < 1e-3
    # The bound tells: positions in half precision would be off by half a pixel.
    position = np.arange(width, dtype=np.float32) + inputs["motion"][0, 0, 0]
    rounded = position.astype(np.float16).astype(np.float32)
    inputs["motion"][0, 0, 0] += rounded - position
    assert relative(run(model, inputs)[0], expected) > 0.2


def test_products_that_give_positions_stay_in_float32_and_the_others_do_not() -> None:
    half = to_half(warp_case(8)[0])
    floats = float32_values(half)
    kept = {"flow", "dx", "position", "normal", "gx", "gy", "grid", "warped", "image", "motion", "y", "flow_weight"}
    assert kept <= floats
    assert not {"features", "weight"} & floats
    sampling = next(node for node in half.graph.node if node.op_type == "GridSample")
    assert set(sampling.input) <= floats
    assert [value.name for value in half.graph.input] == ["image", "motion"]


def test_inputs_that_are_coordinates_stay_exact_until_they_meet_features() -> None:
    """Rows are picked by positions that half precision does not hold, and weighed by time."""
    nodes = [
        helper.make_node("Add", ["y", "half"], ["moved"]),
        helper.make_node("Floor", ["moved"], ["row"]),
        helper.make_node("Sub", ["moved", "row"], ["share"]),
        helper.make_node("Cast", ["row"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["rows"], axis=0),
        helper.make_node("Mul", ["rows", "share"], ["weighed"]),
        helper.make_node("Mul", ["time", "time"], ["square"]),
        helper.make_node("Add", ["weighed", "square"], ["result"]),
    ]
    rows = 3001
    inputs = {
        "table": np.random.default_rng(1).random(rows, dtype=np.float32),
        "y": np.arange(0, rows - 1, 7, dtype=np.float32) + np.float32(0.125),
        "time": np.float32([0.3]),
    }
    model = make_model(nodes, inputs, {"result": 1, "square": 1}, {"half": np.float32(0.5)})
    expected, found = run(model, inputs), run_half(to_half(model), inputs)
    assert relative(found[0], expected[0]) < 1e-3
    assert found[1] == expected[1]  # time alone is float32 throughout
    floats = float32_values(to_half(model))
    assert {"moved", "row", "share", "square"} <= floats
    assert not {"rows", "weighed"} & floats
    assert run_half(to_half(model, ()), inputs)[1] != expected[1]  # inputs that are not named are features


def test_a_constant_that_half_precision_does_not_hold_is_not_lost() -> None:
    nodes = [
        helper.make_node("Mul", ["image", "large"], ["scaled"]),
        helper.make_node("Add", ["scaled", "tiny"], ["above"]),
    ]
    inputs = {"image": np.float32([0.0, 1.0, -0.5])}
    constants = {"large": np.float32(3e5), "tiny": np.float32(1e-8)}
    model = make_model(nodes, inputs, {"above": 1}, constants)
    found = run_half(to_half(model), inputs)[0]
    np.testing.assert_allclose(found, run(model, inputs)[0], rtol=1e-6)


def test_results_that_are_read_again_and_constants_of_both_precisions() -> None:
    nodes = [
        helper.make_node("Mul", ["image", "factor"], ["first"]),
        helper.make_node("Relu", ["first"], ["second"]),
        helper.make_node("Mul", ["time", "factor"], ["third"]),
        helper.make_node("Cast", ["second"], ["fourth"], to=TensorProto.FLOAT),
    ]
    inputs = {"image": np.float32([-1.0, 2.5]), "time": np.float32([0.3])}
    outputs = {"first": 1, "second": 1, "third": 1, "fourth": 1}
    model = make_model(nodes, inputs, outputs, {"factor": np.float32(1.7)})
    half = to_half(model)
    assert [value.name for value in half.graph.output] == list(outputs)
    for found, expected in zip(run_half(half, inputs), run(model, inputs), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=2e-3)
    assert run_half(half, inputs)[2] == np.float32(0.3) * np.float32(1.7)


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
        to_half(make_model(nodes, inputs, {"y": 1}, {"yes": np.array(True)}))


def test_the_shipped_network_in_half_precision() -> None:
    """As a viewer would see it: a third of a step of 8 bits."""
    bundle = find_bundle("videoinr-s")
    encoder, decoder = (onnx.load(bundle.path(role)) for role in ("encoder", "decoder"))
    coarse = np.random.default_rng(3).random((1, 2, 3, 4, 6), dtype=np.float32)
    frames = coarse.repeat(8, axis=3).repeat(8, axis=4)
    at = {
        "time": np.float32([1 / 3]),
        "y": (np.arange(96, dtype=np.float32) + 0.5) / 3 - 0.5,
        "x": (np.arange(131, dtype=np.float32) + 0.5) * 48 / 131 - 0.5,
    }
    results = []
    for runner, change in ((run, lower), (run_half, lambda model: to_half(lower(model)))):
        features = runner(change(encoder), {"frames": frames})
        named = dict(zip((value.name for value in encoder.graph.output), features, strict=True))
        results.append(runner(change(decoder), {**named, **at})[0])
    assert np.abs(results[1] - results[0]).max() < 4e-3
    assert np.sqrt(np.square(results[1] - results[0]).mean()) < 1 / 3 / 255
