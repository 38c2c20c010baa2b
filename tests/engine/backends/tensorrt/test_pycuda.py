"""A PyCUDA host: its arrays in and out, its stream, and the primary context that it shares with CuPy."""

from pathlib import Path

import numpy as np
import pytest
from stvsr.engine.backends.graphs import open_graphs
from stvsr.engine.backends.tensorrt.session import TensorRtSession
from stvsr.engine.contract.bundle import Bundle
from stvsr.engine.contract.errors import BackendError

from tests.support.cuda_cpu import cupy_with_device
from tests.support.toy import write_toy

pytestmark = pytest.mark.gpu


def test_arrays_and_streams_are_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy_with_device()
    cuda = pytest.importorskip("pycuda.driver")
    gpuarray = pytest.importorskip("pycuda.gpuarray")
    monkeypatch.setenv("STVSR_CACHE", str(tmp_path / "cache"))
    bundle = Bundle.load(write_toy(tmp_path / "toy"))
    frames = np.random.default_rng(0).random((1, 2, 3, 16, 24), np.float32)
    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        with open_graphs(bundle, backend="tensorrt") as graphs:
            inputs = {"frames": gpuarray.to_gpu(frames)}
            session, stream = graphs.session("encoder", inputs), cuda.Stream()
            assert isinstance(session, TensorRtSession)
            features = gpuarray.zeros(frames.shape, np.float32)
            for turn in range(3):  # at once, captured, and again
                features.fill(-1.0)
                made = session.run(inputs, outputs={"features": features}, stream=stream)
                stream.synchronize()
                assert made["features"].data.ptr == int(features.gpudata), turn
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
