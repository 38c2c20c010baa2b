"""Kernels compiled when they are first wanted, and launched on the caller's stream.

A kernel's source is ``NAME.cu`` in this folder, and its functions are ``extern "C"``. What varies at compile time are
defines; the type of its features is ``DTYPE``, `float` or `half`. Each module of a kernel lists the defines that it
uses in ``VARIANTS``.
"""

import functools
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).parent
Defines = tuple[tuple[str, str], ...]

# The CUDA name of each type that features may have.
DTYPES = {np.dtype(np.float32): "float", np.dtype(np.float16): "half"}
_MOST_BLOCKS = (2**31 - 1, 65535, 65535)
_SHARED_BYTES_UNASKED = 48 << 10  # more of them only if a kernel's attribute says so


class Launch(NamedTuple):
    """Blocks of a grid, threads of a block, and bytes of dynamic shared memory."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int = 0


def dtype_define(dtype: Any) -> tuple[str, str]:
    """Return the define that names a dtype; ValueError for one that is neither float32 nor float16."""
    if np.dtype(dtype) not in DTYPES:
        raise ValueError(f"kernels take float32 or float16, not {np.dtype(dtype)}; convert the array first")
    return ("DTYPE", DTYPES[np.dtype(dtype)])


def compile_options(defines: Defines) -> tuple[str, ...]:
    """What NVRTC and nvcc are told beside the architecture."""
    # CuPy keeps compiled kernels by source and options, in which a changed header would not show.
    headers = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(HERE.glob("*.cuh")))).hexdigest()[:16]
    return ("-std=c++17", f"-I{HERE}", f"-DHEADERS={headers}", *(f"-D{name}={value}" for name, value in defines))


def load(name: str, defines: Defines) -> Any:
    """Return the module of NAME.cu on the current device, compiled once for each device and defines.

    Raises ImportError where CuPy is absent, RuntimeError where there is no device or compilation fails.
    """
    return _load(_device(), name, defines)


def launch(name: str, defines: Defines, function: str, launch: Launch, *arguments: Any) -> None:
    """Queue a kernel on the current stream of the current device.

    Arguments are C-contiguous CuPy arrays of that device and NumPy scalars of the types that the function takes.
    """
    for argument in arguments:
        if not isinstance(argument, _cupy().ndarray | np.generic):
            raise TypeError(f"kernels take CuPy arrays, not {type(argument).__name__}; use cupy.asarray")
    check(launch, arguments)
    kernel = _function(_device(), name, defines, function, launch.shared_bytes > _SHARED_BYTES_UNASKED)
    kernel(launch.grid, launch.block, arguments, shared_mem=launch.shared_bytes)


def check(launch: Launch, arguments: tuple[Any, ...]) -> None:
    """Raise ValueError for what no device takes, or a kernel would misread."""
    if any(not 0 < n <= most for n, most in zip(launch.grid, _MOST_BLOCKS, strict=True)):
        raise ValueError(
            f"a grid of {launch.grid} blocks cannot be launched; hand over a smaller batch or fewer pixels"
        )
    for argument in arguments:
        if not isinstance(argument, np.generic) and not argument.flags.c_contiguous:
            raise ValueError("kernels take contiguous arrays; use ascontiguousarray first")


def is_aligned(*arrays: Any, to_bytes: int = 16) -> bool:
    """Whether all begin at multiples of so many bytes, as accesses of that width want; new arrays do."""
    return all((a.ctypes.data if isinstance(a, np.ndarray) else a.data.ptr) % to_bytes == 0 for a in arrays)


def empty(like: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Return a new array where `like` is (of its dtype, unless one is given), with any content."""
    return np.empty_like(like, shape=shape, dtype=dtype, order="C")


@functools.cache
def _function(device: int, name: str, defines: Defines, function: str, more_shared: bool) -> Any:
    kernel = _load(device, name, defines).get_function(function)
    if more_shared:
        most = _cupy().cuda.Device(device).attributes["MaxSharedMemoryPerBlockOptin"]
        kernel.max_dynamic_shared_size_bytes = most - kernel.shared_size_bytes
    return kernel


@functools.cache
def _load(device: int, name: str, defines: Defines) -> Any:
    cupy = _cupy()
    source = (HERE / f"{name}.cu").read_text()
    module = cupy.RawModule(code=source, backend="nvrtc", options=compile_options(defines))
    try:
        module.compile()
    except cupy.cuda.compiler.CompileException as failure:
        raise RuntimeError(
            f"the kernel {name} cannot be compiled ({_first_error(failure)}); CUDA's headers must be those of CuPy's "
            "CUDA version: install stvsr[cuda], or set CUDA_PATH to a toolkit of that version"
        ) from failure
    return module


def _first_error(failure: Exception) -> str:
    lines = str(failure).splitlines() or ["no message"]
    return next((line for line in lines if "error" in line), lines[0]).strip()


def _device() -> int:
    try:
        return _cupy().cuda.runtime.getDevice()
    except RuntimeError as failure:
        raise RuntimeError(f"there is no CUDA device ({failure}); install a driver for CUDA 13 or later") from failure


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as absent:
        raise ImportError("CUDA kernels need CuPy; install stvsr[cuda]") from absent
    return cupy
