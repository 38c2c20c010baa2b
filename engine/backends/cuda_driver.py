"""What the CUDA driver says of devices, contexts, pointers and streams; it is asked directly, and need not be there."""

import ctypes
import functools
from typing import Any

from ..contract.errors import BackendError

_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute
_POINTER_CONTEXT, _POINTER_DEVICE = 1, 9  # of CUpointer_attribute


def local_target(index: int = 0) -> str | None:
    """Return the compute capability of a CUDA device, as in "sm89", or None where there is no such device."""
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


def check_context(index: int) -> None:
    """Raise BackendError where the calling thread has another context than the device's primary one."""
    current = _asked("cuCtxGetCurrent")
    if current and current != _primary(index):
        raise BackendError(
            "The CUDA context of this thread is one that its host made: use the device's primary context, which stvsr"
            " shares (with PyCUDA, pycuda.driver.Device(0).retain_primary_context().push())."
        )


def check_pointer(pointer: int, index: int, what: str) -> None:
    """Raise BackendError for what is no memory of this device, or of another context than its primary one."""
    cuda = _cuda()
    if cuda is None or not pointer:
        return
    place, owner, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64(pointer)
    if cuda.cuPointerGetAttribute(ctypes.byref(place), _POINTER_DEVICE, address):
        raise BackendError(f"{what} is not memory of a CUDA device: copy it there first, or hand over a NumPy array.")
    # Memory of pools has no context.
    failed = cuda.cuPointerGetAttribute(ctypes.byref(owner), _POINTER_CONTEXT, address)
    foreign = not failed and owner.value and owner.value != _primary(index)
    if place.value != index or foreign:
        raise BackendError(
            f"{what} lies in another device or CUDA context than cuda:{index}: allocate it in the primary context of"
            " the device that the session was opened on."
        )


def check_stream(stream: int, index: int) -> None:
    """Raise BackendError for a stream of another context than the device's primary one."""
    if stream > 2 and _asked("cuStreamGetCtx", ctypes.c_void_p(stream)) != _primary(index):  # 0 to 2: default streams
        raise BackendError(
            f"The stream belongs to another device or CUDA context than cuda:{index}: create it in the primary context"
            " of the device that the session was opened on."
        )


@functools.cache
def _primary(index: int) -> int | None:
    """Return the primary context of a device, retained for as long as this process lives."""
    cuda, device, context = _cuda(), ctypes.c_int(), ctypes.c_void_p()
    assert cuda is not None
    if cuda.cuDeviceGet(ctypes.byref(device), index) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        raise BackendError(f"There is no CUDA device {index}: choose another, or use --device cpu.")
    return context.value


def _asked(function: str, *arguments: Any) -> int | None:
    """Return the context that a function of the driver writes to its last argument."""
    context, cuda = ctypes.c_void_p(), _cuda()
    if cuda is None or getattr(cuda, function)(*arguments, ctypes.byref(context)):
        return None
    return context.value


@functools.cache
def _cuda() -> Any:
    for name in _LIBRARIES:
        try:
            cuda = ctypes.CDLL(name)
        except OSError:
            continue
        return None if cuda.cuInit(0) else cuda
    return None
