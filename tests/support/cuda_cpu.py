"""Run CUDA sources on a CPU: compile a .cu file with the host's C++ compiler and call its kernels on NumPy arrays."""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from stvsr.kernels import launcher

HEADERS = Path(__file__).parent / "cuda"
CACHE = Path(tempfile.gettempdir()) / f"stvsr-cuda-on-cpu-{os.getuid()}"
COMPILER = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
# Kernels read the same bytes as different types, which CUDA allows.
OPTIONS = (
    "-std=c++17", "-O2", "-fPIC", "-shared", "-fno-strict-aliasing",
    "-Wall", "-Wno-unknown-pragmas", "-Wno-unused-function",
)  # fmt: skip

_KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(")
_GUARD_BYTES = 4096
_POISON = 0xFF  # a float of such bytes is NaN


def compile(source: Path, defines: launcher.Defines = ()) -> ctypes.CDLL:
    """Return a library of the kernels of a source; builds are cached by the text of the source and of the headers."""
    if COMPILER is None:
        pytest.skip("no C++ compiler: CUDA sources are not run on the CPU")
    headers = [*HEADERS.glob("*.h"), *launcher.HERE.glob("*.cuh")]
    text = source.read_text()
    parts = (COMPILER, *OPTIONS, repr(defines), text, *(path.read_text() for path in sorted(headers)))
    return _build(source, defines, hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24])


def kernel_names(source: Path) -> list[str]:
    """Return the names of the kernels in a source."""
    return _KERNEL.findall(source.read_text())


@functools.cache
def _build(source: Path, defines: launcher.Defines, key: str) -> ctypes.CDLL:
    library = CACHE / f"{source.stem}-{key}.so"
    if not library.is_file():
        CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            unit, built = Path(folder) / "unit.cpp", Path(folder) / "unit.so"
            kernels = "".join(f"CUDA_ON_CPU_KERNEL({name})\n" for name in kernel_names(source))
            unit.write_text(f'#include "cuda_on_cpu.h"\n#include "{source}"\n{kernels}')
            command = [str(COMPILER), *OPTIONS, f"-I{HEADERS}", f"-I{launcher.HERE}"]
            command += [f"-D{name}={value}" for name, value in defines]
            done = subprocess.run([*command, str(unit), "-o", str(built)], capture_output=True, text=True)
            # Warnings fail as well: code that a CPU compiler doubts is seldom right on a GPU.
            assert done.stderr == "", f"{source.name} with {defines}:\n{done.stderr}"
            built.replace(library)
    return ctypes.CDLL(str(library))


def launch(
    library: ctypes.CDLL,
    kernel: str,
    grid: Sequence[int],
    block: Sequence[int],
    shared_bytes: int,
    *arguments: np.ndarray | np.generic,
) -> None:
    """Run a kernel on C-contiguous arrays, which it modifies in place, and NumPy scalars.

    Raises RuntimeError for the errors that cuda_on_cpu.h detects, and for writes beyond the ends of an array. Reads
    beyond the ends of a float array return NaN.
    """
    guarded: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # address -> the array, and its copy between guards
    values: list[Any] = []
    sizes: list[int] = []
    for argument in arguments:
        if isinstance(argument, np.generic):
            values.append(ctypes.create_string_buffer(argument.tobytes(), argument.nbytes))
            sizes.append(argument.nbytes)
            continue
        if not isinstance(argument, np.ndarray):
            raise TypeError(f"kernels take arrays and NumPy scalars, not {type(argument).__name__}")
        assert argument.flags.c_contiguous
        if argument.ctypes.data not in guarded:
            guarded[argument.ctypes.data] = argument, _copy_between_guards(argument)
        copy = guarded[argument.ctypes.data][1]
        values.append(ctypes.c_void_p(copy.ctypes.data + _GUARD_BYTES))
        sizes.append(ctypes.sizeof(ctypes.c_void_p))

    function = getattr(library, f"launch_{kernel}")
    function.restype = ctypes.c_char_p
    addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    triple = ctypes.c_uint * 3
    problem = function(
        triple(*grid),
        triple(*block),
        ctypes.c_size_t(shared_bytes),
        ctypes.c_size_t(len(values)),
        addresses,
        (ctypes.c_size_t * len(sizes))(*sizes),
    ).decode()
    if problem:
        raise RuntimeError(f"{kernel}: {problem}")
    for number, (array, copy) in enumerate(guarded.values()):
        if (copy[:_GUARD_BYTES] != _POISON).any() or (copy[_GUARD_BYTES + array.nbytes :] != _POISON).any():
            raise RuntimeError(f"{kernel}: array {number} of shape {array.shape} was written beyond its ends")
        after = copy[_GUARD_BYTES : _GUARD_BYTES + array.nbytes]
        if not np.array_equal(after, array.reshape(-1).view(np.uint8)):
            array[...] = after.view(array.dtype).reshape(array.shape)


