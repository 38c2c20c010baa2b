"""The CUDA device on a fake GPU: missing parts, errors, and memory that it shares with ONNX Runtime."""

import sys

import pytest
from stvsr import Backend, BackendError, Bundle
from stvsr.engine.backends import cuda
from stvsr.engine.backends.cuda import CudaDevice
from stvsr.engine.backends.graphs import open_graphs

from tests.support.fake_gpu import FOREIGN, CUDARuntimeError, FakeGpu


def test_a_missing_device_is_named(gpu: FakeGpu, toy: Bundle) -> None:
    with pytest.raises(BackendError, match=r"There is no CUDA device 3: this machine has 1, counted from 0"):
        open_graphs(toy, Backend("tensorrt", device="cuda:3"))


def test_a_foreign_context_of_the_thread_is_refused(gpu: FakeGpu, toy: Bundle) -> None:
    gpu.context = FOREIGN
    with pytest.raises(BackendError, match="primary context"):
        open_graphs(toy, Backend("tensorrt"))


def test_a_missing_driver_names_the_remedy(gpu: FakeGpu, toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def count_devices() -> int:
        raise CUDARuntimeError("cudaErrorInsufficientDriver")

    monkeypatch.setattr(cuda.import_cupy().cuda.runtime, "getDeviceCount", count_devices)
    with pytest.raises(BackendError, match=r"no CUDA device \(cudaErrorInsufficientDriver\): install an NVIDIA driver"):
        open_graphs(toy, Backend("tensorrt"))


def test_a_missing_cupy_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    cuda.import_cupy.cache_clear()
    with pytest.raises(BackendError, match=r'through CuPy, which cannot be imported .*pip install "stvsr\[cuda\]"'):
        CudaDevice()
    cuda.import_cupy.cache_clear()


def test_errors_of_a_device_name_it(gpu: FakeGpu) -> None:
    with (
        pytest.raises(BackendError, match="'cuda:0' cannot do this work: the kernel x cannot be compiled"),
        CudaDevice().stream(0),
    ):
        raise RuntimeError("the kernel x cannot be compiled; install stvsr[cuda]")
    with (
        pytest.raises(BackendError, match=r"'cuda:0' failed \(an illegal address\): run again"),
        CudaDevice().stream(0),
    ):
        raise CUDARuntimeError("an illegal address")
