"""TensorRtSession on a fake GPU: results, CUDA graphs, arrays and streams of a host, and refused requests."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stvsr import BackendError, Bundle, BundleError, DeviceMemoryError, RequestError
from stvsr.engine.backends.cuda import CudaDevice
from stvsr.engine.backends.onnxruntime import OrtSession
from stvsr.engine.backends.tensorrt.engines import find_engine
from stvsr.engine.backends.tensorrt.session import TensorRtSession

from tests.support.fake_gpu import FOREIGN, Array, FakeGpu, ForeignArray

SHAPES = {"B": (1, 1, 2), "h": (8, 24, 64), "w": (8, 40, 80), "H": (2, 96, 256), "W": (2, 160, 320)}


def open_engine(bundle: Bundle, role: Any = "encoder") -> TensorRtSession:
    path = find_engine(bundle, role, target="sm89", shapes=SHAPES)
    return TensorRtSession(path, bundle.graph(role), "tensorrt-rtx", CudaDevice())


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape, np.float32)


def check_copies(session: TensorRtSession, shape: tuple[int, ...]) -> None:
    """Fail unless the encoder of the toy copies frames of this shape."""
    frames = noise(*shape)
    np.testing.assert_array_equal(session.run({"frames": frames})["features"], frames)


def test_an_engine_computes_what_its_graph_computes(gpu: FakeGpu, toy: Bundle) -> None:
    positions = {"y": np.linspace(0, 20, 31, dtype=np.float32), "x": np.linspace(0, 30, 47, dtype=np.float32)}
    with open_engine(toy, "decoder") as session, OrtSession(toy.path("decoder")) as reference:
        for time in (0.0, 0.3, 1.0):
            inputs = {"features": noise(1, 2, 3, 24, 32), "time": np.array([time], np.float32), **positions}
            actual, expected = session.run(inputs)["frame"], reference.run(inputs)["frame"]
            assert isinstance(actual, Array)
            np.testing.assert_array_equal(actual, expected)


def test_shapes_that_return_are_captured(gpu: FakeGpu, toy: Bundle) -> None:
    with open_engine(toy) as session, session._device.stream(0):
        results = {}
        for turn in range(3):
            for shape in ((1, 2, 3, 8, 16), (1, 2, 3, 24, 8)):
                frames = noise(*shape) + np.float32(turn)
                results[turn, shape] = session.run({"frames": frames})["features"]
                np.testing.assert_array_equal(results[turn, shape], frames)
        assert gpu.count["captured"] == 2
        assert gpu.count["launched"] == 4
        assert gpu.count["contexts"] == 3  # one of the stream and one of each CUDA graph
        for (turn, shape), result in results.items():  # later runs do not overwrite it
            np.testing.assert_array_equal(result, noise(*shape) + np.float32(turn))


def test_compiled_kernels_are_kept_for_the_next_process(gpu: FakeGpu, toy: Bundle, tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        with open_engine(toy) as session:
            for stream in (0, 1):
                with session._device.stream(stream):
                    check_copies(session, (1, 2, 3, 8, 16))
            caches = session._loaded.engine.caches
            assert len(caches) == 2
            assert caches[0] is caches[1], "all contexts share one"
        (file,) = (tmp_path / "cache" / "compiled").iterdir()
        contents.append(file.read_bytes())
    assert contents == [b"2 contexts;", b"2 contexts;4 contexts;"]


def test_only_the_latest_captures_are_kept(gpu: FakeGpu, toy: Bundle) -> None:
    with open_engine(toy) as session, session._device.stream(0):
        for height in range(8, 24):
            for _ in range(2):
                check_copies(session, (1, 2, 3, height, 8))
        (context,) = session._contexts.values()
        assert len(context.graphs) == 4


def test_a_stream_that_is_not_capturable_runs_without_cuda_graphs(gpu: FakeGpu, toy: Bundle) -> None:
    gpu.capturable = False
    with open_engine(toy) as session, session._device.stream(0):
        for _ in range(3):
            check_copies(session, (1, 2, 3, 8, 8))
    assert gpu.count["captured"] == 0


def test_a_failed_capture_is_not_repeated(gpu: FakeGpu, toy: Bundle) -> None:
    gpu.capture_fails = True
    with open_engine(toy) as session, session._device.stream(0):
        for _ in range(4):
            check_copies(session, (1, 2, 3, 8, 8))
    assert gpu.count["contexts"] == 2


def test_smaller_shapes_run_after_memory_was_too_small(gpu: FakeGpu, toy: Bundle) -> None:
    with open_engine(toy) as session, session._device.stream(0):
        check_copies(session, (1, 2, 3, 16, 16))
        gpu.memory_bytes = 64 * 2 * 3 * 16 * 16 + 256
        with pytest.raises(DeviceMemoryError, match="too small for this work: use smaller tiles"):
            session.run({"frames": noise(1, 2, 3, 64, 64)})
        check_copies(session, (1, 2, 3, 16, 8))


def test_a_host_passes_its_arrays_and_streams(gpu: FakeGpu, toy: Bundle) -> None:
    class Stream:
        handle = 0x500  # the attribute of PyCUDA's streams

    frames, features = noise(1, 2, 3, 8, 16), np.zeros((1, 2, 3, 8, 16), np.float32)
    inputs, outputs = {"frames": ForeignArray(frames)}, {"features": ForeignArray(features)}
    with open_engine(toy) as session:
        for turn in range(3):  # queued directly, captured, and launched as a CUDA graph
            results = session.run(inputs, outputs=outputs, stream=Stream())
            assert np.shares_memory(results["features"], features)
            np.testing.assert_array_equal(features, frames)
            features[...] = turn
        session.run(inputs, stream=0x501)
        assert set(session._contexts) == {0x500, 0x501}
        assert gpu.count["contexts"] == 3  # one of each stream and one of the CUDA graph


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (noise(1, 2, 3, 7, 16), r"takes 'frames' of 1x2x3x8x8 to 2x2x3x64x80, not 1x2x3x7x16"),
        (noise(1, 2, 3, 16), "not 1x2x3x16: compile the bundle with --shapes"),
        (ForeignArray(noise(1, 2, 3, 8, 8).astype(np.float64)), "'frames' is float64: pass float32"),
        ([1, 2], "is a list: pass a NumPy array"),
    ],
    ids=["height", "rank", "dtype", "list"],
)
def test_wrong_inputs_are_refused(gpu: FakeGpu, toy: Bundle, frames: Any, message: str) -> None:
    with open_engine(toy) as session, pytest.raises(RequestError, match=message):
        session.run({"frames": frames})


def test_wrong_outputs_are_refused(gpu: FakeGpu, toy: Bundle) -> None:
    inputs = {"frames": noise(1, 2, 3, 8, 16)}
    with open_engine(toy) as session, session._device.stream(0):
        wrong_shape = ForeignArray(np.zeros((6, 8, 16), np.float32))
        for _ in range(2):  # also when the shapes are captured
            with pytest.raises(RequestError, match="output 'features' is 1x2x3x8x16: pass such an array, not 6x8x16"):
                session.run(inputs, outputs={"features": wrong_shape})
        strided = ForeignArray(np.zeros((1, 2, 3, 8, 32), np.float32)[..., ::2])
        with pytest.raises(RequestError, match="not contiguous"):
            session.run(inputs, outputs={"features": strided})


def test_arrays_of_another_context_are_refused(gpu: FakeGpu, toy: Bundle) -> None:
    frames = ForeignArray(noise(1, 2, 3, 8, 16))
    with open_engine(toy) as session:
        gpu.foreign = {frames.array.ctypes.data}
        with pytest.raises(
            BackendError, match="'frames' belongs to another device or CUDA context than cuda:0: allocate"
        ):
            session.run({"frames": frames})
        gpu.host_memory = {frames.array.ctypes.data}
        with pytest.raises(BackendError, match="'frames' is not memory of a CUDA device: copy it to the device"):
            session.run({"frames": frames})


def test_streams_of_another_context_are_refused(gpu: FakeGpu, toy: Bundle) -> None:
    frames = noise(1, 2, 3, 8, 16)
    with open_engine(toy) as session:
        gpu.foreign = {0x700}
        with pytest.raises(BackendError, match="stream belongs to another device or CUDA context"):
            session.run({"frames": frames}, stream=0x700)
        with pytest.raises(BackendError, match="'default' is not a CUDA stream"):
            session.run({"frames": frames}, stream="default")
        gpu.context = FOREIGN
        with pytest.raises(BackendError, match=r"use the device's primary context.*retain_primary_context"):
            session.run({"frames": frames}, stream=0x701)


def test_a_closed_session_is_refused(gpu: FakeGpu, toy: Bundle) -> None:
    session = open_engine(toy)
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run({"frames": noise(1, 2, 3, 8, 16)})


def test_a_file_that_is_not_an_engine_names_the_remedy(gpu: FakeGpu, toy: Bundle, tmp_path: Path) -> None:
    (tmp_path / "other.engine").write_bytes(b"of another version")
    message = r"magic tag does not match.*another GPU or by another version; compile the bundle"
    with pytest.raises(BackendError, match=message):
        TensorRtSession(tmp_path / "other.engine", toy.graph("encoder"), "tensorrt-rtx", CudaDevice())


def test_an_engine_of_another_graph_is_refused(gpu: FakeGpu, toy: Bundle) -> None:
    path = find_engine(toy, "encoder", target="sm89", shapes=SHAPES)
    with pytest.raises(BundleError, match="has the input no"):
        TensorRtSession(path, toy.graph("decoder"), "tensorrt-rtx", CudaDevice())
