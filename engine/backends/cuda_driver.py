"""Queries of the CUDA driver about devices, contexts, pointers and streams, made through ctypes.

The driver need not be installed: then there is no device, and no check fails.
"""

import ctypes
import functools
import uuid
from typing import Any

from ..contract.errors import BackendError

_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute
_POINTER_CONTEXT, _POINTER_DEVICE = 1, 9  # of CUpointer_attribute
_LAST_DEFAULT_STREAM = 2  # 0, 1 and 2 are the handles of default streams


def local_target(index: int = 0) -> str | None:
    """Return the compute capability of a CUDA device, such as "sm89", or None if there is no such device."""
    cuda = _cuda()
    if cuda is None:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = (
        cuda.cuDeviceGet(ctypes.byref(device), index)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    )
    return None if failed else f"sm{major.value}{minor.value}"


def device_count() -> int:
    """Return the number of CUDA devices, 0 without a driver."""
    cuda, count = _cuda(), ctypes.c_int()
    return 0 if cuda is None or cuda.cuDeviceGetCount(ctypes.byref(count)) else count.value


def device_name(index: int) -> str:
    """Return the name of a CUDA device, such as "NVIDIA L4"; empty if there is no such device."""
    cuda, device, name = _cuda(), ctypes.c_int(), ctypes.create_string_buffer(256)
    if cuda is None or cuda.cuDeviceGet(ctypes.byref(device), index) or cuda.cuDeviceGetName(name, len(name), device):
        return ""
    return name.value.decode(errors="replace")


def device_uuid(index: int) -> str | None:
    """Return the UUID by which other tools name a CUDA device, as "GPU-..."; None if there is no such device."""
    cuda, device, value = _cuda(), ctypes.c_int(), ctypes.create_string_buffer(16)
    if cuda is None or cuda.cuDeviceGet(ctypes.byref(device), index) or cuda.cuDeviceGetUuid(value, device):
        return None
    return f"GPU-{uuid.UUID(bytes=value.raw)}"


def check_context(index: int) -> None:
    """Raise BackendError if the calling thread has another context than the device's primary one."""
    current = _context_from("cuCtxGetCurrent")
    if current and current != _primary_context(index):
        raise BackendError(
            "The CUDA context of this thread was created by its host: use the device's primary context, which stvsr"
            " shares (with PyCUDA, pycuda.driver.Device(0).retain_primary_context().push())."
        )


def check_pointer(pointer: int, index: int, name: str) -> None:
    """Raise BackendError unless the pointer is memory of the device, in its primary context or in a memory pool.

    `name` begins the message.
    """
    cuda = _cuda()
    if cuda is None or not pointer:
        return
    device, context, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64(pointer)
    if cuda.cuPointerGetAttribute(ctypes.byref(device), _POINTER_DEVICE, address):
        raise BackendError(f"{name} is not memory of a CUDA device: copy it to the device, or pass a NumPy array.")
    # The query fails for memory of pools, which has no context.
    failed = cuda.cuPointerGetAttribute(ctypes.byref(context), _POINTER_CONTEXT, address)
    foreign = not failed and context.value and context.value != _primary_context(index)
    if device.value != index or foreign:
        raise BackendError(
            f"{name} belongs to another device or CUDA context than cuda:{index}: allocate it in the primary context of"
            " the device that the session was opened on."
        )


def check_stream(stream: int, index: int) -> None:
    """Raise BackendError if the stream belongs to another context than the device's primary one."""
    if stream <= _LAST_DEFAULT_STREAM:
        return
    if _context_from("cuStreamGetCtx", ctypes.c_void_p(stream)) != _primary_context(index):
        raise BackendError(
            f"The stream belongs to another device or CUDA context than cuda:{index}: create it in the primary context"
            " of the device that the session was opened on."
        )


@functools.cache
def _primary_context(index: int) -> int | None:
    """Return the primary context of a device, retained until the process ends."""
    cuda, device, context = _cuda(), ctypes.c_int(), ctypes.c_void_p()
    assert cuda is not None
    if cuda.cuDeviceGet(ctypes.byref(device), index) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        raise BackendError(f"There is no CUDA device {index}: choose another, or use --device cpu.")
    return context.value


def _context_from(function: str, *arguments: Any) -> int | None:
    """Call a driver function that writes a context to its last argument, and return it, or None if it fails."""
    context, cuda = ctypes.c_void_p(), _cuda()
    if cuda is None or getattr(cuda, function)(*arguments, ctypes.byref(context)):
        return None
    return context.value


@functools.cache
def _cuda() -> Any:
    """Load and initialize the driver's library, or return None if there is none or it fails."""
    for name in _LIBRARIES:
        try:
            cuda = ctypes.CDLL(name)
        except OSError:
            continue
        return None if cuda.cuInit(0) else cuda
    return None