def _copy_between_guards(array: np.ndarray) -> np.ndarray:
    """Copy an array's bytes between guards of NaN, to an address with the alignment of device memory."""
    space = np.full(array.nbytes + 2 * _GUARD_BYTES + 512, _POISON, np.uint8)
    start = -space.ctypes.data % 512
    copy = space[start : start + array.nbytes + 2 * _GUARD_BYTES]
    copy[_GUARD_BYTES : _GUARD_BYTES + array.nbytes] = array.reshape(-1).view(np.uint8)
    return copy


def launch_by_name(
    name: str,
    defines: launcher.Defines,
    function: str,
    parameters: launcher.Launch,
    *arguments: np.ndarray | np.generic,
) -> None:
    """Run a function of `kernels/NAME.cu` on the CPU: replaces `launcher.launch`."""
    launcher.check_launch(parameters, arguments)
    launch(compile(launcher.HERE / f"{name}.cu", defines), function, *parameters, *arguments)


def poisoned_empty(like: np.ndarray, shape: tuple[int, ...], dtype: Any = None) -> np.ndarray:
    """Return a new array of NaN, so that elements that no kernel writes are found: replaces `launcher.empty`."""
    array = np.empty_like(like, shape=shape, dtype=dtype, order="C")
    array.reshape(-1).view(np.uint8)[...] = _POISON
    return array


def on_cpu(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function of `stvsr.kernels` with NumPy arrays; its kernels run on the CPU, new arrays start as NaN."""
    with patch.object(launcher, "launch", launch_by_name), patch.object(launcher, "empty", poisoned_empty):
        return function(*arguments, **options)


def cupy_with_device() -> Any:
    """Return CuPy; skip the test if CuPy or a device is missing."""
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    return cupy


def on_gpu(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function of `stvsr.kernels` on a GPU; takes and returns NumPy arrays."""
    cupy = cupy_with_device()

    def upload(value: Any) -> Any:
        return cupy.asarray(value) if isinstance(value, np.ndarray) else value

    def download(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(download(part) for part in value)
        return cupy.asnumpy(value) if isinstance(value, cupy.ndarray) else value

    uploaded = {name: upload(value) for name, value in options.items()}
    return download(function(*(upload(argument) for argument in arguments), **uploaded))


Run = Callable[..., Any]

# Gives a test the argument `run: Run`: run(function, *arrays, **options) -> arrays, on the CPU and on a GPU.
_GPU = (pytest.mark.gpu, pytest.mark.skipif(find_spec("cupy") is None, reason="CuPy is not installed"))
everywhere = pytest.mark.parametrize(
    "run", [pytest.param(on_cpu, id="cpu"), pytest.param(on_gpu, id="gpu", marks=_GPU)]
)


def assert_errs_at_most_twice(actual: np.ndarray, plain: np.ndarray, truth: np.ndarray) -> None:
    """Fail unless the maximal and the mean error of half precision are at most twice those of a plain implementation.

    actual: the result under test. plain: that of the plain implementation. truth: float64.
    """
    assert actual.shape == truth.shape, f"shape {actual.shape}, expected {truth.shape}"
    error, plain_error = (np.abs(half.astype(np.float64) - truth) for half in (actual, plain))
    assert plain_error.max() > 0, "a plain implementation without errors is no measure"
    for name, a, b in (("max", error.max(), plain_error.max()), ("mean", error.mean(), plain_error.mean())):
        assert a <= 2 * b, (
            f"{name} error {a:.3e}, that of a plain implementation {b:.3e}; 99%: {np.percentile(error, 99)}"
        )
