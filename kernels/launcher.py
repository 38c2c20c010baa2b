"""Compile CUDA kernels on first use and launch them on the caller's stream.

The source of a kernel is `NAME.cu` in this folder, and its functions are `extern "C"`. Everything that varies at
compile time is a preprocessor define; the type of the features is `DTYPE`, `float` or `half`. The Python module of a
kernel lists the sets of defines that it uses in `VARIANTS`.
"""

import functools
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).parent
Defines = tuple[tuple[str, str], ...]

# The CUDA name of each feature dtype.
DTYPES = {np.dtype(np.float32): "float", np.dtype(np.float16): "half"}
_MAX_BLOCKS = (2**31 - 1, 65535, 65535)
_DEFAULT_SHARED_BYTES = 48 << 10  # a kernel gets more only after its attribute was raised


class Launch(NamedTuple):
    """Launch parameters: blocks of the grid, threads of a block, and bytes of dynamic shared memory."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int = 0


class Card(NamedTuple):
    """A kind of GPU: its name, as in "NVIDIA H200", and its compute capability, as in "9.0"."""

    name: str
    compute_capability: str


def card() -> Card:
    """Return the kind of the current device. Raises ImportError without CuPy, RuntimeError without a device."""
    return _card(_device())


def card_of(array: Any) -> Card | None:
    """Return the kind of the current device for a CuPy array, None for a NumPy array."""
    return None if isinstance(array, np.ndarray) else card()


def dtype_define(dtype: Any) -> tuple[str, str]:
    """Return the define that names a dtype. Raises ValueError unless it is float32 or float16."""
    if np.dtype(dtype) not in DTYPES:
        raise ValueError(f"kernels take float32 or float16, not {np.dtype(dtype)}; convert the array first")
    return ("DTYPE", DTYPES[np.dtype(dtype)])


def compile_options(defines: Defines) -> tuple[str, ...]:
    """Return the options for NVRTC and nvcc, without the architecture."""
    # CuPy caches compiled kernels by source and options: the hash recompiles them when a header changes.
    headers = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(HERE.glob("*.cuh")))).hexdigest()[:16]
    return ("-std=c++17", f"-I{HERE}", f"-DHEADERS={headers}", *(f"-D{name}={value}" for name, value in defines))


def load(name: str, defines: Defines) -> Any:
    """Return the CuPy module of `NAME.cu` on the current device, compiled once per device and set of defines.

    Raises ImportError without CuPy, and RuntimeError without a device or if the compilation fails.
    """
    return _load(_device(), name, defines)


def launch(name: str, defines: Defines, function: str, launch: Launch, *arguments: Any) -> None:
    """Queue a function of `NAME.cu` on the current stream of the current device.

    Arguments are C-contiguous CuPy arrays on that device, and NumPy scalars of the types that the function takes.
    Raises TypeError for other arguments, and what `check_launch` and `load` raise.
    """
    for argument in arguments:
        if not isinstance(argument, _cupy().ndarray | np.generic):
            raise TypeError(f"kernels take CuPy arrays, not {type(argument).__name__}; use cupy.asarray")
    check_launch(launch, arguments)
    kernel = _function(_device(), name, defines, function, launch.shared_bytes > _DEFAULT_SHARED_BYTES)
    kernel(launch.grid, launch.block, arguments, shared_mem=launch.shared_bytes)


def check_launch(launch: Launch, arguments: tuple[Any, ...]) -> None:
    """Raise ValueError for a grid that no device accepts and for arrays that are not contiguous."""
    if any(not 0 < n <= most for n, most in zip(launch.grid, _MAX_BLOCKS, strict=True)):
        raise ValueError(f"a grid of {launch.grid} blocks cannot be launched; use a smaller batch or fewer pixels")
    for argument in arguments:
        if not isinstance(argument, np.generic) and not argument.flags.c_contiguous:
            raise ValueError("kernels take contiguous arrays; use ascontiguousarray first")


def is_aligned(*arrays: Any, to_bytes: int = 16) -> bool:
    """Return whether every array starts at a multiple of `to_bytes`, as vector accesses need; new arrays do."""
    return all((a.ctypes.data if isinstance(a, np.ndarray) else a.data.ptr) % to_bytes == 0 for a in arrays)


def empty(like: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Return an uninitialized array on the device of `like`; `dtype` defaults to that of `like`."""
    return np.empty_like(like, shape=shape, dtype=dtype, order="C")


@functools.cache
def _card(device: int) -> Card:
    properties = _cupy().cuda.runtime.getDeviceProperties(device)
    return Card(properties["name"].decode(), f"{properties['major']}.{properties['minor']}")


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
            f"the kernel {name} cannot be compiled ({_first_error(failure)}); kernels need the CUDA headers of CuPy's "
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
