"""All of the engine that a GPU runs, on one that is made of NumPy arrays: see fake_gpu."""

import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stvsr
import torch
from stvsr.engine.backends import cuda
from stvsr.engine.backends import session as session_module
from stvsr.engine.backends.cuda import Gpu as Place
from stvsr.engine.backends.graphs import open_graphs
from stvsr.engine.backends.session import OrtSession
from stvsr.engine.backends.tensorrt.builder import load_library
from stvsr.engine.backends.tensorrt.engines import find_engine
from stvsr.engine.backends.tensorrt.refit import refit
from stvsr.engine.backends.tensorrt.session import TensorRtSession
from stvsr.engine.backends.videoinr_decoder import ImplicitSession
from stvsr.engine.contract.bundle import Bundle, file_sha256, write_manifest
from stvsr.engine.contract.errors import BackendError, BundleError, DeviceMemoryError, RequestError
from stvsr.engine.contract.manifest import Architecture
from stvsr.engine.contract.weights import read_weights, replace_weights
from stvsr.engine.contract.windows import one_scene
from stvsr.engine.media.reader import open_reader
from stvsr.engine.pipeline.request import UpscaleRequest
from stvsr.engine.pipeline.run import upscale
from stvsr.engine.pipeline.upscaler import Upscaler
from stvsr.export.exporter import export_bundle
from stvsr.training.networks.ops import target_coordinates
from stvsr.training.networks.registry import find_network
from test_pipeline import make_video, pan
from test_videoinr import tiny

from tests.support.exports import exported
from tests.support.fake_gpu import FOREIGN, Array, CUDARuntimeError, Foreign, Gpu, plugged_in
from tests.support.toy import save_graph, write_toy

H, W = 37, 53
SHAPES = {"B": (1, 1, 2), "h": (8, 24, 64), "w": (8, 40, 80), "H": (2, 96, 256), "W": (2, 160, 320)}


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path / "cache"))
    with plugged_in() as plugged:
        yield plugged


@pytest.fixture
def toy(tmp_path: Path) -> Bundle:
    return Bundle.load(write_toy(tmp_path / "toy"))


def opened(bundle: Bundle, role: Any = "encoder", **options: Any) -> TensorRtSession:
    path = find_engine(bundle, role, target="sm89", shapes=SHAPES, library="tensorrt-rtx", **options)
    return TensorRtSession(path, bundle.graph(role), "tensorrt-rtx", Place())


def pairs(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape, np.float32)


def test_an_engine_computes_what_its_graph_does(gpu: Gpu, toy: Bundle) -> None:
    places = {"y": np.linspace(0, 20, 31, dtype=np.float32), "x": np.linspace(0, 30, 47, dtype=np.float32)}
    with opened(toy, "decoder") as session, OrtSession(toy.path("decoder")) as reference:
        for time in (0.0, 0.3, 1.0):
            inputs = {"features": pairs(1, 2, 3, 24, 32), "time": np.array([time], np.float32), **places}
            found, expected = session.run(inputs)["frame"], reference.run(inputs)["frame"]
            assert isinstance(found, Array)
            np.testing.assert_array_equal(found, expected)


def test_shapes_that_come_again_are_captured(gpu: Gpu, toy: Bundle) -> None:
    with opened(toy) as session, session._gpu.lane(0):
        results = {}
        for turn in range(3):
            for shape in ((1, 2, 3, 8, 16), (1, 2, 3, 24, 8)):
                frames = pairs(*shape) + np.float32(turn)
                results[turn, shape] = session.run({"frames": frames})["features"]
                np.testing.assert_array_equal(results[turn, shape], frames)
        assert gpu.count["captured"] == 2
        assert gpu.count["launched"] == 4
        assert gpu.count["contexts"] == 3  # one for each graph
        for (turn, shape), held in results.items():  # a later run leaves them alone
            np.testing.assert_array_equal(held, pairs(*shape) + np.float32(turn))
        for height in range(8, 24):  # more than are kept
            for _ in range(2):
                frames = pairs(1, 2, 3, height, 8)
                np.testing.assert_array_equal(session.run({"frames": frames})["features"], frames)
        assert len(next(iter(session._work.values())).captured) == 4


