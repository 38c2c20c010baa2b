"""The CUDA device on a fake GPU: missing parts, errors, and memory that it shares with ONNX Runtime."""

import sys
from typing import Any

import numpy as np
import pytest
from stvsr import Backend, BackendError, Bundle, Upscaler
from stvsr.engine.backends import cuda, onnxruntime
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


def test_onnx_runtime_binds_memory_of_the_device(gpu: FakeGpu, toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every input and output is bound by its address: nothing is copied to the host between graphs."""
    bound: list[tuple[str, str]] = []

    class Binding:
        """Binds memory of the fake GPU, which is memory of the CPU."""

        def __init__(self, binding: Any) -> None:
            self.real = binding

        def bind_input(self, name: str, device: str, *rest: Any) -> None:
            bound.append((name, device))
            self.real.bind_input(name, "cpu", *rest)

        def bind_output(self, name: str, device: str, *rest: Any) -> None:
            bound.append((name, device))
            self.real.bind_output(name, "cpu", *rest)

    class Session:
        def __init__(self, session: Any) -> None:
            self.real = session
            self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs

        def io_binding(self) -> Binding:
            return Binding(self.real.io_binding())

        def run_with_iobinding(self, binding: Binding) -> None:  # takes no options: the run is awaited
            self.real.run_with_iobinding(binding.real)

    def open_cuda(ort: Any, graph: Any, options: Any, device: CudaDevice) -> Session:
        assert device.stream_count == 1
        return Session(onnxruntime._create(ort, graph, options, ["CPUExecutionProvider"]))

    monkeypatch.setattr(onnxruntime, "_open_cuda", open_cuda)
    monkeypatch.setattr(onnxruntime, "cuda_is_offered", lambda: True)
    first, second = np.random.default_rng(0).random((2, 3, 37, 53), np.float32)
    frames = []
    for backend, device in ((Backend(device="cpu"), "cpu"), (Backend(), "cuda:0")):
        with Upscaler(toy, backend) as upscaler:
            assert upscaler.device.name == device
            frames.append(np.stack(list(upscaler.between(first, second, (0, 0.5), (80, 99)))))
    assert np.abs(frames[0].astype(int) - frames[1]).max() <= 1
    assert {name for name, _ in bound} == {"frames", "features", "time", "y", "x", "frame"}
    assert {device for _, device in bound} == {"cuda"}
