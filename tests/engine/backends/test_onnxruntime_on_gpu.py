"""ONNX Runtime on a fake GPU: sessions for the sizes in use, captured graphs, and precisions."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from stvsr import Backend, BackendError, Bundle, RequestError, Upscaler
from stvsr.engine.backends import choice, onnxruntime
from stvsr.engine.backends.cuda import CudaDevice
from stvsr.engine.backends.graphs import SESSIONS, EngineGraphs, OrtGraphs, open_graphs
from stvsr.engine.backends.onnxruntime import FixedShapes, OrtSession
from stvsr.engine.contract.bundle import find_bundle
from stvsr.engine.contract.manifest import Manifest, PrecisionLoss

from tests.support.exports import exported
from tests.support.fake_gpu import FakeGpu
from tests.support.fake_onnxruntime import FakeOrt, with_cuda

CPU, GPU = Backend(device="cpu"), Backend("ort", "cuda:0", "fp32")
TIMES = (0.0, 0.25, 1.0)


@pytest.fixture
def ort(gpu: FakeGpu) -> Iterator[FakeOrt]:
    with with_cuda() as fake:
        yield fake


def frames_between(bundle: Bundle, backend: Backend, size: tuple[int, int] = (40, 60), **options: Any) -> np.ndarray:
    first, second = np.random.default_rng(0).random((2, 3, 20, 30), np.float32)
    with Upscaler(bundle, backend, **options) as upscaler:
        return np.stack(list(upscaler.between(first, second, TIMES, size))).astype(int)


def with_losses(bundle: Bundle, losses: Mapping[str, float]) -> Bundle:
    """Return a bundle whose manifest records these losses of precisions."""
    records = {name: PrecisionLoss(p999=loss, largest=loss) for name, loss in losses.items()}
    manifest: Manifest = bundle.manifest.model_copy(update={"precisions": records})
    return replace(bundle, manifest=manifest)


@pytest.mark.parametrize(
    ("behaviour", "captured"),
    [({}, "11"), ({"capturable": False}, "00"), ({"capture_fails": True}, "1010")],
    ids=["captured", "not capturable", "capture fails"],
)
def test_frames_are_those_of_the_cpu(ort: FakeOrt, toy: Bundle, behaviour: dict[str, bool], captured: str) -> None:
    vars(ort).update(behaviour)
    assert np.abs(frames_between(toy, GPU) - frames_between(toy, CPU)).max() <= 1
    first, *others = (provider["enable_cuda_graph"] for provider in ort.opened)
    assert (first, "".join(others)) == ("0", captured)


def test_capture_can_be_turned_off(ort: FakeOrt, toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STVSR_CUDA_GRAPHS", "0")
    frames_between(toy, GPU)
    assert {provider["enable_cuda_graph"] for provider in ort.opened} == {"0"}


def test_no_graph_is_captured_beside_other_threads(ort: FakeOrt, toy: Bundle) -> None:
    with open_graphs(toy, GPU, captures=False) as graphs:
        graphs.run("encoder", {"frames": np.ones((1, 2, 3, 8, 8), np.float32)})
    assert [provider["enable_cuda_graph"] for provider in ort.opened] == ["0", "0"]


def test_results_of_a_captured_graph_outlive_the_next_run(ort: FakeOrt, toy: Bundle) -> None:
    first, second = (np.full((1, 2, 3, 8, 8), value, np.float32) for value in (0.25, 0.75))
    with open_graphs(toy, GPU) as graphs:
        kept = graphs.run("encoder", {"frames": first})["features"]
        graphs.run("encoder", {"frames": second})
        np.testing.assert_array_equal(np.asarray(kept), first)


def test_each_size_has_a_session_and_the_last_ones_stay_open(ort: FakeOrt, toy: Bundle) -> None:
    with open_graphs(toy, GPU) as graphs:
        assert isinstance(graphs, OrtGraphs)
        for size in (*range(4, 4 + SESSIONS + 2), 4 + SESSIONS):
            result = graphs.run("encoder", {"frames": np.ones((1, 2, 3, size, size), np.float32)})["features"]
            assert result.shape == (1, 2, 3, size, size)
        assert len(graphs._sessions) == SESSIONS
        assert len(ort.opened) == 1 + SESSIONS + 2, "the size that came again has kept its session"


def test_opening_and_first_runs_are_counted_for_each_size(ort: FakeOrt, toy: Bundle) -> None:
    with open_graphs(toy, GPU) as graphs:
        times = [graphs.preparation]
        assert times[0].opening_seconds > 0
        assert times[0].first_run_seconds == 0
        for size in ((8, 16), (8, 16), (24, 8)):
            with graphs.device.stream(0):
                graphs.run("encoder", {"frames": np.zeros((1, 2, 3, *size), np.float32)})
            times.append(replace(graphs.preparation))
    assert times[2] == times[1], "the second run of a size is not the first"
    assert times[3].opening_seconds > times[2].opening_seconds
    assert times[3].first_run_seconds > times[2].first_run_seconds > 0


def test_shapes_that_contradict_each_other_are_refused(ort: FakeOrt, toy: Bundle) -> None:
    with open_graphs(toy, GPU) as graphs, pytest.raises(RequestError, match=r"input 'frames' has the shape \(1, 5\)"):
        graphs.run("encoder", {"frames": np.ones((1, 5), np.float32)})


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", "0"), ("tf32", "1"), ("fp16", "0")])
def test_float32_is_rounded_to_tf32_only_at_that_precision(
    ort: FakeOrt, toy: Bundle, precision: Any, tf32: str
) -> None:
    difference = np.abs(frames_between(toy, Backend("ort", "cuda:0", precision)) - frames_between(toy, CPU)).max()
    assert {provider["use_tf32"] for provider in ort.opened} == {tf32}
    assert difference <= (100 if precision == "fp16" else 1)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({"fp16": 0.001, "tf32": 0.0001}, "fp16"),
        ({"fp16": 0.004, "tf32": 0.0001}, "tf32"),
        ({"fp16": 0.004, "tf32": 0.004}, "fp32"),
        ({"tf32": 0.001}, "tf32"),
        ({}, "fp32"),
    ],
)
def test_auto_is_the_fastest_precision_that_changes_no_step_of_8_bits(
    ort: FakeOrt, toy: Bundle, losses: dict[str, float], expected: str
) -> None:
    with open_graphs(with_losses(toy, losses), Backend("ort", "cuda:0")) as graphs:
        assert graphs.precision == expected
    with open_graphs(with_losses(toy, losses), CPU) as graphs:
        assert graphs.precision == "fp32"


def test_refitted_weights_are_used_in_half_precision_too(ort: FakeOrt) -> None:
    bundle = exported("edvr-s")[1]
    weights = {"conv_last.bias": np.full(3, 0.25, np.float32)}
    frames = np.random.default_rng(0).random((1, 5, 3, 16, 24), np.float32)
    with open_graphs(bundle, Backend("ort", "cuda:0", "fp16")) as graphs:
        before = np.asarray(graphs.run("network", {"frames": frames})["upscaled"])
        graphs.refit(weights)
        after = np.asarray(graphs.run("network", {"frames": frames})["upscaled"])
    assert np.abs(after - before).max() > 0.1


def test_the_backend_chooses_itself(gpu: FakeGpu, toy: Bundle) -> None:
    with open_graphs(toy, Backend()) as graphs:
        assert isinstance(graphs, EngineGraphs)
    with with_cuda(), open_graphs(toy, Backend()) as graphs:
        assert (type(graphs), graphs.device.name) == (OrtGraphs, "cuda:0")
    with open_graphs(toy, CPU) as graphs:
        assert (type(graphs), graphs.device.name) == (OrtGraphs, "cpu")


def test_a_precision_of_gpus_is_refused_without_one(toy: Bundle) -> None:
    with pytest.raises(BackendError, match="float32: leave out --precision fp16, or see 'stvsr info --devices'"):
        open_graphs(toy, Backend("ort", precision="fp16"))


def test_candidates_tell_why_something_cannot_compute(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "cuda_is_offered", lambda: False)
    by_title = {candidate.title: candidate for candidate in choice.find_candidates()}
    assert by_title["TensorRT-RTX"].unavailable is None
    assert by_title["ONNX Runtime"].unavailable is None
    assert "TensorRT cannot be imported" in (by_title["TensorRT"].unavailable or "")
    reason = by_title["ONNX Runtime with CUDA"].unavailable or ""
    assert 'no CUDA provider: pip uninstall onnxruntime onnxruntime-gpu, then pip install "stvsr[cuda]"' in reason
    monkeypatch.setattr(choice, "local_target", lambda index: "sm90")
    reason = choice.engines_unavailable(0, "tensorrt-rtx") or ""
    assert re.search("do not run on sm90: install TensorRT .*--backend ort", reason)


SIZES = {"batch": 1, "height": 64, "width": 96, "target_height": 100, "target_width": 150, "factor_y": 2, "factor_x": 3}


@pytest.mark.parametrize("name", ["fourier-s", "videoinr-s", "edvr-s"])
def test_graphs_of_fixed_shapes_have_no_shape_arithmetic(name: str, tmp_path: Path) -> None:
    """CUDA graphs are captured only if every node runs on the GPU, and ONNX Runtime computes sizes on the CPU."""
    bundle = find_bundle(name)
    ort = onnxruntime.import_onnxruntime()
    for graph in bundle.manifest.graphs:
        shapes = tuple(tuple(_size(axis) for axis in spec.axes) for spec in graph.inputs)
        options = onnxruntime._options(ort, 1, FixedShapes(graph.inputs, graph.outputs, shapes), "spin")
        options.optimized_model_filepath = str(tmp_path / graph.file)
        ort.InferenceSession(str(bundle.path(graph.role)), options, providers=["CPUExecutionProvider"])
        operators = {node.op_type for node in onnx.load(tmp_path / graph.file).graph.node}
        assert not operators & {"Shape", "Size", "Range", "ConstantOfShape", "NonZero", "If", "Loop"}, graph.file


@pytest.mark.parametrize("name", ["fourier-s", "edvr-s"])
def test_a_session_of_fixed_shapes_computes_the_same(name: str) -> None:
    bundle = find_bundle(name)
    graph = bundle.manifest.graphs[0]
    (spec,) = graph.inputs
    shape = tuple(_size(axis) for axis in spec.axes)
    inputs = {spec.name: np.random.default_rng(0).random(shape, np.float32)}
    fixed = FixedShapes(graph.inputs, graph.outputs, (shape,))
    with OrtSession(bundle.path(graph.role)) as general, OrtSession(bundle.path(graph.role), fixed=fixed) as special:
        expected, actual = general.run(inputs), special.run(inputs)
    assert special.outputs == graph.outputs
    for output, value in expected.items():
        np.testing.assert_allclose(actual[output], value, rtol=0, atol=1e-5)


def _size(axis: str | int) -> int:
    if isinstance(axis, int):
        return axis
    name, _, divisor = axis.partition("/")
    return SIZES[name] // int(divisor or 1)


def test_devices_are_described(gpu: FakeGpu) -> None:
    assert choice.describe_device("cuda:0") == "Fake GPU, sm89"
    assert choice.describe_device("cuda:1") == "no such device"
    assert re.fullmatch(r"\d+ threads?", choice.describe_device("cpu"))
    assert isinstance(CudaDevice(0), CudaDevice)
