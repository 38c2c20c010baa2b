"""Runs CUDA sources on a CPU: compiles a .cu with the host's C++ compiler and calls its kernels on NumPy arrays."""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from stvsr.kernels import launcher as module

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
_POISON = 0xFF  # every float of such bytes is NaN


def compile(source: Path, defines: module.Defines = ()) -> ctypes.CDLL:
    """Return a library of a source's kernels, built if no build of the same text is kept."""
    if COMPILER is None:
        pytest.skip("no C++ compiler: CUDA sources are not run on the CPU")
    headers = [*HEADERS.glob("*.h"), *module.HERE.glob("*.cuh")]
    text = source.read_text()
    parts = (COMPILER, *OPTIONS, repr(defines), text, *(path.read_text() for path in sorted(headers)))
    return _build(source, defines, hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24])


def kernels_of(source: Path) -> list[str]:
    """Names of the kernels in a source."""
    return _KERNEL.findall(source.read_text())


@functools.cache
def _build(source: Path, defines: module.Defines, key: str) -> ctypes.CDLL:
    library = CACHE / f"{source.stem}-{key}.so"
    if not library.is_file():
        CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            unit, built = Path(folder) / "unit.cpp", Path(folder) / "unit.so"
            kernels = "".join(f"CUDA_ON_CPU_KERNEL({name})\n" for name in kernels_of(source))
            unit.write_text(f'#include "cuda_on_cpu.h"\n#include "{source}"\n{kernels}')
            command = [str(COMPILER), *OPTIONS, f"-I{HEADERS}", f"-I{module.HERE}"]
            command += [f"-D{name}={value}" for name, value in defines]
            done = subprocess.run([*command, str(unit), "-o", str(built)], capture_output=True, text=True)
            # Warnings too: what a CPU's compiler doubts is seldom right on a GPU.
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
    """Run a kernel over C-contiguous arrays, which it changes in place, and NumPy scalars.

    Raises RuntimeError where the kernel is at fault: see cuda_on_cpu.h, and an array written beyond its ends. What is
    read beyond the ends of a float array is NaN.
    """
    guarded: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # by address: the array, and its copy between guards
    held, sizes = [], []
    for argument in arguments:
        if isinstance(argument, np.generic):
            held.append(ctypes.create_string_buffer(argument.tobytes(), argument.nbytes))
            sizes.append(argument.nbytes)
            continue
        if not isinstance(argument, np.ndarray):
            raise TypeError(f"kernels take arrays and NumPy scalars, not {type(argument).__name__}")
        assert argument.flags.c_contiguous
        if argument.ctypes.data not in guarded:
            guarded[argument.ctypes.data] = argument, _between_guards(argument)
        copy = guarded[argument.ctypes.data][1]
        held.append(ctypes.c_void_p(copy.ctypes.data + _GUARD_BYTES))
        sizes.append(ctypes.sizeof(ctypes.c_void_p))

    function = getattr(library, f"launch_{kernel}")
    function.restype = ctypes.c_char_p
    addresses = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
    triple = ctypes.c_uint * 3
    problem = function(
        triple(*grid),
        triple(*block),
        ctypes.c_size_t(shared_bytes),
        ctypes.c_size_t(len(held)),
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


def _between_guards(array: np.ndarray) -> np.ndarray:
    """Copy an array's bytes to an address as aligned as a device's arrays are, less guards of NaN on both sides."""
    space = np.full(array.nbytes + 2 * _GUARD_BYTES + 512, _POISON, np.uint8)
    start = -space.ctypes.data % 512
    copy = space[start : start + array.nbytes + 2 * _GUARD_BYTES]
    copy[_GUARD_BYTES : _GUARD_BYTES + array.nbytes] = array.reshape(-1).view(np.uint8)
    return copy


def _launch(
    name: str, defines: module.Defines, function: str, launch_: module.Launch, *arguments: np.ndarray | np.generic
) -> None:
    module.check(launch_, arguments)
    launch(compile(module.HERE / f"{name}.cu", defines), function, *launch_, *arguments)


def _empty(like: np.ndarray, shape: tuple[int, ...], dtype: Any = None) -> np.ndarray:
    array = np.empty_like(like, shape=shape, dtype=dtype, order="C")
    array.reshape(-1).view(np.uint8)[...] = _POISON
    return array


def on_cpu(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function of `stvsr.kernels` with NumPy arrays; its kernels run here, and new arrays begin as NaN."""
    with patch.object(module, "launch", _launch), patch.object(module, "empty", _empty):
        return function(*arguments, **options)


def cupy_with_device() -> Any:
    """Return CuPy; where it or a device is absent, the test is skipped."""
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    return cupy


def on_gpu(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call it with the same arrays on a GPU; what returns are NumPy arrays again."""
    cupy = cupy_with_device()

    def there(value: Any) -> Any:
        return cupy.asarray(value) if isinstance(value, np.ndarray) else value

    def back(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(back(part) for part in value)
        return cupy.asnumpy(value) if isinstance(value, cupy.ndarray) else value

    return back(function(*(there(a) for a in arguments), **{name: there(value) for name, value in options.items()}))


# Gives a test the argument `run`: run(function, *arrays, **options) -> arrays, on the CPU and on a GPU.
everywhere = pytest.mark.parametrize(
    "run", [pytest.param(on_cpu, id="cpu"), pytest.param(on_gpu, id="gpu", marks=pytest.mark.gpu)]
)


def assert_errs_at_most_twice(actual: np.ndarray, plain: np.ndarray, truth: np.ndarray) -> None:
    """Errors of half precision, maximal and mean, stay below twice those of a plain implementation."""
    assert actual.shape == truth.shape, f"shape {actual.shape}, expected {truth.shape}"
    mine, other = (np.abs(half.astype(np.float64) - truth) for half in (actual, plain))
    assert other.max() > 0, "a plain implementation that errs nowhere is no measure"
    for name, a, b in (("max", mine.max(), other.max()), ("mean", mine.mean(), other.mean())):
        assert a <= 2 * b, (
            f"{name} error {a:.3e}, that of a plain implementation {b:.3e}; 99%: {np.percentile(mine, 99)}"
        )