def test_a_stream_that_cannot_be_captured_goes_without(gpu: Gpu, toy: Bundle) -> None:
    gpu.capturable = False
    with opened(toy) as session, session._gpu.lane(0):
        for _ in range(3):
            np.testing.assert_array_equal(
                session.run({"frames": pairs(1, 2, 3, 8, 8)})["features"], pairs(1, 2, 3, 8, 8)
            )
    assert gpu.count["captured"] == 0


def test_a_capture_that_fails_is_not_tried_again(gpu: Gpu, toy: Bundle) -> None:
    gpu.capture_fails = True
    with opened(toy) as session, session._gpu.lane(0):
        for _ in range(4):
            np.testing.assert_array_equal(
                session.run({"frames": pairs(1, 2, 3, 8, 8)})["features"], pairs(1, 2, 3, 8, 8)
            )
    assert gpu.count["contexts"] == 2


def test_a_host_brings_its_arrays_and_its_streams(gpu: Gpu, toy: Bundle) -> None:
    class Stream:
        handle = 0x500  # as PyCUDA has it

    frames, place = pairs(1, 2, 3, 8, 16), np.zeros((1, 2, 3, 8, 16), np.float32)
    with opened(toy) as session:
        for turn in range(3):  # at once, captured, and again
            made = session.run({"frames": Foreign(frames)}, outputs={"features": Foreign(place)}, stream=Stream())
            assert np.shares_memory(made["features"], place)
            np.testing.assert_array_equal(place, frames)
            place[...] = turn
        session.run({"frames": Foreign(frames)}, stream=0x501)
        assert set(session._work) == {0x500, 0x501}  # each with a context of its own
        assert gpu.count["contexts"] == 3  # and one of the graph


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (
            {"frames": pairs(1, 2, 3, 7, 16)},
            RequestError,
            r"takes 'frames' of 1x2x3x8x8 to 2x2x3x64x80, not 1x2x3x7x16",
        ),
        ({"frames": pairs(1, 2, 3, 16)}, RequestError, "not 1x2x3x16: compile the bundle with --shapes"),
        ({"frames": Foreign(pairs(1, 2, 3, 8, 8).astype(np.float64))}, RequestError, "of float64: hand over float32"),
        ({"frames": [1, 2]}, RequestError, "is a list: hand over a NumPy array"),
    ],
)
def test_inputs_that_an_engine_does_not_take(
    gpu: Gpu, toy: Bundle, change: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with opened(toy) as session, pytest.raises(error, match=sentence):
        session.run(change)


def test_outputs_that_do_not_fit(gpu: Gpu, toy: Bundle) -> None:
    frames = pairs(1, 2, 3, 8, 16)
    with opened(toy) as session, session._gpu.lane(0):
        for _ in range(2):  # captured, too
            with pytest.raises(
                RequestError, match="output 'features' is 1x2x3x8x16: hand over such an array, not 6x8x16"
            ):
                session.run({"frames": frames}, outputs={"features": Foreign(np.zeros((6, 8, 16), np.float32))})
        with pytest.raises(RequestError, match="not contiguous"):
            session.run(
                {"frames": frames}, outputs={"features": Foreign(np.zeros((1, 2, 3, 8, 32), np.float32)[..., ::2])}
            )


def test_what_is_of_another_context_is_refused(gpu: Gpu, toy: Bundle) -> None:
    frames = Foreign(pairs(1, 2, 3, 8, 16))
    with opened(toy) as session:
        gpu.foreign = {frames.array.ctypes.data}
        with pytest.raises(BackendError, match="'frames' lies in another device or CUDA context than cuda:0: allocate"):
            session.run({"frames": frames})
        gpu.of_host = {frames.array.ctypes.data}
        with pytest.raises(BackendError, match="'frames' is not memory of a CUDA device: copy it there first"):
            session.run({"frames": frames})
        gpu.foreign = {0x700}
        with pytest.raises(BackendError, match="stream belongs to another device or CUDA context"):
            session.run({"frames": frames}, stream=0x700)
        with pytest.raises(BackendError, match="is no CUDA stream"):
            session.run({"frames": frames}, stream="default")
        gpu.context = FOREIGN
        with pytest.raises(BackendError, match=r"use the device's primary context.*retain_primary_context"):
            session.run({"frames": frames}, stream=0x701)
    with pytest.raises(BackendError, match="closed"):
        session.run({"frames": frames})


def test_a_damaged_engine_names_the_remedy(gpu: Gpu, toy: Bundle, tmp_path: Path) -> None:
    (tmp_path / "other.engine").write_bytes(b"of another version")
    with pytest.raises(BackendError, match=r"magic tag does not match.*another card or version; compile the bundle"):
        TensorRtSession(tmp_path / "other.engine", toy.graph("encoder"), "tensorrt-rtx", Place())
    path = find_engine(toy, "encoder", target="sm89", shapes=SHAPES)
    with pytest.raises(BundleError, match="has the input no"):
        TensorRtSession(path, toy.graph("decoder"), "tensorrt-rtx", Place())


def test_weights_are_replaced_by_name(gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, bundle = exported("edvr-s")
    held = read_weights(bundle.path("network").read_bytes())
    # All but the slopes of PReLUs, which are attributes, and constants.
    weights = {n: w * np.float32(1.1) for n, w in held.items() if n in network.state_dict() and w.shape != (1,)}
    changed = replace_weights(bundle, weights, tmp_path / "other")
    frames = {"frames": pairs(1, 5, 3, 16, 24)}

    def session(**options: Any) -> TensorRtSession:
        path = find_engine(bundle, "network", target="sm89", **options)
        return TensorRtSession(path, bundle.graph("network"), "tensorrt-rtx", Place())

    with OrtSession(changed.path("network")) as reference:
        expected = reference.run(frames)["upscaled"]
    graph = bundle.path("network")
    with session(refit=True) as live:
        for _ in range(2):
            before = live.run(frames)["upscaled"]
        assert np.abs(before - expected).max() > 0.01
        assert refit(live, graph, weights, frames) < 1e-4
        np.testing.assert_allclose(live.run(frames)["upscaled"], expected, atol=1e-4)
        with pytest.raises(BackendError, match=r"has no such weights of 'nowhere.weight'"):
            live.refit({"nowhere.weight": np.zeros(3, np.float32)})
        with pytest.raises(BackendError, match=r"has no weights 'nowhere.weight'"):
            refit(live, graph, {"nowhere.weight": np.zeros(3, np.float32)}, frames)
        name = "conv_first.weight"
        with pytest.raises(BackendError, match=rf"numbers of '{name}', and 1 were given"):
            live.refit({name: np.zeros(1, np.float32)})
        monkeypatch.setattr(live, "refit", lambda weights: None)  # a library that does not do what it says
        with pytest.raises(BackendError, match=r"differs by .* from ONNX Runtime"):
            refit(live, graph, {name: 2 * weights[name]}, frames)
        run = live.run
        monkeypatch.setattr(live, "run", lambda inputs: {n: v * np.float32("nan") for n, v in run(inputs).items()})
        with pytest.raises(BackendError, match=r"differs by nan from ONNX Runtime"):
            refit(live, graph, {name: weights[name]}, frames)
    with session() as fixed:
        with pytest.raises(BackendError, match="compile the bundle with --refit"):
            fixed.refit(weights)
        with pytest.raises(BackendError, match="does not let go of"):
            refit(fixed, graph, weights, frames)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["edvr-s", "adavsr-temporal-s", "dtsr-s"])
def test_the_upscaler_makes_the_same_frames(gpu: Gpu, name: str, precision: Any) -> None:
    bundle = exported(name)[1]
    frames = np.random.default_rng(1).random((4, 3, 20, 36), np.float32)
    factor = 1 if bundle.manifest.window.kind == "sliding" else 2
    times = tuple(Fraction(part, factor) for part in range(factor))
    scale = bundle.manifest.space.factors[0]
    made_by = {}
    for backend in ("ort", "tensorrt"):
        device, wanted = ("cpu", "fp32") if backend == "ort" else ("auto", precision)
        with Upscaler(bundle, backend=backend, device=device, precision=wanted) as upscaler:
            made_by[backend] = np.stack(list(upscaler.frames(one_scene(frames, times), (20 * scale, 36 * scale))))
            assert upscaler.device == ("cpu" if backend == "ort" else "cuda:0")
            assert upscaler.notes == []
    apart = np.abs(made_by["ort"].astype(int) - made_by["tensorrt"]) / 65535
    assert apart.max() <= (1e-4 if precision == "fp32" else 2e-2)
    assert gpu.count["computed"] > 0
    assert gpu.count["page-locked"] > 0


def test_a_pair_is_decoded_at_any_time_and_size(gpu: Gpu, toy: Bundle) -> None:
    pair, times = pairs(2, 3, H, W), (0.0, 0.25, 0.5, 1.0)
    for tile in (None, 24):
        with Upscaler(toy, device="cpu", tile=tile) as one, Upscaler(toy, backend="tensorrt", tile=tile) as other:
            for a, b in zip(
                one.between(*pair, times, (100, 131)), other.between(*pair, times, (100, 131)), strict=True
            ):
                assert np.abs(a.astype(int) - b).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("official", [True, False])
def test_the_implicit_decoder_takes_its_graphs_place(gpu: Gpu, official: bool, tmp_path: Path) -> None:
    network = tiny(official_sampling=official, frame_upsample=2)
    bundle = Bundle.load(export_bundle(find_network("videoinr"), network, tmp_path / "bundle"))
    pair = pairs(2, 3, 16, 24)
    with Upscaler(bundle, device="cpu") as one, Upscaler(bundle, backend="tensorrt") as other:
        for a, b in zip(one.between(*pair, (0, 0.5), (40, 60)), other.between(*pair, (0, 0.5), (40, 60)), strict=True):
            assert np.abs(a.astype(int) - b).max() / 65535 < 1e-3
    assert [path.name for path in (tmp_path / "cache" / "engines").iterdir() if "decoder" in path.name] == []


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("official", [True, False])
def test_the_implicit_decoder_runs_by_its_own_kernels(gpu: Gpu, official: bool, precision: Any, tmp_path: Path) -> None:
    """Of weights that a graph holds, for several times of one encoding, and of others in their place."""
    network = tiny(official_sampling=official, frame_upsample=2)
    state = {name: value.numpy() for name, value in network.state_dict().items() if "imnet" in name}
    folder = write_toy(tmp_path / "bundle")
    decoder = Bundle.load(folder).graph("decoder")
    save_graph(folder / "decoder.onnx", [], {}, {}, **state)
    toy = Bundle.load(write_toy(tmp_path / "toy")).manifest
    config = {"official_sampling": official, "frame_upsample": 2}
    changed = decoder.model_copy(update={"sha256": file_sha256(folder / "decoder.onnx")})
    update = {"graphs": (toy.graphs[0], changed), "architecture": Architecture(name="videoinr", config=config)}
    write_manifest(folder, toy.model_copy(update=update))
    features = torch.randn(1, 3 * 8 + 6, 12, 20, generator=torch.Generator().manual_seed(0)) * 0.3
    places = {name: target_coordinates(n, m) for name, n, m in (("y", 12, 30), ("x", 20, 41))}
    given = {name: value.numpy() for name, value in places.items()}
    there = features.numpy().view(Array)
    for weights in ({}, {name: value * np.float32(0.5) for name, value in state.items()}):
        network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=False)
        with ImplicitSession(Bundle.load(folder), Place(), precision, weights) as session:
            for time in (0.0, 0.3):
                moment = np.array([time], np.float32)
                with torch.no_grad():
                    expected = network.decode(features, time=torch.from_numpy(moment), **places).numpy()
                found = session.run({"features": there, "time": moment, **given})["frame"]
                assert np.abs(found - expected).max() <= (1e-4 if precision == "fp32" else 2e-2) * np.ptp(expected)


