"""Compilation of kernels on first use and their launch, with an imitation of CuPy."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from stvsr.kernels import launcher
from stvsr.kernels.launcher import Launch
from stvsr.kernels.warp import warp

from tests.support import cuda_cpu


class FakeFunction:
    """An imitation of CuPy's RawKernel that records its calls."""

    shared_size_bytes = 1024
    max_dynamic_shared_size_bytes = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, grid: Any, block: Any, arguments: Any, *, shared_mem: int) -> None:
        self.calls.append((grid, block, arguments, shared_mem))


class FakeModule:
    """An imitation of CuPy's RawModule that records its instances."""

    instances: list["FakeModule"]

    def __init__(self, code: str, backend: str, options: tuple[str, ...]) -> None:
        self.code, self.backend, self.options = code, backend, options
        self.functions: list[FakeFunction] = []
        self.instances.append(self)

    def get_function(self, name: str) -> FakeFunction:
        self.functions.append(FakeFunction(name))
        return self.functions[-1]

    def compile(self) -> None:
        if "BROKEN=1" in " ".join(self.options):
            raise FakeCompileError("at line 3\nkernel.cu(3): error: cuda_fp16.h: no such file\n1 error detected")


class FakeCompileError(Exception):
    pass


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A CuPy with two devices; the first is current."""
    fake: Any = ModuleType("cupy")
    fake.ndarray, fake.RawModule = np.ndarray, FakeModule
    fake.device = 0
    fake.cuda = SimpleNamespace(
        runtime=SimpleNamespace(
            getDevice=lambda: fake.device,
            getDeviceProperties=lambda device: {"name": f"Card {device}".encode(), "major": 8, "minor": 6},
        ),
        Device=lambda device: SimpleNamespace(attributes={"MaxSharedMemoryPerBlockOptin": 232448}),
        compiler=SimpleNamespace(CompileException=FakeCompileError),
    )
    FakeModule.instances = []
    monkeypatch.setitem(sys.modules, "cupy", fake)
    launcher._load.cache_clear()
    launcher._function.cache_clear()
    launcher._card.cache_clear()
    return fake


def test_a_card_is_known_by_its_name_and_compute_capability(cupy: Any) -> None:
    assert launcher.card() == launcher.Card("Card 0", "8.6")
    cupy.device = 1
    assert launcher.card() == launcher.Card("Card 1", "8.6")


def test_a_kernel_is_compiled_once_for_each_device_and_variant(cupy: Any) -> None:
    variant, other = (("DTYPE", "float"),), (("DTYPE", "half"),)
    assert launcher.load("warp", variant) is launcher.load("warp", variant)
    assert launcher.load("warp", other) is not launcher.load("warp", variant)
    cupy.device = 1
    launcher.load("warp", variant)
    assert len(FakeModule.instances) == 3
    assert FakeModule.instances[0].code == (launcher.HERE / "warp.cu").read_text()
    assert {"-DDTYPE=float", f"-I{launcher.HERE}"} <= set(FakeModule.instances[0].options)


def test_launch_passes_its_arguments_to_the_kernel(cupy: Any) -> None:
    array, number = np.zeros(4, np.float32), np.int32(3)
    for shared in (100, 48 << 10):
        launcher.launch("warp", (), "set", Launch((1, 2, 3), (4, 5, 6), shared), array, number)
    (function,) = FakeModule.instances[0].functions
    assert function.name == "set"
    assert function.max_dynamic_shared_size_bytes == 0
    assert function.calls[0] == ((1, 2, 3), (4, 5, 6), (array, number), 100)
    launcher.launch("warp", (), "set", Launch((1, 2, 3), (4, 5, 6), (48 << 10) + 1), array, number)
    assert FakeModule.instances[0].functions[1].max_dynamic_shared_size_bytes == 232448 - 1024


@pytest.mark.gpu
def test_kernels_run_on_the_callers_stream_and_can_be_captured() -> None:
    cupy = cuda_cpu.cupy_with_device()
    features, flows = cupy.arange(60, dtype="f").reshape(1, 1, 6, 10), cupy.ones((1, 2, 6, 10), "f")
    expected = warp(features, flows)  # compiles the kernel before the capture
    out = cupy.zeros_like(expected)
    cupy.cuda.Device().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        warp(features, flows, out=out)
        graph = stream.end_capture()
    assert not out.any()
    graph.launch(stream)
    stream.synchronize()
    assert_array_equal(out.get(), expected.get())


def test_a_failed_compilation_reports_the_error_and_the_remedy(cupy: Any) -> None:
    with pytest.raises(RuntimeError, match=r"the kernel warp .*error: cuda_fp16.h.*set CUDA_PATH"):
        launcher.load("warp", (("BROKEN", "1"),))


def test_a_missing_device_is_reported_with_the_remedy(cupy: Any) -> None:
    def no_device() -> int:
        raise RuntimeError("cudaErrorInsufficientDriver")

    cupy.cuda.runtime.getDevice = no_device
    with pytest.raises(RuntimeError, match=r"no CUDA device \(cudaErrorInsufficientDriver\); install a driver"):
        launcher.load("warp", (("DTYPE", "float"),))


def test_missing_cupy_is_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=r"install stvsr\[cuda\]"):
        launcher.launch("warp", (("DTYPE", "float"),), "warp_planes", Launch((1, 1, 1), (1, 1, 1)), np.zeros(1))


def test_launch_refuses_arguments_that_a_kernel_would_misread(cupy: Any) -> None:
    launch = Launch((1, 1, 1), (1, 1, 1))
    with pytest.raises(TypeError, match="not list"):
        launcher.launch("warp", (), "warp_planes", launch, [1])
    with pytest.raises(ValueError, match="contiguous"):
        launcher.launch("warp", (), "warp_planes", launch, np.zeros((4, 4))[:, ::2])
    with pytest.raises(ValueError, match="smaller batch"):
        launcher.launch("warp", (), "warp_planes", Launch((1, 1, 65536), (1, 1, 1)), np.zeros(4))
    with pytest.raises(ValueError, match="not float64"):
        launcher.dtype_define(np.float64)
