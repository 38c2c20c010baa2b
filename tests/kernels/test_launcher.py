"""What all kernels rest on: their compilation by nvcc, and how they are loaded and launched."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from stvsr.kernels import launcher as module
from stvsr.kernels.launcher import Launch
from stvsr.kernels.warp import warp

from tests.support import cuda_cpu

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
SOURCES = sorted(module.HERE.glob("*.cu"))
VARIANTS = [
    pytest.param(source, defines, id=f"{source.stem}-{'-'.join(value for _, value in defines)}")
    for source in SOURCES
    for defines in importlib.import_module(f"stvsr.kernels.{source.stem}").VARIANTS
]
_RESOURCES = re.compile(
    r"Compiling entry function '(?P<function>\w+)' for 'sm_(?P<architecture>\d+)a?'.*?"
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def test_every_kernel_lists_its_variants() -> None:
    assert {source.stem for source in SOURCES} >= {"deform_conv", "warp"}
    assert len({param.id for param in VARIANTS}) == len(VARIANTS)
    assert {param.values[0] for param in VARIANTS} == set(SOURCES)


@pytest.mark.parametrize(("source", "defines"), VARIANTS)
def test_nvcc_compiles_for_every_architecture_without_spills(
    source: Path, defines: module.Defines, tmp_path: Path, record_property: Any
) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed: kernels are not compiled for GPUs")
    targets = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in ARCHITECTURES]
    options = [*module.compile_options(defines), *targets, "-Xptxas=-v", "-Werror=all-warnings"]
    command = [nvcc, "-c", *options, str(source), "-o", str(tmp_path / "kernel.o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [match.groupdict() for match in _RESOURCES.finditer(done.stderr)]
    assert len(found) == len(cuda_cpu.kernels_of(source)) * len(ARCHITECTURES), done.stderr
    for entry in found:
        name = f"{entry['function']} sm_{entry['architecture']}"
        record_property(f"registers of {name}", entry["registers"])
        print(f"{source.stem} {dict(defines)} {name}: {entry['registers']} registers")
    assert [entry for entry in found if entry["stores"] != "0" or entry["loads"] != "0"] == []


class FakeFunction:
    """Stands for CuPy's RawKernel, and notes how it is called."""

    shared_size_bytes = 1024
    max_dynamic_shared_size_bytes = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, grid: Any, block: Any, arguments: Any, *, shared_mem: int) -> None:
        self.calls.append((grid, block, arguments, shared_mem))


class FakeModule:
    """Stands for CuPy's RawModule."""

    made: list["FakeModule"]

    def __init__(self, code: str, backend: str, options: tuple[str, ...]) -> None:
        self.code, self.backend, self.options = code, backend, options
        self.functions: list[FakeFunction] = []
        self.made.append(self)

    def get_function(self, name: str) -> FakeFunction:
        self.functions.append(FakeFunction(name))
        return self.functions[-1]

    def compile(self) -> None:
        if "BROKEN=1" in " ".join(self.options):
            raise FakeCompileError("at line 3\nkernel.cu(3): error: mma.h: no such file\n1 error detected")


class FakeCompileError(Exception):
    pass


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A CuPy with two devices of which the first is current."""
    fake: Any = ModuleType("cupy")
    fake.ndarray, fake.RawModule = np.ndarray, FakeModule
    fake.device = 0
    fake.cuda = SimpleNamespace(
        runtime=SimpleNamespace(getDevice=lambda: fake.device),
        Device=lambda device: SimpleNamespace(attributes={"MaxSharedMemoryPerBlockOptin": 232448}),
        compiler=SimpleNamespace(CompileException=FakeCompileError),
    )
    FakeModule.made = []
    monkeypatch.setitem(sys.modules, "cupy", fake)
    module._load.cache_clear()
    module._function.cache_clear()
    return fake


def test_a_kernel_is_compiled_once_for_each_device_and_variant(cupy: Any) -> None:
    variant, other = (("DTYPE", "float"),), (("DTYPE", "half"),)
    assert module.load("warp", variant) is module.load("warp", variant)
    assert module.load("warp", other) is not module.load("warp", variant)
    cupy.device = 1
    module.load("warp", variant)
    assert len(FakeModule.made) == 3
    assert FakeModule.made[0].code == (module.HERE / "warp.cu").read_text()
    assert {"-DDTYPE=float", f"-I{module.HERE}"} <= set(FakeModule.made[0].options)


def test_a_launch_hands_over_what_it_was_given(cupy: Any) -> None:
    array, number = np.zeros(4, np.float32), np.int32(3)
    for shared in (100, 48 << 10):
        module.launch("warp", (), "set", Launch((1, 2, 3), (4, 5, 6), shared), array, number)
    (function,) = FakeModule.made[0].functions
    assert function.name == "set"
    assert function.max_dynamic_shared_size_bytes == 0
    assert function.calls[0] == ((1, 2, 3), (4, 5, 6), (array, number), 100)
    module.launch("warp", (), "set", Launch((1, 2, 3), (4, 5, 6), (48 << 10) + 1), array, number)
    assert FakeModule.made[0].functions[1].max_dynamic_shared_size_bytes == 232448 - 1024


@pytest.mark.gpu
def test_kernels_run_on_the_callers_stream_and_can_be_captured() -> None:
    cupy = cuda_cpu.cupy_with_device()
    features, flows = cupy.arange(60, dtype="f").reshape(1, 1, 6, 10), cupy.ones((1, 2, 6, 10), "f")
    expected = warp(features, flows)  # compiled from here on
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


def test_a_failed_compilation_says_why_and_what_to_do(cupy: Any) -> None:
    with pytest.raises(RuntimeError, match=r"the kernel warp .*error: mma.h.*set CUDA_PATH"):
        module.load("warp", (("BROKEN", "1"),))


def test_without_a_device_the_remedy_is_named(cupy: Any) -> None:
    def no_device() -> int:
        raise RuntimeError("cudaErrorInsufficientDriver")

    cupy.cuda.runtime.getDevice = no_device
    with pytest.raises(RuntimeError, match=r"no CUDA device \(cudaErrorInsufficientDriver\); install a driver"):
        module.load("warp", (("DTYPE", "float"),))


def test_without_cupy_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=r"install stvsr\[cuda\]"):
        module.launch("warp", (("DTYPE", "float"),), "warp_planes", Launch((1, 1, 1), (1, 1, 1)), np.zeros(1))


def test_what_a_kernel_would_misread_is_refused(cupy: Any) -> None:
    launch = Launch((1, 1, 1), (1, 1, 1))
    with pytest.raises(TypeError, match="not list"):
        module.launch("warp", (), "warp_planes", launch, [1])
    with pytest.raises(ValueError, match="contiguous"):
        module.launch("warp", (), "warp_planes", launch, np.zeros((4, 4))[:, ::2])
    with pytest.raises(ValueError, match="smaller batch"):
        module.launch("warp", (), "warp_planes", Launch((1, 1, 65536), (1, 1, 1)), np.zeros(4))
    with pytest.raises(ValueError, match="not float64"):
        module.dtype_define(np.float64)
