"""Energy, memory and driver of an NVIDIA GPU, as the driver's management library (NVML) states them, through ctypes.

The library comes with the driver. Where it is missing, or does not know a figure, there is none.
"""

import ctypes
import functools
from typing import Any

from .cuda_driver import device_uuid

_LIBRARIES = ("libnvidia-ml.so.1", "nvml.dll")
_TEXT_BYTES = 96  # more than a driver's version takes


class _Memory(ctypes.Structure):
    """Bytes of a device's memory: nvmlMemory_t."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class GpuMeter:
    """Readings of one CUDA device, by its index in this process; with None there are no readings."""

    def __init__(self, index: int | None) -> None:
        self._nvml, self._handle = load_nvml(), ctypes.c_void_p()
        uuid = None if self._nvml is None or index is None else device_uuid(index)
        if uuid is None or self._nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(self._handle)):
            self._nvml = None

    def joules(self) -> float | None:
        """Return the energy that the GPU has consumed since its driver was loaded; None if it does not count."""
        millijoules = ctypes.c_ulonglong()
        if self._nvml is None or self._nvml.nvmlDeviceGetTotalEnergyConsumption(
            self._handle, ctypes.byref(millijoules)
        ):
            return None
        return millijoules.value / 1e3

    def used_bytes(self) -> int | None:
        """Return the memory of the GPU that all its users take together."""
        memory = _Memory()
        if self._nvml is None or self._nvml.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(memory)):
            return None
        return int(memory.used)


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver; None without one."""
    nvml, text = load_nvml(), ctypes.create_string_buffer(_TEXT_BYTES)
    if nvml is None or nvml.nvmlSystemGetDriverVersion(text, len(text)):
        return None
    return text.value.decode(errors="replace")


@functools.cache
def load_nvml() -> Any:
    """Load and initialize the library, or return None if there is none or it fails."""
    for name in _LIBRARIES:
        try:
            nvml = ctypes.CDLL(name)
        except OSError:
            continue
        return None if nvml.nvmlInit_v2() else nvml
    return None
