"""A PyCUDA host: its arrays, its stream, and the primary context that it shares with CuPy."""

from pathlib import Path

import numpy as np
import pytest
from stvsr import Backend, BackendError, Bundle
from stvsr.engine.backends.graphs import open_graphs
from stvsr.engine.backends.tensorrt.session import TensorRtSession

from tests.support.cuda_cpu import cupy_with_device

pytestmark = pytest.mark.gpu


def test_a_pycuda_host_passes_its_arrays_and_stream(
    toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cupy_with_device()
    cuda = pytest.importorskip("pycuda.driver")
    gpuarray = pytest.importorskip("pycuda.gpuarray")
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path / "cache"))
    frames = np.random.default_rng(0).random((1, 2, 3, 16, 24), np.float32)
    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        with open_graphs(toy, Backend("tensorrt")) as graphs:
            inputs = {"frames": gpuarray.to_gpu(frames)}
            session, stream = graphs.session("encoder", inputs), cuda.Stream()
            assert isinstance(session, TensorRtSession)
            features = gpuarray.zeros(frames.shape, np.float32)
            for turn in range(3):  # queued directly, captured, and launched as a CUDA graph
                features.fill(-1.0)
                outputs = session.run(inputs, outputs={"features": features}, stream=stream)
                stream.synchronize()
                assert outputs["features"].data.ptr == int(features.gpudata), turn
                np.testing.assert_array_equal(features.get(), frames)
            other = cuda.Device(0).make_context()
            try:
                with pytest.raises(BackendError, match="primary context"):
                    session.run(inputs, stream=cuda.Stream())
            finally:
                other.pop()
                other.detach()
    finally:
        context.pop()