def test_smaller_tiles_are_tried_where_memory_does_not_suffice(gpu: Gpu, tmp_path: Path) -> None:
    bundle = Bundle.load(write_toy(tmp_path / "blurred", blur_px=3))
    pair = pairs(2, 3, 64, 80)
    with Upscaler(bundle, device="cpu") as upscaler:
        expected = list(upscaler.between(*pair, (0.0, 0.5), (128, 160)))
    gpu.memory_bytes = 64 * 2 * 3 * 48 * 48
    with Upscaler(bundle, backend="tensorrt") as upscaler:
        found = list(upscaler.between(*pair, (0.0, 0.5), (128, 160)))
        assert upscaler.notes == [
            "The memory of device 'cuda:0' did not hold tiles of 80 pixels: tiles of 40 were used, which takes longer."
        ]
    for a, b in zip(found, expected, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 2
    gpu.memory_bytes = 1000
    with (
        Upscaler(bundle, backend="tensorrt") as upscaler,
        pytest.raises(DeviceMemoryError, match="does not hold this work"),
    ):
        list(upscaler.between(*pair, (0.0, 0.5), (128, 160)))
    with (
        Upscaler(bundle, backend="tensorrt", tile=0) as upscaler,
        pytest.raises(DeviceMemoryError, match="does not hold this work"),
    ):
        list(upscaler.between(*pair, (0.0, 0.5), (128, 160)))


def test_several_windows_are_in_flight(gpu: Gpu, toy: Bundle) -> None:
    """Work is queued on two streams in turn, and results are waited for when three more are under way."""
    frames = pairs(8, 3, 16, 16)
    with Upscaler(toy, backend="tensorrt") as upscaler:
        place = upscaler._place
        assert isinstance(place, Place)
        asked = 0

        def counted() -> Iterator[np.ndarray]:
            nonlocal asked
            for frame in frames:
                asked += 1
                yield frame

        results = upscaler.frames(one_scene(counted()), (16, 16))
        next(results)
        assert asked >= 4
        assert len(list(results)) == 7
        streams = {stream.ptr for stream in place.streams}
        for session in upscaler._graphs._sessions.values():
            assert set(session._work) == streams  # type: ignore[attr-defined]


def test_what_is_missing_is_named(gpu: Gpu, toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"There is no CUDA device 3: there are 1, counted from 0"):
        open_graphs(toy, backend="tensorrt", device="cuda:3")
    gpu.context = FOREIGN
    with pytest.raises(BackendError, match="primary context"):
        open_graphs(toy, backend="tensorrt")


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv444p"])
def test_a_video_goes_through_a_gpu(gpu: Gpu, toy: Bundle, tmp_path: Path, pix_fmt: str) -> None:
    """Frames come back as planes of the video's format where the kernels make it, and as RGB where not."""
    source = make_video(tmp_path / "in.mp4", pan(4))
    planes = {}
    for backend, device in (("ort", "cpu"), ("tensorrt", "auto")):
        output = tmp_path / f"{backend}.mkv"
        report = upscale(
            UpscaleRequest(
                input=source,
                output=output,
                model=toy.folder,
                scale=2,
                backend=backend,
                device=device,
                codec="libx264",
                encoder_options={"qp": "0"},
                pix_fmt=pix_fmt,
            )
        )
        assert report.frames_out == 8
        with open_reader(output) as reader:
            planes[report.device] = np.stack([frame.rgb for frame in reader])
    assert planes.keys() == {"cpu", "cuda:0"}
    codes = 1023 if "10" in pix_fmt else 255
    assert np.abs(planes["cpu"] - planes["cuda:0"]).max() <= 3.5 / codes  # one code each of luma and of chroma


def test_without_a_driver_the_remedy_is_named(gpu: Gpu, toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> int:
        raise CUDARuntimeError("cudaErrorInsufficientDriver")

    cupy = cuda.import_cupy()
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", count)
    with pytest.raises(BackendError, match=r"no CUDA device \(cudaErrorInsufficientDriver\): install an NVIDIA driver"):
        open_graphs(toy, backend="tensorrt")


def test_without_cupy_the_extra_is_named(toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    cuda.import_cupy.cache_clear()
    with pytest.raises(BackendError, match=r'through CuPy, which cannot be imported .*pip install "stvsr\[cuda\]"'):
        Place()
    cuda.import_cupy.cache_clear()


def test_a_device_that_fails_is_named(gpu: Gpu) -> None:
    with pytest.raises(BackendError, match="cannot do this work: the kernel x cannot be compiled"), Place().lane(0):
        raise RuntimeError("the kernel x cannot be compiled; install stvsr[cuda]")
    with pytest.raises(BackendError, match=r"'cuda:0' failed \(an illegal address\): run again"), Place().lane(0):
        raise CUDARuntimeError("an illegal address")


def test_onnx_runtime_binds_memory_of_the_device(gpu: Gpu, toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing crosses the bus between graphs: every input and output is bound by its address."""
    bound: list[tuple[str, str]] = []

    class Binding:
        def __init__(self, binding: Any) -> None:
            self.real = binding

        def bind_input(self, name: str, device: str, *rest: Any) -> None:
            bound.append((name, device))
            self.real.bind_input(name, "cpu", *rest)

        def bind_output(self, name: str, device: str, *rest: Any) -> None:
            bound.append((name, device))
            self.real.bind_output(name, "cpu", *rest)

    class Session:
        def __init__(self, real: Any) -> None:
            self.real = real
            self.get_inputs, self.get_outputs = real.get_inputs, real.get_outputs

        def io_binding(self) -> Binding:
            return Binding(self.real.io_binding())

        def run_with_iobinding(self, binding: Binding) -> None:  # without options: the run is awaited
            self.real.run_with_iobinding(binding.real)

    def on_cuda(ort: Any, path: Any, options: Any, place: Place) -> Session:
        assert place.lanes == 1
        return Session(session_module._create(ort, path, options, ["CPUExecutionProvider"]))

    monkeypatch.setattr(session_module, "_open_cuda", on_cuda)
    monkeypatch.setattr("stvsr.engine.backends.graphs.cuda_is_offered", lambda: True)
    pair = pairs(2, 3, H, W)
    with Upscaler(toy, device="cpu") as one, Upscaler(toy) as other:
        assert other.device == "cuda:0"
        for a, b in zip(one.between(*pair, (0, 0.5), (80, 99)), other.between(*pair, (0, 0.5), (80, 99)), strict=True):
            assert np.abs(a.astype(int) - b).max() <= 1
    assert {name for name, _ in bound} == {"frames", "features", "time", "y", "x", "frame"}
    assert {device for _, device in bound} == {"cuda"}


def test_the_real_library_has_what_is_asked_of_it() -> None:
    """What the imitated one has is what it was made for: names are held against the real module."""
    try:
        trt: Any = load_library("tensorrt-rtx")
    except BackendError as absent:
        pytest.skip(str(absent))
    asked = {
        "ICudaEngine": "get_tensor_name get_tensor_mode get_tensor_dtype get_tensor_shape num_io_tensors refittable"
        " get_tensor_profile_shape create_runtime_config create_execution_context",
        "IRuntimeConfig": "set_execution_context_allocation_strategy dynamic_shapes_kernel_specialization_strategy",
        "IExecutionContext": "set_input_shape infer_shapes update_device_memory_size_for_shapes set_device_memory"
        " get_tensor_shape set_tensor_address execute_async_v3 is_stream_capturable",
        "Refitter": "get_all_weights get_weights_prototype set_named_weights get_missing_weights refit_cuda_engine",
        "Runtime": "deserialize_cuda_engine",
        "ExecutionContextAllocationStrategy": "USER_MANAGED",
        "DynamicShapesKernelSpecializationStrategy": "EAGER",
        "Weights": "dtype size",
    }
    for kind, names in asked.items():
        for name in names.split():
            assert hasattr(getattr(trt, kind), name), f"{kind}.{name}"
    source = (Path(stvsr.__file__).parent / "engine/backends/tensorrt/session.py").read_text()
    used = set(re.findall(r"(?:engine|context|config|refitter|_runtime)\.(\w+)", source))
    known = {name for names in asked.values() for name in names.split()}
    assert used <= known, used - known


def test_open_graphs_take_other_weights(gpu: Gpu, tmp_path: Path) -> None:
    """As a live session of ONNX Runtime, an engine that is open, and one that is opened later."""
    bundle = exported("edvr-s")[1]
    frames, size = pairs(3, 3, 16, 24), (64, 96)
    held = read_weights(bundle.path("network").read_bytes())
    weights = {name: held[name] * np.float32(1.1) for name in ("conv_first.weight", "conv_last.weight")}
    adapted = replace_weights(bundle, weights, tmp_path / "adapted")
    with Upscaler(adapted, device="cpu") as upscaler:
        expected = np.stack(list(upscaler.frames(one_scene(frames), size))).astype(int)
    for options in ({"device": "cpu"}, {"backend": "tensorrt", "refit": True}):
        for early in (True, False):
            with Upscaler(bundle, **options) as upscaler:  # type: ignore[arg-type]
                if early:
                    before = np.stack(list(upscaler.frames(one_scene(frames), size)))
                    assert np.abs(before - expected).max() > 200
                upscaler.take_weights(weights)
                assert np.abs(np.stack(list(upscaler.frames(one_scene(frames), size))) - expected).max() <= 8
                with pytest.raises(BundleError, match=r"have no weight nowhere"):
                    upscaler.take_weights({"nowhere": np.zeros(1, np.float32)})
    with Upscaler(bundle, backend="tensorrt") as fixed, pytest.raises(BackendError, match="ask for refit"):
        fixed.take_weights(weights)
